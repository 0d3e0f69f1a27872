# SPDX-License-Identifier: Apache-2.0
"""Between a dataset's units and SI: the one place where degrees, percent or ticks become rad, m, s, and back.

The observation builder goes from SI (what ROS messages carry) to dataset units (what the checkpoint was
trained on); ``chunk_from_actions`` goes the other way. Both take the same ``JointUnit`` from the robot YAML,
so the two directions cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot_types import EE_POSE, POSITION_COLUMNS, TWIST, ActionGroupConfig


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


def rates_to_si(values: ArrayLike, units: Sequence[JointUnit]) -> NDArray[np.float64]:
    """Dataset units per second [..., D] to SI velocities, the inverse of :func:`rates_to_dataset`."""
    gain, _ = _factors(units)
    return np.asarray(values, np.float64) * gain


def refuse_units(units: Mapping[str, JointUnit], groups: Iterable[ActionGroupConfig], path: str) -> None:
    """Refuse units that a column of a twist or a pose cannot have. ``path`` is where they stand.

    Raises:
        RobotConfigError: an offset for a velocity, or any unit for a column of a rotation.
    """
    for group in groups:
        for name, column in zip(group.unit_names, group.columns, strict=True):
            unit = units.get(name, SI)
            if group.representation == TWIST and unit.offset != 0.0:
                raise RobotConfigError(
                    f"{path}.{name}.offset: found {unit.offset:g}, expected none: a velocity of zero is zero "
                    "in every unit"
                )
            if group.representation == EE_POSE and column not in POSITION_COLUMNS and unit != SI:
                raise RobotConfigError(
                    f"{path}.{name}: found a unit, expected none: a rotation's columns ({group.rotation}) "
                    "have a fixed meaning, a rotation vector is in rad"
                )
