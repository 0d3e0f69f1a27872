# SPDX-License-Identifier: Apache-2.0
"""Where the tokens of one prompt go, as the backbone engine takes it: int32, padded to the engine's lengths,
images in the order in which they go through the vision tower."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gr00t_model.errors import ObservationError
from gr00t_model.inference.layout import lay_out

Size = tuple[int, int]


@dataclass(frozen=True)
class Prompt:
    """One prompt of T text tokens (padding included) and I image tokens."""

    text_ids: Tensor
    """int64 [1, T]"""
    order: Tensor
    """int32 [T + I]: the sequence, as indices into the text tokens followed by the images' tokens, these in
    the order of the vision tower's inputs"""
    text_index: Tensor
    """int32 [T]: where text tokens lie in the sequence"""
    image_index: Tensor
    """int32 [I]: likewise image tokens"""
    text_mask: Tensor
    """bool [1, T], False on padding"""


def prompt_for(
    input_ids: Tensor,
    attention_mask: Tensor,
    image_token_id: int,
    sizes: Sequence[Size],
    groups: Sequence[tuple[int, int, int]],
    multiple: int,
    text_tokens: int,
) -> Prompt:
    """The tokens of one prompt, int64 [1, L].

    Args:
        input_ids: token ids.
        attention_mask: 1 on real tokens.
        image_token_id: the id that image tokens replace.
        sizes: height and width [px] of the images, in the prompt's order.
        groups: number, height and width of the images that the engine takes together.
        multiple: image tokens are squares of this many pixels.
        text_tokens: T.

    Raises:
        ObservationError: the images are not those of the engine, their tokens are not as many as the
            prompt has, or it has more than T text tokens.
    """
    tokens = _tower_order(sizes, groups, multiple)
    found = int((input_ids == image_token_id).sum())
    if found != len(tokens):
        raise ObservationError(f"the prompt has {found} image tokens, its images give {len(tokens)}")
    layout = lay_out(input_ids, attention_mask, image_token_id, text_tokens)
    order = layout.order[0]
    is_image = order >= text_tokens
    order = torch.where(is_image, text_tokens + tokens[(order - text_tokens).clamp(min=0)], order)
    mask = layout.text_mask
    return Prompt(
        layout.text_ids,
        order.to(torch.int32),
        layout.text_index[0].to(torch.int32),
        layout.image_index[0].to(torch.int32),
        torch.ones(1, text_tokens, dtype=torch.bool) if mask is None else mask,
    )


def group_images(sizes: Sequence[Size], groups: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """Indices of the images that each group holds.

    Raises:
        ObservationError: the images are not as many or not as large as the groups have them.
    """
    found = [[i for i, size in enumerate(sizes) if tuple(size) == (h, w)] for _, h, w in groups]
    if [len(own) for own in found] != [count for count, _, _ in groups] or sum(map(len, found)) != len(sizes):
        given = ", ".join(f"{height} x {width}" for height, width in sizes)
        wanted = ", ".join(f"{count} of {height} x {width}" for count, height, width in groups)
        raise ObservationError(
            f"the images are {given} pixels (height x width); this engine was built for {wanted}. Build it "
            "again for these cameras"
        )
    return found


def _tower_order(sizes: Sequence[Size], groups: Sequence[tuple[int, int, int]], multiple: int) -> Tensor:
    """For each image token, in the prompt's order, where the vision tower puts it: int64 [I]."""
    place, start = {}, 0
    for members, (_, height, width) in zip(group_images(sizes, groups), groups, strict=True):
        tokens = (height // multiple) * (width // multiple)
        for index in members:
            place[index] = torch.arange(start, start + tokens)
            start += tokens
    return torch.cat([place[index] for index in range(len(sizes))])
