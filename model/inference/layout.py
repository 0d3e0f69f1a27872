# SPDX-License-Identifier: Apache-2.0
"""Where the tokens of a prompt go, worked out on the CPU once an instruction: gathers instead of masks.

The processor pads on the left. Here real tokens come first and padding last, where causal attention never
sees it, so that the language model needs no mask at all; and text and image tokens are listed apart, so
that the cross-attention blocks compute keys and values only for what they look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gr00t_model.errors import ObservationError

# Text is padded to one of these lengths where each length costs something once (a CUDA graph, a tuned
# kernel). With two cameras the prompt around the instruction takes 30.
TEXT_BUCKETS = (32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Layout:
    """Index tensors for a batch of B prompts with S image tokens in all."""

    text_ids: Tensor
    """int64 [B, T]: the ids of the text tokens, in order; padding last"""
    order: Tensor
    """int64 [B, L]: the sequence, as indices into the B*T text embeddings followed by the S image tokens"""
    text_index: Tensor
    """int64 [B, T]: where each text token lies in the B*L tokens of the sequences"""
    image_index: Tensor
    """int64 [B, I]: likewise for image tokens"""
    text_mask: Tensor | None
    """bool [B, T], False on padding; None where there is none"""
    image_mask: Tensor | None
    """bool [B, I], likewise"""
    valid: Tensor | None
    """bool [B, L], likewise, for the whole sequence"""
    seen: Tensor | None
    """bool [B, L], False on what `text_tokens` added; None where nothing was added"""

    @property
    def text_tokens(self) -> int:
        """T."""
        return self.text_ids.shape[1]

    def to(self, device: torch.device) -> "Layout":
        """The same on another device."""
        moved = {name: value if value is None else value.to(device) for name, value in self.__dict__.items()}
        return Layout(**moved)


def lay_out(
    input_ids: Tensor, attention_mask: Tensor, image_token_id: int, text_tokens: int | None = None
) -> Layout:
    """The layout of left-padded prompts, int64 [B, L] on the CPU.

    Args:
        input_ids: token ids.
        attention_mask: 1 on real tokens, which must follow each other without a gap.
        image_token_id: the id whose embeddings are replaced by image tokens, all B prompts' in order.
        text_tokens: pad the text to this many tokens, so that prompts of several lengths have one shape.

    Raises:
        ObservationError: a gap between real tokens, an image token in the padding, a prompt without image,
            or more text than `text_tokens`.
    """
    real = attention_mask.bool()
    if bool((real[:, :-1] & ~real[:, 1:]).any()):
        raise ObservationError("attention_mask has a gap or padding on the right; pad prompts on the left")
    is_image = input_ids == image_token_id
    if bool((is_image & ~real).any()):
        raise ObservationError("input_ids hold an image token where attention_mask marks padding")
    batch, padded = input_ids.shape
    images = is_image.sum(dim=1)
    needed = padded - int(images.min())
    width = needed if text_tokens is None else text_tokens
    if needed > width:
        raise ObservationError(f"a prompt has {needed} text tokens, more than the {width} there is room for")
    length = padded if text_tokens is None else width + int(images.max())
    text_ids = torch.zeros(batch, width, dtype=torch.int64)
    # What no token uses points at the row's first: any finite value will do there.
    order = (torch.arange(batch) * width)[:, None].repeat(1, length)
    text_index = (torch.arange(batch) * length)[:, None].repeat(1, width)
    image_index = (torch.arange(batch) * length)[:, None].repeat(1, int(images.max()))
    first_image = batch * width
    for row in range(batch):
        # Real tokens, then the processor's padding: that takes part in the plain DiT's attention.
        turned = torch.cat((real[row].nonzero()[:, 0], (~real[row]).nonzero()[:, 0]))
        image = is_image[row][turned]
        words = input_ids[row][turned][~image]
        text_ids[row, : len(words)] = words
        order[row, :padded][~image] = row * width + torch.arange(len(words))
        order[row, :padded][image] = first_image + torch.arange(int(images[row]))
        first_image += int(images[row])
        text_index[row, : len(words)] += (~image).nonzero()[:, 0]
        image_index[row, : int(images[row])] += image.nonzero()[:, 0]
    tokens = real.sum(dim=1)
    return Layout(
        text_ids=text_ids,
        order=order,
        text_index=text_index,
        image_index=image_index,
        text_mask=_mask(tokens - images, width),
        image_mask=_mask(images, int(images.max())),
        valid=_mask(tokens, length),
        seen=_mask(torch.full((batch,), padded), length),
    )


def text_bucket(tokens: int) -> int | None:
    """The smallest bucket that holds this many text tokens; None when none does."""
    return next((bucket for bucket in TEXT_BUCKETS if bucket >= tokens), None)


def _mask(counts: Tensor, width: int) -> Tensor | None:
    """bool [B, width]: the first `counts` of each row; None when that is all of all rows."""
    mask = torch.arange(width) < counts[:, None]
    return None if bool(mask.all()) else mask


def group_by_size(images: Sequence[Tensor]) -> dict[tuple[int, int], list[int]]:
    """Indices of images [1, 3, H, W] by (H, W), in the order of first appearance."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault((int(image.shape[-2]), int(image.shape[-1])), []).append(index)
    return groups
