# SPDX-License-Identifier: Apache-2.0
"""The Qwen3 stack, laid out for inference: merged query/key/value and gate/up products, no mask.

Sequences come with real tokens first (`layout`), so causal attention alone hides the padding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gr00t_model.inference.deployed.layers import frozen, join_heads, merge, share, split_heads
from gr00t_model.network.language import LanguageStack, Rotation, rotation


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """RMSNorm over the last dimension, statistics in float32."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def rotate(x: Tensor, rotary: Rotation) -> Tensor:
    """Rotary position embedding of [B, heads, L, d]; the first half of the sines comes negated."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((second, first), dim=-1) * sin


class LanguageLayer(nn.Module):
    """One Qwen3 decoder layer."""

    def __init__(self, layer: nn.Module, heads: int, kv_heads: int) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.heads, self.kv_heads = heads, kv_heads
        self.eps = layer.input_layernorm.variance_epsilon
        self.norm1, self.norm2 = (
            frozen(norm.weight.data) for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        # One weight a head, so that queries and keys are normed and rotated together.
        q_norm, k_norm = attention.q_norm.weight.data, attention.k_norm.weight.data
        self.qk_norm = frozen(torch.cat((q_norm.repeat(heads, 1), k_norm.repeat(kv_heads, 1)))[:, None])
        self.qkv = merge([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = share(attention.o_proj)
        self.gate_up = merge([mlp.gate_proj, mlp.up_proj])
        self.down = share(mlp.down_proj)

    def forward(
        self, x: Tensor, rotary: Rotation, valid: Tensor | None, mask: Tensor | None = None
    ) -> Tensor:
        """x [B, L, width]; valid [B, L, 1] of zeros and ones, where padding must come out as the reference
        has it, or None. mask: what to add to the scores [L, L], for callers that hold the causal mask once
        for all layers."""
        parts = split_heads(self.qkv(rms_norm(x, self.norm1, self.eps)), self.heads + 2 * self.kv_heads)
        qk, v = parts.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        qk = rotate(rms_norm(qk, None, self.eps) * self.qk_norm, rotary)
        q, k = qk.split((self.heads, self.kv_heads), dim=1)
        # Flash attention shares keys and values among heads by itself; other kernels want them repeated.
        shares = q.is_cuda and q.dtype != torch.float32
        if not shares:
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=shares
        )
        attended = self.out(join_heads(mixed))
        x = x + (attended if valid is None else attended * valid)
        gate, up = self.gate_up(rms_norm(x, self.norm2, self.eps)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Language(nn.Module):
    """Embeddings to the features that the action head reads."""

    def __init__(self, stack: LanguageStack) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = stack.head_dim, stack.rope_theta
        config = stack.layers[0].self_attn.config
        self.layers = nn.ModuleList(
            LanguageLayer(layer, config.num_attention_heads, config.num_key_value_heads)
            for layer in stack.layers
        )
        self.norm, self.eps = frozen(stack.norm.weight.data), stack.norm.variance_epsilon
        self._rotation: Rotation | None = None

    def prepare(self, length: int) -> Rotation:
        """Cosines and sines [length, head_dim], as `rotate` takes them. They are rows of the table of the
        longest sequence so far: whoever records their addresses keeps them."""
        if self._rotation is None or len(self._rotation[0]) < length:
            cos, sin = (part[0] for part in rotation(length, self.head_dim, self.rope_theta, self.norm))
            first, second = sin.chunk(2, dim=-1)
            self._rotation = cos, torch.cat((-first, second), dim=-1)
        cos, sin = self._rotation
        return cos[:length], sin[:length]

    def forward(self, embeddings: Tensor, valid: Tensor | None) -> Tensor:
        """[B, L, width] to the normed last hidden state [B, L, width]."""
        rotary = self.prepare(embeddings.shape[1])
        x = embeddings
        for layer in self.layers:
            x = layer(x, rotary, valid)
        return rms_norm(x, self.norm, self.eps)
