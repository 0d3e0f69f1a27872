# SPDX-License-Identifier: Apache-2.0
"""The action of a recorded frame: what was commanded at its time, or the state one step later.

``commands``: the latest command with a time at or before the frame's, as long as it is not older than
``recording.max_command_age``. A JointTrajectory is evaluated at the frame's time plus one step, on the curve
on which joint_trajectory_controller runs it: from where the one before stood when it came, cubic between
points that have velocities, straight between points that have none, and held from its last point on.

The time of a command is its header's; that of its arrival where the message has no header, where its stamp is
zero (which to controllers means "now"), or where the YAML says ``stamp: receive``. The first trajectory
begins where the joints were measured.

``future_state``: the state of the next row, the same columns in the same units. Nothing is made up: a command
that is too old, incomplete or not finite is no command.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data.bag_trajectories import Trajectory
from gr00t_ros.errors import Cause, MessageError, NotReady, RobotConfigError
from gr00t_ros.group_values import to_checkpoint
from gr00t_ros.recorded_time import by_header, command_age, max_ahead_ns
from gr00t_ros.robot import ActionGroupConfig, RobotConfig, StateSource
from gr00t_ros.robot_types import (
    EE_POSE,
    FLOAT64_MULTI_ARRAY,
    JOINT_POSITION,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    JOINT_VELOCITY,
    POSE,
    POSE_STAMPED,
    SCALAR,
    TWIST,
    TWIST_COLUMNS,
    TWIST_STAMPED,
)
from gr00t_ros.rotations import from_quaternion, to_quaternion
from gr00t_ros.state_reading import JointReader, Reader, pose_of, refuse_non_finite
from gr00t_ros.units import to_si

Values = NDArray[np.float64]
Action = NDArray[np.float32]
Measured = Mapping[str, float]

# Commands kept of a group: those since the newest frame, and one before it. A controller takes at most one in
# each of its periods, and a frame is no further back than the reordering of messages reaches.
_MAX_KEPT = 4096


class _Held(Protocol):
    """A command: its value [D] in SI at a time, and until when it is in force by itself."""

    end_ns: int

    def at(self, time_ns: int) -> Values | None:
        """The value, None before the command has one."""


class _Constant:
    """A command that stays as it is."""

    def __init__(self, time_ns: int, values: Values) -> None:
        self.end_ns, self._values = time_ns, values

    def at(self, time_ns: int) -> Values:
        return self._values


class Commands:
    """The commands of one action group, fed in order of time."""

    def __init__(
        self, robot: RobotConfig, group: ActionGroupConfig, step_ns: int, measured: Callable[[], Measured]
    ) -> None:
        """``measured`` tells where joints are (SI, by name): a first trajectory begins there."""
        self._robot, self.group, self._step_ns, self._measured = robot, group, step_ns, measured
        self.path = f"action.{group.key}"
        self._read = _reader(group, self.path)
        self._times: list[int] = []
        self._held: list[_Held] = []
        limit_s = command_age(robot, group)
        self._max_age_ns = None if limit_s is None else round(limit_s * 1e9)
        self._limit_s = limit_s

    def time_of(self, header_ns: int | None, receive_ns: int) -> int:
        """The time that counts for a message. Raises MessageError where its stamp is from the future, or, of
        a trajectory, which may begin later than it came, from too far ahead."""
        if header_ns is None or header_ns <= 0 or not by_header(self.group):
            return receive_ns
        if header_ns > receive_ns + max_ahead_ns(self.group):
            raise MessageError(
                f"{self.path}: found a stamp {(header_ns - receive_ns) / 1e9:.3f} s ahead of the recorder's "
                f"clock on {self.group.topic}; synchronise the clocks, or set 'stamp: receive' for it"
            )
        return header_ns

    def add(self, msg: Any, time_ns: int) -> bool:
        """Take a command; whether it was of use. Raises MessageError for one that is refused."""
        if self._times and time_ns < self._times[-1]:
            raise MessageError(f"{self.path}: a command on {self.group.topic} came later than a newer one")
        if self.group.interface == JOINT_TRAJECTORY:
            held: _Held | None = self._trajectory(msg, time_ns)
        else:
            values = self._read(msg)
            held = None if values is None else _Constant(time_ns, values)
        if held is None:
            return False
        self._times.append(time_ns)
        self._held.append(held)
        if len(self._times) > _MAX_KEPT:
            del self._times[: _MAX_KEPT // 2], self._held[: _MAX_KEPT // 2]
        return True

    def action(self, t_obs: int) -> Action | Cause:
        """The action [D] in dataset units of a frame at ``t_obs``, or why there is none. Commands before that
        time are forgotten but the last one."""
        at = bisect.bisect_right(self._times, t_obs) - 1
        where = f"{self.path}: no command on {self.group.topic}"
        if at < 0:
            text = f"{where} yet" if not self._times else f"{where} before the frame"
            return Cause(NotReady.NO_MESSAGE, self.path, text)
        if at > 1:
            del self._times[: at - 1], self._held[: at - 1]
            at = 1
        held = self._held[at]
        age_ns = t_obs - held.end_ns
        if self._max_age_ns is not None and age_ns > self._max_age_ns:
            text = f"{where} for {age_ns / 1e9:.3f} s, expected one within {self._limit_s:g} s"
            return Cause(NotReady.STALE, self.path, text)
        values = held.at(t_obs + self._step_ns)
        if values is None:
            text = f"{self.path}: the first trajectory on {self.group.topic} has not reached its first point"
            return Cause(NotReady.NO_MESSAGE, self.path, text)
        return to_checkpoint(self._robot, self.group, values[None])[0].astype(np.float32)

    def clear(self) -> None:
        """Forget all: after a jump of the clock times mean nothing."""
        self._times.clear()
        self._held.clear()

    def _trajectory(self, msg: Any, time_ns: int) -> Trajectory | None:
        before = self._held[-1] if self._held else None
        begin = None
        if isinstance(before, Trajectory):
            late = self._max_age_ns is not None and time_ns - before.end_ns > self._max_age_ns
            begin = None if late else before.state(time_ns)
        if begin is None:
            measured = self._measured()
            if all(joint in measured for joint in self.group.joints):
                begin = np.array([measured[joint] for joint in self.group.joints]), None
        return Trajectory.read(msg, self.group.joints, time_ns, begin, self.path)


class CommandActions:
    """Actions from the command topics of all groups."""

    def __init__(self, robot: RobotConfig, step_ns: int, measured: Callable[[], Measured]) -> None:
        self.groups = {key: Commands(robot, group, step_ns, measured) for key, group in robot.action.items()}
        self.by_topic = {commands.group.topic: commands for commands in self.groups.values()}

    def at(self, t_obs: int) -> tuple[dict[str, Action], list[Cause]]:
        """{action key: [D]} at a frame's time, and what is missing."""
        actions: dict[str, Action] = {}
        causes: list[Cause] = []
        for key, commands in self.groups.items():
            found = commands.action(t_obs)
            if isinstance(found, Cause):
                causes.append(found)
            else:
                actions[key] = found
        return actions, causes

    def clear(self) -> None:
        """Forget all commands."""
        for commands in self.groups.values():
            commands.clear()


def future_state(robot: RobotConfig) -> Callable[[Mapping[str, Action]], dict[str, Action]]:
    """The function that takes a row's state for the action of the row before it.

    Raises:
        RobotConfigError: an action has no state that says where it is.
    """
    groups = {key: _state_columns(robot, group) for key, group in robot.action.items()}
    return lambda state: {key: take(state) for key, take in groups.items()}


class Following:
    """Whether joints get to where they are commanded: a person or a thing may push or hold them.

    Groups of joint positions are looked at, as far as a state says where they are.

    Raises:
        RobotConfigError: there is no such group.
    """

    def __init__(self, robot: RobotConfig) -> None:
        self._limit = robot.recording.max_following_error
        self._groups = []
        for key, group in robot.action.items():
            if group.representation == JOINT_POSITION:
                scales = np.array([robot.unit(name).scale for name in group.unit_names])
                self._groups.append((key, group.joints, _state_columns(robot, group), scales))
        if not self._groups:
            raise RobotConfigError(
                "robot.recording.max_following_error: there is no action group of joint positions to look at"
            )

    def lost(self, action: Mapping[str, Action], state: Mapping[str, Action]) -> str:
        """In words the first joint that is not where ``action`` commanded it a step before ``state``; empty
        where all are."""
        for key, joints, measured, scales in self._groups:
            apart = np.abs(measured(state) - action[key]) * scales
            worst = int(apart.argmax())
            if apart[worst] > self._limit:
                return f"{joints[worst]} was {apart[worst]:.3f} from where it had been commanded"
        return ""


# ---- what messages say ---------------------------------------------------------------------------


def _reader(group: ActionGroupConfig, path: str) -> Reader:
    if group.interface == JOINT_STATE:
        field = "velocity" if group.representation == JOINT_VELOCITY else "position"
        return JointReader(group.joints, field, path)
    readers = {
        FLOAT64_MULTI_ARRAY: _read_array,
        POSE_STAMPED: _read_pose,
        TWIST: _read_twist,
        TWIST_STAMPED: _read_twist,
        JOINT_TRAJECTORY: _read_nothing,
    }
    read = readers[group.interface]
    return lambda msg: read(msg, group, path)


def _read_nothing(msg: Any, group: ActionGroupConfig, path: str) -> Values | None:
    return None


def _read_array(msg: Any, group: ActionGroupConfig, path: str) -> Values:
    if len(msg.data) != len(group.joints):
        raise MessageError(
            f"{path}: found an array of {len(msg.data)} values, expected {len(group.joints)} "
            f"({', '.join(group.joints)})"
        )
    return _finite(np.asarray(msg.data, np.float64), group.joints, path)


def _read_pose(msg: Any, group: ActionGroupConfig, path: str) -> Values:
    return np.concatenate(pose_of(msg, group.frame_id, path))


def _read_twist(msg: Any, group: ActionGroupConfig, path: str) -> Values:
    if group.interface == TWIST_STAMPED:
        if msg.header.frame_id != group.frame_id:
            raise MessageError(
                f"{path}: found a twist in frame {msg.header.frame_id!r}, expected {group.frame_id!r}"
            )
        msg = msg.twist
    whole = [getattr(part, axis) for part in (msg.linear, msg.angular) for axis in "xyz"]
    values = dict(zip(TWIST_COLUMNS, whole, strict=True))
    return _finite(np.array([values[column] for column in group.columns], np.float64), group.columns, path)


def _finite(values: Values, names: Sequence[str], path: str) -> Values:
    refuse_non_finite(values, names, path, "a command")
    return values


# ---- the state one step later --------------------------------------------------------------------


def _state_columns(robot: RobotConfig, group: ActionGroupConfig) -> Callable[[Mapping[str, Action]], Action]:
    path = f"robot.action.{group.key}"
    why = "recording.action_source is future_state, which takes actions from states; use commands"
    if robot.recording.max_following_error:
        why = "recording.max_following_error compares states with it; leave that out"
    if group.representation == TWIST:
        raise RobotConfigError(f"{path}: no state says what a twist does, and {why}")
    if group.representation == EE_POSE:
        return _pose_columns(robot, group, path, why)
    field = "velocity" if group.representation == JOINT_VELOCITY else "position"
    assert group.representation in (JOINT_POSITION, JOINT_VELOCITY, SCALAR)
    places: dict[str, tuple[str, int]] = {}
    for key, source in robot.state.items():
        # The columns of arrays have no field: they are positions.
        if source.field == field and source.type != POSE:
            for column, joint in enumerate(source.joints):
                places.setdefault(joint, (key, column))
    missing = [joint for joint in group.joints if joint not in places]
    if missing:
        raise RobotConfigError(f"{path}: no state has the {field} of {', '.join(missing)}, and {why}")
    chosen = [places[joint] for joint in group.joints]
    return lambda state: np.array([state[key][column] for key, column in chosen], np.float32)


def _pose_columns(
    robot: RobotConfig, group: ActionGroupConfig, path: str, why: str
) -> Callable[[Mapping[str, Action]], Action]:
    found = [s for s in robot.state.values() if s.type == POSE and s.topic == group.measured_topic]
    if not found:
        raise RobotConfigError(f"{path}: no state has the pose on {group.measured_topic}, and {why}")
    source: StateSource = found[0]
    units = [robot.unit(name) for name in source.unit_names]

    def take(state: Mapping[str, Action]) -> Action:
        si = to_si(state[source.key], units)
        turned = from_quaternion(to_quaternion(si[3:], source.rotation), "quaternion")
        pose = np.concatenate([si[:3], turned])
        return to_checkpoint(robot, group, pose[None])[0].astype(np.float32)

    return take
