# SPDX-License-Identifier: Apache-2.0
"""What fits and what does not between a robot description and a running graph: topics, stamps, commands.

``check_robot`` collects plain observations (who publishes what, when messages came, what they held) and asks
the functions here and in ``checking_sources``, ``checking_limits`` and ``checking_checkpoint`` about them.
Nothing here knows ROS or waits for anything.
"""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gr00t_ros.findings import Finding, Level, fail, ok, warn, worst
from gr00t_ros.robot_types import MESSAGE_TYPES, VELOCITIES, ActionGroupConfig
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS

_NS = 1e9
# A topic that was quiet for longer than its max_age and this, when the listening ended, has stopped (s).
STOPPED_S = 0.5
# Stamps this far from node time (s) are of another clock: simulated time, time since boot.
OTHER_CLOCK_S = 3600.0
# A measured rate below this share of the wanted one is told.
RATE_SHARE = 0.9
# Nodes that listen to command topics and move nothing.
ONLOOKERS = ("demo_monitor", "episode_recorder", "action_visualizer", "rosbag2_recorder", "check_robot")


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscriber of a topic. None where the middleware does not tell.

    ``deadline_s`` is what a publisher promises or a subscriber asks for, None for no promise.
    """

    node: str
    message_type: str
    reliable: bool | None = None
    transient_local: bool | None = None
    deadline_s: float | None = None

    @property
    def qos(self) -> str:
        """Its quality of service in words."""
        words = {True: "reliable", False: "best effort", None: "reliability unknown"}[self.reliable]
        return words + (", latched" if self.transient_local else "")


@dataclass(frozen=True)
class TopicSeen:
    """A topic as the graph shows it. ``topic`` is its full name after remapping."""

    topic: str
    publishers: tuple[Endpoint, ...] = ()
    subscribers: tuple[Endpoint, ...] = ()


def mismatch(offered: Endpoint, requested: Endpoint) -> str:
    """Why a publisher and a subscriber of one type exchange nothing; an empty text when they do."""
    if requested.reliable and offered.reliable is False:
        return f"{offered.node} publishes best effort, {requested.node} asks for reliable"
    if requested.transient_local and offered.transient_local is False:
        return f"{offered.node} publishes volatile, {requested.node} asks for latched (transient local)"
    if requested.deadline_s is not None and (offered.deadline_s or float("inf")) > requested.deadline_s:
        promise = f"{offered.deadline_s:g} s" if offered.deadline_s else "no deadline"
        return f"{offered.node} promises {promise}, {requested.node} asks for {requested.deadline_s:g} s"
    return ""


def check_source(
    part: str,
    wanted: str,
    seen: TopicSeen,
    listeners: Sequence[Endpoint],
    topics: Mapping[str, Sequence[str]],
    *,
    single: bool,
) -> list[Finding]:
    """Presence, type and quality of service of a topic that the policy or the executor reads.

    ``wanted`` is the message type in full, ``listeners`` how our nodes subscribe, ``topics`` all topics of
    the graph with their types (for suggestions), ``single`` whether more than one publisher is a mistake.
    """
    right = [p for p in seen.publishers if p.message_type == wanted]
    if not seen.publishers:
        return [
            fail(
                part,
                f"nobody publishes {seen.topic}",
                wanted,
                "start the driver" + _near(seen, wanted, topics),
            )
        ]
    if not right:
        types = ", ".join(sorted({p.message_type for p in seen.publishers}))
        return [fail(part, f"{seen.topic} is {types}", wanted, "correct topic or type in the robot YAML")]
    findings = []
    for text in dict.fromkeys(filter(None, (mismatch(p, s) for p in right for s in listeners))):
        findings.append(
            fail(part, text, "QoS that match", "change the driver's QoS, or qos_overrides of our node")
        )
    if len(right) != len(seen.publishers):
        others = ", ".join(f"{p.node} ({p.message_type})" for p in seen.publishers if p not in right)
        findings.append(warn(part, f"also published by {others}", f"{wanted} only", "end or rename it"))
    if single and len(right) > 1:
        findings.append(
            warn(part, f"published by {_names(right)}", "one publisher", "end all but one: frames would mix")
        )
    return findings or [ok(part, f"{seen.topic} from {_names(right)}, {right[0].qos}", wanted)]


@dataclass(frozen=True)
class Timing:
    """When messages came, in node (ROS) time, and what their headers said: one entry a message, in order.

    ``stamps_ns`` equals ``received_ns`` for messages whose time of arrival counts. ``ended_ns`` is when the
    listening ended.
    """

    stamps_ns: Sequence[int]
    received_ns: Sequence[int]
    ended_ns: int

    @property
    def rate(self) -> float:
        """Messages per second; 0 where that cannot be said."""
        if len(self.received_ns) < 2 or self.received_ns[-1] <= self.received_ns[0]:
            return 0.0
        return (len(self.received_ns) - 1) * _NS / (self.received_ns[-1] - self.received_ns[0])


def check_timing(part: str, timing: Timing, max_age: float, wanted_rate: float) -> list[Finding]:
    """Stamps, clock offset, age and rate of a source of which at least one message came.

    The age that counts is that of a message when the next one comes: the oldest it is ever used at.
    """
    stamps, received = timing.stamps_ns, timing.received_ns
    count = len(received)
    expected = f"at most {max_age:g} s old, {wanted_rate:g} Hz"
    if any(later < earlier for earlier, later in pairwise(received)):
        text = "the clock went back while listening"
        return [fail(part, text, "time that goes forward", "restart the simulation's nodes and check again")]
    zero = sum(stamp <= 0 for stamp in stamps)
    if zero:
        text = f"{zero} of {count} messages have a zero stamp"
        return [
            fail(part, text, "the time of measurement", "fix the driver, or set stamp: receive in the YAML")
        ]
    if count >= 3 and len(set(stamps)) == 1:
        text = f"{count} messages with one and the same stamp"
        return [fail(part, text, "a new stamp each", "restart the driver: what it sends is frozen")]
    late = [(r - s) / _NS for r, s in zip(received, stamps, strict=True)]
    problem = _clock_problem(part, late, max_age, expected)
    if problem is not None:
        return [problem]
    findings = _gaps(part, timing, max_age, expected)
    repeats = count - len(set(stamps))
    if repeats:
        text = f"{repeats} of {count} messages repeat a stamp"
        findings.append(
            warn(part, text, "a new stamp each", "see whether the driver drops or repeats frames")
        )
    if any(later < earlier for earlier, later in pairwise(stamps)):
        findings.append(
            warn(part, "stamps go back", "stamps in order", "look for a second source of messages")
        )
    if count >= 3 and timing.rate < RATE_SHARE * wanted_rate:
        findings.append(
            warn(part, f"{timing.rate:.1f} Hz", f"{wanted_rate:g} Hz", "raise its rate, or correct step_rate")
        )
    if not findings:
        age = statistics.median(late)
        about = f", clock and latency {age * 1e3:.1f} ms" if stamps is not received else ""
        return [ok(part, f"{timing.rate:.1f} Hz{about}", expected)]
    return findings


def _clock_problem(part: str, late: Sequence[float], max_age: float, expected: str) -> Finding | None:
    """The finding for stamps that are no use in node time; ``late`` is arrival less stamp, in s."""
    middle = statistics.median(late)
    if abs(middle) > OTHER_CLOCK_S:
        text = f"stamps {abs(middle):.0f} s {'behind' if middle > 0 else 'ahead of'} node time"
        return fail(
            part, text, expected, "another clock: use_sim_time on all nodes or none, or stamp: receive"
        )
    ahead = [-s for s in late if -s * _NS > FUTURE_TOLERANCE_NS]
    if len(ahead) * 2 > len(late):
        text = f"stamps {-middle:.3f} s in the future"
        return fail(part, text, expected, "synchronise the clocks (chrony, PTP)")
    if middle > max_age:
        text = f"{middle:.3f} s old on arrival (least {min(late):.3f} s)"
        return fail(part, text, expected, "synchronise the clocks, or find what delays it")
    if ahead:
        text = f"{len(ahead)} of {len(late)} stamps up to {max(ahead):.3f} s in the future"
        return warn(part, text, expected, "such messages are refused: synchronise the clocks")
    return None


def _gaps(part: str, timing: Timing, max_age: float, expected: str) -> list[Finding]:
    """Findings about messages that come too seldom, or no more."""
    stamps, received = timing.stamps_ns, timing.received_ns
    quiet = (timing.ended_ns - received[-1]) / _NS
    if quiet > max_age + STOPPED_S:
        text = f"nothing for the last {quiet:.1f} s"
        return [fail(part, text, expected, "find out why its source stopped")]
    ages = [(r - s) / _NS for s, r in zip(stamps, received[1:], strict=False)]
    if not ages:
        return [warn(part, "one message only", expected, "check again with a longer --duration")]
    middle, longest = statistics.median(ages), max(ages)
    if middle > max_age:
        text = f"{middle:.3f} s old when the next one comes ({timing.rate:.1f} Hz)"
        return [fail(part, text, expected, "raise its rate, or max_age in the robot YAML")]
    if longest > max_age:
        late = sum(age > max_age for age in ages)
        text = f"older than that {late} times, at most {longest:.3f} s"
        return [warn(part, text, expected, "the robot holds meanwhile: look for load and lost messages")]
    return []


def check_command(
    group: ActionGroupConfig, seen: TopicSeen, offered: Endpoint, executor: str
) -> list[Finding]:
    """Who listens to a group's command topic, and who else commands there.

    ``offered`` is how the executor publishes, ``executor`` its full node name.
    """
    part, wanted = f"action.{group.key}", MESSAGE_TYPES[group.interface]
    findings = _streamed_velocity(part, group)
    subscribers = [s for s in seen.subscribers if not _is_onlooker(s.node)]
    right = [s for s in subscribers if s.message_type == wanted]
    if not subscribers:
        text = f"nobody listens to {seen.topic}"
        findings.append(fail(part, text, wanted, "start the controller, or correct the topic"))
    elif not right:
        types = ", ".join(sorted({s.message_type for s in subscribers}))
        text = f"{_names(subscribers)} takes {types} on {seen.topic}"
        findings.append(fail(part, text, wanted, "correct interface or topic in the robot YAML"))
    for subscriber in right:
        text = mismatch(offered, subscriber)
        if text:
            findings.append(
                fail(part, text, "QoS that match", "change the controller's QoS, or qos_overrides")
            )
    if right and len(right) != len(subscribers):
        others = ", ".join(f"{s.node} ({s.message_type})" for s in subscribers if s not in right)
        findings.append(warn(part, f"also heard by {others}", f"{wanted} only", "end or rename it"))
    commanders = [p for p in seen.publishers if p.node != executor]
    if commanders:
        text = f"{_names(commanders)} commands on {seen.topic} too"
        findings.append(warn(part, text, f"{executor} alone", "end it: two would fight over the robot"))
    elif len(seen.publishers) > 1:
        text = f"{len(seen.publishers)} publishers named {executor} on {seen.topic}"
        findings.append(warn(part, text, "one", "end all but one executor"))
    if worst(findings) == Level.OK:
        text = f"{seen.topic} heard by {_names(right)}"
        if group.downstream_timeout:
            text += f", which is said to stop {group.downstream_timeout:g} s after the last velocity"
        findings.append(ok(part, text, wanted))
    return findings


def _streamed_velocity(part: str, group: ActionGroupConfig) -> list[Finding]:
    """A velocity runs on when its sender dies: it may be sent only to a controller that stops by itself."""
    if group.representation not in VELOCITIES or group.downstream_timeout > 0.0:
        return []
    text = f"{group.representation} without a declared timeout of its controller"
    remedy = "set the controller's own command timeout, and name it as downstream_timeout in the robot YAML"
    return [fail(part, text, "a controller that stops when commands end", remedy)]


def check_instruction(text: str, seen: TopicSeen, wanted: str = MESSAGE_TYPES["string"]) -> list[Finding]:
    """Whether the policy will have a task: ``text`` is the robot YAML's default."""
    part = "instruction"
    wrong = [p for p in seen.publishers if p.message_type != wanted]
    if wrong:
        return [fail(part, f"{_names(wrong)} publishes {wrong[0].message_type}", wanted, "correct the topic")]
    if seen.publishers:
        return [ok(part, f"{seen.topic} from {_names(seen.publishers)}", wanted)]
    if text.strip():
        return [ok(part, f"default {text.strip()[:40]!r}; nobody publishes {seen.topic}", wanted)]
    remedy = f"publish a text on {seen.topic}, or set instruction.default"
    return [warn(part, "no default, and nobody publishes one", "a text", remedy)]


def check_policies(seen: TopicSeen) -> list[Finding]:
    """``seen`` is the topic of the chunks: two policies would take turns in commanding one robot."""
    if len(seen.publishers) < 2:
        return []
    text = f"{len(seen.publishers)} publishers of {seen.topic}: {_names(seen.publishers)}"
    return [warn("policy", text, "one", "end all but one policy")]


def check_clock(use_sim_time: bool, heard: bool, seen: TopicSeen) -> list[Finding]:
    """Whether this check looks with the clock that the robot's nodes have."""
    if use_sim_time and not heard:
        return [fail("clock", "use_sim_time, but no /clock came", "simulated time", "start its publisher")]
    if use_sim_time:
        return [ok("clock", f"simulated, from {_names(seen.publishers)}", "one clock for all nodes")]
    if seen.publishers:
        text = f"{_names(seen.publishers)} publishes /clock, and this check uses system time"
        remedy = "add --ros-args -p use_sim_time:=true where the nodes run with it"
        return [warn("clock", text, "one clock for all nodes", remedy)]
    return [ok("clock", "system time", "one clock for all nodes")]


@dataclass(frozen=True)
class Attempts:
    """Observations assembled as the policy does it: how many were tried, and the latest sentence for each
    reason why one was not ready, with its count."""

    made: int
    ready: int
    reasons: Mapping[str, int]


def check_observation(attempts: Attempts) -> list[Finding]:
    """Whether all sources together give the policy what it needs."""
    part, expected = "observation", "every source in time, for one moment"
    found = f"{attempts.ready} of {attempts.made} assembled"
    if attempts.made == 0:
        return [fail(part, "no picture came to assemble one for", expected, "see the cameras above")]
    if attempts.ready == attempts.made:
        return [ok(part, found, expected)]
    reasons = sorted(attempts.reasons, key=lambda reason: -attempts.reasons[reason])
    text = f"{found}: {'; '.join(reasons[:3])}"
    if attempts.ready * 2 < attempts.made:
        return [fail(part, text, expected, "see the sources above")]
    return [warn(part, text, expected, "the robot holds meanwhile: see the sources above")]


def _near(seen: TopicSeen, wanted: str, topics: Mapping[str, Sequence[str]]) -> str:
    """Topics of the wanted type, those of a similar name first, as the end of a sentence."""
    same = [topic for topic, types in topics.items() if wanted in types and topic != seen.topic]
    near = difflib.get_close_matches(seen.topic, same, 3, 0.0)
    return f", or correct the topic (of that type: {', '.join(near)})" if near else ", or correct the topic"


def _names(endpoints: Sequence[Endpoint]) -> str:
    return ", ".join(sorted({endpoint.node for endpoint in endpoints}))


def _is_onlooker(node: str) -> bool:
    name = node.rpartition("/")[2]
    return name in ONLOOKERS or name.startswith(("_ros2cli", "rosbag2_recorder"))
