# SPDX-License-Identifier: Apache-2.0
"""What the messages of a source hold: pictures that decode, joints that are there, values that are numbers.

A log takes the messages of one source as they come and keeps what a finding needs, never the messages.
Reading is done by the code that the policy uses, so what is refused here is what the policy would refuse.
"""

from __future__ import annotations

import difflib
import math
import zlib
from collections.abc import Collection, Sequence
from typing import Any

from gr00t_ros.causes import without_numbers
from gr00t_ros.checking import Timing, check_timing
from gr00t_ros.errors import MessageError
from gr00t_ros.findings import Finding, fail, ok, warn
from gr00t_ros.images import decode_image, is_compressed
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import HEADER, JOINT_STATE, StateSource, VideoSource
from gr00t_ros.state_reading import reader_for, stamp_ns

# Of each camera the first pictures are decoded, then one in thirty: decoding all would slow the listening.
DECODED, DECODED_EVERY = 3, 30
# Pictures in a row with identical pixels after which a camera looks frozen.
ALIKE = 10


class SourceLog:
    """The messages of one camera or state source, ``part`` being its key path (``video.front``).

    ``known`` are all joints that the robot YAML names; others that come along are told.
    """

    def __init__(self, part: str, source: VideoSource | StateSource, known: Collection[str] = ()) -> None:
        self.part = part
        self.source = source
        self.refused: dict[str, tuple[str, int]] = {}  # sentence without numbers -> first sentence, count
        self.sizes: dict[str, int] = {}  # "640x480 rgb8" -> pictures decoded
        self.strangers: list[str] = []  # joint names of messages that have none of the source's
        self.also: list[str] = []  # joints that come along and that the YAML does not know
        self._known = {*known, *getattr(source, "joints", ())}
        self._stamps: list[int] = []
        self._received: list[int] = []
        self._read = reader_for(source) if isinstance(source, StateSource) else None
        self._sum = -1
        self._alike = self.most_alike = 0

    def add(self, msg: Any, received_ns: int) -> None:
        """One message, and node time at its arrival."""
        if self._read is None:
            self._look(msg)
        else:
            try:
                if self._read(msg) is None:
                    self.strangers = list(msg.name)
                    return
            except MessageError as error:
                self._refuse(str(error))
            if isinstance(self.source, StateSource) and self.source.type == JOINT_STATE:
                self.also = [name for name in msg.name if name not in self._known]
        self._received.append(received_ns)
        if self.source.stamp == HEADER:
            self._stamps.append(stamp_ns(msg.header.stamp))

    @property
    def heard(self) -> bool:
        """Whether a message that counts has come."""
        return bool(self._received)

    def timing(self, ended_ns: int) -> Timing:
        """When the messages came."""
        return Timing(
            self._stamps if self.source.stamp == HEADER else self._received, self._received, ended_ns
        )

    def check(self, ended_ns: int, wanted_rate: float) -> list[Finding]:
        """What is to be said about messages that came (or did not come from a topic that is published)."""
        if not self._received:
            return [self._nothing()]
        return [
            *check_timing(self.part, self.timing(ended_ns), self.source.max_age, wanted_rate),
            *(self._picture() if self._read is None else self._values()),
        ]

    def _look(self, msg: Any) -> None:
        count = len(self._received)
        total = zlib.crc32(msg.data)
        self._alike = self._alike + 1 if total == self._sum else 1
        self.most_alike, self._sum = max(self.most_alike, self._alike), total
        if count >= DECODED and count % DECODED_EVERY:
            return
        try:
            height, width, _ = decode_image(msg, self.part).shape
        except MessageError as error:
            self._refuse(str(error))
        else:
            kind = msg.format if is_compressed(msg) else msg.encoding
            name = f"{width}x{height} {kind}"
            self.sizes[name] = self.sizes.get(name, 0) + 1

    def _refuse(self, text: str) -> None:
        first, count = self.refused.get(without_numbers(text), (text, 0))
        self.refused[without_numbers(text)] = (first, count + 1)

    def _nothing(self) -> Finding:
        source = self.source
        if isinstance(source, StateSource) and self.strangers:
            near = [n for joint in source.joints for n in difflib.get_close_matches(joint, self.strangers, 1)]
            hint = f" (did you mean {', '.join(dict.fromkeys(near))}?)" if near else ""
            text = f"none of its joints; the messages have {', '.join(self.strangers)}"
            remedy = f"correct the joints in the robot YAML{hint}, or start their driver"
            return fail(self.part, text, ", ".join(source.joints), remedy)
        text = f"no message came on {source.topic}"
        return fail(
            self.part, text, "messages", "see whether the driver is active, and the network carries it"
        )

    def _picture(self) -> list[Finding]:
        findings = self._refusals("a picture that decodes")
        if len(self.sizes) == 1:
            findings.append(ok(self.part, next(iter(self.sizes)), "a picture that decodes"))
        elif self.sizes:
            text = f"pictures of {', '.join(self.sizes)}"
            findings.append(warn(self.part, text, "one size and encoding", "look for a second source"))
        if self.most_alike >= ALIKE:
            text = f"{self.most_alike} pictures in a row with the same pixels"
            remedy = "see that it is not frozen (a simulated scene at rest is alike)"
            findings.append(warn(self.part, text, "a live picture", remedy))
        return findings

    def _values(self) -> list[Finding]:
        source = self.source
        assert isinstance(source, StateSource)
        expected = f"{source.width} finite values: {', '.join(source.joints)}"
        findings = self._refusals(expected)
        if not findings:
            also = f"; unknown to the YAML: {', '.join(self.also)}" if self.also else ""
            findings.append(ok(self.part, f"all {source.width} found and finite{also}", expected))
        return findings

    def _refusals(self, expected: str) -> list[Finding]:
        prefix, remedy = f"{self.part}: ", "correct the robot YAML, or the driver"
        return [
            fail(
                self.part, f"{text.removeprefix(prefix)} ({count} of {len(self._received)})", expected, remedy
            )
            for text, count in self.refused.values()
        ]


class JointLog:
    """The measured positions of the commanded joints, as the executor sees them on its joint state topic."""

    part = "executor.joint_state_topic"

    def __init__(self, robot: RobotConfig) -> None:
        self._robot = robot
        self.positions: dict[str, float] = {}  # latest, rad or m
        self.names: dict[str, None] = {}  # every joint that was ever named, in order
        self._seen: dict[str, tuple[list[int], list[int]]] = {}  # joint -> stamps, times of arrival
        self._heard = 0
        self._short = 0  # messages whose positions do not fit their names
        self._by_header = robot.executor_joint_state_stamp == HEADER

    def add(self, msg: Any, received_ns: int) -> None:
        """One JointState, and node time at its arrival."""
        self._heard += 1
        self.names.update(dict.fromkeys(msg.name))
        if len(msg.name) != len(msg.position):
            self._short += 1
            return
        stamp = stamp_ns(msg.header.stamp) if self._by_header else received_ns
        for name, position in zip(msg.name, msg.position, strict=True):
            if name in self._robot.joints:
                self.positions[name] = float(position)
                stamps, received = self._seen.setdefault(name, ([], []))
                stamps.append(stamp)
                received.append(received_ns)

    @property
    def finite_positions(self) -> dict[str, float]:
        """The latest positions that are numbers, rad or m."""
        return {joint: value for joint, value in self.positions.items() if math.isfinite(value)}

    def check(self, ended_ns: int, wanted_rate: float) -> list[Finding]:
        """Every commanded joint there, lately, with a number; one finding a kind of trouble."""
        joints, topic = self._robot.joints, self._robot.executor_joint_state_topic
        expected = f"{len(joints)} commanded joints on {topic}"
        if not self._heard:
            return [fail(self.part, f"no message came on {topic}", expected, "start the driver")]
        if self._short:
            text = f"{self._short} of {self._heard} messages have not one position a name"
            return [fail(self.part, text, expected, "fix the driver")]
        missing = [joint for joint in joints if joint not in self.positions]
        if missing:
            text = f"{', '.join(missing)} missing; there are {', '.join(self.names) or 'no joints'}"
            remedy = "correct the names in the robot YAML, or start their driver" + _near(missing, self.names)
            return [fail(self.part, text, expected, remedy)]
        broken = [f"{j} is {self.positions[j]}" for j in joints if not math.isfinite(self.positions[j])]
        if broken:
            return [fail(self.part, ", ".join(broken), "finite positions", "fix the driver")]
        # Joints that come in the same messages have the same timing: it is told once.
        findings: dict[tuple[str, ...], Finding] = {}
        for joint in joints:
            stamps, received = self._seen[joint]
            timing = Timing(stamps if self._by_header else received, received, ended_ns)
            age = self._robot.executor.max_joint_state_age
            for finding in check_timing(self.part, timing, age, wanted_rate):
                findings.setdefault((finding.level.name, finding.found), finding)
        told = list(findings.values())
        return [f for f in told if f.level] or [
            ok(self.part, f"all {len(joints)} measured, {told[0].found}", expected)
        ]


def _near(missing: Sequence[str], names: Sequence[str] | dict[str, None]) -> str:
    near = [n for joint in missing for n in difflib.get_close_matches(joint, list(names), 1)]
    return f" (did you mean {', '.join(dict.fromkeys(near))}?)" if near else ""
