# SPDX-License-Identifier: Apache-2.0
"""Where the robot is, as the executor knows it: measured joints and poses, each with its stamp.

Nothing here is ever guessed: what was not measured lately is missing, and whoever asks is told what and on
which topic. Not thread safe; no ROS types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from gr00t_ros.errors import MessageError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import EE_POSE, RECEIVE
from gr00t_ros.rotations import to_quaternion

# How far a stamp may be ahead of this clock. Unbounded, one message from the future would stay fresh for
# ever; 0.1 s is what badly synchronised clocks on one robot reach.
MAX_STAMP_AHEAD_S = 0.1
# How far a quaternion's norm may be from 1: room for values rounded to two digits, none for an all-zero one.
QUATERNION_TOLERANCE = 0.02


class Measured:
    """The newest measurements of everything in ``names``: joints, and the parts of poses as
    ``ActionGroupConfig.measured`` names them."""

    def __init__(self, robot: RobotConfig, names: Sequence[str]) -> None:
        self._robot, self._names = robot, tuple(names)
        self._joints = frozenset(robot.joints)
        self._receive_time = robot.executor_joint_state_stamp == RECEIVE
        self._values: dict[str, tuple[float, int]] = {}  # name -> SI, stamp
        self._poses = {group.key: group for group in robot.action.values() if group.representation == EE_POSE}
        self._topics = {
            name: (f"pose of {group.key}", group.measured_topic)
            for group in self._poses.values()
            for name in group.measured
        }

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()

    @property
    def known(self) -> dict[str, float]:
        """What was measured, however old: SI by name."""
        return {name: value for name, (value, _) in self._values.items()}

    def take_joints(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int
    ) -> None:
        """The measured positions [rad, m] of some joints; one older than what is known changes nothing, nor
        does a message without any commanded joint.

        Raises MessageError when the message is damaged, unstamped, from the future, or not finite for a joint
        that is commanded.
        """
        if self._joints.isdisjoint(names):
            return  # about another part of the robot
        if len(names) != len(positions):
            raise MessageError(f"joint states: {len(names)} names but {len(positions)} positions")
        stamp_ns = now_ns if self._receive_time else stamp_ns
        _check_stamp("joint states", stamp_ns, now_ns)
        values = dict(zip(names, positions, strict=True))
        found = {joint: values[joint] for joint in self._robot.joints if joint in values}
        for joint, value in found.items():
            if not math.isfinite(value):
                raise MessageError(f"joint states: position of {joint!r} is {value}, expected a number")
        self._store(found, stamp_ns)

    def take_pose(self, key: str, frame_id: str, pose: ArrayLike, stamp_ns: int, now_ns: int) -> None:
        """The measured pose [7] (m, quaternion) of action group ``key``. Raises MessageError as
        :meth:`take_joints`, and for a pose in another frame than the group's."""
        group = self._poses[key]
        what = f"pose of {key} on {group.measured_topic}"
        stamp_ns = now_ns if group.measured_stamp == RECEIVE else stamp_ns
        _check_stamp(what, stamp_ns, now_ns)
        if frame_id != group.frame_id:
            raise MessageError(f"{what}: found it in frame {frame_id!r}, expected {group.frame_id!r}")
        values = np.asarray(pose, np.float64)
        if not np.isfinite(values).all():
            raise MessageError(f"{what}: found {values.tolist()}, expected finite numbers")
        length = float(np.linalg.norm(values[3:]))
        if abs(length - 1.0) > QUATERNION_TOLERANCE:
            raise MessageError(f"{what}: found a quaternion of length {length:.3g}, expected 1")
        values = np.concatenate([values[:3], to_quaternion(values[3:], "quaternion")])
        self._store(dict(zip(group.measured, values.tolist(), strict=True)), stamp_ns)

    def problem(self, now_ns: int) -> str:
        """An empty text when everything was measured lately."""
        if len(self._values) < len(self._names):
            missing = [name for name in self._names if name not in self._values]
            parts = self._told(missing)
            return "; ".join(f"no {what} on {topic} yet" for what, topic in parts)
        if not self._names:
            return ""
        oldest = min(self._names, key=lambda name: self._values[name][1])
        age_s = (now_ns - self._values[oldest][1]) / 1e9
        limit_s = self._robot.executor.max_joint_state_age
        if age_s <= limit_s:
            return ""
        if oldest in self._topics:
            what, topic = self._topics[oldest]
            return f"the {what} on {topic} is stale: it is older than {limit_s:g} s"
        topic = self._robot.executor.joint_state_topic
        return f"joint states are stale: {oldest} on {topic} is older than {limit_s:g} s"

    def _told(self, missing: Sequence[str]) -> Mapping[tuple[str, str], None]:
        """What is missing and where it should come from, each once, in order."""
        joints = [name for name in missing if name not in self._topics]
        told: dict[tuple[str, str], None] = {}
        if joints:
            told[f"position of {', '.join(joints)}", self._robot.executor.joint_state_topic] = None
        return told | {self._topics[name]: None for name in missing if name in self._topics}

    def _store(self, values: Mapping[str, float], stamp_ns: int) -> None:
        for name, value in values.items():
            if name not in self._values or stamp_ns >= self._values[name][1]:
                self._values[name] = (float(value), stamp_ns)


def _check_stamp(what: str, stamp_ns: int, now_ns: int) -> None:
    if stamp_ns <= 0:
        raise MessageError(f"{what}: the stamp is zero, expected the time of measurement")
    if stamp_ns - now_ns > MAX_STAMP_AHEAD_S * 1e9:
        ahead = (stamp_ns - now_ns) / 1e9
        raise MessageError(f"{what}: stamped {ahead:.3f} s ahead of this clock; synchronise the clocks")
