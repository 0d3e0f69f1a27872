# SPDX-License-Identifier: Apache-2.0
"""How exact an engine must be on this robot: the robot YAML's limits, in the units the checkpoint speaks.

``gr00t_model.inference.verification`` compares an engine with the float32 network in dataset units by these.
The policy node and ``benchmark`` ask for them here, so both refuse the same engines.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import EE_POSE, POSITION_COLUMNS, QUATERNION, ActionGroupConfig
from gr00t_ros.units import rates_to_dataset


def engine_limits(robot: RobotConfig) -> dict[str, NDArray[np.float64]]:
    """Largest error of each column, positive, dataset units [D], by action key.

    A limit is a difference, so a joint's scale applies to it, its offset and sign do not. Columns of a
    rotation are limited by what an error of that many rad does to them at most.
    """
    return {
        key: np.abs(rates_to_dataset(_limits(robot, group), [robot.unit(name) for name in group.unit_names]))
        for key, group in robot.action.items()
    }


def joint_names(robot: RobotConfig) -> Mapping[str, tuple[str, ...]]:
    """Names of the columns by action key, for messages."""
    return {key: group.columns for key, group in robot.action.items()}


def _limits(robot: RobotConfig, group: ActionGroupConfig) -> list[float]:
    """SI: of each joint its own, of a twist or pose the group's."""
    usual = robot.verification.max_joint_error
    if group.joints:
        own = [robot.limits[joint].max_engine_error for joint in group.joints]
        return [usual if limit is None else limit for limit in own]
    limit = robot.group_limits[group.key].max_engine_error
    limit = usual if limit is None else limit
    # A quaternion has half of the angle in it.
    rotated = limit / 2.0 if group.rotation == QUATERNION else limit
    is_turn = group.representation == EE_POSE
    return [rotated if is_turn and column not in POSITION_COLUMNS else limit for column in group.columns]
