# SPDX-License-Identifier: Apache-2.0
"""Which motion moves an action group: it follows from what the group's values are."""

from __future__ import annotations

from gr00t_ros.motion_pose import PoseMotion
from gr00t_ros.motion_streamed import StreamedMotion
from gr00t_ros.motion_trajectory import TrajectoryMotion
from gr00t_ros.motion_types import Motion
from gr00t_ros.motion_velocity import VelocityMotion
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import EE_POSE, JOINT_TRAJECTORY, VELOCITIES, ActionGroupConfig
from gr00t_ros.safety import SafetyFilter


def motion_for(
    group: ActionGroupConfig, robot: RobotConfig, safety: SafetyFilter, *, period_s: float, lookahead_s: float
) -> Motion:
    """A command every ``period_s``; whoever interpolates is at rest ``lookahead_s`` after the last one."""
    if group.representation in VELOCITIES:
        return VelocityMotion(group, robot, safety, period_s=period_s)
    if group.representation == EE_POSE:
        return PoseMotion(group, robot, safety, period_s=period_s)
    if group.interface == JOINT_TRAJECTORY:
        return TrajectoryMotion(group, robot, safety, period_s=period_s, lookahead_s=lookahead_s)
    return StreamedMotion(group, robot, safety)
