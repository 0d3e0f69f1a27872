# SPDX-License-Identifier: Apache-2.0
"""Memory that was freed stays with the process, for one through which pictures pass.

glibc gives what is freed at the end of a heap back to the system, and so every large area. A process that
takes in 90 frames a second then asks for 80 MB of new pages in each, and to be given those costs the system
more time than everything that is done with the frames.
"""

from __future__ import annotations

import ctypes

# malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# What lies free at the end of a heap before it is given back: what a recorder or a converter has under way.
_KEPT_BYTES = 64 * 1024 * 1024
# Areas from this size on are the system's own: the largest size that glibc takes.
_MAPPED_BYTES = 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """From here on; whether this C library (glibc) can do that."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES) and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
