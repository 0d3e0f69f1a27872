# SPDX-License-Identifier: Apache-2.0
"""What the chunk executor reads once a period: chunks, measured joints, and the policy's sign of life."""

from __future__ import annotations

import copy
from collections.abc import Callable

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import JointState

from gr00t_ros.causes import CauseLog, without_numbers
from gr00t_ros.errors import ChunkRefused, MessageError
from gr00t_ros.execution import Execution, State
from gr00t_ros.msg import ActionChunk, PolicyStatus
from gr00t_ros.nodes.conversions import chunk_from_msg, nanoseconds
from gr00t_ros.nodes.polling import Polled, nothing, take
from gr00t_ros.robot_types import RECEIVE
from gr00t_ros.watchdogs import Watchdogs

# Joint states that are read in one period: several drivers may share the topic, each with its own joints.
# What is more than the subscription keeps (5, as sensors do) is dropped by the middleware.
JOINT_STATES_A_PERIOD = 8
# How often the policy's sign of life is looked for, in ns: twice as often as it comes.
LISTEN_NS = 100_000_000


class Inputs:
    """The subscriptions; from its making until :meth:`close`. ``read`` is the control thread's alone."""

    def __init__(
        self,
        node: Node,
        execution: Execution,
        watchdogs: Watchdogs,
        newest: QoSProfile,
        warn: Callable[[str], None],
        now_ns: int,
    ) -> None:
        """``newest`` is the quality of service of chunks, ``warn`` is told what was refused."""
        self._node, self._execution, self._watchdogs = node, execution, watchdogs
        self._refusals = CauseLog(warn)
        self._receive_time = execution.robot.executor_joint_state_stamp == RECEIVE
        self._read_ns = now_ns  # when the last period read
        self._listen_ns = 0  # when the policy's sign of life is looked for next
        polled = Polled()
        self._chunks = node.create_subscription(
            ActionChunk, "action_chunk", nothing, newest, callback_group=polled
        )
        # Only that it came counts, so it is not decoded.
        self._policy = node.create_subscription(
            PolicyStatus, "policy/status", nothing, newest, callback_group=polled, raw=True
        )
        self._joint_states = node.create_subscription(
            JointState,
            execution.robot.executor.joint_state_topic,
            nothing,
            # rclpy writes qos_overrides into the profile it is given.
            copy.copy(qos_profile_sensor_data),
            callback_group=polled,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

        # One topic may tell several groups where they are.
        self._groups: dict[str, list[str]] = {}
        for group in execution.robot.action.values():
            if group.measured_topic:
                self._groups.setdefault(group.measured_topic, []).append(group.key)
        self._poses = {
            topic: node.create_subscription(
                PoseStamped,
                topic,
                nothing,
                copy.copy(qos_profile_sensor_data),
                callback_group=polled,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for topic in self._groups
        }

    def close(self) -> None:
        """Unsubscribes."""
        for subscription in (self._chunks, self._policy, self._joint_states, *self._poses.values()):
            self._node.destroy_subscription(subscription)

    def read(self, now_ns: int, mono_ns: int, *, chunks: bool = True) -> None:
        """Hands on what came in since the last period: at most one chunk, the newest; none without
        ``chunks``."""
        if mono_ns >= self._listen_ns:
            self._listen_ns = mono_ns + LISTEN_NS
            for _ in take(self._policy, 1):
                self._watchdogs.heard(mono_ns)
        # Where the time of arrival counts: it came after the last period read, so it is at most that old.
        arrival_ns = self._read_ns if self._receive_time else now_ns
        for message in take(self._joint_states, JOINT_STATES_A_PERIOD):
            self._measure(message, arrival_ns)
        for topic, subscription in self._poses.items():
            for message in take(subscription, JOINT_STATES_A_PERIOD):
                self._measure_pose(message, topic, now_ns)
        if chunks:
            for message in take(self._chunks, 1):
                self._offer(message, now_ns, mono_ns)
        self._read_ns = now_ns

    def _offer(self, message: ActionChunk, now_ns: int, mono_ns: int) -> None:
        try:
            try:
                chunk = chunk_from_msg(message)
            except ChunkRefused as refusal:
                self._execution.refuse(str(refusal))
                raise
            self._execution.offer(chunk, now_ns)
        except ChunkRefused as refusal:
            if self._execution.state == State.STOPPED:
                return  # why it stopped has been said; that nothing is executed since then is no news
            # One sentence a reason: numbers in it change from chunk to chunk.
            self._refusals.add("chunk " + without_numbers(str(refusal)), f"chunk refused: {refusal}")
        else:
            self._watchdogs.accepted(chunk.t_obs_ns, chunk.end_ns, mono_ns)
            self._refusals.remove("chunk ")

    def _measure(self, message: JointState, arrival_ns: int) -> None:
        try:
            stamp_ns = nanoseconds(message.header.stamp)
            self._execution.measure(message.name, message.position, stamp_ns, arrival_ns)
        except MessageError as error:
            self._refusals.add("joints " + without_numbers(str(error)), f"message refused: {error}")
        else:
            self._refusals.remove("joints ")

    def _measure_pose(self, message: PoseStamped, topic: str, now_ns: int) -> None:
        place, turn = message.pose.position, message.pose.orientation
        pose = (place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w)
        stamp_ns = nanoseconds(message.header.stamp)
        try:
            for key in self._groups[topic]:
                # Where the time of arrival counts, as for joints: it came after the last period read.
                receive = self._execution.robot.action[key].measured_stamp == RECEIVE
                arrival_ns = self._read_ns if receive else now_ns
                self._execution.measure_pose(key, message.header.frame_id, pose, stamp_ns, arrival_ns)
        except MessageError as error:
            self._refusals.add("pose " + without_numbers(str(error)), f"message refused: {error}")
        else:
            self._refusals.remove("pose ")
