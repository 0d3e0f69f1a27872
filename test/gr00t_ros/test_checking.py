# SPDX-License-Identifier: Apache-2.0
"""What check_robot says about topics, stamps and commands: every fault is a FAIL or WARN that names it, and a
graph without faults has none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gr00t_ros.checking import (
    Attempts,
    Endpoint,
    Timing,
    TopicSeen,
    check_clock,
    check_command,
    check_instruction,
    check_observation,
    check_policies,
    check_source,
    check_timing,
    mismatch,
)
from gr00t_ros.findings import Finding, Level, fail, ok, table, warn, worst
from gr00t_ros.robot_types import ActionGroupConfig

IMAGE, JOINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
CAMERA = Endpoint("/camera", IMAGE, reliable=False, transient_local=False)
POLICY = Endpoint("/gr00t/policy", IMAGE, reliable=False, transient_local=False)
EXECUTOR = Endpoint("/gr00t/chunk_executor", TRAJECTORY, reliable=True, transient_local=False)
CONTROLLER = Endpoint("/arm_controller", TRAJECTORY, reliable=True, transient_local=False)
ARM = ActionGroupConfig("arm", "joint_position", ("a", "b"), "joint_trajectory", "/arm/commands")
SECOND = 1_000_000_000


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


# Sources.


def source(*publishers: Endpoint, listeners: tuple[Endpoint, ...] = (POLICY,)) -> list[Finding]:
    graph = {"/camera/image_raw": [IMAGE], "/joint_states": [JOINTS], "/cam/image": [IMAGE]}
    seen = TopicSeen("/camera/image", publishers)
    return check_source("video.front", IMAGE, seen, listeners, graph, single=True)


def test_a_camera_that_fits() -> None:
    finding = only(source(CAMERA))
    assert finding == ok("video.front", "/camera/image from /camera, best effort", IMAGE)


def test_a_missing_topic_names_others_of_its_type() -> None:
    finding = only(source())
    assert (finding.level, finding.expected) == (Level.FAIL, IMAGE)
    assert "nobody publishes /camera/image" in finding.found
    assert "/camera/image_raw" in finding.remedy
    assert "/joint_states" not in finding.remedy


def test_a_wrong_type_is_a_failure_and_a_second_publisher_is_told() -> None:
    finding = only(source(replace(CAMERA, message_type="sensor_msgs/msg/CompressedImage")))
    assert finding.level == Level.FAIL
    assert "sensor_msgs/msg/CompressedImage" in finding.found
    other = only(source(CAMERA, replace(CAMERA, node="/bag", message_type=JOINTS)))
    assert (other.level, "/bag" in other.found) == (Level.WARN, True)
    second = only(source(CAMERA, replace(CAMERA, node="/bag")))
    assert (second.level, second.found) == (Level.WARN, "published by /bag, /camera")


@pytest.mark.parametrize("reliable", [None, False, True])
@pytest.mark.parametrize("latched", [None, False, True])
@pytest.mark.parametrize("wants_reliable", [None, False, True])
@pytest.mark.parametrize("wants_latched", [None, False, True])
def test_quality_of_service(
    reliable: bool | None, latched: bool | None, wants_reliable: bool | None, wants_latched: bool | None
) -> None:
    offered = Endpoint("/a", IMAGE, reliable, latched)
    requested = Endpoint("/b", IMAGE, wants_reliable, wants_latched)
    # As DDS has it: a subscriber may ask for less than is offered, never for more. What is unknown is not
    # held against anybody.
    wrong = (wants_reliable is True and reliable is False) or (wants_latched is True and latched is False)
    assert bool(mismatch(offered, requested)) == wrong
    findings = source(offered, listeners=(POLICY, requested))
    assert worst(findings) == (Level.FAIL if wrong else Level.OK)


@pytest.mark.parametrize(
    ("promised", "asked", "fits"),
    [
        (None, None, True),
        (0.1, None, True),
        (0.1, 0.1, True),
        (0.05, 0.1, True),
        (0.2, 0.1, False),
        (None, 0.1, False),
    ],
)
def test_deadlines(promised: float | None, asked: float | None, fits: bool) -> None:
    text = mismatch(replace(CAMERA, deadline_s=promised), replace(POLICY, deadline_s=asked))
    assert (text == "") == fits


# Timing.


def timing(ages: list[float], period: float = 0.05, quiet: float = 0.0, start: int = 10**18) -> Timing:
    """Messages every ``period`` s, the i-th ``ages[i]`` s old on arrival, then ``quiet`` s of nothing."""
    received = [start + round(i * period * SECOND) for i in range(len(ages))]
    stamps = [r - round(age * SECOND) for r, age in zip(received, ages, strict=True)]
    return Timing(stamps, received, received[-1] + round(quiet * SECOND))


def timed(given_timing: Timing, max_age: float = 0.2, rate: float = 20.0) -> list[Finding]:
    return check_timing("video.front", given_timing, max_age, rate)


def test_good_timing_says_rate_and_offset() -> None:
    finding = only(timed(timing([0.012] * 40)))
    assert finding.level == Level.OK
    assert finding.found == "20.0 Hz, clock and latency 12.0 ms"
    received = [i * SECOND // 20 + 10**18 for i in range(40)]
    assert only(timed(Timing(received, received, received[-1]))).found == "20.0 Hz"


@pytest.mark.parametrize(
    ("what", "level", "found"),
    [
        (timing([0.3] * 40), Level.FAIL, "0.300 s old on arrival"),
        (timing([-0.5] * 40), Level.FAIL, "stamps 0.500 s in the future"),
        (timing([0.01] * 39 + [-0.05]), Level.WARN, "1 of 40 stamps up to 0.050 s in the future"),
        (timing([1.0e9] * 40, start=2 * 10**18), Level.FAIL, "behind node time"),
        (timing([-1.0e8] * 40, start=10**17), Level.FAIL, "ahead of node time"),
        (timing([0.01] * 40, quiet=2.0), Level.FAIL, "nothing for the last 2.0 s"),
        (timing([0.01] * 10, period=0.3), Level.FAIL, "0.310 s old when the next one comes"),
        (timing([0.01] * 40, period=0.1), Level.WARN, "10.0 Hz"),
        (timing([0.01] * 20 + [0.19] + [0.01] * 20), Level.WARN, "older than that 1 times, at most 0.240 s"),
        (timing([0.01]), Level.WARN, "one message only"),
        (Timing([5], [10**18], 10**18), Level.FAIL, "behind node time"),
        (Timing([0, 0, 0], [1, 2, 3], 3), Level.FAIL, "3 of 3 messages have a zero stamp"),
        (Timing([8, 0, 9], [8, 9, 10], 10), Level.FAIL, "1 of 3 messages have a zero stamp"),
        (Timing([5, 5, 5, 5], [5, 6, 7, 8], 8), Level.FAIL, "4 messages with one and the same stamp"),
        (Timing([5, 5, 6, 7], [5, 6, 7, 8], 8), Level.WARN, "1 of 4 messages repeat a stamp"),
        (Timing([5, 7, 6, 8], [9, 10, 11, 12], 12), Level.WARN, "stamps go back"),
        (Timing([9, 10, 3], [9, 10, 3], 3), Level.FAIL, "the clock went back"),
    ],
)
def test_faults_of_time(what: Timing, level: Level, found: str) -> None:
    findings = timed(what)
    assert worst(findings) == level
    assert any(found in finding.found and finding.level == level for finding in findings), findings
    assert all(finding.remedy for finding in findings if finding.level)


@given(
    latency=st.floats(-0.5, 0.5),
    period=st.floats(0.005, 0.4),
    max_age=st.floats(0.05, 0.3),
    count=st.integers(3, 60),
)
def test_what_the_policy_would_not_use_is_never_ok(
    latency: float, period: float, max_age: float, count: int
) -> None:
    for edge in (latency + 0.02, latency - max_age, latency + period - max_age, 0.9 * 20 - 1 / period):
        assume(abs(edge) > 1e-3)
    level = worst(timed(timing([latency] * count, period), max_age))
    usable = latency > -0.02 and latency + period < max_age
    assert (level == Level.FAIL) == (not usable)
    if usable:
        assert level == (Level.WARN if 1 / period < 0.9 * 20 else Level.OK)


_times = st.lists(st.integers(-5, 3 * SECOND), min_size=1, max_size=20)


@given(st.data(), _times, st.integers(0, 3 * SECOND))
def test_any_times_give_findings_that_can_be_shown(
    data: st.DataObject, received: list[int], end: int
) -> None:
    stamps = data.draw(st.lists(st.integers(-5, 3 * SECOND), min_size=len(received), max_size=len(received)))
    findings = timed(Timing(stamps, received, end))
    assert findings
    assert all(line.strip() for line in table(findings).splitlines())
    if any(stamp <= 0 for stamp in stamps):
        assert worst(findings) == Level.FAIL


# Commands.


def command(
    *subscribers: Endpoint,
    publishers: tuple[Endpoint, ...] = (EXECUTOR,),
    offered: Endpoint = EXECUTOR,
    group: ActionGroupConfig = ARM,
) -> list[Finding]:
    seen = TopicSeen("/arm/commands", publishers, subscribers)
    return check_command(group, seen, offered, EXECUTOR.node)


@pytest.mark.parametrize("publishers", [(), (EXECUTOR,)])
def test_a_controller_that_listens(publishers: tuple[Endpoint, ...]) -> None:
    finding = only(command(CONTROLLER, publishers=publishers))
    assert finding == ok("action.arm", "/arm/commands heard by /arm_controller", TRAJECTORY)


@pytest.mark.parametrize(
    "onlooker", ["/gr00t/demo_monitor", "/_ros2cli_4711", "/rosbag2_recorder", "/x/episode_recorder"]
)
def test_who_only_looks_is_no_controller(onlooker: str) -> None:
    finding = only(command(replace(CONTROLLER, node=onlooker)))
    assert (finding.level, finding.found) == (Level.FAIL, "nobody listens to /arm/commands")


def test_a_controller_that_would_hear_nothing() -> None:
    wrong = only(command(replace(CONTROLLER, message_type="std_msgs/msg/Float64MultiArray")))
    assert (wrong.level, wrong.expected) == (Level.FAIL, TRAJECTORY)
    assert "/arm_controller takes std_msgs/msg/Float64MultiArray" in wrong.found
    latched = only(command(replace(CONTROLLER, transient_local=True)))
    assert (latched.level, "latched" in latched.found) == (Level.FAIL, True)
    lossy = only(command(CONTROLLER, offered=replace(EXECUTOR, reliable=False)))
    assert (lossy.level, "best effort" in lossy.found) == (Level.FAIL, True)


def test_somebody_else_who_commands_is_told() -> None:
    teleop = replace(EXECUTOR, node="/teleop")
    for publishers in ((teleop,), (EXECUTOR, teleop)):
        finding = only(command(CONTROLLER, publishers=publishers))
        assert (finding.level, finding.found) == (Level.WARN, "/teleop commands on /arm/commands too")
    twice = only(command(CONTROLLER, publishers=(EXECUTOR, EXECUTOR)))
    assert (twice.level, "2 publishers" in twice.found) == (Level.WARN, True)
    assert worst(command(publishers=(teleop,))) == Level.FAIL, "a warning does not hide that nobody listens"


@pytest.mark.parametrize("representation", ["joint_velocity", "twist"])
def test_velocities_need_a_controller_that_stops_by_itself(representation: str) -> None:
    finding = only(command(CONTROLLER, group=replace(ARM, representation=representation)))
    assert finding.level == Level.FAIL
    assert "without a declared timeout" in finding.found


# The rest.


def test_the_instruction() -> None:
    text, topic = "std_msgs/msg/String", "/gr00t/instruction"
    voice = Endpoint("/voice", text)
    assert only(check_instruction("pick", TopicSeen(topic))).level == Level.OK
    assert only(check_instruction("", TopicSeen(topic, (voice,)))).level == Level.OK
    assert only(check_instruction(" ", TopicSeen(topic))).level == Level.WARN
    wrong = TopicSeen(topic, (replace(voice, message_type=IMAGE),))
    assert only(check_instruction("pick", wrong)).level == Level.FAIL


def test_the_clock() -> None:
    sim = TopicSeen("/clock", (Endpoint("/sim", "rosgraph_msgs/msg/Clock"),))
    assert only(check_clock(False, True, TopicSeen("/clock"))).level == Level.OK
    assert only(check_clock(True, True, sim)).level == Level.OK
    assert only(check_clock(True, False, TopicSeen("/clock"))).level == Level.FAIL
    told = only(check_clock(False, True, sim))
    assert (told.level, "use_sim_time:=true" in told.remedy) == (Level.WARN, True)


def test_two_policies_are_told() -> None:
    policy = Endpoint("/gr00t/policy", "gr00t_ros/msg/ActionChunk")
    assert check_policies(TopicSeen("/gr00t/action_chunk", (policy,))) == []
    two = TopicSeen("/gr00t/action_chunk", (policy, replace(policy, node="/b/policy")))
    assert only(check_policies(two)).level == Level.WARN


@given(made=st.integers(0, 50), share=st.floats(0.0, 1.0))
def test_observations_count(made: int, share: float) -> None:
    ready = int(made * share)
    finding = only(check_observation(Attempts(made, ready, {"video.front: stale": made - ready})))
    if made and ready == made:
        assert finding.level == Level.OK
    elif ready * 2 < made or not made:
        assert finding.level == Level.FAIL
    else:
        assert finding.level == Level.WARN
    assert made == 0 or ready == made or "video.front: stale" in finding.found


# The table.


def test_the_table_has_one_line_a_finding_and_folds_for_a_terminal() -> None:
    findings = [ok("clock", "system time", "one clock"), fail("video.front", "found\n this", "that", "do it")]
    findings += [warn("limits", "x " * 100, "short", "something long " * 8)]
    lines = table(findings).splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["RESULT", "PART", "FOUND", "EXPECTED", "WHAT", "TO", "DO"]
    assert lines[2].startswith("FAIL    video.front  found this")
    assert lines[2].endswith("do it")
    column = lines[0].index("FOUND")
    assert [line[column:].split()[0] for line in lines[1:]] == ["system", "found", "x"]
    folded = table(findings, 100)
    assert max(map(len, folded.splitlines())) <= 100
    assert folded.count("something") == 8
    assert worst([]) == Level.OK
