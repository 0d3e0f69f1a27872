# SPDX-License-Identifier: Apache-2.0
"""Between a dataset's units and SI: the one place where degrees, percent or ticks become rad, m, s, and back.

The observation builder goes from SI (what ROS messages carry) to dataset units (what the checkpoint was
trained on); ``chunk_from_actions`` goes the other way. Both take the same ``JointUnit`` from the robot YAML,
so the two directions cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class JointUnit:
    """How one joint's dataset value maps to SI: ``si = sign * scale * dataset + offset``.

    ``scale`` is SI per dataset unit and positive (0.0174533 for degrees, 0.01 for percent of 1 m), ``sign``
    is 1 or -1 (a joint that the dataset counts the other way round), ``offset`` is the SI value of dataset
    zero.
    """

    scale: float = 1.0
    offset: float = 0.0
    sign: int = 1


SI = JointUnit()


def to_si(values: ArrayLike, units: Sequence[JointUnit]) -> NDArray[np.float64]:
    """Dataset units [..., D] to SI [..., D], column i by ``units[i]``. Works for positions."""
    gain, offset = _factors(units)
    return np.asarray(values, np.float64) * gain + offset


def to_dataset(values: ArrayLike, units: Sequence[JointUnit]) -> NDArray[np.float64]:
    """SI [..., D] to dataset units [..., D], the inverse of :func:`to_si`."""
    gain, offset = _factors(units)
    return (np.asarray(values, np.float64) - offset) / gain


def rates_to_dataset(values: ArrayLike, units: Sequence[JointUnit]) -> NDArray[np.float64]:
    """SI velocities [..., D] to dataset units per second: scale and sign apply, an offset has no meaning."""
    gain, _ = _factors(units)
    return np.asarray(values, np.float64) / gain


def _factors(units: Sequence[JointUnit]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return (
        np.array([unit.sign * unit.scale for unit in units], np.float64),
        np.array([unit.offset for unit in units], np.float64),
    )
