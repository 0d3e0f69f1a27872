# SPDX-License-Identifier: Apache-2.0
"""Between the columns of an action group as the checkpoint has them and as chunks carry them.

The checkpoint: dataset units, a rotation in any of three forms. A chunk: SI, a rotation as a quaternion. The
policy's output, the plan that it continues and recorded actions all cross here, so that the directions cannot
drift apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import EE_POSE, VELOCITIES, ActionGroupConfig
from gr00t_ros.rotations import continuous, from_quaternion, to_quaternion
from gr00t_ros.units import rates_to_dataset, rates_to_si, to_dataset, to_si

Values = NDArray[np.float64]


def from_checkpoint(robot: RobotConfig, group: ActionGroupConfig, values: ArrayLike) -> Values:
    """Columns [T, ``group.width``] in dataset units to those of a chunk [T, ``len(group.names)``].

    Velocities take scale and sign of a unit, no offset. Raises ValueError where a rotation says nothing about
    a direction; values that are not finite pass, for others to refuse by name.
    """
    units = [robot.unit(name) for name in group.unit_names]
    if group.representation in VELOCITIES:
        return rates_to_si(values, units)
    return to_quaternions(to_si(values, units), group.rotation) if _is_pose(group) else to_si(values, units)


def to_checkpoint(robot: RobotConfig, group: ActionGroupConfig, values: ArrayLike) -> Values:
    """Columns of a chunk [T, ``len(group.names)``] to the checkpoint's [T, ``group.width``], the inverse of
    :func:`from_checkpoint`."""
    units = [robot.unit(name) for name in group.unit_names]
    si = np.asarray(values, np.float64)
    if group.representation in VELOCITIES:
        return rates_to_dataset(si, units)
    if _is_pose(group):
        rotation = from_quaternion(to_quaternion(si[..., 3:], "quaternion"), group.rotation)
        si = np.concatenate([si[..., :3], rotation], axis=-1)
    return to_dataset(si, units)


def to_quaternions(poses: ArrayLike, rotation: str) -> Values:
    """Poses [T, 3 + rotation] to [T, 7] with unit quaternions of which each is next to the one before. Raises
    ValueError; a pose that is not finite becomes one that is not finite."""
    values = np.asarray(poses, np.float64)
    finite = np.isfinite(values).all(axis=-1)
    turned = np.full((len(values), 4), np.nan)
    if finite.any():
        turned[finite] = continuous(to_quaternion(values[finite, 3:], rotation))
    return np.concatenate([values[:, :3], turned], axis=-1)


def _is_pose(group: ActionGroupConfig) -> bool:
    return group.representation == EE_POSE
