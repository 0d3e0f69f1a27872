# SPDX-License-Identifier: Apache-2.0
"""The planner: newest observation in, chunk out, never the same frame twice, and one sentence per cause."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gr00t_ros.images import decode_image
from gr00t_ros.progress import State
from gr00t_ros.rtc import CommittedPlan, RealTimeChunking
from support_messages import compressed_image, grey_image, joint_state
from support_planning import FRONT, JOINTS, ROBOT, WRIST, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.planner.start()
    yield bench
    bench.policy.release.set()
    assert bench.planner.stop()


def test_an_observation_becomes_a_chunk_placed_at_its_frame(bench: Bench) -> None:
    bench.instruction.set("pick it up")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    seen, chunk = bench.policy.seen[0], bench.chunks[0]
    assert chunk.t_obs_ns == chunk.start_ns == seen["t_obs_ns"]
    assert seen["seed"] == 3
    assert seen["language"] == {"annotation.human.task_description": [["pick it up"]]}
    assert (chunk.session, chunk.sequence, chunk.instruction) == (7, 0, "pick it up")
    assert chunk.step_ns == ROBOT.step_ns
    # Dataset units become SI: the gripper's zero percent lies at its offset.
    np.testing.assert_allclose(chunk.groups[1].values, np.full((16, 1), 0.5))
    bench.wait(lambda: bench.planner.progress.state == State.RUNNING)
    assert bench.told == []


def test_no_frame_is_used_twice(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    time.sleep(0.15)
    assert len(bench.policy.seen) == 1
    bench.feed()
    bench.wait(lambda: len(bench.chunks) == 2)
    stamps = [seen["t_obs_ns"] for seen in bench.policy.seen]
    assert stamps[0] < stamps[1]
    assert [chunk.sequence for chunk in bench.chunks] == [0, 1]


def test_a_new_instruction_is_in_the_second_chunk_and_none_is_missing(bench: Bench) -> None:
    """The chunk that is being computed still has the old one; nothing waits for the new one."""
    bench.instruction.set("go")
    bench.policy.latency_s = 0.03
    for number in range(6):
        if number == 3:
            bench.feed()
            bench.wait(lambda: len(bench.policy.seen) == 4)  # the fourth inference runs
            bench.instruction.set("go back")
        else:
            bench.feed()
        bench.wait(lambda count=number + 1: len(bench.chunks) == count)
    assert [chunk.instruction for chunk in bench.chunks] == ["go"] * 4 + ["go back"] * 2
    assert [chunk.sequence for chunk in bench.chunks] == list(range(6))
    assert bench.states[-1] == State.RUNNING
    assert bench.states.count(State.RUNNING) == 1  # it was never left


def test_the_engine_catches_up_after_a_chunk_and_may_fail_to(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.policy.unprepared = RuntimeError("no memory for another graph")
    for count in (1, 2, 3):
        bench.feed()
        bench.wait(lambda count=count: len(bench.chunks) == bench.policy.caught_up == count)
    assert bench.planner.progress.state == State.RUNNING
    assert [text for text in bench.told if "engine" in text] == [
        "the engine could not prepare for new shapes: no memory for another graph"
    ]


def test_a_slow_policy_gets_the_newest_frame_and_counts_the_others(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.policy.latency_s = 0.2
    bench.feed(1.5)
    last = bench.planner.progress
    bench.wait(lambda: last.chunks >= 5)
    assert last.skipped["superseded by a newer frame"] > 10
    ages = [chunk.inference_ns for chunk in bench.chunks]
    assert max(ages) < 5e9
    # Never two inferences for frames that lie closer than the policy takes: there is no queue to work off.
    gaps = np.diff([seen["t_obs_ns"] for seen in bench.policy.seen])
    assert gaps.min() > 0.1e9


def test_only_images_that_are_used_are_decoded_and_not_by_callbacks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def decode(message: Any, source: str) -> np.ndarray:
        threads.append(threading.current_thread().name)
        return decode_image(message, source)

    monkeypatch.setattr("gr00t_ros.observation.decode_image", decode)
    bench.instruction.set("go")
    bench.policy.latency_s = 0.2
    bench.feed(1.0)
    bench.wait(lambda: bench.planner.progress.state == State.WAITING)  # the last frame has grown old
    assert len(bench.policy.seen) >= 3
    assert set(threads) == {"planner"}
    assert len(threads) == 2 * len(bench.policy.seen)  # both cameras, once a chunk


def test_messages_with_one_stamp_are_used_together_although_they_arrive_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long it waits at most is no part of this; a busy machine may take 20 ms between two messages.
    monkeypatch.setattr("gr00t_ros.planning.GATHER_S", 2.0)
    bench.instruction.set("go")
    for value in range(1, 40):
        now = bench.now_ns()
        bench.planner.add(FRONT, grey_image(value, now))
        time.sleep(0.004)
        bench.planner.add(WRIST, compressed_image(np.full((4, 6, 3), value, np.uint8), stamp_ns=now))
        time.sleep(0.004)
        bench.planner.add(JOINTS, joint_state({"shoulder": value / 100, "elbow": 0.0, "gripper": 0.5}, now))
        time.sleep(0.02)
    bench.wait(lambda: len(bench.policy.seen) > 20)
    for seen in bench.policy.seen:
        value = seen["video"]["front"].max()
        assert seen["video"]["wrist"].max() == value
        np.testing.assert_allclose(seen["state"]["arm"][0, 0, 0], value / 100, atol=1e-6)


def test_a_camera_that_fell_silent_is_waited_for_only_shortly(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed(0.2)
    before = len(bench.policy.seen)
    bench.feed(0.15, skip=(WRIST,))
    bench.wait(lambda: len(bench.policy.seen) > before)


def test_the_rate_bounds_the_chunks() -> None:
    bench = Bench(rate=5.0)
    bench.instruction.set("go")
    bench.planner.start()
    bench.feed(1.6)
    assert bench.planner.stop()
    assert 1 <= sum(bool(chunk.groups) for chunk in bench.chunks) <= 9


@pytest.mark.parametrize("jump_s", [-100.0, 100.0])
def test_a_clock_jump_drops_what_was_stored_and_goes_on(bench: Bench, jump_s: float) -> None:
    bench.instruction.set("go")
    bench.feed(0.2)
    bench.wait(lambda: bench.chunks)
    bench.offset_ns = round(jump_s * 1e9)
    time.sleep(0.2)
    before = len(bench.chunks)
    assert sum("jumped" in line for line in bench.told) == 1
    bench.feed(0.2)
    bench.wait(lambda: len(bench.chunks) > before)
    assert abs(bench.chunks[-1].t_obs_ns - bench.now_ns()) < 5e9


def test_a_simulation_faster_than_real_time_is_no_jump_however_long_an_inference_takes(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.pace = 4.0
    bench.policy.latency_s = 0.5
    bench.feed(2.0)
    bench.wait(lambda: len(bench.chunks) >= 2)
    assert not any("jumped" in line for line in bench.told)


def test_what_came_after_a_jump_during_an_inference_is_kept(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.policy.release.clear()
    bench.feed()
    bench.wait(lambda: bench.policy.seen)
    bench.offset_ns = -100_000_000_000
    bench.feed()
    bench.policy.release.set()
    bench.wait(lambda: len(bench.chunks) == 2)
    assert bench.chunks[1].t_obs_ns < bench.chunks[0].t_obs_ns
    assert sum("jumped back" in line for line in bench.told) == 1


def test_a_status_that_cannot_be_told_stops_no_chunk(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("publisher is gone")

    bench.changed = fail
    bench.instruction.set("go")
    bench.feed(0.3)
    bench.wait(lambda: len(bench.chunks) > 3)
    assert sum("publisher is gone" in line for line in bench.told) == 1


def test_the_thread_outlives_a_rate_that_cannot_be_read(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.rate = -1.0
    bench.wait(lambda: bench.planner.progress.state == State.FAULT)
    assert "no rate" in bench.planner.progress.reason
    bench.rate = 0.0
    bench.feed(0.1)
    bench.wait(lambda: bench.planner.progress.state == State.RUNNING)


def test_the_thread_outlives_a_log_that_fails(bench: Bench) -> None:
    works, asked = bench.policy.behave, []

    def warn(text: str) -> None:
        asked.append(text)
        raise OSError("disk full")

    bench.planner._refusals._tell = warn
    bench.policy.behave = lambda: np.full((1, 16, 2), np.nan, np.float32)
    bench.instruction.set("go")
    bench.feed(0.2)
    bench.wait(lambda: asked)
    assert bench.planner.progress.state == State.FAULT
    bench.policy.behave = works
    bench.feed(0.1)
    bench.wait(lambda: bench.chunks)


def test_a_fault_is_told_once_and_the_next_observation_is_tried(bench: Bench) -> None:
    def fail() -> np.ndarray:
        raise RuntimeError(f"out of memory at {len(bench.policy.seen)}")

    works = bench.policy.behave
    bench.policy.behave = fail
    bench.instruction.set("go")
    bench.feed(0.4)
    bench.wait(lambda: bench.planner.progress.state == State.FAULT)
    assert len(bench.policy.seen) > 3
    assert bench.chunks == []
    assert len(bench.told) == 1
    assert "out of memory" in bench.told[0]
    bench.policy.behave = works
    bench.feed(0.1)
    bench.wait(lambda: bench.planner.progress.state == State.RUNNING)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_never_published(bench: Bench, value: float) -> None:
    bench.policy.behave = lambda: np.full((1, 16, 2), value, np.float32)
    bench.instruction.set("go")
    bench.feed(0.2)
    bench.wait(lambda: bench.planner.progress.state == State.FAULT)
    assert bench.chunks == []
    assert "not finite" in bench.planner.progress.reason


def test_a_planner_is_busy_until_an_inference_that_outlived_it_has_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gr00t_ros.planning.JOIN_TIMEOUT_S", 0.05)
    bench.instruction.set("go")
    bench.policy.release.clear()
    bench.feed()
    bench.wait(lambda: bench.policy.seen)
    assert not bench.planner.stop()
    assert bench.planner.busy
    bench.policy.release.set()
    bench.wait(lambda: not bench.planner.busy)
    assert bench.planner.stop()
    assert not any(chunk.groups for chunk in bench.chunks), "no more than the end of the plan"


def test_a_chunk_that_is_ready_after_the_stop_is_not_published(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.policy.release.clear()
    bench.feed()
    bench.wait(lambda: bench.policy.seen)
    threading.Timer(0.2, bench.policy.release.set).start()
    assert bench.planner.stop()
    assert not any(chunk.groups for chunk in bench.chunks), "no more than the end of the plan"


def test_a_chunk_joins_the_plan_that_the_executor_told() -> None:
    def encode(actions: Any, state: Any) -> np.ndarray:
        return np.zeros((1, 16, 4), np.float32)

    chunking = RealTimeChunking(ROBOT, delta0=0, steps=16, horizon=16, num_steps=4, encode=encode)
    bench = Bench(chunking=chunking)
    bench.planner.start()
    try:
        bench.instruction.set("go")
        bench.feed()
        bench.wait(lambda: bench.chunks)
        now = bench.now_ns()
        values = {key: np.full((40, group.width), 0.25) for key, group in ROBOT.action.items()}
        chunking.hear(CommittedPlan(now, now, ROBOT.step_ns, values))
        bench.feed()
        bench.wait(lambda: len(bench.chunks) == 2)
        # A plan that cannot be told to the network costs the joining, not the chunk.
        now = bench.now_ns()
        nothing = {key: part[:, :0] for key, part in values.items()}
        chunking.hear(CommittedPlan(now, now, ROBOT.step_ns, nothing))
        bench.feed()
        bench.wait(lambda: len(bench.chunks) == 3)
    finally:
        assert bench.planner.stop()
    assert [seen["guidance"] is not None for seen in bench.policy.seen] == [False, True, False]
    frozen = [chunk.frozen_steps for chunk in bench.chunks]
    assert frozen[0] == frozen[2] == 0
    assert frozen[1] >= 1
    for group in bench.chunks[1].groups:
        np.testing.assert_array_equal(group.values[: frozen[1]], 0.25)
    assert len([text for text in bench.told if "does not join the plan" in text]) == 1
