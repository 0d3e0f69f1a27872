# SPDX-License-Identifier: Apache-2.0
"""When the executor moves a robot at all: disabled until asked, stopped at once, and never in a dry run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from support_executor import ARM, EXECUTING, STOPPED, Bench, executor_bench
from support_topics import ARM_COMMANDS, GRIPPER_COMMANDS, ROBOT, nanoseconds

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """As it starts when nobody says anything else."""
    with executor_bench() as running:
        yield running


@pytest.fixture(scope="module")
def dry() -> Iterator[Bench]:
    with executor_bench("enabled:=true", "dry_run:=true") as running:
        yield running


def first_points(messages: list) -> np.ndarray:
    return np.array([message.points[0].positions for message in messages])


def test_it_is_disabled_until_it_is_started(bench: Bench) -> None:
    assert bench.state == STOPPED
    assert "executor/start" in bench.status[-1].reason
    for _ in range(5):
        bench.send(bench.plan(0.2))
        assert bench.quiet(0.1)
    assert bench.state == STOPPED
    assert bench.sent == 0
    assert bench.call("start").success
    assert bench.quiet(), "a plan from before the start"
    assert bench.sent == 0


def test_enabled_it_begins_where_the_robot_stands(bench: Bench) -> None:
    """A plan 0.3 rad away is gone over to, not jumped to."""
    bench.call("start")
    here = np.array([bench.robot.positions[joint] for joint in ARM])
    mark = len(bench.arm)
    bench.send(bench.plan(np.tile(here + 0.3, (40, 1))))
    bench.until(EXECUTING)
    bench.graph.wait_until(
        lambda: np.abs(first_points(bench.arm[-1:])[0] - here - 0.3).max() < 1e-3, "the plan's position"
    )
    path = first_points(bench.arm[mark:])
    # The first point is due within a period or two: what the limits allow until then.
    assert np.abs(path[0] - here).max() < 0.05
    speed = np.array([ROBOT.limits[joint].velocity for joint in ARM])
    stamps = np.array([nanoseconds(message.header.stamp) for message in bench.arm[mark:]]) / 1e9
    steps = np.abs(np.diff(path, axis=0))
    assert (steps <= speed * np.maximum(np.diff(stamps), 0.02)[:, None] * 2.0 + 1e-6).all()
    assert len(path) > 5


def test_stop_acts_within_one_period(bench: Bench) -> None:
    """By the stamps of the commands: none that was made after the answer goes on along the plan."""
    bench.call("stop")
    bench.call("start")
    bench.graph.wait_until(lambda: bench.quiet(0.3), "silence")
    bench.send(bench.plan(0.4, steps=40))
    bench.until(EXECUTING)
    mark = len(bench.arm)
    bench.graph.wait_until(lambda: len(bench.arm) > mark + 5, "motion")
    assert bench.call("stop").success
    answered_ns = bench.graph.now_ns()
    bench.until(STOPPED, "executor/stop")
    bench.graph.wait_until(bench.quiet, "silence")
    after = [m for m in bench.arm[mark:] if nanoseconds(m.header.stamp) > answered_ns]
    assert after, "the way to rest"
    ends = np.array([message.points[-1].positions for message in after])
    # One end for all of them: where it comes to rest, and not a plan that goes on.
    np.testing.assert_allclose(ends, np.tile(ends[0], (len(ends), 1)), atol=1e-9)
    assert not any(after[-1].points[-1].velocities)


def test_a_dry_run_computes_everything_and_moves_nothing(dry: Bench) -> None:
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory

    arm = dry.graph.collect(f"/gr00t/dry_run{ARM_COMMANDS}", JointTrajectory, 1000)
    gripper = dry.graph.collect(f"/gr00t/dry_run{GRIPPER_COMMANDS}", Float64MultiArray, 1000)
    dry.execute(0.2)
    dry.graph.wait_until(lambda: len(arm) > 10 and len(gripper) > 10, "commands of the dry run")
    assert not arm[-1].points[-1].velocities[0]
    assert dry.sent == 0
    for topic in (ARM_COMMANDS, GRIPPER_COMMANDS):
        assert dry.graph.node.count_publishers(topic) == 0


def test_a_dry_run_says_so_and_commits_to_no_plan(dry: Bench) -> None:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    diagnostics = dry.graph.collect("/diagnostics", DiagnosticArray, 10)
    dry.execute(0.2)
    status = dry.status[-1]
    assert status.dry_run
    assert status.plan_horizon == 0, "what the robot will do, and it will do nothing"
    assert not status.faults, "nobody has to listen to a dry run"
    dry.graph.wait_until(lambda: diagnostics, "diagnostics")
    assert diagnostics[-1].status[0].level == DiagnosticStatus.WARN
    assert "dry run" in diagnostics[-1].status[0].message
    assert len(dry.node.since(0, "dry run")) == 1
