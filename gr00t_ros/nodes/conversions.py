# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the types of the core: times, chunks, plans, commands.

The nodes use nothing else to cross that border, so every convention of the wire (step-major values,
nanoseconds in two integers) is written down once, here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, PoseStamped, Quaternion, Twist, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import ChunkRefused
from gr00t_ros.msg import ActionChunk, ActionGroup, ExecutorStatus
from gr00t_ros.robot_types import (
    FLOAT64_MULTI_ARRAY,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    POSE_STAMPED,
    TWIST,
    TWIST_STAMPED,
    VELOCITIES,
)
from gr00t_ros.rtc import CommittedPlan

NS_PER_S = 1_000_000_000
# builtin_interfaces/Time and Duration count seconds in an int32.
_MAX_NS = (2**31 - 1) * NS_PER_S


def time_msg(nanoseconds: int) -> Time:
    """A point in time; clamped to what the message can hold."""
    seconds, rest = divmod(min(max(nanoseconds, 0), _MAX_NS), NS_PER_S)
    return Time(sec=seconds, nanosec=rest)


def duration_msg(nanoseconds: int) -> Duration:
    """A span of time, also a negative one; clamped to what the message can hold."""
    seconds, rest = divmod(min(max(nanoseconds, -_MAX_NS), _MAX_NS), NS_PER_S)
    return Duration(sec=seconds, nanosec=rest)


def nanoseconds(message: Time | Duration) -> int:
    """The time or span in nanoseconds."""
    return int(message.sec) * NS_PER_S + int(message.nanosec)


def group_msgs(groups: Iterable[ChunkGroup]) -> list[ActionGroup]:
    """Groups of a chunk or of a plan; values float64 [T, D] become step-major."""
    return [
        ActionGroup(
            key=group.key,
            representation=group.representation,
            names=list(group.names),
            frame_id=group.frame_id,
            child_frame=group.child_frame,
            rotation=group.rotation,
            values=np.ascontiguousarray(group.values, dtype=np.float64).reshape(-1).tolist(),
            width=group.values.shape[1],
        )
        for group in groups
    ]


def chunk_msg(chunk: Chunk) -> ActionChunk:
    """A chunk as the policy publishes it."""
    message = ActionChunk(
        session=chunk.session,
        sequence=chunk.sequence,
        instruction=chunk.instruction,
        start=time_msg(chunk.start_ns),
        step=duration_msg(chunk.step_ns),
        horizon=len(chunk.groups[0].values) if chunk.groups else 0,
        frozen_steps=chunk.frozen_steps,
        groups=group_msgs(chunk.groups),
        inference_time=duration_msg(chunk.inference_ns),
    )
    message.header.stamp = time_msg(chunk.t_obs_ns)
    return message


def chunk_from_msg(message: ActionChunk) -> Chunk:
    """A chunk as it came in, its content not yet checked. Without groups it ends the plan.

    Raises:
        ChunkRefused: the numbers of a group do not fill horizon x width, or there are steps without groups.
    """
    groups = []
    if message.horizon and not message.groups:
        raise ChunkRefused(f"found {message.horizon} steps without groups, expected groups, or no steps")
    for group in message.groups:
        count, expected = len(group.values), message.horizon * group.width
        if count != expected or count == 0:
            raise ChunkRefused(
                f"group {group.key!r} holds {count} values, expected horizon "
                f"{message.horizon} x width {group.width}"
            )
        groups.append(
            ChunkGroup(
                key=group.key,
                representation=group.representation,
                names=tuple(group.names),
                values=np.array(group.values, dtype=np.float64).reshape(message.horizon, group.width),
                frame_id=group.frame_id,
                child_frame=group.child_frame,
                rotation=group.rotation,
            )
        )
    return Chunk(
        session=message.session,
        sequence=message.sequence,
        instruction=message.instruction,
        t_obs_ns=nanoseconds(message.header.stamp),
        start_ns=nanoseconds(message.start),
        step_ns=nanoseconds(message.step),
        frozen_steps=message.frozen_steps,
        groups=tuple(groups),
        inference_ns=nanoseconds(message.inference_time),
    )


def plan_from_msg(message: ExecutorStatus) -> CommittedPlan | None:
    """The plan that an executor says it is committed to; None when it is not executing one, or when what it
    says does not add up."""
    if message.state != ExecutorStatus.EXECUTING or not message.plan_horizon or not message.plan:
        return None
    horizon, groups = message.plan_horizon, {}
    for group in message.plan:
        values = np.array(group.values, dtype=np.float64)
        if not group.width or len(values) != horizon * group.width or not np.isfinite(values).all():
            return None
        groups[group.key] = values.reshape(horizon, group.width)
    step_ns = nanoseconds(message.plan_step)
    if step_ns <= 0:
        return None
    return CommittedPlan(nanoseconds(message.header.stamp), nanoseconds(message.plan_start), step_ns, groups)


def command_msg(command: GroupCommand, now_ns: int) -> Any:
    """A command as the group's interface wants it; ``now_ns`` is the instant that its times count from.

    Float64MultiArray carries positions, or velocities of a velocity group, in the order of the group's
    joints, which is how a forward command controller is configured; it has no names and no time.
    """
    return _COMMANDS[command.group.interface](command, now_ns)


def _trajectory(command: GroupCommand, now_ns: int) -> JointTrajectory:
    due = list(zip(command.positions, command.velocities, command.times_s, strict=True))
    if command.begin is not None:
        due.insert(0, (*command.begin, 0.0))
    points = [
        JointTrajectoryPoint(
            positions=position.tolist(),
            velocities=velocity.tolist(),
            time_from_start=duration_msg(round(due_s * NS_PER_S)),
        )
        for position, velocity, due_s in due
    ]
    trajectory = JointTrajectory(joint_names=list(command.group.joints), points=points)
    trajectory.header.stamp = time_msg(now_ns)
    return trajectory


def _array(command: GroupCommand, now_ns: int) -> Float64MultiArray:
    values = command.velocities if _is_velocity(command) else command.positions
    array = Float64MultiArray(data=values[0].tolist())
    size = len(command.group.joints)
    array.layout.dim = [MultiArrayDimension(label="joints", size=size, stride=size)]
    return array


def _joint_state(command: GroupCommand, now_ns: int) -> JointState:
    state = JointState(name=list(command.group.joints))
    if _is_velocity(command):
        state.velocity = command.velocities[0].tolist()
    else:
        state.position = command.positions[0].tolist()
    state.header.stamp = time_msg(now_ns)
    return state


def _twist(command: GroupCommand, now_ns: int) -> Twist:
    """Columns that the group does not have are zero: it commands none of that motion."""
    message = Twist()
    for column, value in zip(command.group.twist, command.velocities[0].tolist(), strict=True):
        part, _, axis = column.partition("_")
        setattr(getattr(message, part), axis, value)
    return message


def _twist_stamped(command: GroupCommand, now_ns: int) -> TwistStamped:
    message = TwistStamped(twist=_twist(command, now_ns))
    message.header.frame_id, message.header.stamp = command.group.frame_id, time_msg(now_ns)
    return message


def _pose(command: GroupCommand, now_ns: int) -> PoseStamped:
    x, y, z, qx, qy, qz, qw = command.positions[0].tolist()
    message = PoseStamped()
    message.header.frame_id, message.header.stamp = command.group.frame_id, time_msg(now_ns)
    message.pose.position = Point(x=x, y=y, z=z)
    message.pose.orientation = Quaternion(x=qx, y=qy, z=qz, w=qw)
    return message


def _is_velocity(command: GroupCommand) -> bool:
    return command.group.representation in VELOCITIES


_COMMANDS: dict[str, Callable[[GroupCommand, int], Any]] = {
    JOINT_TRAJECTORY: _trajectory,
    FLOAT64_MULTI_ARRAY: _array,
    JOINT_STATE: _joint_state,
    TWIST: _twist,
    TWIST_STAMPED: _twist_stamped,
    POSE_STAMPED: _pose,
}
# The message of each interface, for publishers.
COMMAND_TYPES: dict[str, type] = {
    JOINT_TRAJECTORY: JointTrajectory,
    FLOAT64_MULTI_ARRAY: Float64MultiArray,
    JOINT_STATE: JointState,
    TWIST: Twist,
    TWIST_STAMPED: TwistStamped,
    POSE_STAMPED: PoseStamped,
}
