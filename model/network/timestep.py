# SPDX-License-Identifier: Apache-2.0
"""How the denoising time enters the network: two different sinusoids, both of the integer time bucket.

They look alike and are not: the action tokens' code is [sin, cos] over `half` frequencies, the
transformer's is [cos, sin] over `half - 1` steps.
"""

import math

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

# Wavelengths of both sinusoids grow geometrically up to this many buckets.
MAX_PERIOD = 10000.0
# Width of the sinusoid before the transformer's time MLP.
TIME_CHANNELS = 256


def action_time_code(bucket: Tensor, width: int) -> Tensor:
    """int64 [B] to float32 [B, width]: [sin, cos], frequency i = exp(-i * ln(10000) / (width/2))."""
    half = width // 2
    steps = torch.arange(half, device=bucket.device, dtype=torch.float32)
    angles = bucket.float()[:, None] * torch.exp(-steps * (math.log(MAX_PERIOD) / half))
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class TimestepEncoder(nn.Module):
    """Time bucket to the vector that modulates every transformer block.

    The sinusoid is float32, [cos, sin], frequency i = exp(-i * ln(10000) / 127); then Linear, SiLU, Linear.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time_proj = Timesteps(num_channels=TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=1)
        self.timestep_embedder = TimestepEmbedding(in_channels=TIME_CHANNELS, time_embed_dim=width)

    def forward(self, bucket: Tensor) -> Tensor:
        """int64 [B] to [B, width]."""
        code = self.time_proj(bucket)
        return self.timestep_embedder(code.to(self.timestep_embedder.linear_1.weight.dtype))
