# SPDX-License-Identifier: Apache-2.0
"""Shapes to draw, as plain data: what a marker of RViz says, without its message type.

A shape's ``key`` (namespace, number) stays the same from one drawing to the next, so that a viewer replaces
it instead of piling up. Lengths are metres, colours RGBA from 0 to 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Rgba = tuple[float, float, float, float]

LINES, STRIP, POINTS, CUBES = "lines", "strip", "points", "cubes"
TEXT, MESH, BOX, CYLINDER, SPHERE = "text", "mesh", "box", "cylinder", "sphere"


@dataclass(frozen=True)
class Shape:
    """One shape in ``frame``.

    ``scale`` [3]: of lines the width first, of points and cubes their edges, of a text its height last, of a
    mesh its scale, of solids their size. ``points`` [N, 3] and their ``colors`` [N, 4] belong to lines,
    strips, points and cubes: lines take their points in pairs. ``pose`` is x, y, z and a quaternion.
    """

    key: tuple[str, int]
    kind: str
    frame: str
    scale: tuple[float, float, float]
    color: Rgba = (1.0, 1.0, 1.0, 1.0)
    points: Values | None = None
    colors: Values | None = None
    pose: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    text: str = ""
    mesh: str = ""


@functools.lru_cache(maxsize=16)  # chunks have few lengths
def over_time(count: int) -> Values:
    """Colours [count, 4] from the first step of a chunk to its last: yellow, red, violet.

    They differ in brightness too, stand out on dark and light ground, and are none of the other colours here.
    """
    stops = np.array([[1.0, 0.92, 0.23], [0.96, 0.35, 0.25], [0.60, 0.18, 0.90]])
    place = np.linspace(0.0, 1.0, count) if count > 1 else np.zeros(count)
    channels = [np.interp(place, (0.0, 0.5, 1.0), stops[:, i]) for i in range(3)]
    colors = np.stack([*channels, np.ones(count)], axis=1)
    colors.setflags(write=False)
    return colors
