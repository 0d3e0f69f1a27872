# SPDX-License-Identifier: Apache-2.0
"""A camera's picture with what the policy intends written, and where the camera is known drawn, onto it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Picture = NDArray[np.uint8]

# Height of a letter in shares of the picture's, and how many lines there are at most: the text fills a fifth
# of the picture. What comes first matters most.
_LETTER, _LINES = 1 / 26, 4
# The font's letters are about this many pixels high at scale 1.
_FONT_HEIGHT = 22.0
# m. What is nearer to the camera, or behind it, has no place in the picture.
_NEAR = 0.01


def project(points: Values, camera: Values, intrinsics: Sequence[float]) -> Values:
    """Where ``points`` [N, 3] are in the picture: pixels [N, 2], NaN for those that the camera cannot see.

    ``camera`` [4, 4] is the camera's pose in the frame of the points, z forward, x to the right, y down;
    ``intrinsics`` are the nine numbers of a ``CameraInfo``'s ``k``. Distortion is left out.
    """
    seen = (points - camera[:3, 3]) @ camera[:3, :3]
    fx, cx, fy, cy = intrinsics[0], intrinsics[2], intrinsics[4], intrinsics[5]
    depth = np.where(seen[:, 2] > _NEAR, seen[:, 2], np.nan)
    return np.stack([cx + fx * seen[:, 0] / depth, cy + fy * seen[:, 1] / depth], axis=1)


def overlay(picture: Picture, lines: Sequence[str], tracks: Iterable[tuple[Values, Values]]) -> Picture:
    """A copy of ``picture`` [H, W, 3] with ``lines`` of text, and ``tracks``: pixels [N, 2] with the colours
    [N, 4] of each."""
    drawn = picture.copy()
    height, width = picture.shape[:2]
    thick = max(1, round(height / 160))
    for pixels, colors in tracks:
        # Far outside a picture lines are of no use, and their numbers too large for OpenCV.
        inside = np.isfinite(pixels).all(axis=1) & (np.abs(pixels) < 4 * max(height, width)).all(axis=1)
        for i in np.flatnonzero(inside[:-1] & inside[1:]):
            begin, end = (tuple(map(int, np.round(pixel))) for pixel in pixels[i : i + 2])
            cv2.line(drawn, begin, end, _rgb(colors[i + 1]), thick, cv2.LINE_AA)
        for i in np.flatnonzero(inside):
            place = tuple(map(int, np.round(pixels[i])))
            cv2.circle(drawn, place, thick + 1, _rgb(colors[i]), -1, cv2.LINE_AA)
    letter = max(9.0, height * _LETTER)
    shown = lines[:_LINES]
    band = drawn[: round((len(shown) + 0.4) * 1.25 * letter)]
    band[:] = band // 3  # white letters are read on any scene
    for number, line in enumerate(shown):
        base = (3, round((number + 1) * 1.25 * letter))
        # OpenCV's font knows no other letters.
        text = line.encode("ascii", "replace").decode()
        size = letter / _FONT_HEIGHT
        cv2.putText(drawn, text, base, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def _rgb(color: Values) -> tuple[int, int, int]:
    r, g, b = (round(255 * float(channel)) for channel in color[:3])
    return r, g, b
