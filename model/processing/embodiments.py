# SPDX-License-Identifier: Apache-2.0
"""Embodiment tags and the numbers the network knows them by.

The network holds one set of state and action weights per number. A checkpoint may bring its own table
(``embodiment_id.json``); tags it leaves out keep the number they were given here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gr00t_model.errors import ConfigError
from gr00t_model.sizes import is_int

EMBODIMENT_IDS: Mapping[str, int] = MappingProxyType(
    {
        "oxe_google": 0,
        "oxe_widowx": 1,
        "libero_panda": 2,
        "unitree_g1": 8,
        "new_embodiment": 10,  # the free place for a robot of one's own
        "robocasa_panda_omron": 13,
        "oxe_droid": 16,
        "gr1": 20,
        "behavior_r1_pro": 24,
    }
)


def complete_ids(given: Any) -> dict[str, int]:
    """The given table {tag: number}, with absent tags filled in from :data:`EMBODIMENT_IDS`.

    Raises:
        ConfigError: it is no table, or a number is not a non-negative integer.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"embodiment ids: {given!r}, expected a mapping of tags to numbers")
    for tag, number in given.items():
        if not is_int(number) or number < 0:
            raise ConfigError(f"embodiment ids: {tag} is {number!r}, expected a non-negative integer")
    return {**EMBODIMENT_IDS, **given}
