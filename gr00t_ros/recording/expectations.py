# SPDX-License-Identifier: Apache-2.0
"""What a robot YAML lets one expect of the topics of a recording. The recorder subscribes by this, warns by
it, and its audit measures against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gr00t_ros.recorded_time import COMMANDS, by_header, command_age, max_ahead_ns
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import HEADER, JOINT_TRAJECTORY, MESSAGE_TYPES, POSE, RECEIVE
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS


@dataclass(frozen=True)
class Expected:
    """One topic of the robot.

    ``used_by`` are key paths of the robot YAML. Without a ``required`` topic no dataset can be made.
    ``max_age`` (s) is how long a message of it may be used, None where nothing says so, or where that cannot
    be told without decoding it: a trajectory's counts from its last point. ``least_rate`` (Hz) is 0 where any
    rate will do. ``stamp`` says by which time gaps are told, ``header`` or ``receive``. ``max_ahead_ns`` is
    how far ahead of its arrival a message may be stamped, None where its stamp means nothing.
    """

    topic: str
    message_type: str
    used_by: tuple[str, ...]
    required: bool = False
    max_age: float | None = None
    least_rate: float = 0.0
    stamp: str = RECEIVE
    max_ahead_ns: int | None = None

    @property
    def path(self) -> str:
        """Its key paths in one text."""
        return ", ".join(self.used_by)


def expectations(robot: RobotConfig, resolve: Callable[[str], str]) -> dict[str, Expected]:
    """Every topic of the robot by its full name, in the order of the YAML.

    ``resolve`` makes a full name of a relative one (the instruction's may lie in the node's namespace).
    Cameras, states and, where they are a dataset's actions, commands are required; a camera must give a frame
    for each of the dataset's.
    """
    found: dict[str, Expected] = {}

    def expect(item: Expected) -> None:
        have = found.setdefault(item.topic, item)
        if have is not item:
            found[item.topic] = _both(have, item)

    for key, camera in robot.video.items():
        expect(
            Expected(
                resolve(camera.topic),
                MESSAGE_TYPES[camera.type],
                (f"video.{key}",),
                required=True,
                max_age=camera.max_age,
                least_rate=robot.step_rate,
                stamp=camera.stamp,
                max_ahead_ns=_ahead(camera.stamp),
            )
        )
    for key, state in robot.state.items():
        expect(
            Expected(
                resolve(state.topic),
                MESSAGE_TYPES[state.type],
                (f"state.{key}",),
                required=True,
                max_age=state.max_age,
                stamp=state.stamp,
                max_ahead_ns=_ahead(state.stamp),
            )
        )
    for key, group in robot.action.items():
        commanded = robot.recording.action_source == COMMANDS
        known = commanded and group.interface != JOINT_TRAJECTORY
        expect(
            Expected(
                resolve(group.topic),
                MESSAGE_TYPES[group.interface],
                (f"action.{key}",),
                required=commanded,
                max_age=command_age(robot, group) if known else None,
                max_ahead_ns=max_ahead_ns(group) if commanded and by_header(group) else None,
            )
        )
        if group.measured_topic:
            kind, topic = MESSAGE_TYPES[POSE], resolve(group.measured_topic)
            path = f"action.{key}.measured_topic"
            ahead = _ahead(group.measured_stamp)
            expect(Expected(topic, kind, (path,), stamp=group.measured_stamp, max_ahead_ns=ahead))
    topic = resolve(robot.executor_joint_state_topic)
    if topic not in found:
        path, kind = "executor.joint_state_topic", "sensor_msgs/msg/JointState"
        stamp = robot.executor_joint_state_stamp
        expect(Expected(topic, kind, (path,), stamp=stamp, max_ahead_ns=_ahead(stamp)))
    expect(Expected(resolve(robot.instruction.topic), MESSAGE_TYPES["string"], ("instruction",)))
    return found


def _ahead(stamp: str) -> int | None:
    return FUTURE_TOLERANCE_NS if stamp == HEADER else None


def _both(one: Expected, other: Expected) -> Expected:
    """What two uses of a topic ask for together."""
    ages = [age for age in (one.max_age, other.max_age) if age is not None]
    return replace(
        one,
        used_by=(*one.used_by, *other.used_by),
        required=one.required or other.required,
        max_age=min(ages, default=None),
        least_rate=max(one.least_rate, other.least_rate),
        stamp=HEADER if HEADER in (one.stamp, other.stamp) else RECEIVE,
        max_ahead_ns=other.max_ahead_ns if one.max_ahead_ns is None else one.max_ahead_ns,
    )
