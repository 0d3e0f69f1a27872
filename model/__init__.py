# SPDX-License-Identifier: Apache-2.0
"""GR00T N1.6: the network, its processing and the policy that joins them. Knows nothing of ROS.

The four public names load on first use, so that ``import gr00t_model`` costs nothing where only a part is
needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gr00t_model.config import Gr00tN1d6Config
    from gr00t_model.network import Gr00tN1d6
    from gr00t_model.policy import Gr00tPolicy
    from gr00t_model.processing import Gr00tProcessor

_HOMES = {
    "Gr00tN1d6": "gr00t_model.network",
    "Gr00tN1d6Config": "gr00t_model.config",
    "Gr00tProcessor": "gr00t_model.processing",
    "Gr00tPolicy": "gr00t_model.policy",
}

__all__ = ["Gr00tN1d6", "Gr00tN1d6Config", "Gr00tPolicy", "Gr00tProcessor"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
