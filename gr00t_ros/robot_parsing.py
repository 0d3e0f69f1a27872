# SPDX-License-Identifier: Apache-2.0
"""From the sections of a robot YAML to the dataclasses of ``robot_types``, each value checked on the way.

Used by ``robot.RobotConfig`` alone. Every refusal is a RobotConfigError that names the key path, the value
found and what was expected. The sections that say what may be commanded are ``robot_commands``'s, the
executor's is ``robot_execution``'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot_sections import Section
from gr00t_ros.robot_types import (
    COMPRESSED_IMAGE,
    DEFAULT_FROZEN_AFTER,
    DEFAULT_MAX_COMMAND_AGE,
    DEFAULT_MAX_ENGINE_ERROR,
    DEFAULT_STATE_MAX_AGE,
    DEFAULT_VIDEO_MAX_AGE,
    FLOAT64_MULTI_ARRAY,
    FROZEN_REACTIONS,
    HEADER,
    IMAGE,
    JOINT_STATE,
    POSE,
    RECEIVE,
    REPORT,
    ROTATION_COLUMNS,
    ActionGroupConfig,
    InstructionConfig,
    RecordingConfig,
    StateSource,
    VerificationConfig,
    VideoSource,
)
from gr00t_ros.units import JointUnit

ENGINE_ERROR = "how far an engine may be from the float32 network, in rad, m or a scalar's own unit"
FOLLOWING_ERROR = "how far joints may be from where they were commanded, rad or m, or 0 for any distance"


def read_keys(section: Section, what: str) -> tuple[str, ...]:
    """The ``keys`` list of a section: its order is the order of the columns and cameras."""
    keys = section.names("keys", f"the {what} keys of the checkpoint, in order")
    if "keys" in keys:
        section.fail("keys", "keys with other names: 'keys' itself has a meaning here")
    return keys


def read_video(section: Section) -> dict[str, VideoSource]:
    """All cameras, in the order of ``video.keys``."""
    sources = {}
    for key in read_keys(section, "video"):
        part = section.section(key, "this camera's topic")
        topic = part.topic("topic")
        derived = COMPRESSED_IMAGE if topic.endswith("/compressed") else IMAGE
        sources[key] = VideoSource(
            key=key,
            topic=topic,
            type=part.text("type", "the message type", derived, (IMAGE, COMPRESSED_IMAGE)),
            max_age=part.number(
                "max_age", "the largest age of a frame in s", DEFAULT_VIDEO_MAX_AGE, above=0.0
            ),
            stamp=_stamp(part, HEADER),
            frozen_after=_frozen_after(part),
            frozen_reaction=part.text(
                "frozen_reaction", "what is done about a frozen camera", REPORT, FROZEN_REACTIONS
            ),
        )
        part.done()
    section.done()
    refuse_shared_topic(section, sources.values(), "two cameras cannot share it")
    return sources


def read_state(section: Section) -> dict[str, StateSource]:
    """All state sources, in the order of ``state.keys``."""
    sources = {
        key: _state_source(section.section(key, "this state's topic"), key)
        for key in read_keys(section, "state")
    }
    section.done()
    by_topic: dict[str, StateSource] = {}
    for source in sources.values():
        first = by_topic.setdefault(source.topic, source)
        for field in ("type", "stamp"):
            if getattr(first, field) != getattr(source, field):
                raise RobotConfigError(
                    f"{section.path}.{source.key}.{field}: found {getattr(source, field)!r}, expected "
                    f"{getattr(first, field)!r}, as {section.path}.{first.key} has for the same topic"
                )
    return sources


def _state_source(part: Section, key: str) -> StateSource:
    types = (JOINT_STATE, FLOAT64_MULTI_ARRAY, POSE)
    topic = part.topic("topic")
    kind = part.text("type", "the message type", JOINT_STATE, types)
    max_age = part.number("max_age", "the largest age of a message in s", DEFAULT_STATE_MAX_AGE, above=0.0)
    if kind == JOINT_STATE:
        fields = ("position", "velocity", "effort")
        source = StateSource(
            key=key,
            topic=topic,
            joints=part.names("joints", "the joint names of this state, in column order"),
            field=part.text("field", "the JointState field", "position", fields),
            max_age=max_age,
            stamp=_stamp(part, HEADER),
        )
    elif kind == FLOAT64_MULTI_ARRAY:
        source = _array_source(part, key, topic, max_age)
    else:
        rotation = part.text(
            "rotation", "how the checkpoint sees the rotation", "quaternion", tuple(ROTATION_COLUMNS)
        )
        source = StateSource(
            key=key,
            topic=topic,
            joints=tuple(f"{key}_{name}" for name in ("x", "y", "z", *ROTATION_COLUMNS[rotation])),
            type=POSE,
            rotation=rotation,
            frame_id=part.text("frame_id", "the frame that poses are expressed in", ""),
            max_age=max_age,
            stamp=_stamp(part, HEADER),
        )
    part.done()
    return source


def _array_source(part: Section, key: str, topic: str, max_age: float) -> StateSource:
    """A Float64MultiArray: ``indices`` picks columns; ``width`` says how many values a message must hold."""
    width = (
        part.integer("width", "the number of values in a message", minimum=1) if part.has("width") else None
    )
    if part.has("indices"):
        indices = part.indices("indices", "positions in the array, in column order")
        if width is not None and max(indices) >= width:
            part.fail("indices", f"positions below the width {width}")
    elif width is not None:
        indices = tuple(range(width))
    else:
        part.fail("indices", "positions in the array, or 'width' to take all of a message's values")
    joints = tuple(f"{key}_{column}" for column in range(len(indices)))
    if part.has("joints"):
        joints = part.names("joints", "names for the columns")
        if len(joints) != len(indices):
            part.fail("joints", f"{len(indices)} names, one for each column")
    if _stamp(part, RECEIVE) != RECEIVE:
        part.fail("stamp", f"{RECEIVE}: a Float64MultiArray has no header")
    return StateSource(
        key, topic, joints, FLOAT64_MULTI_ARRAY, "position", indices, width, max_age=max_age, stamp=RECEIVE
    )


def read_units(section: Section, known: Iterable[str]) -> dict[str, JointUnit]:
    """Units by joint (or state column) name."""
    section.done(also=tuple(known))  # names that no state or action has are mostly typing mistakes
    units = {}
    for joint in section.names_given():
        part = section.section(joint, "scale, offset and sign of this joint")
        units[joint] = JointUnit(
            scale=part.number("scale", "SI units per dataset unit", 1.0, above=0.0),
            offset=part.number("offset", "the SI value of dataset zero", 0.0),
            sign=_sign(part),
        )
        part.done()
    return units


def read_instruction(section: Section) -> InstructionConfig:
    """Topic and default of the task text."""
    config = InstructionConfig(
        topic=section.topic("topic", InstructionConfig.topic),
        default=section.text("default", "the instruction to start with, or an empty text", ""),
    )
    section.done()
    return config


def read_recording(section: Section) -> RecordingConfig:
    """What recordings take as action."""
    expected = "the largest age of a command in s, or 0 where one counts until the next"
    config = RecordingConfig(
        section.text("action_source", "where actions come from", "commands", ("commands", "future_state")),
        section.number("max_command_age", expected, DEFAULT_MAX_COMMAND_AGE),
        section.number("max_following_error", FOLLOWING_ERROR, 0.0),
    )
    if config.max_command_age < 0.0:
        section.fail("max_command_age", expected)
    if config.max_following_error < 0.0:
        section.fail("max_following_error", FOLLOWING_ERROR)
    if config.max_following_error and config.action_source != "commands":
        section.fail("max_following_error", "none with future_state, where there is no command to follow")
    section.done()
    return config


def read_verification(section: Section) -> VerificationConfig:
    """How exact an engine must be."""
    config = VerificationConfig(
        section.number("max_joint_error", ENGINE_ERROR, DEFAULT_MAX_ENGINE_ERROR, above=0.0)
    )
    section.done()
    return config


def _frozen_after(part: Section) -> float:
    expected = "how long pixels may stay the same, in s, or 0 to leave that out"
    seconds = part.number("frozen_after", expected, DEFAULT_FROZEN_AFTER)
    if seconds < 0.0:
        part.fail("frozen_after", expected)
    return seconds


def _stamp(part: Section, default: str) -> str:
    return part.text("stamp", "which time counts", default, (HEADER, RECEIVE))


def _sign(part: Section) -> int:
    sign = part.number("sign", "the direction: 1 or -1", 1.0)
    if sign not in (1.0, -1.0):
        part.fail("sign", "the direction: 1 or -1")
    return int(sign)


def refuse_shared_topic(
    section: Section, users: Iterable[VideoSource] | Iterable[ActionGroupConfig], why: str
) -> None:
    """Refuse two users of one topic; ``why`` says what is wrong with that."""
    seen: dict[str, str] = {}
    for user in users:
        if user.topic in seen:
            raise RobotConfigError(
                f"{section.path}.{user.key}.topic: found {user.topic!r}, which "
                f"{section.path}.{seen[user.topic]} uses already, expected another topic: {why}"
            )
        seen[user.topic] = user.key
