# SPDX-License-Identifier: Apache-2.0
"""Watches the stream of one camera: how many frames come, and whether they still show anything new.

A camera driver that hangs often goes on publishing its last picture under new stamps. Its age says nothing
then. What gives it away is that not one byte changes: a sensor has noise, so two pictures of the same scene
differ, also as JPEG. A simulated camera has none; in front of a scene that stands still it looks frozen.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any

import numpy as np

from gr00t_ros.robot_types import VideoSource

# Frames that say the same; fewer may be one frame that a driver or a recording repeated.
MIN_REPEATS = 3
# Frames over which the rate is taken, and after how many of their periods without one it is 0.
RATE_FRAMES = 30
RATE_PATIENCE = 5.0
# Bytes of a picture that are compared before the rest of it: two rows of a 640x480 one.
_PEEK = 4096


class CameraWatch:
    """One camera, by its key path (``video.front``). Not thread-safe: the builder's lock guards it."""

    def __init__(self, source: VideoSource, path: str) -> None:
        self._source, self._path = source, path
        self._arrivals: deque[int] = deque(maxlen=RATE_FRAMES)  # node time, ns
        self._data: Any = None  # of the newest frame; the buffer keeps it anyway
        self._newest_ns = self._since_ns = (
            0  # stamps of the newest frame, and of the first that looks like it
        )
        self._repeats = 0

    def see(self, stamp_ns: int, data: Any, receive_ns: int) -> None:
        """One more frame: its stamp, its bytes as they came, and its arrival.

        A frame that differs costs the comparison up to the first byte that does: under 1 us. One that does
        not costs 0.4 ms for 640x480 pixels.
        """
        self._arrivals.append(receive_ns)
        if stamp_ns <= self._newest_ns and self._data is not None:
            return  # the same frame again, or an older one: neither is news about the picture
        if self._data is not None and _same(self._data, data):
            self._repeats += 1
        else:
            self._repeats, self._since_ns = 0, stamp_ns
        self._newest_ns, self._data = stamp_ns, data

    def clear(self) -> None:
        """Forget all: stamps from before a jump of the clock mean nothing."""
        self._arrivals.clear()
        self._data, self._newest_ns, self._since_ns, self._repeats = None, 0, 0, 0

    @property
    def frozen(self) -> str:
        """A sentence when nothing has changed for longer than ``frozen_after``, else an empty text."""
        still_s = (self._newest_ns - self._since_ns) / 1e9
        limit_s = self._source.frozen_after
        if limit_s <= 0.0 or self._repeats < MIN_REPEATS or still_s <= limit_s:
            return ""
        return (
            f"{self._path}: {self._repeats + 1} frames on {self._source.topic}, over {still_s:.1f} s, "
            "have identical pixels: the camera is frozen, or a simulated one whose scene stands still"
        )

    def rate(self, now_ns: int) -> float:
        """Frames per second of node time over the last frames; 0 when they have stopped coming."""
        if len(self._arrivals) < 2:
            return 0.0
        period = (self._arrivals[-1] - self._arrivals[0]) / (len(self._arrivals) - 1)
        if period <= 0.0 or now_ns - self._arrivals[-1] > max(RATE_PATIENCE * period, 1e9):
            return 0.0
        return 1e9 / period


def _same(first: Any, second: Any) -> bool:
    """Whether two messages' ``data`` (bytes, array or a numpy array) are equal."""
    if len(first) != len(second):
        return False
    if type(first) is type(second) and isinstance(first, (bytes, array)):
        return bool(first == second)  # both stop at the first difference
    one, other = np.frombuffer(first, np.uint8), np.frombuffer(second, np.uint8)
    # numpy compares all there is before it says anything, and most pictures differ at their beginning.
    return bool(np.array_equal(one[:_PEEK], other[:_PEEK]) and np.array_equal(one, other))
