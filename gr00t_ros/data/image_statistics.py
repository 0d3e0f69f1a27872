# SPDX-License-Identifier: Apache-2.0
"""Statistics of a camera's frames in LeRobot's form: for each channel, of pixels scaled to 0..1.

Frames are sampled, and pixels within them, since a mean over every pixel of an hour of video says no more.
Counts of the 256 grey levels are kept, from which every statistic follows exactly.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data.statistics import PERCENTILES
from gr00t_ros.errors import DatasetError

# Frames counted at most; at least half as many are when there are more. LeRobot takes 100 of a short episode.
_MOST_FRAMES = 128
# Pixels are taken at a distance that leaves about this many on the longer side of a larger image, as LeRobot
# does.
_LONGER_SIDE = 150
_LEVELS = np.arange(256) / 255.0


class ImageStatistics:
    """Frames come one after the other; which are counted does not depend on how many will."""

    def __init__(self) -> None:
        self._seen = 0
        self._stride = 1
        self._counts: list[NDArray[np.int64]] = []

    def add(self, frame: NDArray[np.uint8]) -> None:
        """The next frame, [H, W, 3]."""
        self._seen += 1
        if (self._seen - 1) % self._stride:
            return
        step = max(1, max(frame.shape[:2]) // _LONGER_SIDE)
        height, width = (-(-side // step) for side in frame.shape[:2])
        # OpenCV takes 0.1 ms for what costs NumPy 0.7 ms.
        pixels = cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST)
        counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
        self._counts.append(np.stack(counts).astype(np.int64))
        if len(self._counts) > _MOST_FRAMES:
            self._counts = self._counts[::2]
            self._stride *= 2

    def result(self) -> dict[str, Any]:
        """Each of min, max, mean, std and the percentiles as [3][1][1], and ``count``, the frames counted."""
        if not self._counts:
            raise DatasetError("no frames, so no image statistics")
        counts = np.sum(self._counts, axis=0)
        pixels = counts.sum(axis=1, keepdims=True)
        mean = counts @ _LEVELS[:, None] / pixels
        variance = (counts * (_LEVELS - mean) ** 2).sum(axis=1, keepdims=True) / pixels
        reached = counts.cumsum(axis=1)
        fields = {
            "min": _LEVELS[(counts > 0).argmax(axis=1)],
            "max": _LEVELS[255 - (counts[:, ::-1] > 0).argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
        }
        for name, share in PERCENTILES.items():
            fields[name] = _LEVELS[(reached >= share * pixels).argmax(axis=1)]
        shaped = {name: np.reshape(value, (3, 1, 1)).tolist() for name, value in fields.items()}
        return shaped | {"count": [len(self._counts)]}
