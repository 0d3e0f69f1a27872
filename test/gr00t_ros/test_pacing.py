# SPDX-License-Identifier: Apache-2.0
"""The pace of the control thread, on a clock that the test moves."""

from __future__ import annotations

import pytest

from gr00t_ros import pacing
from gr00t_ros.pacing import Pace

PERIOD_S = 0.01


class Clock:
    """Stands in for ``time``: sleeping takes as long as asked, and ``oversleep`` longer."""

    def __init__(self) -> None:
        self.now, self.oversleep = 100.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0.0
        self.now += seconds + self.oversleep


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return clock


@pytest.fixture
def pace(clock: Clock) -> Pace:
    pace = Pace(PERIOD_S)
    pace.start()
    return pace


def test_work_does_not_move_the_grid(clock: Clock, pace: Pace) -> None:
    for period in range(1, 200):
        clock.now += 0.3 * PERIOD_S * (period % 3)
        assert pace.wait() == pytest.approx(0.0, abs=1e-9)
        assert clock.now == pytest.approx(100.0 + period * PERIOD_S)
    assert pace.late_periods == 0
    assert pace.periods == 199
    assert pace.measured_period_s() == pytest.approx(PERIOD_S)


def test_a_period_that_takes_too_long_makes_the_next_one_late_and_no_other(clock: Clock, pace: Pace) -> None:
    clock.now += 1.4 * PERIOD_S
    assert pace.wait() == pytest.approx(0.5 * PERIOD_S), "and a tenth for others"
    assert pace.late_periods == 0, "the one after it is not due yet"
    assert pace.wait() == pytest.approx(0.0, abs=1e-9)
    assert clock.now == pytest.approx(100.0 + 2 * PERIOD_S)


def test_after_a_missed_period_the_grid_begins_anew(clock: Clock, pace: Pace) -> None:
    """No commands faster than the rate to catch up."""
    clock.now += 3.5 * PERIOD_S
    assert pace.wait() == pytest.approx(2.6 * PERIOD_S)
    assert pace.late_periods == 1
    began = clock.now
    pace.wait()
    assert clock.now == pytest.approx(began + PERIOD_S)
    assert pace.worst_s == pytest.approx(2.6 * PERIOD_S)


@pytest.mark.parametrize("work", [0.97, 1.0, 1.3, 5.0])
@pytest.mark.parametrize("period_s", [0.001, 0.01, 0.1])
def test_others_have_time_however_long_the_work_takes(clock: Clock, work: float, period_s: float) -> None:
    """With SCHED_FIFO and one core, rclpy's thread runs only while this one sleeps."""
    pace = Pace(period_s)
    pace.start()
    for _ in range(50):
        clock.now += work * period_s
        before = clock.now
        pace.wait()
        assert clock.now - before >= min(0.1 * period_s, 0.002) - 1e-9
        assert clock.now - before <= 0.1 * period_s + 1e-9


def test_the_jitter_is_that_of_the_last_second(clock: Clock, pace: Pace) -> None:
    clock.oversleep = 0.004
    for _ in range(50):
        pace.wait()
    assert pace.jitter_s() == pytest.approx(0.004)
    clock.oversleep = 0.0
    for _ in range(100):
        pace.wait()
    assert pace.jitter_s() == pytest.approx(0.0, abs=1e-9)
    # Since the start a third of them were late; the histogram knows to 10 us.
    assert pace.lateness_s(0.5) == pytest.approx(0.0, abs=2e-5)
    assert pace.lateness_s(0.9) == pytest.approx(0.004, abs=2e-5)


def test_slack_is_what_is_left_of_the_period(clock: Clock, pace: Pace) -> None:
    pace.wait()
    clock.now += 0.25 * PERIOD_S
    assert pace.slack_s() == pytest.approx(0.75 * PERIOD_S)
    clock.now += PERIOD_S
    assert pace.slack_s() == pytest.approx(-0.25 * PERIOD_S)
