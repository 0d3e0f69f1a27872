# SPDX-License-Identifier: Apache-2.0
"""The action groups of a robot YAML: what may be commanded, as what, and through which interface.

Used by ``robot.RobotConfig`` alone; how far a group may go is ``robot_limits``'s. Every refusal is a
RobotConfigError that names the key path, the value found and what was expected. A key that has no meaning for
a group's representation is refused too: an option that is accepted and does nothing would be worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gr00t_ros.robot_parsing import read_keys, refuse_shared_topic
from gr00t_ros.robot_sections import Section
from gr00t_ros.robot_types import (
    EE_POSE,
    FLOAT64_MULTI_ARRAY,
    HEADER,
    JOINT_POSITION,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    JOINT_VELOCITY,
    MAX_DOWNSTREAM_TIMEOUT,
    POSE,
    POSE_STAMPED,
    RECEIVE,
    REPRESENTATIONS,
    ROTATION_COLUMNS,
    SCALAR,
    TWIST,
    TWIST_COLUMNS,
    TWIST_STAMPED,
    VELOCITIES,
    ActionGroupConfig,
    StateSource,
)

# What a representation can be sent as.
POSITION_INTERFACES = (JOINT_TRAJECTORY, FLOAT64_MULTI_ARRAY, JOINT_STATE)
INTERFACES = {
    JOINT_POSITION: POSITION_INTERFACES,
    SCALAR: POSITION_INTERFACES,
    JOINT_VELOCITY: (FLOAT64_MULTI_ARRAY, JOINT_STATE),
    TWIST: (TWIST,),
    EE_POSE: (POSE_STAMPED,),
}
DOWNSTREAM_TIMEOUT = (
    f"a time in s above 0, at most {MAX_DOWNSTREAM_TIMEOUT:g}, after which the controller that takes these "
    "velocities stops by itself: the last velocity would run on when the executor dies. Set the controller's "
    "or driver's own command timeout (cmd_vel_timeout, incoming_command_timeout, a hardware watchdog) and "
    "name it here"
)


def read_action(section: Section, state: Mapping[str, StateSource]) -> dict[str, ActionGroupConfig]:
    """All action groups, in the order of ``action.keys``; ``state`` may tell where a pose is measured."""
    groups: dict[str, ActionGroupConfig] = {}
    owner: dict[str, str] = {}
    for key in read_keys(section, "action"):
        part = section.section(key, "what this action commands")
        group = groups[key] = _with_stamp(part, _read_group(part, key, state))
        part.done()
        for joint in group.joints:
            if joint in owner:
                part.fail("joints", f"joints of this group alone; {joint} is commanded by {owner[joint]} too")
            owner[joint] = key
    section.done()
    refuse_shared_topic(section, groups.values(), "every action group has a command topic of its own")
    for key, group in groups.items():
        if not group.joints and key in owner:
            section.fail(key, f"another key than the joint {key}: their limits would have the same name")
    return groups


def _read_group(part: Section, key: str, state: Mapping[str, StateSource]) -> ActionGroupConfig:
    representation = part.text("representation", "what the values are", None, REPRESENTATIONS)
    choices = INTERFACES[representation]
    interface = part.text("interface", f"the command interface of {representation}", None, choices)
    topic = part.topic("topic")
    timeout = _downstream_timeout(part) if representation in VELOCITIES else 0.0
    if representation == EE_POSE:
        return _read_pose(part, key, topic, state)
    if representation == TWIST:
        return _read_twist(part, key, topic, timeout)
    return ActionGroupConfig(
        key=key,
        representation=representation,
        joints=part.names("joints", "the commanded joints, in column order"),
        interface=interface,
        topic=topic,
        downstream_timeout=timeout,
    )


def _with_stamp(part: Section, group: ActionGroupConfig) -> ActionGroupConfig:
    """Which time of a recorded command counts; without a header it can only be that of its arrival."""
    headless = group.interface in (FLOAT64_MULTI_ARRAY, TWIST)
    default = RECEIVE if headless else HEADER
    stamp = part.text("stamp", "which time of a recorded command counts", default, (HEADER, RECEIVE))
    if headless and stamp != RECEIVE:
        part.fail("stamp", f"{RECEIVE}: {group.interface} has no header")
    return replace(group, stamp=stamp)


def _downstream_timeout(part: Section) -> float:
    timeout = part.number("downstream_timeout", DOWNSTREAM_TIMEOUT, above=0.0)
    if timeout > MAX_DOWNSTREAM_TIMEOUT:
        part.fail("downstream_timeout", DOWNSTREAM_TIMEOUT)
    return timeout


def _read_twist(part: Section, key: str, topic: str, timeout: float) -> ActionGroupConfig:
    """A Twist, or with ``stamped: true`` a TwistStamped, whose frame its receiver must know."""
    columns = part.names("columns", f"the twist's columns in order, of {', '.join(TWIST_COLUMNS)}")
    for column in columns:
        if column not in TWIST_COLUMNS:
            part.fail("columns", f"names of {', '.join(TWIST_COLUMNS)}")
    stamped = part.flag("stamped", "whether its receiver takes TwistStamped", False)
    frame = "the frame that the twist is expressed in, for example base_link"
    return ActionGroupConfig(
        key=key,
        representation=TWIST,
        joints=(),
        interface=TWIST_STAMPED if stamped else TWIST,
        topic=topic,
        twist=columns,
        frame_id=part.text("frame_id", frame, None if stamped else ""),
        child_frame=part.text("child_frame", "the frame that moves", ""),
        downstream_timeout=timeout,
    )


def _read_pose(part: Section, key: str, topic: str, state: Mapping[str, StateSource]) -> ActionGroupConfig:
    """A pose, and where it is measured: without that there is nothing to begin a motion at."""
    frame_id = part.text("frame_id", "the frame that poses are expressed in, for example base_link")
    if not frame_id:
        part.fail("frame_id", "the frame that poses are expressed in, for example base_link")
    sources = {s.topic: s.stamp for s in state.values() if s.type == POSE and s.frame_id == frame_id}
    expected = f"the PoseStamped topic that says where it is, in frame {frame_id}"
    if not part.has("measured_topic") and len(sources) != 1:
        found = ", ".join(sources) or "none"
        part.fail(
            "measured_topic", f"{expected} (the state section names {found} of type pose in that frame)"
        )
    measured = part.topic("measured_topic", next(iter(sources), None))
    if any(
        s.topic == measured and s.type == POSE and s.frame_id not in ("", frame_id) for s in state.values()
    ):
        part.fail("measured_topic", f"{expected}; the state section reads it in another frame")
    stamps = {s.topic: s.stamp for s in state.values()}
    return ActionGroupConfig(
        key=key,
        representation=EE_POSE,
        joints=(),
        interface=POSE_STAMPED,
        topic=topic,
        rotation=part.text("rotation", "how the checkpoint has the rotation", None, tuple(ROTATION_COLUMNS)),
        frame_id=frame_id,
        child_frame=part.text("child_frame", "the frame that moves", ""),
        measured_topic=measured,
        measured_stamp=stamps.get(measured, HEADER),
    )
