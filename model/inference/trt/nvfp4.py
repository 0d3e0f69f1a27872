# SPDX-License-Identifier: Apache-2.0
"""NVFP4: four-bit values, an eight-bit scale for each block of 16, and one float32 scale for all blocks.

A value is E2M1 (0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives) times the block's E4M3 scale times the global
scale, which is chosen so that the largest block scale is E4M3's largest number. Weights are stored so;
activations take their blocks' scales while the engine runs, and only the global one comes from calibration.

Here in plain PyTorch: what is stored, and an imitation of it to measure its error with on any device.
"""

import torch
from torch import Tensor, nn

BLOCK = 16
LARGEST, LARGEST_SCALE = 6.0, 448.0
# E4M3's smallest number above zero: a block of small values must not be divided by zero.
_SMALLEST_SCALE = 2.0**-9
# The numbers that four bits without their sign stand for.
GRID = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# What was always zero still needs a scale.
SMALLEST = 1e-6


def global_scale(largest: float | Tensor) -> Tensor:
    """The float32 scale [] of values that reach up to `largest`, which is above zero."""
    return torch.as_tensor(largest, dtype=torch.float32) / (LARGEST * LARGEST_SCALE)


def block_scales(values: Tensor, scale: Tensor) -> Tensor:
    """E4M3 [..., n / 16] of values [..., n], n a multiple of 16. `scale` is the global one."""
    wanted = values.unflatten(-1, (-1, BLOCK)).abs().amax(dim=-1).float() / (LARGEST * scale)
    return wanted.clamp(_SMALLEST_SCALE, LARGEST_SCALE).to(torch.float8_e4m3fn)


def quantised(values: Tensor, scales: Tensor, scale: Tensor) -> Tensor:
    """Values [..., n] on the E2M1 grid, float32 of the same shape, by `block_scales` and the global scale."""
    units = values.float().unflatten(-1, (-1, BLOCK)) / (scales.float() * scale)[..., None]
    size = units.abs()
    # The distance of two neighbours: 0.5 up to 2, 1 up to 4, then 2. Halves go to the even neighbour.
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return ((units / step).round() * step).clamp(-LARGEST, LARGEST).flatten(-2)


def imitated(values: Tensor, scale: Tensor) -> Tensor:
    """Values [..., n] as they come back from NVFP4, in their own type."""
    scales = block_scales(values, scale)
    units = quantised(values, scales, scale).unflatten(-1, (-1, BLOCK))
    return (units * (scales.float() * scale)[..., None]).flatten(-2).to(values.dtype)


def packed(weight: Tensor, scale: Tensor) -> Tensor:
    """A weight [out, in] as it is stored: uint8 [out, in / 2] on the CPU, the first of two values in the low
    bits."""
    weight = weight.detach().cpu()
    units = quantised(weight, block_scales(weight, scale), scale)
    code = torch.bucketize(units.abs(), torch.tensor(GRID)).to(torch.uint8)
    code |= units.signbit().to(torch.uint8) << 3
    return code[:, ::2] | (code[:, 1::2] << 4)


class Imitation(nn.Module):
    """Takes the place of modelopt's quantiser, whose NVFP4 needs CUDA, with the range that it measured."""

    def __init__(self, amax: Tensor) -> None:
        super().__init__()
        self.register_buffer("amax", amax.detach().float().reshape(()))
        self._on = True

    def enable(self) -> None:
        """From now on imitate."""
        self._on = True

    def disable(self) -> None:
        """From now on let everything through."""
        self._on = False

    def forward(self, values: Tensor) -> Tensor:
        """Values [..., n], of the same type."""
        return imitated(values, global_scale(self.amax.clamp(min=SMALLEST))) if self._on else values
