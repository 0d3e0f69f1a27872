# SPDX-License-Identifier: Apache-2.0
"""The Qwen3 stack of the backbone, cut after `select_layer` layers; its last, normed hidden state is the
feature.

There is no cache and no generation: one pass over the prompt. The language head's tensor belongs to the
checkpoint but is never used.
"""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3MLP, Qwen3RMSNorm

from gr00t_model.sizes import LanguageSizes

Rotation = tuple[Tensor, Tensor]


def rotation(length: int, head_dim: int, theta: float, like: Tensor) -> Rotation:
    """Cosine and sine [1, length, head_dim] of rotary position embedding, in float32 and then cast as `like`.

    Computed at each call rather than kept in a buffer, so that a model built on the meta device has nothing
    to restore.
    """
    exponents = torch.arange(0, head_dim, 2, device=like.device, dtype=torch.float32) / head_dim
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = torch.outer(positions, 1.0 / theta**exponents)
    angles = torch.cat((angles, angles), dim=-1)[None]
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def causal_mask(attention_mask: Tensor) -> Tensor:
    """[B, L] of zeros and ones to bool [B, 1, L, L]: earlier valid keys, and oneself.

    "Oneself" matters only for padded queries, which would otherwise have no key at all and turn into NaN.
    """
    length = attention_mask.shape[1]
    ones = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device)
    allowed = ones.tril() & attention_mask.bool()[:, None, :]
    return (allowed | torch.eye(length, dtype=torch.bool, device=attention_mask.device))[:, None]


class LanguageLayer(GradientCheckpointingLayer):
    """One Qwen3 decoder layer in which a padded query gets no attention output.

    That is what the reference's flash attention does. AlternateVLDiT never looks at padded positions, the
    plain DiT does, so the rule is kept exactly.
    """

    def __init__(self, config: Qwen3Config, index: int) -> None:
        super().__init__()
        self.self_attn = Qwen3Attention(config, index)
        self.mlp = Qwen3MLP(config)
        self.input_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden: Tensor, mask: Tensor, valid: Tensor, rotary: Rotation) -> Tensor:
        """hidden [B, L, width]; mask bool [B, 1, L, L]; valid [B, L, 1] of zeros and ones."""
        attended, _ = self.self_attn(
            self.input_layernorm(hidden), position_embeddings=rotary, attention_mask=mask
        )
        # The output projection has no bias, so zero after it is zero before it.
        hidden = hidden + attended * valid.to(attended.dtype)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class LanguageStack(nn.Module):
    """Embedding table, layers and final norm."""

    def __init__(self, sizes: LanguageSizes, depth: int) -> None:
        super().__init__()
        self.head_dim = sizes.head_dim
        self.rope_theta = float(sizes.rope_theta)
        config = Qwen3Config(
            vocab_size=sizes.vocab_size,
            hidden_size=sizes.hidden_size,
            intermediate_size=sizes.intermediate_size,
            num_hidden_layers=depth,
            num_attention_heads=sizes.num_attention_heads,
            num_key_value_heads=sizes.num_key_value_heads,
            head_dim=sizes.head_dim,
            rms_norm_eps=sizes.rms_norm_eps,
            hidden_act="silu",
            attention_bias=False,
            attention_dropout=0.0,
            use_sliding_window=False,
            attn_implementation="sdpa",
        )
        self.embed_tokens = nn.Embedding(sizes.vocab_size, sizes.hidden_size)
        self.layers = nn.ModuleList(LanguageLayer(config, index) for index in range(depth))
        self.norm = Qwen3RMSNorm(sizes.hidden_size, eps=sizes.rms_norm_eps)

    def forward(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, L, width] and [B, L] to the normed hidden state [B, L, width]. Positions count padding."""
        mask = causal_mask(attention_mask)
        valid = attention_mask[:, :, None]
        rotary = rotation(embeddings.shape[1], self.head_dim, self.rope_theta, embeddings)
        hidden = embeddings
        for layer in self.layers:
            hidden = layer(hidden, mask, valid, rotary)
        return self.norm(hidden)


class LanguageModel(nn.Module):
    """The stack under its checkpoint names, with the head that only the checkpoint needs."""

    def __init__(self, sizes: LanguageSizes, depth: int) -> None:
        super().__init__()
        self.model = LanguageStack(sizes, depth)
        self.lm_head = nn.Linear(sizes.hidden_size, sizes.vocab_size, bias=False)

    def forward(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """As `LanguageStack.forward`."""
        return self.model(embeddings, attention_mask)
