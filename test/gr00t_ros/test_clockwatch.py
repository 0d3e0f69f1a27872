# SPDX-License-Identifier: Apache-2.0
"""When ROS time may be trusted."""

from __future__ import annotations

import pytest

from gr00t_ros.clockwatch import ClockWatch

S = 1_000_000_000


@pytest.mark.parametrize("pace", [0.1, 1.0, 10.0])
def test_time_that_flows_is_trusted_at_any_pace_of_a_simulation(pace: float) -> None:
    watch = ClockWatch()
    for i in range(200):
        mono = i * S // 50
        now = 100 * S + round(mono * pace)
        assert watch.check(now, mono) == ""
        assert watch.standing(now, mono) == ""


@pytest.mark.parametrize(("jump_s", "word"), [(-0.1, "back by 0.100 s"), (-3600.0, "back"), (0.6, "forward")])
def test_a_jump_is_noticed_once(jump_s: float, word: str) -> None:
    watch = ClockWatch()
    watch.check(100 * S, 0)
    now = 100 * S + round(jump_s * S)
    assert word in watch.check(now, 0)
    assert watch.check(now + S // 50, S // 50) == ""


def test_a_process_that_slept_has_seen_no_jump() -> None:
    watch = ClockWatch()
    watch.check(100 * S, 0)
    assert watch.check(130 * S, 30 * S) == ""


def test_simulated_time_that_has_not_begun_or_is_paused_is_standing() -> None:
    watch = ClockWatch()
    assert watch.check(0, 0) == ""
    assert "/clock" in watch.standing(0, 0)
    assert watch.check(5000 * S, S) == "", "the first message on /clock is no jump"
    assert watch.standing(5000 * S, S) == ""
    watch.check(5000 * S, 2 * S)
    assert "stands still" in watch.standing(5000 * S, 2 * S)
    watch.check(5001 * S, 3 * S)
    assert watch.standing(5001 * S, 3 * S) == ""
