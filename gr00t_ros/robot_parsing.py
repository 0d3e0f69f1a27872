# SPDX-License-Identifier: Apache-2.0
"""From the sections of a robot YAML to the dataclasses of ``robot_types``, each value checked on the way.

Used by ``robot.RobotConfig`` alone. Every refusal is a RobotConfigError that names the key path, the value
found and what was expected. What a later version will understand (velocity, twist and pose commands) is
refused here too: an option that is accepted and does nothing would be worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot_sections import Section
from gr00t_ros.robot_types import (
    BLEND,
    COMPRESSED_IMAGE,
    CUBIC,
    DEFAULT_BLEND_TIME,
    DEFAULT_ENSEMBLE_DECAY,
    DEFAULT_MAX_CHUNK_AGE,
    DEFAULT_MAX_ENGINE_ERROR,
    DEFAULT_MAX_JOINT_STATE_AGE,
    DEFAULT_MAX_START_AHEAD,
    DEFAULT_MAX_TRACKING_ERROR,
    DEFAULT_STATE_MAX_AGE,
    DEFAULT_VIDEO_MAX_AGE,
    FLOAT64_MULTI_ARRAY,
    HEADER,
    IMAGE,
    INTERPOLATIONS,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    MERGES,
    POSE,
    RECEIVE,
    ROTATION_COLUMNS,
    ActionGroupConfig,
    ExecutorConfig,
    InstructionConfig,
    JointLimits,
    RecordingConfig,
    StateSource,
    VerificationConfig,
    VideoSource,
)
from gr00t_ros.units import JointUnit

# What a checkpoint's action can be, and which of it this version turns into commands.
REPRESENTATIONS = ("joint_position", "joint_velocity", "twist", "ee_pose", "scalar")
SUPPORTED_REPRESENTATIONS = ("joint_position", "scalar")
INTERFACES = (JOINT_TRAJECTORY, FLOAT64_MULTI_ARRAY, JOINT_STATE, "pose_stamped", "twist")
SUPPORTED_INTERFACES = (JOINT_TRAJECTORY, FLOAT64_MULTI_ARRAY, JOINT_STATE)
# A hand-over that takes longer than the age at which a chunk is refused would follow plans that are too old.
MAX_BLEND_TIME = 1.0
# Weights that differ by a factor of e a step leave one chunk; beyond that there is nothing to tell apart.
MAX_ENSEMBLE_DECAY = 1.0

_ENGINE_ERROR = "how far an engine may be from the float32 network, in rad, m or a scalar's own unit"


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
        )
        part.done()
    section.done()
    _refuse_shared_topic(section, sources.values(), "two cameras cannot share it")
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


def read_action(section: Section) -> dict[str, ActionGroupConfig]:
    """All action groups, in the order of ``action.keys``."""
    groups: dict[str, ActionGroupConfig] = {}
    owner: dict[str, str] = {}
    for key in read_keys(section, "action"):
        part = section.section(key, "what this action commands")
        representation = part.text("representation", "what the values are", None, REPRESENTATIONS)
        if representation not in SUPPORTED_REPRESENTATIONS:
            _not_yet(part, "representation", representation, SUPPORTED_REPRESENTATIONS)
        interface = part.text("interface", "the command interface", None, INTERFACES)
        if interface not in SUPPORTED_INTERFACES:
            _not_yet(part, "interface", interface, SUPPORTED_INTERFACES)
        group = ActionGroupConfig(
            key=key,
            representation=representation,
            joints=part.names("joints", "the commanded joints, in column order"),
            interface=interface,
            topic=part.topic("topic"),
        )
        part.done()
        for joint in group.joints:
            if joint in owner:
                part.fail("joints", f"joints of this group alone; {joint} is commanded by {owner[joint]} too")
            owner[joint] = key
        groups[key] = group
    section.done()
    _refuse_shared_topic(section, groups.values(), "every action group has a command topic of its own")
    return groups


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


def read_limits(section: Section, known: Iterable[str], commanded: Iterable[str]) -> dict[str, JointLimits]:
    """Limits by joint name; every commanded joint needs them."""
    section.done(also=tuple(known))
    for joint in commanded:
        if not section.has(joint):
            section.fail(joint, "min, max and velocity: a joint without limits is not commanded")
    limits = {}
    for joint in section.names_given():
        part = section.section(joint, "min, max and velocity")
        low = part.number("min", "the lowest position in rad or m")
        high = part.number("max", "the highest position in rad or m")
        if not low < high:
            part.fail("max", f"more than min, which is {low:g}")
        velocity = part.number("velocity", "the highest speed in rad/s or m/s", above=0.0)
        acceleration = None
        if part.has("acceleration"):
            acceleration = part.number(
                "acceleration", "the highest acceleration in rad/s^2 or m/s^2", above=0.0
            )
        error = part.number(
            "max_tracking_error",
            "how far a command may be from the measured position, in rad or m",
            DEFAULT_MAX_TRACKING_ERROR,
            above=0.0,
        )
        engine_error = None
        if part.has("max_engine_error"):
            engine_error = part.number("max_engine_error", _ENGINE_ERROR, above=0.0)
        part.done()
        limits[joint] = JointLimits(low, high, velocity, acceleration, error, engine_error)
    return limits


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
    config = RecordingConfig(
        section.text("action_source", "where actions come from", "commands", ("commands", "future_state"))
    )
    section.done()
    return config


def read_verification(section: Section) -> VerificationConfig:
    """How exact an engine must be."""
    config = VerificationConfig(
        section.number("max_joint_error", _ENGINE_ERROR, DEFAULT_MAX_ENGINE_ERROR, above=0.0)
    )
    section.done()
    return config


def read_executor(section: Section, state: Mapping[str, StateSource]) -> ExecutorConfig:
    """Thresholds of the executor; the topic of measured joints follows from the state section where it
    can."""
    measured = sorted({s.topic for s in state.values() if s.type == JOINT_STATE and s.field == "position"})
    if not section.has("joint_state_topic") and len(measured) != 1:
        found = ", ".join(measured) or "none"
        section.fail(
            "joint_state_topic",
            f"the JointState topic that holds every commanded joint (the state section names {found})",
        )
    blend_time = section.number(
        "blend_time", "the time in s in which a newer chunk takes over", DEFAULT_BLEND_TIME, above=0.0
    )
    if blend_time > MAX_BLEND_TIME:
        section.fail("blend_time", f"a time of at most {MAX_BLEND_TIME:g} s: until then an older plan counts")
    decay = section.number(
        "ensemble_decay", "how much less a newer chunk counts, per step", DEFAULT_ENSEMBLE_DECAY
    )
    if abs(decay) > MAX_ENSEMBLE_DECAY:
        section.fail("ensemble_decay", f"between -{MAX_ENSEMBLE_DECAY:g} and {MAX_ENSEMBLE_DECAY:g} per step")
    config = ExecutorConfig(
        joint_state_topic=section.topic("joint_state_topic", measured[0] if measured else None),
        max_joint_state_age=section.number(
            "max_joint_state_age", "a time in s", DEFAULT_MAX_JOINT_STATE_AGE, above=0.0
        ),
        max_chunk_age=section.number("max_chunk_age", "a time in s", DEFAULT_MAX_CHUNK_AGE, above=0.0),
        max_start_ahead=section.number("max_start_ahead", "a time in s", DEFAULT_MAX_START_AHEAD, above=0.0),
        merge=section.text("merge", "how a newer chunk takes over", BLEND, MERGES),
        blend_time=blend_time,
        interpolation=section.text("interpolation", "the curve between two steps", CUBIC, INTERPOLATIONS),
        ensemble_decay=decay,
    )
    section.done()
    return config


def _stamp(part: Section, default: str) -> str:
    return part.text("stamp", "which time counts", default, (HEADER, RECEIVE))


def _sign(part: Section) -> int:
    sign = part.number("sign", "the direction: 1 or -1", 1.0)
    if sign not in (1.0, -1.0):
        part.fail("sign", "the direction: 1 or -1")
    return int(sign)


def _not_yet(part: Section, key: str, value: str, supported: tuple[str, ...]) -> NoReturn:
    part.fail(key, f"one of {', '.join(supported)}; {value} is not supported yet by this version")


def _refuse_shared_topic(
    section: Section, users: Iterable[VideoSource] | Iterable[ActionGroupConfig], why: str
) -> None:
    seen: dict[str, str] = {}
    for user in users:
        if user.topic in seen:
            raise RobotConfigError(
                f"{section.path}.{user.key}.topic: found {user.topic!r}, which "
                f"{section.path}.{seen[user.topic]} uses already, expected another topic: {why}"
            )
        seen[user.topic] = user.key
