# SPDX-License-Identifier: Apache-2.0
"""The readable network, run as it is by PyTorch: the engine that every machine has and every other is
compared with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gr00t_model.errors import BackendError
from gr00t_model.network import Gr00tN1d6
from gr00t_model.processing import pixels_to_float


class PyTorchEngine:
    """Owns a model in eval mode on its device; one call is one chunk."""

    def __init__(self, model: Gr00tN1d6) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def run(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, num_steps: int | None = None
    ) -> np.ndarray:
        """One inference.

        Args:
            inputs: what ``Gr00tProcessor.encode`` gives, on the CPU; uint8 pixels are normalised on the
                device.
            noise: float32 [B, H, D], or None to draw it from torch's generator.
            num_steps: denoising steps; None means the checkpoint's number.

        Returns:
            float32 [B, H, D]: the normalised action chunk, on the CPU. It may hold non-finite values where
            the inputs do or the weights are broken; decoding refuses those.

        Raises:
            BackendError: the device's memory does not suffice.
        """
        try:
            on_device = {key: self._move(value) for key, value in inputs.items()}
            start = None if noise is None else torch.from_numpy(noise).to(self.device)
            output = self.model.get_action(on_device, noise=start, num_steps=num_steps)
            return output["action_pred"].float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"device {self.device} has too little memory for an inference; free memory there, or choose "
                "another device or precision bfloat16"
            ) from error

    def _move(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._move(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        moved = value.to(self.device, non_blocking=True)
        return pixels_to_float(moved) if moved.dtype == torch.uint8 else moved
