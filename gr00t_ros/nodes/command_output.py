# SPDX-License-Identifier: Apache-2.0
"""The executor's command topics: one publisher a group, or its stand-in for a dry run.

Messages are made once and filled anew each period: to make a trajectory of six points costs four times as
much as to publish it.
"""

from __future__ import annotations

import array
import copy
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from gr00t_ros.commands import GroupCommand
from gr00t_ros.nodes.conversions import COMMAND_TYPES, NS_PER_S, command_msg
from gr00t_ros.robot_types import (
    FLOAT64_MULTI_ARRAY,
    JOINT_TRAJECTORY,
    VELOCITIES,
    ActionGroupConfig,
)

DRY_RUN = "dry_run"


def command_topic(group: ActionGroupConfig, dry_run: bool) -> str:
    """Where a group's commands go: its own topic, or in a dry run ``dry_run/<topic>`` in the node's
    namespace, to which no controller listens."""
    return f"{DRY_RUN}/{group.topic.lstrip('~/')}" if dry_run else group.topic


class CommandOutput:
    """Publishes commands. ``publish`` is the control thread's alone."""

    def __init__(
        self, node: LifecycleNode, groups: Iterable[ActionGroupConfig], qos: QoSProfile, *, dry_run: bool
    ) -> None:
        self._node = node
        self._publishers: dict[str, Publisher] = {}
        self._topics: dict[str, Publisher] = {}
        self._keys: dict[str, str] = {}
        self._filled: dict[str, Trajectories | Arrays] = {}
        for group in groups:
            publisher = node.create_lifecycle_publisher(
                COMMAND_TYPES[group.interface],
                command_topic(group, dry_run),
                # rclpy writes qos_overrides into the profile it is given.
                copy.copy(qos),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            self._publishers[group.key] = self._topics[publisher.topic_name] = publisher
            self._keys[publisher.topic_name] = group.key
            if group.interface == JOINT_TRAJECTORY:
                self._filled[group.key] = Trajectories(group.joints)
            elif group.interface == FLOAT64_MULTI_ARRAY:
                self._filled[group.key] = Arrays(group)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that commands go to, after remapping."""
        return tuple(self._topics)

    def publish(self, command: GroupCommand, now_ns: int) -> None:
        """Sends one command; its times count from ``now_ns`` (ROS time)."""
        key = command.group.key
        filled = self._filled.get(key)
        message = command_msg(command, now_ns) if filled is None else filled.fill(command, now_ns)
        self._publishers[key].publish(message)

    def key(self, topic: str) -> str:
        """The action group that is commanded on a topic."""
        return self._keys[topic]

    def subscribers(self) -> Mapping[str, int]:
        """How many subscribers each command topic has."""
        return {topic: publisher.get_subscription_count() for topic, publisher in self._topics.items()}

    def close(self) -> None:
        """Lets go of the topics."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers, self._topics = {}, {}


class Trajectories:
    """JointTrajectory messages for ``joints``, one for each number of points, filled anew each time."""

    def __init__(self, joints: Iterable[str]) -> None:
        self._joints = list(joints)
        self._made: dict[int, tuple[JointTrajectory, list[_Row]]] = {}

    def fill(self, command: GroupCommand, now_ns: int) -> JointTrajectory:
        """``command`` as :func:`command_msg` would make it. The message is valid until the next call."""
        ahead = 0 if command.begin is None else 1
        count = ahead + len(command.times_s)
        if count not in self._made:
            self._made[count] = self._make(count)
        message, rows = self._made[count]
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(now_ns, NS_PER_S)
        if command.begin is not None:
            rows[0].fill(*command.begin, 0.0)
        for row, position, velocity, due_s in zip(
            rows[ahead:], command.positions, command.velocities, command.times_s.tolist(), strict=True
        ):
            row.fill(position, velocity, due_s)
        return message

    def _make(self, count: int) -> tuple[JointTrajectory, list[_Row]]:
        rows = [_Row(len(self._joints)) for _ in range(count)]
        return JointTrajectory(joint_names=self._joints, points=[row.point for row in rows]), rows


class Arrays:
    """The Float64MultiArray of a group, filled anew each time."""

    def __init__(self, group: ActionGroupConfig) -> None:
        size = group.width
        self._message = Float64MultiArray(data=array.array("d", bytes(8 * size)))
        self._message.layout.dim = [MultiArrayDimension(label="joints", size=size, stride=size)]
        self._data: NDArray[np.float64] = np.frombuffer(self._message.data, np.float64)
        self._velocity = group.representation in VELOCITIES

    def fill(self, command: GroupCommand, now_ns: int) -> Float64MultiArray:
        """``command`` as :func:`command_msg` would make it. The message is valid until the next call."""
        self._data[:] = (command.velocities if self._velocity else command.positions)[0]
        return self._message


class _Row:
    """One point, and its numbers as arrays."""

    def __init__(self, width: int) -> None:
        self.point = JointTrajectoryPoint(
            positions=array.array("d", bytes(8 * width)), velocities=array.array("d", bytes(8 * width))
        )
        self._positions: NDArray[np.float64] = np.frombuffer(self.point.positions, np.float64)
        self._velocities: NDArray[np.float64] = np.frombuffer(self.point.velocities, np.float64)
        self._due_s = 0.0

    def fill(self, position: NDArray[np.float64], velocity: NDArray[np.float64], due_s: float) -> None:
        self._positions[:] = position
        self._velocities[:] = velocity
        if due_s != self._due_s:  # the same in every period but for those that brake
            due, self._due_s = self.point.time_from_start, due_s
            due.sec, due.nanosec = divmod(round(due_s * NS_PER_S), NS_PER_S)
