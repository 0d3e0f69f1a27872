# SPDX-License-Identifier: Apache-2.0
"""Scaling of state and action values to what the network reads, and back: one small object a rule.

All work in float64 on arrays [..., T, D]; limits and moments are [D], or [T', D] per time step with T' >= T.
An encoder keeps the shape except :class:`SinCos`, which doubles the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Scaling(Protocol):
    """What every rule offers."""

    def encode(self, values: Array) -> Array:
        """Physical to normalised values. Cutting outliers to [-1, 1] is the caller's: states and actions
        differ.
        """
        ...

    def decode(self, values: Array) -> Array:
        """Normalised to physical values."""
        ...


@dataclass(frozen=True, eq=False)
class MinMax:
    """Range ``low..high`` to [-1, 1]; a value whose range is empty becomes 0 and decodes to ``low``.

    Decoding cuts to [-1, 1] first: the network's overshoot must not leave the range of the data.
    """

    low: Array
    high: Array

    def encode(self, values: Array) -> Array:
        """Physical values to [-1, 1], further out for values outside the range."""
        low, high = _steps(self.low, values), _steps(self.high, values)
        span = high - low
        empty = span == 0
        scaled = 2.0 * (values - low) / np.where(empty, 1.0, span) - 1.0
        return np.where(empty, 0.0, scaled)

    def decode(self, values: Array) -> Array:
        """[-1, 1] to physical values."""
        low, high = _steps(self.low, values), _steps(self.high, values)
        return (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (high - low) + low


@dataclass(frozen=True, eq=False)
class MeanStd:
    """``(x - mean) / std``; where std is 0 the value passes unchanged, both ways. Decoding never clips."""

    mean: Array
    std: Array

    def encode(self, values: Array) -> Array:
        """Physical values to multiples of std around the mean."""
        mean, std = _steps(self.mean, values), _steps(self.std, values)
        constant = std == 0
        return np.where(constant, values, (values - mean) / np.where(constant, 1.0, std))

    def decode(self, values: Array) -> Array:
        """Multiples of std to physical values."""
        mean, std = _steps(self.mean, values), _steps(self.std, values)
        return np.where(std == 0, values, values * std + mean)


@dataclass(frozen=True)
class SinCos:
    """Angles to ``[sin of all, cos of all]``, twice as wide; no statistics are needed."""

    def encode(self, values: Array) -> Array:
        """Angles (radians) [..., D] to [..., 2 D]."""
        return np.concatenate([np.sin(values), np.cos(values)], axis=-1)

    def decode(self, values: Array) -> Array:
        """Angles in (-pi, pi]."""
        half = values.shape[-1] // 2
        return np.arctan2(values[..., :half], values[..., half:])


def _steps(statistic: Array, values: Array) -> Array:
    """A per-step statistic [T', D] cut to the time steps that the values have."""
    return statistic[: values.shape[-2]] if statistic.ndim == 2 else statistic
