# SPDX-License-Identifier: Apache-2.0
"""Camera images to the network's pixels at evaluation, bit for bit as the reference does it.

Two routes exist, and a checkpoint says which one it was trained with:

- OpenCV (:class:`CropAndResize`): letterbox, shortest side to 256, centre crop, shortest side to 256 again,
  all INTER_AREA.
- torchvision (:class:`TorchvisionResize`): letterbox, resize, centre crop, resize back, bilinear with
  antialiasing. PyTorch's own uint8 kernel is what torchvision calls, so torchvision itself is not needed.

Both end in :func:`to_patch_multiple`. An image is uint8 [H, W, 3] RGB everywhere; steps return new arrays or
views and never write into their input. Pixels stay uint8 to the end: the network's float values are made by
:func:`gr00t_model.pixels.pixels_to_float`, on the device where there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gr00t_model.errors import ConfigError

Pixels = NDArray[np.uint8]

# Pillow gives an image's memory back to the system at once by default; keeping a few blocks for the next
# image saves the page faults, a fifth of the resize. Two blocks a resize, for as many threads as there are
# cameras.
KEPT_BLOCKS = 8
if hasattr(Image.core, "set_blocks_max"):
    Image.core.set_blocks_max(max(KEPT_BLOCKS, Image.core.get_blocks_max()))

# 14-pixel patches, two by two of which make one token.
PATCH_MULTIPLE = 28
PIXELS_PER_TOKEN = PATCH_MULTIPLE**2
# Bounds of the image in tokens, from the vision processor's configuration.
FEWEST_TOKENS = 4
MOST_TOKENS = 4096


class ImageChain(Protocol):
    """The steps from a camera image to the image that :func:`to_patch_multiple` takes."""

    def __call__(self, image: Pixels) -> Pixels:
        """One image [H, W, 3]."""
        ...


@dataclass(frozen=True)
class CropAndResize:
    """The OpenCV route.

    Args:
        letterbox: pad to a square first.
        shortest_edge: pixels of the shortest side, before and after the crop.
        crop_fraction: share of each side that the crop keeps.
    """

    letterbox: bool
    shortest_edge: int
    crop_fraction: float

    def __call__(self, image: Pixels) -> Pixels:
        """One camera image to the image before the resize to a multiple of 28."""
        resized = letterboxed_shortest_edge(image, self.shortest_edge) if self.letterbox else image
        resized = shortest_edge(resized, self.shortest_edge)
        return shortest_edge(
            crop_centre(resized, *cropped_size(resized, self.crop_fraction)), self.shortest_edge
        )

    def reduce(self, image: Pixels) -> Pixels:
        """The image squared and at its size before the crop, or as it is where that is smaller. Further
        steps, these included, give the same bits from either."""
        resized = letterboxed_shortest_edge(image, self.shortest_edge) if self.letterbox else image
        resized = shortest_edge(resized, self.shortest_edge)
        return resized if resized.size < image.size else image


@dataclass(frozen=True)
class TorchvisionResize:
    """The torchvision route: resize to ``target`` (height, width), keep the centre ``crop``, resize back."""

    letterbox: bool
    target: tuple[int, int]
    crop: tuple[int, int]

    def __call__(self, image: Pixels) -> Pixels:
        """One camera image to the image before the resize to a multiple of 28."""
        squared = letterbox(image) if self.letterbox else image
        resized = bilinear(squared, self.target)
        return bilinear(crop_centre_rounded(resized, *self.crop), self.target)

    def reduce(self, image: Pixels) -> Pixels:
        """As :meth:`CropAndResize.reduce`. An image that would be padded to a square a second time is kept
        as it is."""
        if self.letterbox and self.target[0] != self.target[1]:
            return image
        resized = bilinear(letterbox(image) if self.letterbox else image, self.target)
        return resized if resized.size < image.size else image


def letterbox(image: Pixels) -> Pixels:
    """Black bars to a square, image centred, an odd pixel at the bottom or right."""
    height, width = image.shape[:2]
    if height == width:
        return image
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), np.uint8)
    square[top : top + height, left : left + width] = image
    return square


def letterboxed_shortest_edge(image: Pixels, edge: int) -> Pixels:
    """``shortest_edge(letterbox(image), edge)``, without resizing the bars where that gives the same bits.

    When the bars end on an output pixel's border, each output pixel averages either picture or bar alone, and
    the picture may be resized by itself. The scale must be exact in binary as well (2.5 for 640 pixels, 5 for
    1280), so that OpenCV's weights, computed from pixel positions in floating point, do not depend on where a
    picture starts.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    before, short = (side - min(height, width)) // 2, min(height, width)
    shrinks_exactly = side > edge and (side * 4096) % edge == 0
    if height == width or not shrinks_exactly or (before * edge) % side or (short * edge) % side:
        return shortest_edge(letterbox(image), edge)
    start, length = before * edge // side, short * edge // side
    square = np.zeros((edge, edge, 3), np.uint8)
    inner = square[start : start + length] if height < width else square[:, start : start + length]
    size = (edge, length) if height < width else (length, edge)
    inner[:] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return square


def shortest_edge(image: Pixels, edge: int) -> Pixels:
    """Resize so that the shortest side has ``edge`` pixels, the other in proportion, rounded half to even."""
    height, width = shortest_edge_size(image.shape[0], image.shape[1], edge)
    if (height, width) == image.shape[:2]:
        return image
    return cast(Pixels, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def shortest_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """The size that :func:`shortest_edge` gives."""
    scale = edge / min(height, width)
    return round(height * scale), round(width * scale)


def cropped_size(image: Pixels, fraction: float) -> tuple[int, int]:
    """Height and width that a crop keeps, rounded down."""
    return int(image.shape[0] * fraction), int(image.shape[1] * fraction)


def crop_centre(image: Pixels, height: int, width: int) -> Pixels:
    """View of the centre, offsets rounded down."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def crop_centre_rounded(image: Pixels, height: int, width: int) -> Pixels:
    """The centre, offsets rounded half to even as torchvision does; black where the image is smaller than
    the crop.
    """
    short = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
    if any(short):
        image = np.pad(
            image, [(short[0] // 2, (short[0] + 1) // 2), (short[1] // 2, (short[1] + 1) // 2), (0, 0)]
        )
    top, left = round((image.shape[0] - height) / 2.0), round((image.shape[1] - width) / 2.0)
    return image[top : top + height, left : left + width]


def bilinear(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Bilinear resize to (height, width) with antialiasing, in PyTorch's fixed-point uint8 kernel."""
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    resized = torch.nn.functional.interpolate(
        planes, size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(resized[0].numpy().transpose(1, 2, 0))


def patch_multiple_size(height: int, width: int) -> tuple[int, int]:
    """The size that :func:`to_patch_multiple` gives: nearest multiples of 28, within the bounds on tokens."""
    rows, columns = max(1, round(height / PATCH_MULTIPLE)), max(1, round(width / PATCH_MULTIPLE))
    tokens = height * width / PIXELS_PER_TOKEN
    if rows * columns > MOST_TOKENS:
        shrink = math.sqrt(tokens / MOST_TOKENS)
        rows = max(1, math.floor(height / shrink / PATCH_MULTIPLE))
        columns = max(1, math.floor(width / shrink / PATCH_MULTIPLE))
    elif rows * columns < FEWEST_TOKENS:
        grow = math.sqrt(FEWEST_TOKENS / tokens)
        rows = math.ceil(height * grow / PATCH_MULTIPLE)
        columns = math.ceil(width * grow / PATCH_MULTIPLE)
    return rows * PATCH_MULTIPLE, columns * PATCH_MULTIPLE


def to_patch_multiple(image: Pixels) -> Pixels:
    """Pillow's bicubic resize of each side to the nearest multiple of 28."""
    height, width = patch_multiple_size(*image.shape[:2])
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def image_tokens(height: int, width: int) -> int:
    """Tokens of an image whose sides are multiples of 28."""
    return height * width // PIXELS_PER_TOKEN


def to_planes(image: Pixels) -> torch.Tensor:
    """Image [H, W, 3] to a contiguous uint8 tensor [1, 3, H, W] that owns its memory."""
    planes = np.empty((1, 3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes[0]))  # three times as fast as a transposing copy
    return torch.from_numpy(planes)


def evaluation_chain(
    *,
    letterbox: bool,
    use_albumentations: bool,
    shortest_image_edge: int | None,
    crop_fraction: float | None,
    image_target_size: tuple[int, int] | None,
    image_crop_size: tuple[int, int] | None,
) -> CropAndResize | TorchvisionResize:
    """The chain that a checkpoint's ``processor_config.json`` asks for.

    Raises:
        ConfigError: the sizes that the route needs are not given or impossible.
    """
    if not use_albumentations:
        if image_target_size is None or image_crop_size is None:
            raise ConfigError(
                "use_albumentations is false, which needs image_target_size and image_crop_size; "
                f"found {image_target_size} and {image_crop_size}"
            )
        return TorchvisionResize(letterbox, image_target_size, image_crop_size)
    edge = shortest_image_edge
    if edge is None and image_target_size is not None:
        edge = image_target_size[0]
    fraction = crop_fraction
    if fraction is None and image_target_size is not None and image_crop_size is not None:
        fraction = image_crop_size[0] / image_target_size[0]
    if edge is None or fraction is None:
        raise ConfigError(
            "use_albumentations is true, which needs shortest_image_edge and crop_fraction (or "
            "image_target_size and "
            f"image_crop_size); found {shortest_image_edge} and {crop_fraction}"
        )
    if not 0.0 < fraction <= 1.0 or int(edge * fraction) < 1:
        raise ConfigError(
            f"crop_fraction is {fraction} of shortest_image_edge {edge}, expected a fraction up to 1 that "
            "keeps at least one pixel"
        )
    return CropAndResize(letterbox, edge, fraction)
