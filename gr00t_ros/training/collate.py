# SPDX-License-Identifier: Apache-2.0
"""Samples to the network's inputs for a batch, and how a batch travels between processes.

A batch of 64 samples with two cameras is 128 images. As so many tensors each would take a file descriptor of
its own on its way from a worker; as one tensor of bytes they take one, and a quarter of the memory of floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gr00t_model.pixels import pixels_to_float
from gr00t_model.processing.processor import PixelType
from gr00t_model.processing.tokenizer import PAD_TOKEN_ID
from gr00t_ros.errors import DatasetError

Inputs = dict[str, Any]
_STACKED = ("state", "action", "action_mask", "embodiment_id")
# Where the run points, see ``pointing.py``.
_OPTIONAL = ("pointing",)


def collate(
    samples: Sequence[Mapping[str, Any]], *, pixels: PixelType = "float32", pad: int = PAD_TOKEN_ID
) -> Inputs:
    """Encoded samples (any batch size each) to the inputs of ``Gr00tN1d6.forward``.

    Prompts are padded on the left to the longest. Embodiments may be mixed; their images may differ in size.

    Args:
        pixels: "uint8" leaves ``pixels_to_float`` to the caller, see :func:`to_device`.
        pad: the tokenizer's token for padding.

    Raises:
        DatasetError: samples differ in how many steps of state they have, which no batch can hold.
    """
    if len({sample["state"].shape[1] for sample in samples}) > 1:
        raise DatasetError(
            "the embodiments of a mixture have states of different numbers of steps (delta_indices); train "
            "them apart, or give them the same"
        )
    longest = max(sample["input_ids"].shape[1] for sample in samples)
    images = [image for sample in samples for image in sample["pixel_values"]]
    names = (*_STACKED, *(name for name in _OPTIONAL if name in samples[0]))
    if pixels == "float32":
        images = [image if image.is_floating_point() else pixels_to_float(image) for image in images]
    return {
        "input_ids": torch.cat([_pad(s["input_ids"], longest, pad) for s in samples]),
        "attention_mask": torch.cat([_pad(s["attention_mask"], longest, 0) for s in samples]),
        "pixel_values": images,
        **{name: torch.cat([sample[name] for sample in samples]) for name in names},
    }


def _pad(ids: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return torch.nn.functional.pad(ids, (length - ids.shape[1], 0), value=value)


def pack(samples: Sequence[Mapping[str, Any]], pad: int = PAD_TOKEN_ID) -> Inputs:
    """A batch as workers send it: :func:`collate` with bytes for pixels, images of one size as one tensor
    [n, 3, H, W]."""
    batch = collate(samples, pixels="uint8", pad=pad)
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(batch["pixel_values"]):
        groups.setdefault(tuple(image.shape), []).append(number)
    images = batch["pixel_values"]
    batch["pixel_values"] = [torch.cat([images[i] for i in numbers]) for numbers in groups.values()]
    batch["image_numbers"] = list(groups.values())
    return batch


def unpack(batch: Inputs) -> Inputs:
    """What :func:`pack` made, with images in their order again; views, nothing is copied."""
    placed = {
        number: image[None]
        for numbers, images in zip(batch["image_numbers"], batch["pixel_values"], strict=True)
        for number, image in zip(numbers, images, strict=True)
    }
    rest = {name: value for name, value in batch.items() if name != "image_numbers"}
    return {**rest, "pixel_values": [placed[number] for number in sorted(placed)]}


def to_device(inputs: Mapping[str, Any], device: torch.device | str) -> Inputs:
    """Inputs on a device, pixels turned into floats there."""
    moved: Inputs = {
        name: value.to(device, non_blocking=True) for name, value in inputs.items() if name != "pixel_values"
    }
    images = [image.to(device, non_blocking=True) for image in inputs["pixel_values"]]
    return {**moved, "pixel_values": [i if i.is_floating_point() else pixels_to_float(i) for i in images]}
