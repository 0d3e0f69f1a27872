# SPDX-License-Identifier: Apache-2.0
"""What a robot YAML says, typed and checked: one description for the policy, the executor, replay and the
commands.

Everything that touches the robot takes a ``RobotConfig`` and nothing else about it, so that training and
deployment cannot drift apart. It comes from a file (commands), from a nested mapping (tests) or
from the flat parameters of a ROS node; all three give equal objects. A wrong description is refused with the
key path, the value found and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from gr00t_ros import robot_commands, robot_execution, robot_fit, robot_limits, robot_parsing
from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot_sections import Section, shown
from gr00t_ros.robot_types import (
    HEADER,
    MESSAGE_TYPES,
    POSE,
    ActionGroupConfig,
    ExecutorConfig,
    GroupLimits,
    InstructionConfig,
    JointLimits,
    RecordingConfig,
    StateSource,
    TopicSpec,
    VerificationConfig,
    VideoSource,
)
from gr00t_ros.units import SI, JointUnit, refuse_units

__all__ = [
    "ActionGroupConfig",
    "ExecutorConfig",
    "InstructionConfig",
    "JointLimits",
    "JointUnit",
    "RecordingConfig",
    "RobotConfig",
    "StateSource",
    "TopicSpec",
    "VerificationConfig",
    "VideoSource",
]


@dataclass(frozen=True)
class RobotConfig:
    """A robot: where observations come from, where commands go, and what they may be. Immutable.

    ``video``, ``state`` and ``action`` are keyed by the checkpoint's modality keys and iterate in the YAML's
    order. ``units`` holds only the joints that the YAML names; ``unit`` answers for every joint.
    ``limits`` are by joint, ``group_limits`` those of twists and poses by action key.
    """

    name: str
    embodiment_tag: str
    step_rate: float
    video: Mapping[str, VideoSource]
    state: Mapping[str, StateSource]
    action: Mapping[str, ActionGroupConfig]
    units: Mapping[str, JointUnit]
    limits: Mapping[str, JointLimits]
    group_limits: Mapping[str, GroupLimits]
    instruction: InstructionConfig
    recording: RecordingConfig
    executor: ExecutorConfig
    verification: VerificationConfig

    @classmethod
    def from_file(cls, path: str | Path) -> RobotConfig:
        """Read a ROS 2 parameter file: ``robot`` below ``ros__parameters`` of ``/**`` or of any one node
        name.

        Raises RobotConfigError, its message starting with the path, when the file cannot be read or is wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RobotConfigError(f"{path}: cannot be read ({error}), expected a robot YAML") from error
        try:
            document = yaml.load(text, Loader=_StrictLoader)
            return cls.from_mapping(_robot_section(document))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            where = " ".join(str(error).split())
            raise RobotConfigError(
                f"{path}: not valid YAML ({where}), expected a ROS 2 parameter file"
            ) from error
        except RobotConfigError as error:
            raise RobotConfigError(f"{path}: {error}") from error

    @classmethod
    def from_flat(cls, parameters: Mapping[str, Any]) -> RobotConfig:
        """From ROS parameters below the prefix ``robot.``: ``{"video.front.topic": ..., "step_rate":
        ...}``."""
        return cls.from_mapping(_expand_dots(parameters, "robot"))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RobotConfig:
        """From the nested mapping below ``robot``. Raises RobotConfigError for the first thing that is
        wrong."""
        top = Section(values, "robot")
        name = top.name("name", "the robot's name")
        embodiment_tag = top.text(
            "embodiment_tag", "the checkpoint's embodiment tag, for example new_embodiment"
        )
        if not embodiment_tag.strip():
            top.fail("embodiment_tag", "the checkpoint's embodiment tag, for example new_embodiment")
        step_rate = top.number("step_rate", "the policy's action steps per second", above=0.0)
        if step_rate > 1e6:
            top.fail("step_rate", "the policy's action steps per second, at most a million")
        video = robot_parsing.read_video(top.section("video", "the cameras"))
        state = robot_parsing.read_state(top.section("state", "the state sources"))
        action = robot_commands.read_action(top.section("action", "the action groups"), state)
        parts: list[ActionGroupConfig | StateSource] = [*action.values(), *state.values()]
        columns = (name for part in parts for name in part.unit_names)
        known = dict.fromkeys(columns)
        units_section = top.section("units", "units by joint", required=False)
        units = robot_parsing.read_units(units_section, known)
        refuse_units(units, action.values(), units_section.path)
        joints = (joint for part in parts for joint in part.joints)
        limits, group_limits = robot_limits.read_limits(
            top.section("limits", "limits by joint"), dict.fromkeys(joints), action
        )
        instruction = robot_parsing.read_instruction(
            top.section("instruction", "topic and default", required=False)
        )
        recording = robot_parsing.read_recording(
            top.section("recording", "recording options", required=False)
        )
        executor = robot_execution.read_executor(
            top.section("executor", "executor options", required=False), state
        )
        verification = robot_parsing.read_verification(
            top.section("verification", "how exact an engine must be", required=False)
        )
        top.done()
        return cls(
            name=name,
            embodiment_tag=embodiment_tag,
            step_rate=step_rate,
            video=MappingProxyType(video),
            state=MappingProxyType(state),
            action=MappingProxyType(action),
            units=MappingProxyType(units),
            limits=MappingProxyType(limits),
            group_limits=MappingProxyType(group_limits),
            instruction=instruction,
            recording=recording,
            executor=executor,
            verification=verification,
        )._checked_topics()

    @property
    def step_ns(self) -> int:
        """Nanoseconds between two action steps, and between two frames of the dataset."""
        return round(1e9 / self.step_rate)

    @property
    def joints(self) -> tuple[str, ...]:
        """All commanded joints, group by group. Twists and poses command none."""
        return tuple(joint for group in self.action.values() for joint in group.joints)

    @property
    def executor_joint_state_topic(self) -> str:
        """The JointState topic on which the executor sees every commanded joint."""
        return self.executor.joint_state_topic

    @property
    def executor_joint_state_stamp(self) -> str:
        """Which time counts for those messages, ``header`` or ``receive``: what the state section says for
        them."""
        stamps = [s.stamp for s in self.state.values() if s.topic == self.executor.joint_state_topic]
        return stamps[0] if stamps else HEADER

    @property
    def topics(self) -> tuple[TopicSpec, ...]:
        """Every source of observations (cameras, states, then the instruction), each topic once."""
        users: dict[str, tuple[str, list[str]]] = {}
        for path, source in self.sources():
            users.setdefault(source.topic, (MESSAGE_TYPES[source.type], []))[1].append(path)
        users.setdefault(self.instruction.topic, (MESSAGE_TYPES["string"], []))[1].append("instruction")
        return tuple(TopicSpec(topic, kind, tuple(paths)) for topic, (kind, paths) in users.items())

    @property
    def command_topics(self) -> tuple[TopicSpec, ...]:
        """The topics that the executor publishes commands on, one for each action group."""
        return tuple(
            TopicSpec(group.topic, MESSAGE_TYPES[group.interface], (f"action.{group.key}",))
            for group in self.action.values()
        )

    def sources(self) -> Iterator[tuple[str, VideoSource | StateSource]]:
        """Cameras, then states, each with its key path (``video.front``, ``state.arm``)."""
        for key, camera in self.video.items():
            yield f"video.{key}", camera
        for key, state in self.state.items():
            yield f"state.{key}", state

    def unit(self, joint: str) -> JointUnit:
        """The joint's unit; SI where the YAML says nothing."""
        return self.units.get(joint, SI)

    def check_against(
        self,
        modality: Mapping[str, Any],
        state_widths: Mapping[str, int],
        action_widths: Mapping[str, int],
        horizon: int,
    ) -> None:
        """Refuse a description that does not fit a checkpoint.

        ``modality`` is the checkpoint's configuration for the embodiment tag: ``video``, ``state``,
        ``action`` and ``language``, each with ``modality_keys`` and ``delta_indices``. Widths are columns per
        key, in dataset units; ``horizon`` is the largest number of action steps. Raises one RobotConfigError
        with every mismatch.
        """
        problems = robot_fit.mismatches(self, modality, state_widths, action_widths, horizon)
        if problems:
            raise RobotConfigError(
                f"robot {self.name} does not fit the checkpoint's embodiment {self.embodiment_tag}:\n  "
                + "\n  ".join(problems)
            )

    def _checked_topics(self) -> RobotConfig:
        """Refuse a topic that would carry two types of message, or one that is both read and written."""
        kinds: dict[str, tuple[str, str]] = {}
        uses = [(path, source.topic, MESSAGE_TYPES[source.type]) for path, source in self.sources()]
        uses.append(("instruction", self.instruction.topic, MESSAGE_TYPES["string"]))
        for path, topic, kind in uses:
            first, first_kind = kinds.setdefault(topic, (path, kind))
            if kind != first_kind:
                raise RobotConfigError(
                    f"robot.{path}.topic: found {topic!r} for {kind}, which robot.{first} reads as "
                    f"{first_kind}, expected a topic of its own"
                )
        for group in self.action.values():
            if group.measured_topic:
                path, kind = f"action.{group.key}", MESSAGE_TYPES[POSE]
                first, first_kind = kinds.setdefault(group.measured_topic, (path, kind))
                if kind != first_kind:
                    raise RobotConfigError(
                        f"robot.{path}.measured_topic: found {group.measured_topic!r} for {kind}, which "
                        f"robot.{first} reads as {first_kind}, expected a topic of its own"
                    )
        for spec in self.command_topics:
            if spec.topic in kinds or spec.topic == self.executor.joint_state_topic:
                reader = kinds.get(spec.topic, ("executor.joint_state_topic",))[0]
                raise RobotConfigError(
                    f"robot.{spec.used_by[0]}.topic: found {spec.topic!r}, which robot.{reader} reads, "
                    "expected a topic that carries commands only"
                )
        return self


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice; plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise RobotConfigError(
                        f"line {key_node.start_mark.line + 1}: found the key {key_node.value!r} twice, "
                        "expected it once"
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def _robot_section(document: Any) -> Mapping[str, Any]:
    """The one ``robot`` mapping of a parameter file."""
    found = dict(_find_robots(document, ""))
    if not found:
        raise RobotConfigError(
            f"found {shown(document)}, expected a ROS 2 parameter file: /**: ros__parameters: robot: ..."
        )
    first, *others = found.values()
    if any(other != first for other in others):
        raise RobotConfigError(
            f"found different robots for {', '.join(found)}, expected one for all nodes: "
            "/**: ros__parameters: robot: ..."
        )
    if not isinstance(first, Mapping):
        raise RobotConfigError(f"robot: found {shown(first)}, expected keys with values")
    return _expand_dots(first, "robot")


def _find_robots(level: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(level, Mapping):
        return
    for key, value in level.items():
        if key == "ros__parameters" and isinstance(value, Mapping):
            flat = {k: v for k, v in value.items() if isinstance(k, str) and k.startswith("robot.")}
            if "robot" in value:
                yield path, value["robot"]
            elif flat:
                yield path, {k.removeprefix("robot."): v for k, v in flat.items()}
        else:
            yield from _find_robots(value, f"{path}/{str(key).strip('/')}")


def _expand_dots(values: Mapping[Any, Any], path: str) -> dict[str, Any]:
    """``{"a.b": 1}`` to ``{"a": {"b": 1}}`` on every level: ROS parameters come in both forms."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(name, str) or not all(name.split(".")):
            raise RobotConfigError(
                f"{path}: found the key {shown(name)}, expected keys that are text (quote it)"
            )
        *parents, leaf = name.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
            if not isinstance(level, dict):
                raise RobotConfigError(
                    f"{path}.{name}: found a value above it, expected keys with values there"
                )
        if isinstance(value, Mapping):
            value = _expand_dots(value, f"{path}.{name}")
        if leaf in level:
            if not (isinstance(level[leaf], dict) and isinstance(value, dict)):
                raise RobotConfigError(f"{path}.{name}: found twice, expected once")
            level[leaf].update(value)
        else:
            level[leaf] = value
    return nested
