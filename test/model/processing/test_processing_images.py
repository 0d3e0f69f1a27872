# SPDX-License-Identifier: Apache-2.0
"""Camera images to pixels: equal to a plain OpenCV and Pillow chain for every size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gr00t_model.errors import ConfigError
from gr00t_model.pixels import pixels_to_float
from gr00t_model.processing import images
from support_processor_goldens import text_tables

SIZES = st.tuples(st.integers(8, 700), st.integers(8, 700))
COMMON_SIZES = [
    (480, 640),
    (640, 480),
    (720, 1280),
    (360, 640),
    (480, 848),
    (240, 424),
    (1080, 1920),
    (96, 128),
]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.blur(noise, (3, 3)) if seed % 2 else noise


def plain_chain(image: np.ndarray, letterbox: bool, edge: int, fraction: float) -> np.ndarray:
    """The steps as the reference's description has them, one after the other."""

    def shortest_to_edge(pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        scale = edge / min(height, width)
        size = (round(width * scale), round(height * scale))
        return pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    if letterbox:
        side = max(image.shape[:2])
        missing = side - image.shape[0], side - image.shape[1]
        bars = [(gap // 2, gap - gap // 2) for gap in missing]
        image = np.pad(image, [*bars, (0, 0)])
    image = shortest_to_edge(image)
    height, width = int(image.shape[0] * fraction), int(image.shape[1] * fraction)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    image = shortest_to_edge(image[top : top + height, left : left + width])
    size = round(image.shape[1] / 28) * 28, round(image.shape[0] / 28) * 28
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.booleans(), st.integers(0, 9))
def test_any_size_gives_the_bits_of_the_plain_chain(
    size: tuple[int, int], letterbox: bool, seed: int
) -> None:
    image = picture(*size, seed)
    chain = images.CropAndResize(letterbox, 256, 0.95)
    found = images.to_patch_multiple(chain(image))
    if (
        max(found.shape[:2]) <= 2000
    ):  # beyond, the bound on tokens may apply, which the plain chain does not know
        np.testing.assert_array_equal(found, plain_chain(image, letterbox, 256, 0.95))


@pytest.mark.parametrize("size", COMMON_SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
@pytest.mark.parametrize("letterbox", [True, False])
def test_common_cameras_give_the_bits_of_the_plain_chain(size: tuple[int, int], letterbox: bool) -> None:
    for seed in range(4):
        image = picture(*size, seed)
        before = image.copy()
        found = images.to_patch_multiple(images.CropAndResize(letterbox, 256, 0.95)(image))
        np.testing.assert_array_equal(found, plain_chain(image, letterbox, 256, 0.95))
        np.testing.assert_array_equal(image, before, err_msg="the input was written to")


@settings(max_examples=60, deadline=None)
@example((480, 640), 256)
@example((640, 480), 256)
@example((720, 1280), 256)
@given(SIZES, st.sampled_from([64, 100, 128, 224, 256]))
def test_the_shortcut_past_black_bars_changes_no_bit(size: tuple[int, int], edge: int) -> None:
    image = picture(*size)
    plain = images.shortest_edge(images.letterbox(image), edge)
    np.testing.assert_array_equal(images.letterboxed_shortest_edge(image, edge), plain)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_odd_bar_is_thicker_at_the_bottom_or_right(axis: int) -> None:
    shape = (4, 7, 3) if axis == 0 else (7, 4, 3)
    square = images.letterbox(np.full(shape, 9, np.uint8))
    assert square.shape == (7, 7, 3)
    profile = square[..., 0].max(axis=1 - axis)
    assert profile.tolist() == [0, 9, 9, 9, 9, 0, 0]


@pytest.mark.parametrize("table", text_tables(), ids=range(len(text_tables())))
def test_sizes_are_the_reference_ones(table: dict) -> None:
    for entry in table["image_geometry"]:
        height, width = entry["input_hw"]
        assert list(images.patch_multiple_size(height, width)) == entry["direct_multiple_of_28_hw"]
        for variant in ("letterbox", "no_letterbox"):
            transformed = images.CropAndResize(variant == "letterbox", 256, 0.95)(picture(height, width))
            expected = entry[variant]
            assert list(transformed.shape[:2]) == expected["after_transform_hw"]
            size = images.patch_multiple_size(*transformed.shape[:2])
            assert list(size) == expected["after_multiple_of_28_hw"]
            assert images.image_tokens(*size) == expected["image_tokens"]


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_patch_multiples_stay_in_bounds(height: int, width: int) -> None:
    rows, columns = images.patch_multiple_size(height, width)
    assert rows % 28 == 0
    assert columns % 28 == 0
    assert images.image_tokens(rows, columns) >= images.FEWEST_TOKENS
    elongated = max(height, width) / min(height, width) > images.MOST_TOKENS / 4
    assert elongated or images.image_tokens(rows, columns) <= images.MOST_TOKENS


def test_every_pixel_value_has_the_reference_float() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    expected = (np.arange(256) / 127.5 - 1).astype(np.float32)
    np.testing.assert_array_equal(pixels_to_float(values), expected)


def test_planes_are_contiguous_and_own_their_memory() -> None:
    image = picture(28, 56)
    planes = images.to_planes(image)
    assert planes.shape == (1, 3, 28, 56)
    assert planes.is_contiguous()
    np.testing.assert_array_equal(planes[0].permute(1, 2, 0), image)
    image[:] = 0
    assert planes.max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortest_image_edge": None}, "needs shortest_image_edge"),
        ({"crop_fraction": None}, "and crop_fraction"),
        ({"crop_fraction": 1.5}, "expected a fraction up to 1"),
        ({"shortest_image_edge": 0}, "shortest_image_edge 0, expected"),
        ({"use_albumentations": False}, "needs image_target_size and image_crop_size"),
    ],
)
def test_an_image_route_that_cannot_work_is_refused(options: dict, message: str) -> None:
    sizes = {"image_target_size": None, "image_crop_size": None}
    released = {
        "letterbox": True,
        "use_albumentations": True,
        "shortest_image_edge": 256,
        "crop_fraction": 0.95,
    }
    with pytest.raises(ConfigError, match=message):
        images.evaluation_chain(**{**sizes, **released, **options})


def test_sizes_stand_in_for_edge_and_fraction() -> None:
    chain = images.evaluation_chain(
        letterbox=False,
        use_albumentations=True,
        shortest_image_edge=None,
        crop_fraction=None,
        image_target_size=(256, 256),
        image_crop_size=(230, 230),
    )
    assert chain == images.CropAndResize(False, 256, 230 / 256)


def test_a_crop_larger_than_the_image_is_filled_with_black() -> None:
    image = np.full((4, 10, 3), 7, np.uint8)
    cropped = images.crop_centre_rounded(image, 7, 6)
    assert cropped.shape == (7, 6, 3)
    assert cropped[..., 0].max(axis=1).tolist() == [0, 7, 7, 7, 7, 0, 0]
