# SPDX-License-Identifier: Apache-2.0
"""What has a path: the end effectors of a robot, found from its YAML and its URDF.

An arm is an action group of joints (position or velocity). Its end effector is a link without further joints
below it: of the links that hang rigidly on the arm's last joint, the one named like a tool, or else the one
furthest from that joint. A group that carries another arm (a waist, a lift) has none of its own; nor has a
gripper, which opens and closes at an arm's end. A group of poses is an end effector by itself and needs no
URDF.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import EE_POSE, SCALAR, ActionGroupConfig
from gr00t_ros.urdf import FIXED
from gr00t_ros.visualization.robot_model import RobotModel

# How the point that a tool works with is called in common URDFs.
_TOOL = re.compile(r"(^|_)(tool\d*|tcp|ee|eef|grasp|tip)(_|$)|gripper_frame|end_effector", re.IGNORECASE)
_GRIPPER = re.compile(r"gripper|finger|hand|jaw", re.IGNORECASE)


class EffectorError(Gr00tRosError):
    """An end effector is asked for that the robot does not have."""


@dataclass(frozen=True)
class Effector:
    """One end effector: a ``link`` of the URDF whose pose is computed from joints, or a pose group ``key``
    (then ``link`` is empty). ``frame`` is the frame in which its path is given."""

    name: str
    key: str
    frame: str
    link: str = ""


def find_effectors(
    robot: RobotConfig, model: RobotModel | None, wanted: Sequence[str] = ()
) -> tuple[list[Effector], list[str]]:
    """The end effectors, and sentences about what has none because something is missing.

    ``wanted`` are links of the URDF to take instead of those found; pose groups stay. Raises EffectorError
    for one that the URDF does not have.
    """
    poses = [
        Effector(group.child_frame or key, key, group.frame_id)
        for key, group in robot.action.items()
        if group.representation == EE_POSE
    ]
    arms = {key: group for key, group in robot.action.items() if group.joints}
    if model is None:
        missing = [f"no robot model: no path of {', '.join(arms)}"] if arms else []
        return poses, missing
    if wanted:
        return [_named(link, model, arms) for link in wanted] + poses, []
    found, missing = [], []
    for key, group in arms.items():
        absent = [joint for joint in group.joints if joint not in model.joints]
        if absent:
            missing.append(f"the robot model has no joint {', '.join(absent)} of {key}")
        elif not is_gripper(group, arms, model) and not _carries(group, arms, model):
            found += [Effector(link, key, model.frame_of(link), link) for link in _tips(group, model)]
    return found + poses, missing


def is_gripper(group: ActionGroupConfig, arms: Mapping[str, ActionGroupConfig], model: RobotModel) -> bool:
    """Whether ``group`` opens and closes at the end of another one of ``arms``."""
    if group.representation == SCALAR:
        return True
    others = {joint for arm in arms.values() if arm.key != group.key for joint in arm.joints}
    above = {joint.name for link in _driven(group, model) for joint in model.chain(link)}
    if not above & others:
        return False
    return len(group.joints) == 1 or len(_tips(group, model)) > 1 or bool(_GRIPPER.search(group.key))


def _named(link: str, model: RobotModel, arms: Mapping[str, ActionGroupConfig]) -> Effector:
    if link not in model.links:
        raise EffectorError(
            f"end_effectors: found {link!r}, which is no link of the robot model; it has "
            f"{', '.join(model.links)}"
        )
    above = [joint.name for joint in reversed(model.chain(link))]
    keys = {joint: key for key, group in arms.items() for joint in group.joints}
    key = next((keys[joint] for joint in above if joint in keys), "")
    return Effector(link, key, model.frame_of(link), link)


def _driven(group: ActionGroupConfig, model: RobotModel) -> list[str]:
    """The links right below the group's joints."""
    joints = model.joints
    return [joints[name].child for name in group.joints if name in joints]


def _carries(group: ActionGroupConfig, arms: Mapping[str, ActionGroupConfig], model: RobotModel) -> bool:
    """Whether joints of another group that is no gripper hang on this one's."""
    below = set(model.below(_driven(group, model)))
    return any(
        other.key != group.key
        and not is_gripper(other, arms, model)
        and not below.isdisjoint(_driven(other, model))
        and not below.issubset(model.below(_driven(other, model)))
        for other in arms.values()
    )


def _tips(group: ActionGroupConfig, model: RobotModel) -> list[str]:
    """One link for each branch of the group's joints."""
    # A gripper may be in one group with its arm, as in most LeRobot datasets of small arms.
    arm = [name for name in group.joints if not _GRIPPER.search(name)] or list(group.joints)
    driven = [model.joints[name].child for name in arm if name in model.joints]
    last = [link for link in driven if set(model.below([link])).isdisjoint(set(driven) - {link})]
    return [_tip(link, model) for link in last]


def _tip(link: str, model: RobotModel) -> str:
    """The end of what hangs rigidly on ``link``."""
    rigid: dict[str, np.ndarray] = {link: np.eye(4)}
    order = [link]
    for parent in order:  # grows while it is walked
        for child in model.children.get(parent, ()):
            joint = model.above[child]
            if joint.type == FIXED:
                rigid[child] = rigid[parent] @ joint.origin
                order.append(child)
    ends = [child for child in order if not model.children.get(child)]
    tools = [child for child in order if _TOOL.search(child)]
    candidates = tools or ends or [link]
    return max(candidates, key=lambda child: (float(np.linalg.norm(rigid[child][:3, 3])), order.index(child)))
