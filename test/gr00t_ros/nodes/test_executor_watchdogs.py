# SPDX-License-Identifier: Apache-2.0
"""What the executor's watchdogs do to a running robot, over real DDS, and what its status says of itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gr00t_ros.realtime import try_priority
from support_executor import EXECUTING, HOLDING, STOPPED, Bench, executor_bench
from support_topics import GRIPPER_COMMANDS, nanoseconds

pytestmark = pytest.mark.ros

DOGS = "robot.executor.watchdogs"
PERIOD_S = 0.02


class Heart:
    """Signs of life of a policy, while ``beats``."""

    def __init__(self, bench: Bench) -> None:
        from gr00t_ros.msg import PolicyStatus

        self.beats = True
        self._message = PolicyStatus
        self._publisher = bench.graph.publisher("/gr00t/policy/status", PolicyStatus, 1)
        self._timer = bench.graph.node.create_timer(0.1, self._beat)

    def _beat(self) -> None:
        if self.beats:
            self._publisher.publish(self._message())


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    parameters = (
        f"{DOGS}.observation_age.after:=1.0",
        f"{DOGS}.policy_heartbeat.after:=0.5",
        f"{DOGS}.command_subscribers.after:=0.5",
        f"{DOGS}.command_subscribers.reaction:=latch",
    )
    with executor_bench("enabled:=true", *parameters) as bench:
        yield bench


@pytest.fixture
def bench(running: Bench) -> Bench:
    running.rest()
    return running


def until_fault(bench: Bench, text: str) -> Any:
    """The first status that reports a fault with ``text``."""
    begin = len(bench.status)
    bench.graph.wait_until(
        lambda: any(text in fault for status in bench.status[begin:] for fault in status.faults), text
    )
    return next(s for s in bench.status[begin:] if any(text in fault for fault in s.faults))


def test_the_status_says_how_it_runs(bench: Bench) -> None:
    bench.execute()
    status = bench.status[-1]
    assert status.realtime == (try_priority() == "")
    assert not status.dry_run
    assert not list(status.faults)
    assert status.period == pytest.approx(PERIOD_S)
    bench.graph.wait_until(lambda: bench.status[-1].jitter > 0.0, "a measured jitter")
    assert bench.status[-1].measured_period > 0.0


def test_an_old_observation_ends_the_motion_and_a_newer_one_goes_on(bench: Bench) -> None:
    bench.send(bench.plan(0.3, steps=60))
    bench.until(EXECUTING)
    bench.until(HOLDING, "older than 1 s")
    assert "older than 1 s" in bench.status[-1].faults[0]
    bench.send(bench.plan(0.1, steps=60))
    bench.until(EXECUTING)
    assert not list(bench.status[-1].faults)


def test_a_policy_that_falls_silent_ends_the_motion(bench: Bench) -> None:
    """Only once it was heard: the tests above executed chunks of nobody."""
    heart = Heart(bench)
    bench.execute(steps=16)
    mark = bench.node.mark()
    heart.beats = False
    try:
        status = until_fault(bench, "no sign of life")
        assert status.state == HOLDING
        assert len(bench.node.told(mark, "no sign of life")) == 1
        bench.graph.wait_until(bench.quiet, "silence")
        refused = bench.status[-1].chunks_refused
        bench.send(bench.plan(0.1))
        assert bench.quiet(), "a plan without a policy"
        assert bench.status[-1].chunks_refused == refused, "the chunk was good"
    finally:
        heart.beats = True  # for good: from here on it is missed when it stops
    bench.execute()


def test_a_controller_that_leaves_stops_the_motion_until_start(bench: Bench) -> None:
    from std_msgs.msg import Float64MultiArray

    bench.send(bench.plan(0.3, steps=60))
    bench.until(EXECUTING)
    node = bench.graph.node
    mark = bench.node.mark()
    for subscription in list(node.subscriptions):
        if subscription.topic_name == GRIPPER_COMMANDS:
            node.destroy_subscription(subscription)
    bench.until(STOPPED, f"nobody listens to {GRIPPER_COMMANDS}")
    assert len(bench.node.told(mark, "nobody listens")) == 1
    bench.gripper = bench.graph.collect(GRIPPER_COMMANDS, Float64MultiArray, 1000)
    bench.graph.wait_until(lambda: not bench.status[-1].faults, "the listener")
    bench.graph.wait_until(bench.quiet, "silence")
    bench.send(bench.plan(0.1))
    assert bench.quiet(), "latched"
    assert bench.state == STOPPED
    assert bench.call("start").success
    bench.execute()


def test_after_a_pause_of_the_process_the_old_plan_is_over(bench: Bench) -> None:
    bench.send(bench.plan(0.3, steps=60))
    bench.until(EXECUTING)
    late, mark = bench.status[-1].late_periods, bench.node.mark()
    bench.node.process.send(signal.SIGSTOP)
    time.sleep(0.5)
    bench.node.process.send(signal.SIGCONT)
    bench.graph.wait_until(lambda: bench.status[-1].late_periods > late, "a late period")
    bench.node.told(mark, "began more than 0.2 s late")
    # The plan of 3 s is not gone on with; the next chunk is.
    bench.graph.wait_until(bench.quiet, "silence")
    assert bench.state == HOLDING
    bench.execute()


def test_a_thousand_chunks_a_second_cost_one_decoding_a_period(bench: Bench) -> None:
    bench.execute()
    going = True

    def flood() -> None:
        while going:
            bench.send(bench.plan(0.05))

    thread = threading.Thread(target=flood, daemon=True)
    first, sent = bench.status[-1], len(bench.arm)
    begin = bench.sequence
    thread.start()
    try:
        bench.graph.wait_until(lambda: bench.sequence > begin + 2000, "2000 chunks")
        assert bench.state == EXECUTING
        last = bench.status[-1]
        assert len(bench.arm) > sent
        assert bench.call("stop").success, "services are answered"
        bench.until(STOPPED)
    finally:
        going = False
        thread.join(10.0)
    taken = last.chunks_accepted + last.chunks_refused - first.chunks_accepted - first.chunks_refused
    passed_s = (nanoseconds(last.header.stamp) - nanoseconds(first.header.stamp)) / 1e9
    assert 0 < taken <= passed_s / PERIOD_S + 2
    assert taken < 1500, "the newest is taken, not each"
