# SPDX-License-Identifier: Apache-2.0
"""Layers with one set of weights per embodiment: how robots with different joints share one transformer.

Weights are stored input x output (`x @ W + b`), all embodiments in one tensor, as in the published
checkpoint. The action head builds its state encoder, action encoder and action decoder from these.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gr00t_model.network.timestep import action_time_code

# The scale at which these weights start (normal, times this); biases start at zero.
INITIAL_SCALE = 0.02


class EmbodimentLinear(nn.Module):
    """A linear layer per embodiment."""

    def __init__(self, embodiments: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.W = nn.Parameter(INITIAL_SCALE * torch.randn(embodiments, inputs, outputs))
        self.b = nn.Parameter(torch.zeros(embodiments, outputs))

    def forward(self, x: Tensor, embodiment_id: Tensor) -> Tensor:
        """x [B, T, inputs], embodiment_id int64 [B]; returns [B, T, outputs]."""
        return torch.bmm(x, self.W[embodiment_id]) + self.b[embodiment_id][:, None]


class EmbodimentMLP(nn.Module):
    """Two such layers with ReLU between them: the state encoder and the action decoder."""

    def __init__(self, embodiments: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layer1 = EmbodimentLinear(embodiments, inputs, hidden)
        self.layer2 = EmbodimentLinear(embodiments, hidden, outputs)

    def forward(self, x: Tensor, embodiment_id: Tensor) -> Tensor:
        """x [B, T, inputs] to [B, T, outputs]."""
        return self.layer2(F.relu(self.layer1(x, embodiment_id)), embodiment_id)


class ActionEncoder(nn.Module):
    """Noisy actions and the denoising time to action tokens, per embodiment."""

    def __init__(self, embodiments: int, action_dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.W1 = EmbodimentLinear(embodiments, action_dim, width)
        self.W2 = EmbodimentLinear(embodiments, 2 * width, width)
        self.W3 = EmbodimentLinear(embodiments, width, width)

    def forward(self, actions: Tensor, bucket: Tensor, embodiment_id: Tensor) -> Tensor:
        """actions [B, H, action_dim], bucket int64 [B] (one time for all steps); returns [B, H, width]."""
        encoded = self.W1(actions, embodiment_id)
        time = action_time_code(bucket, self.width).to(encoded.dtype)[:, None].expand_as(encoded)
        hidden = F.silu(self.W2(torch.cat((encoded, time), dim=-1), embodiment_id))
        return self.W3(hidden, embodiment_id)
