# SPDX-License-Identifier: Apache-2.0
"""Which topics of a recording its rows are made of, and whether they are all there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from gr00t_ros.data.bag_episodes import events_topic
from gr00t_ros.data.bags import Bag
from gr00t_ros.errors import DatasetError
from gr00t_ros.recording.names import EVENT_TYPE, EVENTS
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import MESSAGE_TYPES, ActionGroupConfig, StateSource, VideoSource

# Where topics without a leading slash lie: the namespace of the nodes, unless marks in the bag show another
# one.
NAMESPACE = "/gr00t"
_Part = TypeVar("_Part", VideoSource, StateSource, ActionGroupConfig)


def in_bag(robot: RobotConfig, bag: Bag) -> RobotConfig:
    """The robot with every topic as it is called in a bag."""
    events = events_topic(bag)
    namespace = events.removesuffix(f"/{EVENTS}") if events.endswith(f"/{EVENTS}") else NAMESPACE

    def full(topic: str) -> str:
        return topic if not topic or topic.startswith("/") else f"{namespace}/{topic}"

    def named(parts: Mapping[str, _Part]) -> Mapping[str, _Part]:
        return MappingProxyType({k: replace(part, topic=full(part.topic)) for k, part in parts.items()})

    groups = {k: replace(g, measured_topic=full(g.measured_topic)) for k, g in robot.action.items()}
    return replace(
        robot,
        video=named(robot.video),
        state=named(robot.state),
        action=named(groups),
        instruction=replace(robot.instruction, topic=full(robot.instruction.topic)),
    )


def needed_topics(bag: Bag, robot: RobotConfig, *, commands: bool, told: bool) -> tuple[str, ...]:
    """The topics to read, of a robot as it is ``in_bag``. ``commands`` says that actions come from command
    topics, ``told`` that it is known without the bag what the robot was told.

    Raises:
        DatasetError: a topic is missing, or has another type than the robot's YAML says.
    """
    have = bag.topics
    wanted = {source.topic: MESSAGE_TYPES[source.type] for _, source in robot.sources()}
    commanded = {spec.topic: spec.message_type for spec in robot.command_topics} if commands else {}
    wanted |= commanded
    missing = [topic for topic in wanted if topic not in have]
    if missing:
        hint = ""
        if any(topic in commanded for topic in missing):
            hint = "; without commands, recording.action_source: future_state takes actions from states"
        raise DatasetError(
            f"{bag.path}: no topic {', '.join(missing)}, which the robot {robot.name} needs; the bag has "
            f"{', '.join(have) or 'none'}{hint}"
        )
    instruction = robot.instruction.topic
    optional = {instruction: MESSAGE_TYPES["string"], events_topic(bag): EVENT_TYPE}
    wanted |= {topic: kind for topic, kind in optional.items() if topic in have}
    for topic, kind in wanted.items():
        if have[topic] != kind:
            raise DatasetError(f"{bag.path}: {topic} holds {have[topic]}, the robot description says {kind}")
    if not told and not bag.counts.get(instruction):
        raise DatasetError(
            f"{bag.path}: nothing says what the robot was told: no message on {instruction}, no default in "
            "the robot YAML; give --task"
        )
    return tuple(wanted)
