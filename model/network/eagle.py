# SPDX-License-Identifier: Apache-2.0
"""Eagle, the vision-language backbone: images and prompt to one feature per token.

The action head reads these features; nothing in them depends on the robot's state or the denoising step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.network.connector import projector, unshuffle
from gr00t_model.network.language import LanguageModel
from gr00t_model.network.vision import VisionModel


@dataclass(frozen=True)
class Features:
    """What the backbone hands to the action head."""

    values: Tensor
    """[B, L, backbone_embedding_dim]"""
    image_mask: Tensor
    """bool [B, L]: tokens that carry image features"""
    attention_mask: Tensor
    """bool [B, L]: tokens that are not padding"""

    def repeated(self, times: int) -> "Features":
        """Those of the whole batch, so many times one after the other: [times * B, ...]."""
        if times == 1:
            return self
        return Features(*(repeat(t, times) for t in (self.values, self.image_mask, self.attention_mask)))


def repeat(value: Tensor, times: int) -> Tensor:
    """[B, ...] to [times * B, ...], the whole batch again and again."""
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


class Eagle(nn.Module):
    """SigLIP-2 tower, projector and Qwen3 stack, fused by replacing the image tokens' embeddings."""

    def __init__(self, config: Gr00tN1d6Config) -> None:
        super().__init__()
        self.image_token_id = config.image_token_id
        self.vision_model = VisionModel(config.vision)
        self.language_model = LanguageModel(config.language, config.select_layer)
        self.mlp1 = projector(config.vision.hidden_size, config.language.hidden_size)

    def image_tokens(self, images: Sequence[Tensor]) -> Tensor:
        """Images, each [1, 3, H, W], to their tokens one after the other: [tokens, language width]."""
        return self.mlp1(
            torch.cat([unshuffle(feature_map) for feature_map in self.vision_model(images)])[None]
        )[0]

    def fuse(self, input_ids: Tensor, image_tokens: Tensor) -> Tensor:
        """Token embeddings [B, L, width], those of image tokens replaced by `image_tokens`, in order.

        There are as many of one as of the other (`inputs.prepare` has seen to that).
        """
        is_image = input_ids == self.image_token_id
        embeddings = self.language_model.model.embed_tokens(input_ids)
        return embeddings.masked_scatter(is_image[:, :, None], image_tokens.to(embeddings.dtype))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, images: Sequence[Tensor]) -> Tensor:
        """[B, L], [B, L] and a list of [1, 3, H, W] (ordered sample, time, view) to features [B, L,
        width]."""
        return self.language_model(self.fuse(input_ids, self.image_tokens(images)), attention_mask)


class Backbone(nn.Module):
    """Eagle under its checkpoint name (`backbone.model`), with the masks the action head needs."""

    def __init__(self, config: Gr00tN1d6Config) -> None:
        super().__init__()
        self.model = Eagle(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, images: Sequence[Tensor]) -> Features:
        """As `Eagle.forward`."""
        return Features(
            values=self.model(input_ids, attention_mask, images),
            image_mask=input_ids == self.model.image_token_id,
            attention_mask=attention_mask == 1,
        )
