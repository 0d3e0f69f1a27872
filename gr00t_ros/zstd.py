# SPDX-License-Identifier: Apache-2.0
"""Which library gives zstd: it depends on the Python version and on the version of rosbags, which needs one
itself."""

from __future__ import annotations

import importlib
from typing import Any

ZSTANDARD = "zstandard"
_LIBRARIES = ("compression.zstd", "backports.zstd", ZSTANDARD)


def zstd_library() -> Any:
    """The module. The first two have Python 3.14's interface, ``zstandard`` its own.

    Raises:
        ImportError: none is installed.
    """
    for name in _LIBRARIES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError("no zstd library is installed, which rosbags needs: reinstall rosbags")
