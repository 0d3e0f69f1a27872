# SPDX-License-Identifier: Apache-2.0
"""Watchdogs: each reports what it watches, no sooner and no later, and the gravest comes first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.faults import Fault, Reaction
from gr00t_ros.robot import RobotConfig
from gr00t_ros.watchdogs import GRACE_S, Watchdogs
from support_robots import shipped, small_robot

S = 1_000_000_000
TOPICS = ("/arm", "/gripper")


def robot(**watchdogs: Any) -> RobotConfig:
    description = small_robot()
    description["executor"] = {"max_joint_state_age": 0.2, "watchdogs": watchdogs}
    return RobotConfig.from_mapping(description)


def dogs(config: RobotConfig | None = None) -> Watchdogs:
    return Watchdogs((config or shipped("so101")).executor, TOPICS, 0)


def listened(watch: Watchdogs, mono_ns: int) -> Watchdogs:
    watch.counted(dict.fromkeys(TOPICS, 1), mono_ns)
    return watch


def reasons(faults: tuple[Fault, ...]) -> list[str]:
    return [fault.reason for fault in faults]


def test_nothing_is_wrong_while_all_goes_on() -> None:
    watch = dogs()
    for second in range(20):
        now = second * S
        watch.counted(dict.fromkeys(TOPICS, 1), now)
        watch.heard(now)
        watch.accepted(now - S // 10, now + 2 * S, now)
        assert watch.check(now, now, 0) == ()


def test_a_heartbeat_is_missed_only_once_it_was_heard() -> None:
    watch = listened(dogs(), 100 * S)
    assert watch.check(0, 100 * S, 0) == ()
    watch.heard(100 * S)
    assert watch.check(0, 101 * S, 0) == ()
    watch.counted(dict.fromkeys(TOPICS, 1), 101 * S)
    assert "no sign of life" in reasons(watch.check(0, 101 * S + 1, 0))[0]


def test_an_old_observation_and_an_old_chunk_are_found_only_while_a_plan_lasts() -> None:
    watch = listened(dogs(), 50 * S)
    # ROS time and monotonic time have nothing to do with each other.
    watch.accepted(1000 * S, 1010 * S, 50 * S)
    assert watch.check(1003 * S, 50 * S, 0) == ()
    assert "older than 3 s" in reasons(watch.check(1003 * S + 1, 50 * S, 0))[0]
    watch.accepted(1000 * S, 1010 * S, 50 * S)
    listened(watch, 53 * S + 1)
    assert watch.check(1010 * S, 53 * S + 1, 0) == (), "the plan is over"
    assert "no chunk for more than 3 s" in reasons(watch.check(1001 * S, 53 * S + 1, 0))[0]
    watch.accepted(1000 * S, 1010 * S, 50 * S)
    watch.dropped()
    assert watch.check(1009 * S, 53 * S + 1, 0) == ()


@pytest.mark.parametrize("over", ["accepted", "dropped"])
def test_what_was_too_old_stays_so_when_its_plan_ends(over: str) -> None:
    """A plan is followed a little beyond its end, so that a robot that was held would move again."""
    watch = listened(dogs(), 53 * S + 1)
    watch.accepted(1000 * S, 1010 * S, 50 * S)
    assert len(watch.check(1004 * S, 53 * S + 1, 0)) == 2
    assert len(watch.check(1010 * S, 53 * S + 1, 0)) == 2
    if over == "accepted":
        watch.accepted(1010 * S, 1012 * S, 53 * S + 1)
    else:
        watch.dropped()
    assert watch.check(1010 * S, 53 * S + 1, 0) == ()


def test_each_topic_without_a_subscriber_is_named() -> None:
    watch = listened(dogs(), 10 * S)
    watch.counted({"/arm": 2, "/gripper": 0}, 11 * S)
    assert watch.check(0, 11 * S, 0) == ()
    assert reasons(watch.check(0, 11 * S + 1, 0)) == ["nobody listens to /gripper"]
    assert reasons(watch.check(0, 12 * S + 1, 0)) == [f"nobody listens to {topic}" for topic in TOPICS]
    assert Watchdogs(shipped("so101").executor, (), 0).check(0, 99 * S, 0) == (), "a dry run watches none"


def test_after_the_activation_subscribers_have_time_to_be_discovered() -> None:
    watch = dogs()
    assert watch.check(0, round(GRACE_S * S), 0) == ()
    assert len(watch.check(0, round(GRACE_S * S) + 1, 0)) == len(TOPICS)


def test_a_late_period_is_a_fault_of_that_period_alone() -> None:
    watch = listened(dogs(), S)
    assert watch.check(0, S, S // 5) == ()
    assert "late" in reasons(watch.check(0, S, S // 5 + 1))[0]
    assert watch.check(0, S, 0) == ()


@given(
    reactions=st.lists(st.sampled_from(["hold", "stop", "latch"]), min_size=5, max_size=5),
    wrong=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_the_gravest_comes_first_and_nothing_is_left_out(reactions: list[str], wrong: list[bool]) -> None:
    names = ("observation_age", "chunk_age", "policy_heartbeat", "period_overrun", "command_subscribers")
    config = robot(**{n: {"reaction": reaction} for n, reaction in zip(names, reactions, strict=True)})
    observation, chunk, heartbeat, overrun, subscribers = wrong
    watch, now = dogs(config), 100 * S
    listened(watch, now - (2 * S if subscribers else 0))
    watch.heard(now - (2 * S if heartbeat else 0))
    watch.accepted(now - (4 * S if observation else 0), now + S, now - (4 * S if chunk else 0))
    faults = watch.check(now, now, S if overrun else 0)
    expected = [Reaction[r.upper()] for r, is_wrong in zip(reactions, wrong, strict=True) if is_wrong]
    expected += expected[-1:] * subscribers  # a fault for each of the two topics
    found = [fault.reaction for fault in faults]
    assert found == sorted(expected, reverse=True)


@pytest.mark.parametrize(
    ("watchdogs", "words"),
    [
        ({"policy_heartbeat": {"after": 0.0}}, "watchdogs.policy_heartbeat.after"),
        ({"policy_heartbeat": {"after": 61.0}}, "at most 60 s"),
        ({"policy_heartbeat": {"reaction": "panic"}}, "watchdogs.policy_heartbeat.reaction"),
        ({"policy_hartbeat": {"after": 1.0}}, "policy_hartbeat"),
        ({"joint_state_age": {"reaction": "hold"}}, "watchdogs.joint_state_age.reaction"),
        ({"clock": {"reaction": "hold"}}, "watchdogs.clock.reaction"),
        ({"clock": {"after": 2.0}}, "no stamp can be trusted"),
        ({"joint_state_age": {"after": 0.7}}, "max_joint_state_age"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(watchdogs: dict[str, Any], words: str) -> None:
    with pytest.raises(RobotConfigError, match=words):
        robot(**watchdogs)
