# SPDX-License-Identifier: Apache-2.0
"""The control thread: nothing ends it but its owner, and each has an end of its own."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from gr00t_ros import realtime
from gr00t_ros.control_loop import LONGEST_BRAKING_S, ControlLoop, braking_s
from gr00t_ros.pacing import Pace
from support_mobile import mobile_config
from support_robots import shipped

PERIOD_S = 0.002
WAIT_S = 20.0


class BrokenPace(Pace):
    def wait(self) -> float:
        raise RuntimeError("no time")


@pytest.mark.parametrize("pace", [Pace, BrokenPace])
@pytest.mark.parametrize("telling_fails", [False, True])
def test_whatever_a_turn_raises_the_next_one_comes(pace: type[Pace], telling_fails: bool) -> None:
    turns, told, enough = [0], list[Exception](), threading.Event()

    def turn(late_s: float) -> None:
        turns[0] += 1
        if turns[0] == 20:
            enough.set()
        raise ValueError("a turn")

    def failed(error: Exception) -> None:
        told.append(error)
        if telling_fails:
            raise RuntimeError("no log")

    loop = ControlLoop(pace(PERIOD_S), turn, failed, real_time=False)
    loop.start()
    assert enough.wait(WAIT_S)
    assert loop.alive
    assert loop.end(WAIT_S)
    assert not loop.alive
    assert len(told) >= 19
    assert isinstance(told[0], ValueError)


def test_one_that_was_stalled_ends_even_though_another_has_begun() -> None:
    stalled, go_on, calls = threading.Event(), threading.Event(), list[float]()

    def stalling(late_s: float) -> None:
        calls.append(late_s)
        stalled.set()
        go_on.wait(WAIT_S)

    old = ControlLoop(Pace(PERIOD_S), stalling, print, real_time=False)
    old.start()
    assert stalled.wait(WAIT_S)
    assert not old.end(0.01)
    assert old.alive
    ran = threading.Event()
    new = ControlLoop(Pace(PERIOD_S), lambda late_s: ran.set(), print, real_time=False)
    new.start()
    assert ran.wait(WAIT_S)
    go_on.set()
    assert old.end(WAIT_S)
    assert len(calls) == 1
    assert new.end(WAIT_S)


def test_one_that_was_never_started_ends() -> None:
    assert ControlLoop(Pace(PERIOD_S), lambda late_s: None, print, real_time=False).end(WAIT_S)


def test_a_priority_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda thread, policy, parameters: asked.append(policy))
    assert realtime.take_priority() == ""
    assert asked == [os.SCHED_FIFO | os.SCHED_RESET_ON_FORK]


def test_braking_takes_what_the_limits_say() -> None:
    """A heavy base takes longer than an arm, and nobody waits for ever."""
    robot = mobile_config()
    usual = braking_s(robot)
    assert 0.0 < braking_s(shipped("so101")) < LONGEST_BRAKING_S
    for velocity, expected in ((4.0, 4.0), (1000.0, LONGEST_BRAKING_S)):
        limits = {
            key: replace(limit, linear_velocity=velocity, linear_acceleration=1.0)
            if hasattr(limit, "linear_velocity")
            else limit
            for key, limit in robot.group_limits.items()
        }
        assert expected <= braking_s(replace(robot, group_limits=limits)) <= LONGEST_BRAKING_S
        assert braking_s(replace(robot, group_limits=limits)) > usual
    wheel = replace(next(iter(robot.limits.values())), velocity=6.0, acceleration=2.0)
    assert braking_s(replace(robot, limits={**robot.limits, "wheel": wheel})) >= 3.0
