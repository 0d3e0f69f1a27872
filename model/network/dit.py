# SPDX-License-Identifier: Apache-2.0
"""The diffusion transformer: state and action tokens attend to each other and, in turns, to the backbone's
features.

Odd blocks are self-attention, even blocks cross-attention. `AlternateVLDiT`, the released one, lets the
even blocks look at text and at images alternately; the plain `DiT` lets them look at everything, padding
included.
"""

from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from gr00t_model.network.eagle import Features
from gr00t_model.network.timestep import TimestepEncoder
from gr00t_model.sizes import DitSizes

# Epsilon of the norms inside blocks, and of the one before the output.
BLOCK_EPS = 1e-5
OUTPUT_EPS = 1e-6


class AdaptiveNorm(nn.Module):
    """LayerNorm without weights, then scale and shift computed from the time embedding (scale first)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps=BLOCK_EPS, elementwise_affine=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, T, width], time [B, width]."""
        scale, shift = self.linear(F.silu(time)).chunk(2, dim=1)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class DitBlock(GradientCheckpointingLayer):
    """Attention modulated by time, then a feed-forward that is not."""

    def __init__(self, sizes: DitSizes, *, context_width: int | None) -> None:
        """`context_width` is the width of the features to attend to, or None for self-attention."""
        super().__init__()
        self.norm1 = AdaptiveNorm(sizes.width)
        self.attn1 = Attention(
            query_dim=sizes.width,
            cross_attention_dim=context_width,
            heads=sizes.num_attention_heads,
            dim_head=sizes.attention_head_dim,
            dropout=sizes.dropout,
            bias=True,
        )
        self.norm3 = nn.LayerNorm(sizes.width, eps=BLOCK_EPS, elementwise_affine=False)
        self.ff = FeedForward(
            sizes.width,
            dropout=sizes.dropout,
            activation_fn="gelu-approximate",
            final_dropout=sizes.final_dropout,
        )
        self.dropout = nn.Dropout(sizes.dropout if sizes.final_dropout else 0.0)

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """x [B, T, width], time [B, width], context [B, L, context_width], mask bool [B, L] (True: may be
        seen)."""
        attended = self.attn1(self.norm1(x, time), encoder_hidden_states=context, attention_mask=mask)
        x = x + self.dropout(attended)
        return x + self.ff(self.norm3(x))


class DiT(nn.Module):
    """The plain variant: cross-attention to all features, with no mask."""

    def __init__(self, sizes: DitSizes, context_width: int) -> None:
        super().__init__()
        self.timestep_encoder = TimestepEncoder(sizes.width)
        self.self_attention = [
            sizes.interleave_self_attention and i % 2 == 1 for i in range(sizes.num_layers)
        ]
        self.transformer_blocks = nn.ModuleList(
            DitBlock(sizes, context_width=None if own else context_width) for own in self.self_attention
        )
        self.norm_out = nn.LayerNorm(sizes.width, eps=OUTPUT_EPS, elementwise_affine=False)
        self.proj_out_1 = nn.Linear(sizes.width, 2 * sizes.width)
        self.proj_out_2 = nn.Linear(sizes.width, sizes.output_dim)

    def context_mask(self, block: int, context: Features) -> Tensor | None:
        """bool [B, L] of the features block number `block` may see, or None for all."""
        return None

    def forward(self, tokens: Tensor, context: Features, bucket: Tensor) -> Tensor:
        """tokens [B, T, width], bucket int64 [B]; returns [B, T, output_dim]."""
        time = self.timestep_encoder(bucket)
        x = tokens
        for index, block in enumerate(self.transformer_blocks):
            if self.self_attention[index]:
                x = block(x, time, None, None)
            else:
                x = block(x, time, context.values, self.context_mask(index, context))
        # Shift first here, unlike in the blocks.
        shift, scale = self.proj_out_1(F.silu(time)).chunk(2, dim=1)
        return self.proj_out_2(self.norm_out(x) * (1 + scale[:, None]) + shift[:, None])


class AlternateVLDiT(DiT):
    """Even blocks see the valid text tokens and the valid image tokens in turns."""

    def __init__(self, sizes: DitSizes, context_width: int, text_every: int) -> None:
        """`text_every`: of the cross-attention blocks, each `text_every`-th sees text, the others images."""
        super().__init__(sizes, context_width)
        self.text_period = 2 * text_every

    def context_mask(self, block: int, context: Features) -> Tensor | None:
        """bool [B, L]: valid text tokens for every `text_period`-th block, valid image tokens for others."""
        wanted = ~context.image_mask if block % self.text_period == 0 else context.image_mask
        return wanted & context.attention_mask
