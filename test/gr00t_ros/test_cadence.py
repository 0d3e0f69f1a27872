# SPDX-License-Identifier: Apache-2.0
"""When the next inference begins, under a monotonic clock that the test turns."""

from __future__ import annotations

import pytest

from gr00t_ros import cadence
from gr00t_ros.cadence import ACCEPTANCE_S, Cadence
from gr00t_ros.chunk import Chunk
from gr00t_ros.executor_report import SILENT_S, ExecutorReport

S = 1_000_000_000
NOW_NS = 5_000 * S


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cadence, "time", clock)
    return clock


def chunk(sequence: int) -> Chunk:
    return Chunk(7, sequence, "go", NOW_NS, NOW_NS, S // 20, ())


def report(clock: Clock, sequence: int, left_s: float, executing: bool = True) -> ExecutorReport:
    return ExecutorReport(clock.now_s, executing, False, "", 7, sequence, NOW_NS + round(left_s * S))


def test_back_to_back_every_moment_is_right(clock: Clock) -> None:
    steady = Cadence()
    for _ in range(5):
        assert steady.is_due(NOW_NS)
        assert steady.wait_s() is None
        steady.begin()


def test_a_rate_is_kept_although_inferences_begin_late(clock: Clock) -> None:
    steady, begun = Cadence(lambda: 4.0), []
    while len(begun) < 9:
        if steady.is_due(NOW_NS):
            begun.append(clock.now_s)
            steady.begin()
        else:
            wait_s = steady.wait_s()
            assert wait_s is not None
            assert 0.0 < wait_s <= 0.25
        clock.now_s += 0.11  # a frame
    assert begun[-1] - begun[0] == pytest.approx(8 * 0.25, abs=0.11)


def test_after_a_pause_nothing_is_made_up_for(clock: Clock) -> None:
    steady = Cadence(lambda: 4.0)
    steady.begin()
    clock.now_s += 60.0
    steady.begin()
    assert not steady.is_due(NOW_NS)


def test_a_rate_that_is_raised_counts_at_once(clock: Clock) -> None:
    rate = 0.01
    steady = Cadence(lambda: rate)
    steady.begin()
    clock.now_s += 0.2
    assert not steady.is_due(NOW_NS)
    rate = 10.0
    assert steady.is_due(NOW_NS)


def lasting(clock: Clock, below_s: float = 0.2, latency_s: float = 0.1) -> Cadence:
    """One that has published chunk 3, long enough ago that the executor has answered."""
    steady = Cadence(replan_below=lambda: below_s)
    steady.measure(latency_s)
    steady.published(chunk(3))
    clock.now_s += ACCEPTANCE_S + 0.1
    return steady


def test_a_plan_that_lasts_is_not_replaced_until_it_runs_short(clock: Clock) -> None:
    steady = lasting(clock)
    steady.hear(report(clock, 3, 0.6))
    assert not steady.is_due(NOW_NS)
    # A latency of 0.1 s, 0.03 s to deliver it, and 0.2 s that must be left.
    assert not steady.is_due(NOW_NS + round(0.25 * S))
    assert steady.is_due(NOW_NS + round(0.29 * S))


def test_what_is_not_known_is_not_waited_for(clock: Clock) -> None:
    nothing = Cadence(replan_below=lambda: 0.2)
    assert nothing.is_due(NOW_NS)
    steady = lasting(clock)
    assert steady.is_due(NOW_NS)  # no executor
    steady.hear(report(clock, 3, 9.0, executing=False))
    assert steady.is_due(NOW_NS)
    steady.hear(report(clock, 3, 9.0))
    assert not steady.is_due(NOW_NS)
    clock.now_s += SILENT_S + 0.1
    assert steady.is_due(NOW_NS)
    off = lasting(clock, below_s=0.0)
    off.hear(report(clock, 3, 9.0))
    assert off.is_due(NOW_NS)


def test_what_is_left_of_the_plan_before_is_not_taken_for_the_newest(clock: Clock) -> None:
    steady = lasting(clock)
    steady.hear(report(clock, 3, 0.1))
    assert steady.is_due(NOW_NS)
    steady.published(chunk(4))
    assert not steady.is_due(NOW_NS)  # the executor will tell
    clock.now_s += ACCEPTANCE_S + 0.01
    steady.hear(report(clock, 3, 0.1))
    assert steady.is_due(NOW_NS)  # it has refused it


def test_a_new_text_does_not_wait_for_the_plan(clock: Clock) -> None:
    steady = lasting(clock)
    steady.hear(report(clock, 3, 9.0))
    steady.clear()
    assert steady.is_due(NOW_NS)
    steady.hear(report(clock, 3, 9.0))
    assert steady.is_due(NOW_NS)  # until there is a chunk for it
