# SPDX-License-Identifier: Apache-2.0
"""Which joints are grippers, and how far they are open."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_POSITION, SCALAR
from gr00t_ros.visualization.robot_model import RobotModel

_NAME = re.compile(r"gripper|finger|jaw", re.IGNORECASE)
# A hand with more joints than this is not open or closed by so many percent.
MAX_JOINTS = 2


def gripper_joints(robot: RobotConfig) -> list[str]:
    """Joints of scalar groups, and those that are named like a gripper; none of a hand with many fingers."""
    found = []
    for group in robot.action.values():
        if group.representation not in (SCALAR, JOINT_POSITION):
            continue
        named = [joint for joint in group.joints if _NAME.search(joint)]
        if group.representation == SCALAR or _NAME.search(group.key):
            named = list(group.joints)
        if len(named) <= MAX_JOINTS:
            found += named
    return found


def opening(robot: RobotConfig, joint: str, value: float) -> float:
    """How far ``value`` is from the joint's lowest limit, in percent of its range. Most grippers close
    there."""
    limits = robot.limits[joint]
    return 100.0 * (value - limits.min) / (limits.max - limits.min)


def told(robot: RobotConfig, joint: str, measured: Mapping[str, float], end: Mapping[str, float]) -> str:
    """A sentence about a gripper: where it is, and where the chunk ends. What is not known is a question
    mark; empty when nothing is known."""
    if joint not in measured and joint not in end:
        return ""
    now, then = (
        f"{opening(robot, joint, values[joint]):.0f}%" if joint in values else "?"
        for values in (measured, end)
    )
    return f"{joint} {now} to {then} open" if joint in end else f"{joint} {now} open"


def holder(model: RobotModel, joint: str, links: Mapping[str, int]) -> int | None:
    """Which of the end effectors (``links``: index by link) the gripper belongs to, or None."""
    found = model.joints.get(joint)
    if found is None:
        return None
    for link, index in links.items():
        if found.parent == link or any(above.child == found.parent for above in model.chain(link)):
            return index
    return None
