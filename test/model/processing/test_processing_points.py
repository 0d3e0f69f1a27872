# SPDX-License-Identifier: Apache-2.0
"""A point in a picture goes where its pixels go, through every crop, resize and rotation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gr00t_model.processing.augment import Augmentation, Draw
from gr00t_model.processing.images import CropAndResize, TorchvisionResize, to_patch_multiple
from gr00t_model.processing.points import seen_at

CHAINS = {
    "opencv": CropAndResize(letterbox=False, shortest_edge=128, crop_fraction=0.8),
    "opencv, letterbox": CropAndResize(letterbox=True, shortest_edge=128, crop_fraction=0.9),
    "torchvision": TorchvisionResize(letterbox=False, target=(140, 168), crop=(112, 140)),
    "torchvision, letterbox": TorchvisionResize(letterbox=True, target=(140, 140), crop=(120, 126)),
    "torchvision, a crop beyond the edge": TorchvisionResize(False, target=(141, 141), crop=(144, 144)),
}
SIZES = [(240, 320), (320, 200), (131, 131)]


def with_dot(size: tuple[int, int], point: tuple[float, float]) -> np.ndarray:
    """A white dot on black."""
    picture = np.zeros((*size, 3), np.uint8)
    centre = (round(point[0] * size[1] * 16 - 8), round(point[1] * size[0] * 16 - 8))
    cv2.circle(picture, centre, 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return picture


def middle(picture: np.ndarray) -> tuple[float, float]:
    """Where the light is, from 0 to 1."""
    light = picture[:, :, 0].astype(float)
    height, width = light.shape
    u = (light.sum(axis=0) * (np.arange(width) + 0.5)).sum() / light.sum() / width
    v = (light.sum(axis=1) * (np.arange(height) + 0.5)).sum() / light.sum() / height
    return float(u), float(v)


@pytest.mark.parametrize("draw", [None, Draw(0.1, 0.9), Draw(0.7, 0.3, 17.0), Draw(0.0, 0.5, -8.0)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_the_point_is_where_the_dot_is(
    chain: CropAndResize | TorchvisionResize, size: tuple[int, int], draw: Draw | None
) -> None:
    if draw is not None and isinstance(chain, TorchvisionResize) and chain.crop > chain.target:
        pytest.skip("training crops lie inside the picture")
    for point in ((0.5, 0.5), (0.4, 0.62), (0.61, 0.37)):
        picture = with_dot(size, point)
        seen = chain(picture) if draw is None else Augmentation(chain, 20.0).apply(picture, draw)
        # Half a pixel of the network's picture, a fiftieth of a token.
        assert seen_at(point, size, chain, draw) == pytest.approx(
            middle(to_patch_multiple(seen)), abs=0.5 / 128
        )


def test_a_point_beside_the_crop_is_outside() -> None:
    chain = CropAndResize(letterbox=False, shortest_edge=100, crop_fraction=0.5)
    assert seen_at((0.1, 0.5), (100, 100), chain) == pytest.approx((-0.3, 0.5))
    assert seen_at((0.1, 0.5), (100, 100), chain, Draw(0.0, 0.5))[0] == pytest.approx(0.2)
