# SPDX-License-Identifier: Apache-2.0
"""What a robot YAML lets one expect of the topics of a recording. The recorder subscribes by this, warns by
it, and its audit measures against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import HEADER, MESSAGE_TYPES, POSE, RECEIVE

COMMANDS = "commands"


@dataclass(frozen=True)
class Expected:
    """One topic of the robot.

    ``used_by`` are key paths of the robot YAML. Without a ``required`` topic no dataset can be made.
    ``max_age`` (s) is how long a message of it may be used, None where nothing says so. ``least_rate`` (Hz)
    is 0 where any rate will do. ``stamp`` says which time counts, ``header`` or ``receive``.
    """

    topic: str
    message_type: str
    used_by: tuple[str, ...]
    required: bool = False
    max_age: float | None = None
    least_rate: float = 0.0
    stamp: str = RECEIVE

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
            )
        )
    for key, group in robot.action.items():
        commanded = robot.recording.action_source == COMMANDS
        # How long a command counts as one, as the converter has it: 0 means until the next.
        ages = [age for age in (robot.recording.max_command_age, group.downstream_timeout) if age > 0.0]
        expect(
            Expected(
                resolve(group.topic),
                MESSAGE_TYPES[group.interface],
                (f"action.{key}",),
                required=commanded,
                max_age=min(ages, default=None) if commanded else None,
            )
        )
        if group.measured_topic:
            kind, topic = MESSAGE_TYPES[POSE], resolve(group.measured_topic)
            path = f"action.{key}.measured_topic"
            expect(Expected(topic, kind, (path,), stamp=group.measured_stamp))
    topic = resolve(robot.executor_joint_state_topic)
    if topic not in found:
        path, kind = "executor.joint_state_topic", "sensor_msgs/msg/JointState"
        expect(Expected(topic, kind, (path,), stamp=robot.executor_joint_state_stamp))
    expect(Expected(resolve(robot.instruction.topic), MESSAGE_TYPES["string"], ("instruction",)))
    return found


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
    )
