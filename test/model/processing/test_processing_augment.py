# SPDX-License-Identifier: Apache-2.0
"""Training images: seeded, alike for all views of a sample, colours as in the reference's library."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_model.errors import ConfigError
from gr00t_model.processing import augment
from gr00t_model.processing.images import CropAndResize, TorchvisionResize

JITTER = augment.ColorJitter(0.3, 0.4, 0.5, 0.08)
OPENCV = CropAndResize(letterbox=True, shortest_edge=256, crop_fraction=0.95)
TORCHVISION = TorchvisionResize(letterbox=True, target=(256, 256), crop=(230, 230))


def ramp(height: int = 64, width: int = 80) -> np.ndarray:
    """A picture with every hue and brightness, made of integers so that it is the same everywhere."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4 % 256, columns * 3 % 256, (rows * columns + 7 * rows) % 256], -1).astype(
        np.uint8
    )


@pytest.mark.parametrize("chain", [OPENCV, TORCHVISION], ids=["opencv", "torchvision"])
def test_the_same_seed_gives_the_same_sample_and_another_seed_another(chain: object) -> None:
    augmentation = augment.Augmentation(chain, 5.0, JITTER)
    image = ramp(120, 160)
    results = [
        augmentation.apply(image, augmentation.draw(np.random.default_rng(seed))) for seed in (1, 1, 2)
    ]
    assert results[0].shape == (256, 256, 3)
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


def test_a_draw_applies_to_every_view_alike() -> None:
    augmentation = augment.Augmentation(OPENCV, 10.0, JITTER)
    chain = augmentation.bind(augmentation.draw(np.random.default_rng(3)))
    image = ramp(120, 160)
    np.testing.assert_array_equal(chain(image), chain(image.copy()))


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_crop_lies_inside_the_image(across: float, down: float) -> None:
    image = ramp(20, 30)
    part = augment.crop_at(image, 19, 28, augment.Draw(across, down))
    assert part.shape == (19, 28, 3)


def test_every_crop_position_occurs() -> None:
    image = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30, 1)
    rng = np.random.default_rng(0)
    augmentation = augment.Augmentation(OPENCV)
    corners = {int(augment.crop_at(image, 18, 27, augmentation.draw(rng))[0, 0, 0]) for _ in range(400)}
    assert corners == {row * 30 + column for row in range(3) for column in range(4)}


def test_no_augmentation_but_a_centred_crop_is_the_evaluation_chain() -> None:
    image = ramp(120, 160)
    middle = augment.Draw(across=6.5 / 14, down=6.5 / 14)  # the 7th of 14 offsets: 256 less 243 pixels is 13
    np.testing.assert_array_equal(augment.Augmentation(OPENCV).apply(image, middle), OPENCV(image))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_drawn_factors_stay_in_their_ranges(seed: int) -> None:
    change = JITTER.draw(np.random.default_rng(seed))
    assert 0.7 <= change.brightness <= 1.3
    assert 0.6 <= change.contrast <= 1.4
    assert 0.5 <= change.saturation <= 1.5
    assert -0.08 <= change.hue <= 0.08
    assert sorted(change.order) == [0, 1, 2, 3]


def test_factors_never_go_below_zero() -> None:
    wide = augment.ColorJitter(brightness=3.0, contrast=3.0, saturation=3.0)
    drawn = [wide.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert min(min(change.brightness, change.contrast, change.saturation) for change in drawn) >= 0


# SHA-256 of what albumentations 1.4.18 makes of ramp() with these factors.
ALBUMENTATIONS = {
    (1.21, 0.73, 1.4, 0.05, (0, 1, 2, 3)): "c931af349cf7a72593db3dfacda65a401660658d458815a72565ff06e564dcff",
    (
        0.77,
        1.37,
        0.55,
        -0.07,
        (3, 2, 1, 0),
    ): "07c327f175f68d0b0a9073ca30bc0e473143ca4ca4e87a9986aecd5ac60e246e",
    (1.0, 1.0, 1.0, 0.0, (2, 0, 3, 1)): "5f5710eac3323e4af24daa392a3bd0d4f3d3ffe948775081d2e64e3d3b169637",
}


@pytest.mark.parametrize("factors", ALBUMENTATIONS)
def test_colours_change_as_in_the_reference_library(factors: tuple) -> None:
    changed = augment.ColorChange(*factors)(ramp())
    assert hashlib.sha256(changed.tobytes()).hexdigest() == ALBUMENTATIONS[factors]


def test_neutral_factors_change_nothing() -> None:
    neutral = augment.ColorChange(1.0, 1.0, 1.0, 0.0, (0, 1, 2, 3))
    np.testing.assert_array_equal(neutral(ramp()), ramp())


def test_rotation_turns_counter_clockwise_about_the_centre() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 30] = 255  # right of the centre
    turned = augment.rotate(image, 90.0)
    assert np.argwhere(turned[..., 0] > 128).tolist() == [[10, 20]]  # above it


@pytest.mark.parametrize("jitter", [{"brightness": -0.1}, {"gamma": 0.2}, {"hue": "much"}])
def test_a_wrong_jitter_is_refused(jitter: dict) -> None:
    with pytest.raises(ConfigError, match=f"color_jitter_params: {next(iter(jitter))} is"):
        augment.ColorJitter.from_mapping(jitter)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(20, 400),
    width=st.integers(20, 400),
    letterbox=st.booleans(),
    chain=st.sampled_from(["opencv", "square", "wide"]),
    seed=st.integers(0, 99),
)
def test_a_reduced_image_gives_the_bits_of_the_whole_one(
    height: int, width: int, letterbox: bool, chain: str, seed: int
) -> None:
    """Loaders keep frames reduced: at evaluation and under every augmentation it must not show."""
    chains = {
        "opencv": CropAndResize(letterbox, 64, 0.95),
        "square": TorchvisionResize(letterbox, (64, 64), (58, 58)),
        "wide": TorchvisionResize(letterbox, (48, 64), (44, 58)),
    }
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    kept = chains[chain].reduce(image)
    assert kept.size <= image.size
    np.testing.assert_array_equal(chains[chain](kept), chains[chain](image))
    augmentation = augment.Augmentation(chains[chain], 5.0, JITTER)
    draw = augmentation.draw(np.random.default_rng(seed))
    np.testing.assert_array_equal(augmentation.apply(kept, draw), augmentation.apply(image, draw))


def test_a_camera_image_is_reduced_to_the_edge() -> None:
    assert OPENCV.reduce(ramp(480, 640)).shape == (256, 256, 3)
    assert CropAndResize(False, 256, 0.95).reduce(ramp(480, 640)).shape == (256, 341, 3)
    assert OPENCV.reduce(ramp(120, 160)).shape == (120, 160, 3)  # smaller than it would become
    assert TORCHVISION.reduce(ramp(480, 640)).shape == (256, 256, 3)
