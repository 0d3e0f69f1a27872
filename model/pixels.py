# SPDX-License-Identifier: Apache-2.0
"""From the processor's uint8 pixels to what the vision tower takes. Apart from the rest of the processing,
because engines do this on their device."""

import torch


def pixels_to_float(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels to float32 in [-1, 1], on the pixels' device, with the same bits everywhere.

    The divisor is a tensor because CUDA multiplies by the reciprocal of a plain number, which changes last
    bits.
    """
    half = torch.full((), 127.5, dtype=torch.float32, device=pixels.device)
    return (pixels.to(torch.float32) - half) / half
