# SPDX-License-Identifier: Apache-2.0
"""What the recorder's audit and the converter must agree on: which time of a recorded message counts, how far
from its arrival that may be, and for how long a command is one."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from gr00t_ros.robot import ActionGroupConfig, RobotConfig
from gr00t_ros.robot_types import (
    HEADER,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    POSE_STAMPED,
    TWIST_STAMPED,
    VELOCITIES,
)
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS

# The action source (robot YAML, recording) that makes command topics necessary.
COMMANDS = "commands"
# A planner stamps a trajectory a second or two ahead, so that controllers have it in time. What begins later
# than this after it came was stamped by another clock.
TRAJECTORY_AHEAD_NS = 10_000_000_000
# How late a message may come, whatever a YAML allows as age: at 60 raw frames of 640x480 a second 55 MB wait.
MAX_WINDOW_NS = 1_000_000_000
_NS = 1_000_000_000
# The encapsulation comes first, then the header's stamp: seconds and nanoseconds.
_STAMP_AT, _STAMP_END = 4, 12
_LITTLE, _BIG = struct.Struct("<iI"), struct.Struct(">iI")
_STAMPED = (JOINT_TRAJECTORY, JOINT_STATE, POSE_STAMPED, TWIST_STAMPED)


def header_stamp_ns(cdr: bytes | memoryview) -> int | None:
    """The stamp of an encoded message that begins with a std_msgs/Header; None when it is cut off."""
    if len(cdr) < _STAMP_END:
        return None
    seconds, rest = (_LITTLE if cdr[1] & 1 else _BIG).unpack_from(cdr, _STAMP_AT)
    return int(seconds) * _NS + int(rest)


def by_header(group: ActionGroupConfig) -> bool:
    """Whether a command's time is its header's; else it is that of its arrival."""
    return group.interface in _STAMPED and group.stamp == HEADER


def max_ahead_ns(group: ActionGroupConfig) -> int:
    """How far ahead of its arrival a command may be stamped: only a trajectory may begin later than it
    came."""
    return TRAJECTORY_AHEAD_NS if group.interface == JOINT_TRAJECTORY else FUTURE_TOLERANCE_NS


def command_age(robot: RobotConfig, group: ActionGroupConfig) -> float | None:
    """For how long (s) after its time a command counts, a trajectory after its last point; None: until the
    next."""
    ages = [robot.recording.max_command_age]
    if group.representation in VELOCITIES:
        # Then the receiver has stopped by itself: what it does from there on was not commanded.
        ages.append(group.downstream_timeout)
    return min((age for age in ages if age > 0.0), default=None)


def window_ns(max_ages: Iterable[float]) -> int:
    """How long after its stamp a message may come and still take its place in time; ``max_ages`` (s) are
    those of all cameras and states. What comes later would have been too old when it came."""
    return min(round(max(max_ages, default=0.0) * _NS), MAX_WINDOW_NS)
