# SPDX-License-Identifier: Apache-2.0
"""What every engine offers to the policy, whatever it runs on.

An engine is made for one checkpoint, one embodiment and one number of denoising steps; a call is a chunk.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from gr00t_model.inference.guidance import Guidance


class Engine(Protocol):
    """One network on one device, ready to compute chunks."""

    backend: str
    """pytorch or tensorrt"""
    device: torch.device
    precision: str
    """of most of the arithmetic: float32, bfloat16, fp8, int8 or nvfp4"""
    notes: list[str]
    """what the engine decided by itself, in words fit for a log; `prepare` may add to them"""

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...] | None:
        """Height and width of the images that it takes, as the network sees them [px]; None for any."""
        ...

    def run(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None = None
    ) -> np.ndarray:
        """One inference.

        Args:
            inputs: what ``Gr00tProcessor.encode(..., pixels="uint8")`` gives, on the CPU.
            noise: float32 [B, H, D] to start from, or None to draw it from torch's generator. H may be
                shorter than the checkpoint's horizon.
            guidance: a committed plan to join, or None.

        Returns:
            float32 [B, H, D]: the normalised action chunk, on the CPU. It may hold non-finite values where
            the inputs do or the weights are broken; decoding refuses those.

        Raises:
            ObservationError, EmbodimentError: an input is missing, misshaped or out of range.
            BackendError: the device failed or its memory does not suffice.
        """
        ...

    def prepare(self, inputs: Mapping[str, Any], *, guided: bool = False) -> None:
        """Do now what the shapes of these inputs need once: tables, graphs; with `guided` also for chunks
        that join a committed plan. Slow; never while a robot waits for a chunk."""
        ...

    def catch_up(self) -> None:
        """Do now what the last chunk would have gained from having. Called between two chunks; takes up to
        a second the first time a shape is seen, and nothing otherwise."""
        ...
