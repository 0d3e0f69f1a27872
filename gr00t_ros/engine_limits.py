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
from gr00t_ros.units import rates_to_dataset


def engine_limits(robot: RobotConfig) -> dict[str, NDArray[np.float64]]:
    """Largest error of each column, positive, dataset units [D], by action key.

    A limit is a difference, so a joint's scale applies to it, its offset and sign do not.
    """
    limits = {}
    for key, group in robot.action.items():
        si = [_limit(robot, joint) for joint in group.joints]
        limits[key] = np.abs(rates_to_dataset(si, [robot.unit(joint) for joint in group.joints]))
    return limits


def joint_names(robot: RobotConfig) -> Mapping[str, tuple[str, ...]]:
    """Names of the columns by action key, for messages."""
    return {key: group.joints for key, group in robot.action.items()}


def _limit(robot: RobotConfig, joint: str) -> float:
    own = robot.limits[joint].max_engine_error
    return robot.verification.max_joint_error if own is None else own
