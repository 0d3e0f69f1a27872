# SPDX-License-Identifier: Apache-2.0
"""The sections of a robot YAML that say what may be commanded, and how far: action groups and limits.

Used by ``robot.RobotConfig`` alone. Every refusal is a RobotConfigError that names the key path, the value
found and what was expected. What a later version will understand (velocity, twist and pose commands) is
refused here too: an option that is accepted and does nothing would be worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from gr00t_ros.robot_parsing import ENGINE_ERROR, read_keys, refuse_shared_topic
from gr00t_ros.robot_sections import Section
from gr00t_ros.robot_types import (
    DEFAULT_MAX_TRACKING_ERROR,
    FLOAT64_MULTI_ARRAY,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    ActionGroupConfig,
    JointLimits,
)

# What a checkpoint's action can be, and which of it this version turns into commands.
REPRESENTATIONS = ("joint_position", "joint_velocity", "twist", "ee_pose", "scalar")
SUPPORTED_REPRESENTATIONS = ("joint_position", "scalar")
INTERFACES = (JOINT_TRAJECTORY, FLOAT64_MULTI_ARRAY, JOINT_STATE, "pose_stamped", "twist")
SUPPORTED_INTERFACES = (JOINT_TRAJECTORY, FLOAT64_MULTI_ARRAY, JOINT_STATE)


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
    refuse_shared_topic(section, groups.values(), "every action group has a command topic of its own")
    return groups


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
            engine_error = part.number("max_engine_error", ENGINE_ERROR, above=0.0)
        part.done()
        limits[joint] = JointLimits(low, high, velocity, acceleration, error, engine_error)
    return limits


def _not_yet(part: Section, key: str, value: str, supported: tuple[str, ...]) -> NoReturn:
    part.fail(key, f"one of {', '.join(supported)}; {value} is not supported yet by this version")
