# SPDX-License-Identifier: Apache-2.0
"""The verdict on an episode, and that each reason names the topic and says what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gr00t_ros.recording.audit import BAD, GOOD, USABLE, judge
from gr00t_ros.recording.topic_audit import TopicAudit

CAMERA = TopicAudit(
    topic="/camera",
    message_type="sensor_msgs/msg/Image",
    used_by=("video.front",),
    required=True,
    messages=600,
    size=10**6,
    rate=30.0,
    least_rate=20.0,
    longest_gap=0.04,
    max_age=0.2,
    gaps=0,
    stale=0.0,
    offset_mean=0.01,
    offset_min=0.005,
    offset_max=0.02,
    dropped=0,
    lost=0,
    zero_stamps=0,
    backwards=0,
    stamped=True,
    max_ahead=0.02,
)
EXTRA = replace(CAMERA, topic="/tf", used_by=(), required=False, max_age=None, least_rate=0.0)


def test_a_good_episode_has_no_reasons() -> None:
    audit = judge([CAMERA, EXTRA])
    assert (audit.verdict, audit.reasons) == (GOOD, ())
    told = audit.as_dict()
    assert list(told["topics"]) == ["/camera", "/tf"]
    assert told["topics"]["/camera"]["offset_mean"] == 0.01


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"messages": 0}, BAD, r"video.front \(/camera\): no message"),
        ({"stale": 0.6, "gaps": 3}, BAD, "without a message younger than 0.2 s for 60% of the time"),
        ({"zero_stamps": 600}, BAD, "600 of 600 messages have a zero stamp; .* set 'stamp: receive'"),
        ({"zero_stamps": 5}, USABLE, "5 of 600 messages have a zero stamp"),
        ({"gaps": 3, "longest_gap": 0.5}, USABLE, "3 gaps over 0.2 s, the longest 0.500 s"),
        ({"rate": 15.0}, USABLE, "15.0 Hz, expected at least 20 Hz"),
        ({"backwards": 2}, USABLE, "time goes backwards 2 times"),
        ({"dropped": 7}, USABLE, "7 messages came faster than they could be written"),
        ({"lost": 4}, USABLE, "4 messages were lost on their way here"),
        (
            {"ahead": 9, "offset_min": -0.5},
            USABLE,
            "9 of 600 messages have stamps after .*, by up to 0.500 s",
        ),
        ({"ahead": 500, "offset_min": -0.05}, BAD, "500 of 600 messages have stamps after their arrival"),
        ({"offset_mean": 3.0}, USABLE, "stamps 3.000 s before arrival, more than max_age 0.2 s"),
    ],
)
def test_each_fault_is_told(change: dict, verdict: str, said: str) -> None:
    audit = judge([replace(CAMERA, **change)])
    assert audit.verdict == verdict
    assert len(audit.reasons) == 1
    assert re.search(said, audit.reasons[0]), audit.reasons[0]


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 19.5},  # a driver's clock
        {"offset_min": -0.01},  # clocks of one robot
        {"stamped": False, "max_ahead": None, "zero_stamps": 600, "offset_mean": None, "offset_min": None},
    ],
)
def test_what_is_no_fault(change: dict) -> None:
    assert judge([replace(CAMERA, **change)]).verdict == GOOD


def test_a_camera_that_lags_behind_the_joints_is_of_no_use() -> None:
    """The converter waits 0.2 s, the camera's max_age, for what comes late."""
    joints = replace(CAMERA, topic="/joint_states", used_by=("state.arm",), max_age=0.1, least_rate=0.0)
    for late, verdict in ((0.3, USABLE), (0.45, BAD), (3.0, BAD)):
        audit = judge([replace(CAMERA, offset_mean=late), joints])
        assert audit.verdict == verdict
        assert f"video.front (/camera): stamps {late:.3f} s before arrival" in audit.reasons[0]
    # Of another clock are all of them; but a command without a header counts by its arrival.
    both = [replace(topic, offset_mean=3.0) for topic in (CAMERA, joints)]
    assert judge(both).verdict == USABLE
    command = replace(EXTRA, used_by=("action.arm",), required=True, stamped=False, max_ahead=None)
    assert judge([*both, command]).verdict == BAD


def test_what_is_not_required_makes_no_episode_bad() -> None:
    optional = replace(CAMERA, required=False)
    assert judge([replace(optional, messages=0)]).verdict == GOOD
    assert judge([replace(optional, stale=0.9, gaps=9)]).verdict == USABLE
    # Of a topic that the YAML does not name nothing is expected but that it was written.
    assert (
        judge([replace(EXTRA, messages=0, gaps=9, lost=3, backwards=1, ahead=9, offset_min=-9.0)]).verdict
        == GOOD
    )
    assert judge([replace(EXTRA, dropped=1)]).verdict == USABLE


def test_a_note_is_a_reason() -> None:
    audit = judge([CAMERA], ["no instruction"])
    assert (audit.verdict, audit.reasons) == (USABLE, ("no instruction",))
