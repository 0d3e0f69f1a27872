# SPDX-License-Identifier: Apache-2.0
"""The executor's command topics: one publisher a group, or its stand-in for a dry run.

Trajectories and arrays are kept in their serialized form and only their numbers are written (``wire``): to
make and convert a trajectory of six points costs rclpy more than all else that is done to send it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping

import numpy as np
from builtin_interfaces.msg import Duration, Time
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from gr00t_ros.commands import GroupCommand
from gr00t_ros.nodes.conversions import COMMAND_TYPES, NS_PER_S, command_msg
from gr00t_ros.nodes.wire import LayoutUnknown, WireMessage
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
        self._serialized: dict[str, Trajectories | Arrays] = {}
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
            with contextlib.suppress(LayoutUnknown):  # what is not serialized here is by rclpy
                if group.interface == JOINT_TRAJECTORY:
                    self._serialized[group.key] = Trajectories(group)
                elif group.interface == FLOAT64_MULTI_ARRAY:
                    self._serialized[group.key] = Arrays(group)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that commands go to, after remapping."""
        return tuple(self._topics)

    def publish(self, command: GroupCommand, now_ns: int) -> None:
        """Sends one command; its times count from ``now_ns`` (ROS time)."""
        key = command.group.key
        serialized = self._serialized.get(key)
        if serialized is not None:
            try:
                self._publishers[key].publish(serialized.fill(command, now_ns))
                return
            except LayoutUnknown:
                del self._serialized[key]
        self._publishers[key].publish(command_msg(command, now_ns))

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
    """The JointTrajectory of a group in its serialized form, one for each number of points."""

    def __init__(self, group: ActionGroupConfig) -> None:
        self._joints = list(group.joints)
        self._made: dict[int, tuple[WireMessage, list[float]]] = {}

    def fill(self, command: GroupCommand, now_ns: int) -> bytes:
        """``command`` as :func:`command_msg` would make it, serialized. Raises LayoutUnknown."""
        ahead = 0 if command.begin is None else 1
        count = ahead + len(command.times_s)
        if count not in self._made:
            self._made[count] = (
                WireMessage(self._make, 2 * count * len(self._joints), 1 + count),
                [-1.0] * count,
            )
        wire, known = self._made[count]
        wire.write_time(0, now_ns)
        # All positions, then all velocities: see _make.
        half, first = count * len(self._joints), ahead * len(self._joints)
        if command.begin is not None:
            wire.write_doubles(0, command.begin[0])
            wire.write_doubles(half, command.begin[1])
        wire.write_doubles(first, command.positions)
        wire.write_doubles(half + first, command.velocities)
        for place, due_s in enumerate([*[0.0] * ahead, *command.times_s.tolist()]):
            if known[place] != due_s:  # the same in every period but for those that brake
                wire.write_time(1 + place, round(due_s * NS_PER_S))
                known[place] = due_s
        return wire.serialized()

    def _make(self, values: NDArray[np.float64], times: NDArray[np.int32]) -> JointTrajectory:
        positions, velocities = values.reshape(2, -1, len(self._joints)).tolist()
        (sec, nanosec), *due = times.tolist()
        message = JointTrajectory(joint_names=self._joints)
        message.header.stamp = Time(sec=sec, nanosec=nanosec)
        message.points = [
            JointTrajectoryPoint(
                positions=position, velocities=velocity, time_from_start=Duration(sec=s, nanosec=ns)
            )
            for position, velocity, (s, ns) in zip(positions, velocities, due, strict=True)
        ]
        return message


class Arrays:
    """The Float64MultiArray of a group in its serialized form."""

    def __init__(self, group: ActionGroupConfig) -> None:
        self._size = group.width
        self._velocity = group.representation in VELOCITIES
        self._wire = WireMessage(self._make, group.width, 0)

    def fill(self, command: GroupCommand, now_ns: int) -> bytes:
        """``command`` as :func:`command_msg` would make it, serialized."""
        self._wire.write_doubles(0, (command.velocities if self._velocity else command.positions)[0])
        return self._wire.serialized()

    def _make(self, values: NDArray[np.float64], times: NDArray[np.int32]) -> Float64MultiArray:
        message = Float64MultiArray(data=values.tolist())
        message.layout.dim = [MultiArrayDimension(label="joints", size=self._size, stride=self._size)]
        return message
