# SPDX-License-Identifier: Apache-2.0
"""Tasks over real DDS: every way in which one ends, and what is told; frozen cameras during one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support_policy import PolicyBench, policy_bench
from support_tasks import swaying
from support_topics import FRONT, WRIST

pytestmark = pytest.mark.ros

INACTIVE, WAITING, RUNNING, FAULT, IDLE = range(5)
SUCCEEDED, CANCELED, ABORTED = 4, 5, 6  # of action_msgs/GoalStatus


@pytest.fixture(scope="module")
def running() -> Iterator[PolicyBench]:
    """In the mode tasks. A front camera that is frozen is reported, one at the wrist stops the policy."""
    frozen = [f"robot.video.{key}.frozen_after:=0.5" for key in ("front", "wrist")]
    frozen.append("robot.video.wrist.frozen_reaction:=stop")
    with policy_bench("mode:=tasks", "rate:=10", *frozen) as running:
        yield running


@pytest.fixture
def bench(running: PolicyBench) -> PolicyBench:
    """As ``running``, in the mode tasks, with everything well and no task."""
    running.robot.restore()
    running.freeze()
    running.executor.restore()
    running.client.restore()
    assert running.node.set(still_time=0.0, task_patience=5.0, replan_below=0.0) == []
    running.until(IDLE)
    return running


def test_without_a_task_the_policy_is_active_and_silent(bench: PolicyBench) -> None:
    assert bench.node.state == "active"
    bench.until(IDLE, "run_task")
    mark = bench.node.mark()
    from std_msgs.msg import String

    publisher = bench.graph.publisher("/gr00t/instruction", String, 1)
    publisher.publish(String(data="wave"))
    assert "mode is tasks" in bench.node.told(mark)[0]
    assert bench.silent()
    bench.until(IDLE)
    assert bench.status[-1].instruction == ""
    bench.graph.node.destroy_publisher(publisher)


@pytest.mark.parametrize(
    ("instruction", "time_limit", "word"),
    [
        ("", 0.0, "instruction"),
        ("?!", 0.0, "instruction"),
        ("x" * 10_000, 0.0, "10000 characters"),
        ("go", -1.0, "time_limit"),
        ("go", math.nan, "time_limit"),
        ("go", math.inf, "time_limit"),
    ],
    ids=["empty", "no word", "long", "negative", "nan", "inf"],
)
def test_a_goal_that_cannot_be_a_task_is_refused_with_a_reason(
    bench: PolicyBench, instruction: str, time_limit: float, word: str
) -> None:
    mark = bench.node.mark()
    assert not bench.client.send(instruction, time_limit).accepted
    lines = bench.node.told(mark)
    assert len(lines) == 1
    assert word in lines[0]
    assert len(lines[0]) < 400
    bench.until(IDLE)


def test_a_task_runs_tells_how_far_it_is_and_stops_when_canceled(bench: PolicyBench) -> None:
    goal = bench.client.send("pick up the block")
    assert goal.accepted
    bench.until_chunk("pick up the block")
    bench.graph.wait_until(lambda: goal.feedback and goal.feedback[-1].chunks > 3, "feedback")
    feedback = goal.feedback[-1]
    assert feedback.phase == feedback.RUNNING
    # rclpy drops what arrives before the goal's answer, so STARTING need not have been heard.
    started = [message.phase != feedback.STARTING for message in goal.feedback]
    assert started == sorted(started)
    assert feedback.latency > 0.0
    assert 0.0 < feedback.remaining_plan < 1.0
    elapsed = [message.elapsed for message in goal.feedback]
    assert elapsed == sorted(elapsed)
    bench.until(RUNNING)
    goal.cancel()
    status, result = goal.result()
    assert status == CANCELED
    assert result.outcome == result.CANCELED
    assert result.duration >= feedback.elapsed
    assert result.chunks >= feedback.chunks
    assert bench.ended_plan("pick up the block")
    assert bench.silent()
    bench.until(IDLE, "the task ended")


def test_a_task_ends_at_its_time_limit(bench: PolicyBench) -> None:
    goal = bench.client.send("wave", time_limit=1.0)
    status, result = goal.result()
    assert status == ABORTED
    assert result.outcome == result.TIME_LIMIT
    assert "1 s" in result.message
    assert result.duration >= 1.0
    assert bench.ended_plan("wave")


def test_a_task_ends_when_the_robot_stands_still_and_not_before(bench: PolicyBench) -> None:
    bench.robot.spoil_joints = swaying
    assert bench.node.set(still_time=0.6) == []
    goal = bench.client.send("stack the cups")
    bench.graph.wait_until(lambda: goal.feedback and goal.feedback[-1].elapsed > 1.5, "feedback")
    assert not goal.ended
    bench.robot.spoil_joints = lambda message: message
    status, result = goal.result()
    assert status == SUCCEEDED
    assert result.outcome == result.STILL
    assert bench.ended_plan("stack the cups")


def test_joints_that_are_not_measured_do_not_stand_still(bench: PolicyBench) -> None:
    assert bench.node.set(still_time=0.5) == []
    bench.robot.spoil_joints = swaying
    goal = bench.client.send("open the drawer")
    bench.until_chunk("open the drawer")
    bench.robot.spoil_joints = lambda message: None
    bench.until(WAITING, "joint_states")
    bench.graph.wait_until(
        lambda: goal.feedback and goal.feedback[-1].phase == goal.feedback[-1].WAITING, "phase waiting"
    )
    time.sleep(1.0)
    assert not goal.ended
    goal.cancel()
    assert goal.result()[0] == CANCELED


def test_a_newer_goal_takes_over_and_the_plan_goes_on(bench: PolicyBench) -> None:
    first = bench.client.send("open the drawer")
    bench.until_chunk("open the drawer")
    begin = bench.chunks[-1].sequence
    second = bench.client.send("close the drawer")
    status, result = first.result()
    assert status == ABORTED
    assert result.outcome == result.PREEMPTED
    bench.until_chunk("close the drawer")
    assert not second.ended
    assert all(
        c.horizon for c in list(bench.chunks) if c.sequence >= begin and c.session == bench.chunks[-1].session
    )
    assert bench.contiguous()
    second.cancel()
    assert second.result()[1].outcome == result.CANCELED


def test_a_camera_that_falls_silent_ends_a_task_after_a_while(bench: PolicyBench) -> None:
    assert bench.node.set(task_patience=0.8) == []
    goal = bench.client.send("pick up the block")
    bench.until_chunk("pick up the block")
    bench.robot.spoil_image = lambda topic, message: None
    status, result = goal.result()
    assert status == ABORTED
    assert result.outcome == result.FAULT
    assert "/camera/" in result.message
    assert bench.ended_plan("pick up the block")


@pytest.mark.parametrize(
    ("fault", "word"), [("stopped", "stopped by a test"), ("silent", "nothing is heard")]
)
def test_an_executor_that_follows_nothing_ends_a_task(bench: PolicyBench, fault: str, word: str) -> None:
    assert bench.node.set(task_patience=1.5) == []
    setattr(bench.executor, fault, True)
    _, result = bench.client.send("pick up the block").result()
    assert result.outcome == result.FAULT
    assert word in result.message
    assert bench.ended_plan("pick up the block")


def test_while_the_executor_has_plan_enough_no_chunk_is_made(bench: PolicyBench) -> None:
    goal = bench.client.send("wipe the table")
    bench.until_chunk("wipe the table")
    bench.executor.plan_ahead_s = 100.0
    assert bench.node.set(replan_below=0.5) == []
    time.sleep(0.5)
    assert bench.silent()
    bench.until(RUNNING)
    before = len(bench.chunks)
    bench.executor.plan_ahead_s = -0.5
    bench.graph.wait_until(lambda: len(bench.chunks) > before + 2, "chunks once the plan is short")
    # A new task does not wait for the plan to run out.
    bench.executor.plan_ahead_s = 100.0
    newer = bench.client.send("fold the towel")
    bench.until_chunk("fold the towel")
    newer.cancel()
    newer.result()
    assert goal.ended


@pytest.fixture
def planning(bench: PolicyBench) -> Iterator[PolicyBench]:
    """With a task under way that sees pictures that change."""
    goal = bench.client.send("look around")
    bench.until_well()
    yield bench
    goal.cancel()
    goal.result()


def test_a_frozen_camera_is_reported_and_the_policy_goes_on(planning: PolicyBench) -> None:
    from diagnostic_msgs.msg import DiagnosticStatus

    assert planning.diagnosed(DiagnosticStatus.OK)["frozen cameras"] == "none"
    mark = planning.node.mark()
    planning.freeze(FRONT)
    planning.until(RUNNING, "identical pixels")
    assert "video.front" in planning.status[-1].reason
    assert planning.diagnosed(DiagnosticStatus.WARN, "identical")["frozen cameras"] == "video.front"
    before = len(planning.chunks)
    planning.graph.wait_until(lambda: len(planning.chunks) > before + 3, "further chunks")
    assert len(planning.node.told(mark, "WARN.*identical")) == 1
    planning.freeze()
    planning.until_well()
    assert planning.node.since(mark, "WARN.*identical")[1:] == []


def test_a_frozen_camera_stops_the_policy_where_the_robot_yaml_says_so(planning: PolicyBench) -> None:
    mark = planning.node.mark()
    planning.freeze(WRIST)
    planning.until(WAITING, "identical pixels")
    assert "video.wrist" in planning.status[-1].reason
    time.sleep(0.3)
    before = len(planning.chunks)
    time.sleep(0.6)
    assert len(planning.chunks) == before
    assert len(planning.node.told(mark, "WARN.*identical")) == 1
    status = planning.status[-1]
    assert dict(zip(status.skip_causes, status.skip_counts, strict=True))["frozen video.wrist"] > 0
    planning.freeze()
    planning.until_well()
    planning.graph.wait_until(lambda: len(planning.chunks) > before + 3, "chunks again")


def test_a_frame_that_comes_again_and_again_under_its_stamp_grows_old(planning: PolicyBench) -> None:
    kept: dict[str, Any] = {}
    planning.robot.spoil_image = lambda topic, message: kept.setdefault(topic, message)
    planning.until(WAITING, "s old")
    planning.freeze()
    planning.until_well()


def test_the_status_goes_on_as_a_sign_of_life_and_the_diagnostics_are_complete(planning: PolicyBench) -> None:
    from diagnostic_msgs.msg import DiagnosticStatus

    before = len(planning.status)
    planning.graph.wait_until(lambda: len(planning.status) > before + 10, "ten statuses")
    # On a loaded machine a frame may be too old by the time it is looked at.
    assert {s.state for s in planning.status[before:]} <= {RUNNING, WAITING}
    planning.graph.wait_until(lambda: planning.status[-1].state == RUNNING, "a running policy")
    status = planning.status[-1]
    assert 0.0 < status.waiting_time < status.observation_age
    values = planning.diagnosed(DiagnosticStatus.OK, "running")
    assert float(values["rate of video.front [Hz]"]) > 1.0
    assert float(values["rate of video.wrist [Hz]"]) > 1.0
    for stage in ("waiting", "processing", "inference", "decoding", "total"):
        assert float(values[f"{stage} time [s]"]) >= 0.0
    assert float(values["observation age [s]"]) > 0.0
    assert int(values["skipped: superseded by a newer frame"]) > 0


def test_deactivation_ends_a_task_and_refuses_goals(bench: PolicyBench) -> None:
    goal = bench.client.send("pick up the block")
    bench.until_chunk("pick up the block")
    assert bench.node.change("deactivate")
    status, result = goal.result()
    assert status == ABORTED
    assert result.outcome == result.FAULT
    assert "deactivated" in result.message
    assert bench.ended_plan("pick up the block")
    assert bench.silent()
    mark = bench.node.mark()
    assert not bench.client.send("wave").accepted
    assert "not active" in bench.node.told(mark)[0]
    assert bench.node.change("activate")
    goal = bench.client.send("wave")
    bench.until_chunk("wave")
    goal.cancel()
    goal.result()


def test_in_the_continuous_mode_a_goal_is_one_more_source_of_instructions(bench: PolicyBench) -> None:
    from std_msgs.msg import String

    assert bench.node.change("deactivate")
    assert bench.node.change("cleanup")
    assert bench.node.set(mode="continuous", instruction="look around") == []
    assert bench.node.change("configure")
    assert bench.node.change("activate")
    bench.until_chunk("look around")
    goal = bench.client.send("wave")
    bench.until_chunk("wave")
    assert bench.contiguous()
    goal.cancel()
    assert goal.result()[0] == CANCELED
    bench.until(IDLE, "a new instruction")
    assert bench.silent()
    goal = bench.client.send("wave")
    bench.until_chunk("wave")
    publisher = bench.graph.publisher("/gr00t/instruction", String, 1)
    publisher.publish(String(data="come back"))
    status, result = goal.result()
    assert status == ABORTED
    assert result.outcome == result.PREEMPTED
    bench.until_chunk("come back")
    goal = bench.client.send("wave")
    bench.until_chunk("wave")
    publisher.publish(String(data=""))
    assert goal.result()[1].outcome == result.PREEMPTED
    assert bench.ended_plan("wave")
    bench.until(WAITING, "empty")


def test_it_ends_in_order_with_a_task_under_way(running: PolicyBench) -> None:
    running.robot.restore()
    running.freeze()
    goal = running.client.send("wave")
    running.until_chunk("wave")
    assert running.node.process.stop() == 0, running.node.process.output
    status, result = goal.result()
    assert status == ABORTED
    assert result.outcome == result.FAULT
    assert running.ended_plan("wave")
    assert running.node.since(0, "Traceback|Exception") == []
