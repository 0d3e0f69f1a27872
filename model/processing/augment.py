# SPDX-License-Identifier: Apache-2.0
"""Training images: the evaluation chain with a random crop in place of the centre, rotation and colour
jitter.

What is random is drawn once a sample (:meth:`Augmentation.draw`) and applied to every view and time step of
it, so that a stereo pair or a history stays consistent. The arithmetic of each colour operation is that of
the reference's library (albumentations 1.4): tables truncated to integers, luminance from OpenCV's RGB2GRAY,
hue in half degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gr00t_model.errors import ConfigError
from gr00t_model.processing.images import (
    CropAndResize,
    ImageChain,
    Pixels,
    TorchvisionResize,
    bilinear,
    cropped_size,
    letterbox,
    letterboxed_shortest_edge,
    shortest_edge,
)
from gr00t_model.sizes import is_number

# OpenCV stores 8-bit hue in half degrees.
HUE_CIRCLE = 180
# A factor beyond this leaves black and white only; larger numbers are mistakes.
STRONGEST_JITTER = 100


@dataclass(frozen=True)
class ColorJitter:
    """Half widths of the ranges factors are drawn from: ``1 +- x`` (not below 0), for hue ``+- x`` of a
    full turn.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> ColorJitter:
        """Parse ``color_jitter_params``; raises ConfigError for unknown names and negative values."""
        known = [field.name for field in fields(cls)]
        for name, value in data.items():
            if name not in known or not is_number(value) or not 0 <= value <= STRONGEST_JITTER:
                raise ConfigError(
                    f"color_jitter_params: {name} is {value!r}, expected a number from 0 to "
                    f"{STRONGEST_JITTER} for {', '.join(known)}"
                )
        return cls(**data)

    def draw(self, rng: np.random.Generator) -> ColorChange:
        """One change, each factor uniform in its range and the order of operations at random."""

        def around_one(half_width: float) -> float:
            return float(rng.uniform(max(1.0 - half_width, 0.0), 1.0 + half_width))

        return ColorChange(
            brightness=around_one(self.brightness),
            contrast=around_one(self.contrast),
            saturation=around_one(self.saturation),
            hue=float(rng.uniform(-self.hue, self.hue)),
            order=tuple(int(i) for i in rng.permutation(4)),
        )


@dataclass(frozen=True)
class ColorChange:
    """One drawn colour jitter; ``order`` says which of the four operations goes first."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[int, ...]

    def __call__(self, image: Pixels) -> Pixels:
        """Apply the four operations in the drawn order."""
        operations = (
            lambda pixels: change_brightness(pixels, self.brightness),
            lambda pixels: change_contrast(pixels, self.contrast),
            lambda pixels: change_saturation(pixels, self.saturation),
            lambda pixels: change_hue(pixels, self.hue),
        )
        for index in self.order:
            image = operations[index](image)
        return image


@dataclass(frozen=True)
class Draw:
    """Everything random about one sample's images.

    Args:
        across, down: where the crop lies between left and right, top and bottom, each in [0, 1).
        angle: rotation in degrees, counter-clockwise.
        colors: the colour jitter, or None.
    """

    across: float
    down: float
    angle: float = 0.0
    colors: ColorChange | None = None


@dataclass(frozen=True)
class Augmentation:
    """The training form of an evaluation chain."""

    chain: CropAndResize | TorchvisionResize
    rotation_angle: float = 0.0
    jitter: ColorJitter | None = None

    def draw(self, rng: np.random.Generator) -> Draw:
        """What is random about one sample; the same generator state gives the same sample."""
        across, down = rng.random(2)
        angle = rng.uniform(-self.rotation_angle, self.rotation_angle) if self.rotation_angle else 0.0
        return Draw(float(across), float(down), float(angle), self.jitter.draw(rng) if self.jitter else None)

    def bind(self, draw: Draw) -> ImageChain:
        """The chain for the views and time steps of one sample."""
        return lambda image: self.apply(image, draw)

    def apply(self, image: Pixels, draw: Draw) -> Pixels:
        """One camera image to the training image, before the resize to a multiple of 28."""
        chain = self.chain
        if isinstance(chain, CropAndResize):
            if chain.letterbox:
                image = letterboxed_shortest_edge(image, chain.shortest_edge)
            image = shortest_edge(image, chain.shortest_edge)
            image = crop_at(image, *cropped_size(image, chain.crop_fraction), draw)
            image = shortest_edge(image, chain.shortest_edge)
        else:
            image = bilinear(letterbox(image) if chain.letterbox else image, chain.target)
            image = bilinear(crop_at(image, *chain.crop, draw), chain.target)
        if draw.angle:
            image = rotate(image, draw.angle)
        return draw.colors(image) if draw.colors else image


def crop_at(image: Pixels, height: int, width: int, draw: Draw) -> Pixels:
    """View of the drawn part, every offset equally likely."""
    top, left = crop_corner(image.shape[0], image.shape[1], height, width, draw)
    return image[top : top + height, left : left + width]


def crop_corner(rows: int, columns: int, height: int, width: int, draw: Draw) -> tuple[int, int]:
    """Top and left of the drawn part of an image of rows x columns."""
    return int(draw.down * (rows - height + 1)), int(draw.across * (columns - width + 1))


def rotate(image: Pixels, angle: float) -> Pixels:
    """Rotation about the centre, bilinear, corners filled with the mirrored picture; ``angle`` in degrees."""
    height, width = image.shape[:2]
    matrix = rotation_matrix(height, width, angle)
    return cast(
        Pixels,
        cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        ),
    )


def rotation_matrix(height: int, width: int, angle: float) -> NDArray[np.float64]:
    """[2, 3]: from (x, y, 1) to (x, y), counted from the centre of the first pixel."""
    return cast(
        "NDArray[np.float64]", cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, 1.0)
    )


def change_brightness(image: Pixels, factor: float) -> Pixels:
    """Towards or away from black."""
    return _mapped(image, np.arange(256, dtype=np.float32) * np.float32(factor))


def change_contrast(image: Pixels, factor: float) -> Pixels:
    """Towards or away from the mean luminance."""
    if factor == 1.0:
        return image
    mean = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
    return _mapped(
        image, np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(mean * (1 - factor))
    )


def change_saturation(image: Pixels, factor: float) -> Pixels:
    """Towards or away from each pixel's luminance."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cast(Pixels, cv2.addWeighted(image, factor, gray, 1 - factor, 0))


def change_hue(image: Pixels, turn: float) -> Pixels:
    """Along the colour circle by a share of a full turn."""
    if turn == 0.0:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    table = np.mod(np.arange(256) + HUE_CIRCLE * turn, HUE_CIRCLE).astype(np.uint8)
    hsv[..., 0] = cv2.LUT(hsv[..., 0], table)
    return cast(Pixels, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _mapped(image: Pixels, table: Any) -> Pixels:
    return cast(Pixels, cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)))
