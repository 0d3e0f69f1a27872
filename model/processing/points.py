# SPDX-License-Identifier: Apache-2.0
"""Where a point of the camera picture lies in the picture that the network sees: the image chain's geometry
without its pixels.

Labels in pictures (an object's place, say) go through this with the crop and the rotation that the picture
itself got. Points are (u, v) from 0 at the left and the upper edge of a picture to 1 at the right and the
lower edge; a resize does not move them.
"""

from __future__ import annotations

import numpy as np

from gr00t_model.processing.augment import Draw, crop_corner, rotation_matrix
from gr00t_model.processing.images import CropAndResize, TorchvisionResize, shortest_edge_size

Point = tuple[float, float]
Size = tuple[int, int]


def seen_at(
    point: Point, size: Size, chain: CropAndResize | TorchvisionResize, draw: Draw | None = None
) -> Point:
    """The point in the network's picture; outside 0..1 where the crop or the rotation left it out.

    Args:
        size: (height, width) of the camera's picture.
        draw: what is random about the sample; None is the picture of evaluation.
    """
    if chain.letterbox:
        point, size = _squared(point, size)
    if isinstance(chain, CropAndResize):
        resized = shortest_edge_size(*size, chain.shortest_edge)
        kept = (int(resized[0] * chain.crop_fraction), int(resized[1] * chain.crop_fraction))
        final = shortest_edge_size(*kept, chain.shortest_edge)
        corner = ((resized[0] - kept[0]) // 2, (resized[1] - kept[1]) // 2)
    else:
        resized, kept, final = chain.target, chain.crop, chain.target
        corner = (_centred(resized[0] - kept[0]), _centred(resized[1] - kept[1]))
    if draw is not None:
        corner = crop_corner(*resized, *kept, draw)
    u = (point[0] * resized[1] - corner[1]) / kept[1]
    v = (point[1] * resized[0] - corner[0]) / kept[0]
    if draw is None or not draw.angle:
        return u, v
    return _turned((u, v), final, draw.angle)


def _centred(spare: int) -> int:
    """As ``crop_centre_rounded`` has it, also where the crop is larger than the picture."""
    return round(spare / 2.0) if spare >= 0 else -(-spare // 2)


def _squared(point: Point, size: Size) -> tuple[Point, Size]:
    height, width = size
    side = max(size)
    top, left = (side - height) // 2, (side - width) // 2
    return ((point[0] * width + left) / side, (point[1] * height + top) / side), (side, side)


def _turned(point: Point, size: Size, angle: float) -> Point:
    height, width = size
    # The matrix counts from the centre of the first pixel.
    x, y = point[0] * width - 0.5, point[1] * height - 0.5
    x, y = rotation_matrix(height, width, angle) @ np.array([x, y, 1.0])
    return float(x + 0.5) / width, float(y + 0.5) / height
