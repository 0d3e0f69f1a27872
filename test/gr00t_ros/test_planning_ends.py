# SPDX-License-Identifier: Apache-2.0
"""Plans that end on purpose, plans that last, and cameras that show the same picture on and on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from gr00t_ros.executor_report import ExecutorReport
from gr00t_ros.progress import State
from support_messages import compressed_image, grey_image, joint_state
from support_planning import FRONT, JOINTS, ROBOT, WRIST, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.planner.start()
    yield bench
    bench.policy.release.set()
    assert bench.planner.stop()


def test_the_end_of_a_plan_is_a_chunk_without_steps_and_the_sequence_goes_on(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    bench.instruction.rest("no task")
    bench.planner.end_plan("go")
    end = bench.chunks[-1]
    assert (end.session, end.sequence, end.horizon, end.instruction) == (7, 1, 0, "go")
    assert end.step_ns == ROBOT.step_ns
    assert abs(end.t_obs_ns - bench.now_ns()) < 5e9
    assert end.start_ns == end.t_obs_ns
    bench.instruction.set("go on")
    bench.feed(0.1)
    bench.wait(lambda: len(bench.chunks) > 2)
    assert [chunk.sequence for chunk in bench.chunks] == list(range(len(bench.chunks)))


def test_a_chunk_that_was_begun_before_the_end_of_the_plan_does_not_follow_it(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.policy.release.clear()
    bench.feed()
    bench.wait(lambda: bench.policy.seen)
    assert bench.planner.progress.busy_since_s is not None
    bench.instruction.rest("no task")
    bench.planner.end_plan("go")
    bench.policy.release.set()
    bench.wait(lambda: bench.planner.progress.skipped["the plan was ended"] == 1)
    assert bench.planner.progress.busy_since_s is None
    assert [chunk.horizon for chunk in bench.chunks] == [0]


def test_a_chunk_for_a_text_that_was_taken_away_is_not_published(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.policy.release.clear()
    bench.feed()
    bench.wait(lambda: bench.policy.seen)
    bench.instruction.set("")
    bench.policy.release.set()
    bench.wait(lambda: bench.planner.progress.skipped["the plan was ended"] == 1)
    assert bench.chunks == []


def test_a_planner_that_is_stopped_ends_the_plan_it_made(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    assert bench.planner.stop()
    end = bench.chunks[-1]
    assert (end.horizon, end.instruction, end.sequence) == (0, "go", len(bench.chunks) - 1)


def test_a_newer_text_lets_the_chunk_under_way_pass(bench: Bench) -> None:
    bench.instruction.set("one")
    bench.policy.release.clear()
    bench.feed()
    bench.wait(lambda: bench.policy.seen)
    bench.instruction.set("two")
    bench.planner.look_again()
    bench.policy.release.set()
    bench.feed(0.1)
    bench.wait(lambda: len(bench.chunks) > 1)
    assert [chunk.instruction for chunk in bench.chunks[:2]] == ["one", "two"]


def test_at_rest_nothing_is_planned_and_nothing_is_wrong(bench: Bench) -> None:
    bench.instruction.rest("no task: send a goal")
    bench.feed(0.3)
    bench.wait(lambda: bench.planner.progress.state == State.IDLE)
    assert bench.planner.progress.reason == "no task: send a goal"
    assert bench.policy.seen == []
    assert bench.told == []
    assert bench.planner.progress.skipped == {}
    bench.instruction.set("go")
    bench.planner.look_again()
    bench.feed()
    bench.wait(lambda: bench.chunks)
    bench.wait(lambda: bench.planner.progress.state == State.RUNNING)


def test_the_waiting_time_is_from_the_frame_to_the_observation(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    assert 0.0 < bench.planner.progress.waiting_s < bench.planner.progress.observation_age_s


def tell_plan(bench: Bench, left_s: float) -> None:
    """The executor says that it follows the newest chunk, for so long."""
    newest, end_ns = bench.chunks[-1], bench.now_ns() + round(left_s * 1e9)
    bench.cadence.hear(
        ExecutorReport(time.monotonic(), True, False, "", newest.session, newest.sequence, end_ns)
    )


def test_frames_that_come_while_the_plan_lasts_are_not_used_but_watched(bench: Bench) -> None:
    bench.replan_below = 0.3
    bench.instruction.set("go")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    tell_plan(bench, 60.0)
    bench.feed(0.3)
    assert len(bench.policy.seen) == 1
    # A camera that falls silent is seen meanwhile.
    tell_plan(bench, 60.0)
    bench.wait(lambda: bench.planner.progress.state == State.WAITING)
    assert "s old" in bench.planner.progress.reason
    tell_plan(bench, 0.1)
    bench.feed()
    bench.wait(lambda: len(bench.chunks) == 2)
    assert bench.planner.progress.skipped["superseded by a newer frame"] > 3


def show(bench: Bench, front: int | None, seconds: float = 0.0) -> None:
    """Feeds at 30 Hz for a while; ``front`` is the camera's grey, None another one in every frame."""
    for i in range(max(1, round(seconds * 30))):
        now = bench.now_ns()
        bench.planner.add(JOINTS, joint_state({"shoulder": 0.1, "elbow": 0.2, "gripper": 0.3}, now))
        wrist = np.full((4, 6, 3), i % 250, np.uint8)
        bench.planner.add(WRIST, compressed_image(wrist, stamp_ns=now))
        bench.planner.add(FRONT, grey_image(i % 250 if front is None else front, now))
        time.sleep(1 / 30 if seconds else 0.0)


@pytest.mark.parametrize("reaction", ["report", "stop"])
def test_a_frozen_camera_is_told_once_and_stops_chunks_only_where_asked_for(reaction: str) -> None:
    camera = replace(ROBOT.video["front"], frozen_after=0.2, frozen_reaction=reaction)
    robot = replace(ROBOT, video=MappingProxyType({**ROBOT.video, "front": camera}))
    bench = Bench(robot=robot)
    bench.planner.start()
    try:
        bench.instruction.set("go")
        show(bench, None, 0.5)
        assert bench.told == []
        show(bench, 9, 0.6)
        expected = State.WAITING if reaction == "stop" else State.RUNNING
        bench.wait(lambda: "identical" in bench.planner.progress.reason)
        assert bench.planner.progress.state == expected
        seen = len(bench.policy.seen)
        show(bench, 9, 0.3)
        assert (len(bench.policy.seen) == seen) == (reaction == "stop")
        assert len([text for text in bench.told if "video.front" in text]) == 1
        assert bench.planner.progress.skipped["frozen video.front"] > 0 or reaction == "report"
        show(bench, None, 0.2)
        bench.wait(lambda: bench.planner.progress.reason == "")
        assert bench.planner.progress.state == State.RUNNING
        assert len(bench.told) == 1
    finally:
        assert bench.planner.stop()
