# SPDX-License-Identifier: Apache-2.0
"""What the messages of a source hold, as check_robot tells it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gr00t_ros.checking_sources import ALIKE, JointLog, SourceLog
from gr00t_ros.findings import Finding, Level, worst
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import StateSource, VideoSource
from support_messages import array, compressed_image, grey_image, joint_state
from support_robots import small_config, small_robot

START, PERIOD = 10**18, 50_000_000
POSITIONS = {"shoulder": 0.1, "elbow": -0.2, "gripper": 0.3}


def fed(log: Any, messages: list[Any], stamps: bool = True) -> list[Finding]:
    """The findings after ``messages`` came every 50 ms, freshly stamped."""
    now = START
    for message in messages:
        now += PERIOD
        if stamps:
            message.header.stamp = SimpleNamespace(sec=now // 10**9, nanosec=now % 10**9)
        log.add(message, now)
    found: list[Finding] = log.check(now, 20.0)
    return found


def camera(messages: list[Any], **fields: Any) -> list[Finding]:
    return fed(SourceLog("video.front", VideoSource("front", "/camera/front/image_raw", **fields)), messages)


def state(messages: list[Any]) -> list[Finding]:
    config = small_config()
    return fed(SourceLog("state.arm", config.state["arm"], set(config.joints)), messages)


def grey(count: int) -> list[Any]:
    return [grey_image(i, 1, (48, 64)) for i in range(count)]


def test_a_picture_is_told_with_its_size_and_encoding() -> None:
    findings = camera(grey(12))
    assert [f.level for f in findings] == [Level.OK, Level.OK]
    assert findings[1].found == "64x48 rgb8"
    pictures = [compressed_image(np.full((4, 6, 3), i, np.uint8)) for i in range(5)]
    assert "6x4" in camera(pictures, type="compressed_image")[-1].found


def test_pictures_that_do_not_decode_fail() -> None:
    broken = grey(6)
    for message in broken:
        message.encoding = "32FC1"
    finding = camera(broken)[-1]
    assert finding.level == Level.FAIL
    assert finding.found.startswith("found encoding '32FC1'")
    cut = [compressed_image(np.zeros((4, 6, 3), np.uint8)) for _ in range(3)]
    cut[1].data = cut[1].data[:-20]
    finding = next(f for f in camera(cut, type="compressed_image") if "breaks off" in f.found)
    assert (finding.level, "(1 of 3)" in finding.found) == (Level.FAIL, True)


def test_two_sizes_and_a_frozen_picture_are_told() -> None:
    mixed = [grey_image(1, 1, (4, 6)), grey_image(2, 1, (8, 6)), grey_image(3, 1, (4, 6))]
    assert "pictures of 6x4 rgb8, 6x8 rgb8" in [f.found for f in camera(mixed) if f.level == Level.WARN]
    assert worst(camera([grey_image(7, 1) for _ in range(ALIKE - 1)] + grey(4))) == Level.OK
    frozen = camera([grey_image(7, 1) for _ in range(ALIKE)])
    assert any(f.level == Level.WARN and f"{ALIKE} pictures in a row" in f.found for f in frozen)


def test_nothing_came() -> None:
    finding = camera([])[0]
    assert (finding.level, finding.found) == (Level.FAIL, "no message came on /camera/front/image_raw")


def test_states_that_are_there() -> None:
    messages = [joint_state({**POSITIONS, "finger": 0.0}) for _ in range(10)]
    findings = state(messages)
    assert worst(findings) == Level.OK
    assert findings[-1].found == "all 2 found and finite; unknown to the YAML: finger"


@pytest.mark.parametrize(
    ("positions", "found"),
    [
        ({"shoulder": 0.1, "elbo": 0.2}, "joint elbow missing; the message has shoulder, elbo"),
        ({"shoulder": math.nan, "elbow": 0.0}, "shoulder is nan in position"),
        ({"shoulder": math.inf, "elbow": 0.0}, "shoulder is inf in position"),
    ],
)
def test_states_that_the_policy_would_refuse(positions: dict[str, float], found: str) -> None:
    finding = state([joint_state(positions) for _ in range(10)])[-1]
    assert finding.level == Level.FAIL
    assert found in finding.found
    assert "(10 of 10)" in finding.found


def test_other_joints_altogether_suggest_a_name() -> None:
    findings = state([joint_state({"Shoulder": 0.1, "hip": 0.2}) for _ in range(10)])
    assert [f.level for f in findings] == [Level.FAIL]
    assert findings[0].found == "none of its joints; the messages have Shoulder, hip"
    assert "did you mean Shoulder?" in findings[0].remedy


def test_an_array_of_the_wrong_width() -> None:
    source = StateSource(
        "force",
        "/force",
        ("f_0", "f_1"),
        "float64_multi_array",
        indices=(0, 1),
        array_width=2,
        stamp="receive",
    )
    assert worst(fed(SourceLog("state.force", source), [array([1.0, 2.0])] * 5, stamps=False)) == Level.OK
    finding = fed(SourceLog("state.force", source), [array([1.0, 2.0, 3.0])] * 5, stamps=False)[-1]
    assert (finding.level, "an array of 3 values, expected 2" in finding.found) == (Level.FAIL, True)


# The joints that the executor measures.


def joints(messages: list[Any], robot: RobotConfig | None = None) -> list[Finding]:
    return fed(JointLog(robot or small_config()), messages)


def test_all_commanded_joints_in_one_message_or_in_several() -> None:
    together = joints([joint_state(POSITIONS) for _ in range(20)])
    assert [f.level for f in together] == [Level.OK]
    apart: list[Any] = []
    for _ in range(20):
        apart += [joint_state({"gripper": 0.3}), joint_state({"shoulder": 0.1, "elbow": 0.0})]
    robot = small_robot()
    robot["step_rate"] = 10.0
    log = JointLog(RobotConfig.from_mapping(robot))
    fed(log, apart)
    assert [f.level for f in log.check(START + 40 * PERIOD, 10.0)] == [Level.OK]


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([], "no message came on /joint_states"),
        (
            [{"shoulder": 0.1, "elbow": 0.2, "griper": 0.3}] * 5,
            "gripper missing; there are shoulder, elbow, griper",
        ),
        ([{**POSITIONS, "elbow": math.nan}] * 5, "elbow is nan"),
        # The gripper came once and never again.
        ([POSITIONS] + [{"shoulder": 0.1, "elbow": 0.2}] * 40, "nothing for the last 2.0 s"),
    ],
)
def test_joints_that_the_executor_would_hold_for(messages: list[dict[str, float]], found: str) -> None:
    findings = joints([joint_state(positions) for positions in messages])
    assert worst(findings) == Level.FAIL
    assert found in findings[0].found


def test_positions_that_do_not_fit_the_names() -> None:
    findings = joints([joint_state(POSITIONS, position=[0.0]) for _ in range(4)])
    assert (findings[0].level, "4 of 4 messages" in findings[0].found) == (Level.FAIL, True)
