# SPDX-License-Identifier: Apache-2.0
"""The way that an end effector has made lately, kept short in time and number."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# m. A place nearer than this to the last one adds nothing to a line: a fifth of the line's width on a small
# arm. A robot at rest adds no points, however long it rests.
MIN_STEP_M = 0.0005
# Points at most: 20 s at 50 Hz.
MAX_POINTS = 1000


class Trail:
    """Poses of one end effector with their times, oldest first."""

    def __init__(self, seconds: float) -> None:
        self._keep_ns = round(seconds * 1e9)
        self._points: deque[tuple[int, Values]] = deque(maxlen=MAX_POINTS)

    def add(self, stamp_ns: int, pose: Values) -> None:
        """One more pose [4, 4]; one with NaN says nothing. When time goes back, the trail begins anew."""
        if not np.isfinite(pose).all():
            return
        if self._points and stamp_ns < self._points[-1][0]:
            self._points.clear()
        if self._points and np.linalg.norm(pose[:3, 3] - self._points[-1][1][:3, 3]) < MIN_STEP_M:
            return
        self._points.append((stamp_ns, pose))

    def forget(self, now_ns: int) -> None:
        """Drops what is older than the time to keep."""
        while self._points and self._points[0][0] < now_ns - self._keep_ns:
            self._points.popleft()

    @property
    def stamps_ns(self) -> list[int]:
        """When it was at each place."""
        return [stamp for stamp, _ in self._points]

    @property
    def poses(self) -> Values:
        """[N, 4, 4]."""
        return np.array([pose for _, pose in self._points]).reshape(-1, 4, 4)
