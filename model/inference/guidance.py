# SPDX-License-Identifier: Apache-2.0
"""A committed plan for a chunk to join: what real-time chunking gives to an engine. Needs NumPy alone."""

from dataclasses import dataclass

import numpy as np

from gr00t_model.errors import ObservationError


@dataclass(frozen=True)
class Guidance:
    """Real-time chunking: how much each step of a chunk follows the network, and how much a plan that is
    already being executed.

    After Euler step s, at time t = (s+1)/N, with the network's velocity v:
    ``x = weight[s] * (x + v/N) + (1 - weight[s]) * ((1 - t) * noise + t * prefix)``.
    """

    prefix: np.ndarray
    """float32 [B, H, D]: the committed plan, normalised as the network's actions are, unclipped. Steps of
    weight 1 are never read, but must be finite."""
    weight: np.ndarray
    """float32 [N, H] in 0..1: 1 is the network alone, 0 the committed plan."""

    def check(self, shape: tuple[int, ...], num_steps: int) -> None:
        """Refuse what does not fit a chunk of `shape` [B, H, D].

        Raises:
            ObservationError: a shape differs, a value is not finite, or a weight is outside 0..1.
        """
        expected = (("prefix", self.prefix, shape), ("weight", self.weight, (num_steps, shape[1])))
        for name, value, wanted in expected:
            if value.shape != wanted:
                raise ObservationError(f"{name} has shape {list(value.shape)}, expected {list(wanted)}")
            if not np.isfinite(value).all():
                raise ObservationError(f"{name} holds a value that is not finite")
        if self.weight.min() < 0 or self.weight.max() > 1:
            raise ObservationError(
                f"weight reaches from {self.weight.min():g} to {self.weight.max():g}, expected 0 to 1"
            )
