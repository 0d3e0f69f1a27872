# SPDX-License-Identifier: Apache-2.0
"""The planner: newest observation in, chunk out, never the same frame twice, and one sentence per cause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from gr00t_ros.chunk import Chunk
from gr00t_ros.observation import MAX_INSTRUCTION_CHARS, ObservationBuilder
from gr00t_ros.planning import Instruction, Planner, State
from support_messages import compressed_image, grey_image, joint_state, modality
from support_robots import small_config

ROBOT = small_config()
MODALITY = modality(["front", "wrist"], ["arm", "gripper"], ["arm", "gripper"])
FRONT, WRIST, JOINTS = "/camera/front/image_raw", "/camera/wrist/image_raw/compressed", "/joint_states"
PIXELS = np.zeros((4, 6, 3), np.uint8)


class FakePolicy:
    """Remembers what it saw; takes ``latency_s``; does what ``behave`` says."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.latency_s = 0.0
        self.behave: Callable[[], np.ndarray] = lambda: np.zeros((1, 16, 2), np.float32)
        self.release = threading.Event()
        self.release.set()

    def get_action(
        self, observation: Mapping[str, Any], *, t_obs_ns: int, seed: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.seen.append({"t_obs_ns": t_obs_ns, "seed": seed, **observation})
        time.sleep(self.latency_s)
        assert self.release.wait(20.0)
        arm = self.behave()
        timing = {"processing_s": 0.001, "inference_s": 0.002, "decoding_s": 0.003}
        return {"arm": arm, "gripper": np.zeros((1, 16, 1), np.float32)}, {"timing": timing}


class Bench:
    """A running planner with its inputs and outputs in reach."""

    def __init__(self, rate: float = 0.0, session: int = 7) -> None:
        self.policy = FakePolicy()
        self.instruction = Instruction("say it")
        self.chunks: list[Chunk] = []
        self.told: list[str] = []
        self.states: list[State] = []
        self.rate = rate
        self.offset_ns = 0
        self.planner = Planner(
            ROBOT,
            self.policy,
            ObservationBuilder(ROBOT, MODALITY),
            self.instruction,
            delta0=0,
            session=session,
            seed=3,
            rate=lambda: self.rate,
            now_ns=self.now_ns,
            publish=self.chunks.append,
            changed=lambda: self.states.append(self.planner.progress.state),
            warn=self.told.append,
            grace_s=0.15,
        )

    def now_ns(self) -> int:
        return time.time_ns() + self.offset_ns

    def feed(self, seconds: float = 0.0, *, joints: Any = None, skip: tuple[str, ...] = ()) -> None:
        """All sources once, or at 30 Hz for a while."""
        end = time.monotonic() + seconds
        while True:
            now = self.now_ns()
            if JOINTS not in skip:
                state = {"shoulder": 0.1, "elbow": 0.2, "gripper": 0.3} if joints is None else joints
                self.planner.add(JOINTS, joint_state(state, now))
            if WRIST not in skip:
                self.planner.add(WRIST, compressed_image(PIXELS, stamp_ns=now))
            if FRONT not in skip:
                self.planner.add(FRONT, grey_image(9, now))
            if time.monotonic() >= end:
                return
            time.sleep(1 / 30)

    def wait(self, condition: Callable[[], Any], timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, (self.planner.progress, self.told)
            time.sleep(0.005)


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


def test_messages_with_one_stamp_are_used_together_although_they_arrive_one_by_one(bench: Bench) -> None:
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
    assert 1 <= len(bench.chunks) <= 9


def test_nothing_fresh_gives_nothing_and_says_why_once(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    bench.wait(lambda: bench.planner.progress.state == State.WAITING)
    time.sleep(0.5)
    assert len(bench.chunks) == 1
    assert len(bench.told) == 1
    assert "/camera/" in bench.told[0]
    assert "s old" in bench.told[0]
    bench.feed()
    bench.wait(lambda: len(bench.chunks) == 2)


def test_a_missing_source_is_named(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed(0.5, skip=(JOINTS,))
    bench.wait(lambda: bench.planner.progress.state == State.WAITING)
    assert bench.chunks == []
    assert "/joint_states" in bench.planner.progress.reason
    assert bench.planner.progress.skipped["no_message state.arm"] > 3
    assert sum("/joint_states" in line for line in bench.told) == 1


@pytest.mark.parametrize(
    ("joints", "word"),
    [
        ({"shoulder": float("nan"), "elbow": 0.0, "gripper": 0.0}, "nan"),
        ({"shoulder": 0.0, "gripper": 0.0}, "elbow"),
    ],
)
def test_refused_joint_states_are_one_sentence(bench: Bench, joints: dict, word: str) -> None:
    """Neither one a message, nor another one about the source that runs dry because of it."""
    bench.instruction.set("go")
    bench.feed(0.7, joints=joints)
    assert bench.chunks == []
    assert [line for line in bench.told if "video" not in line] == [bench.told[0]]
    assert word in bench.told[0]
    assert word in bench.planner.progress.reason
    assert bench.planner.progress.skipped["refused message"] > 5
    bench.feed(0.1)
    bench.wait(lambda: bench.chunks)


def test_a_damaged_frame_is_one_sentence_and_the_next_one_is_used(bench: Bench) -> None:
    bench.instruction.set("go")
    for _ in range(6):
        bench.feed(skip=(WRIST,))
        broken = compressed_image(PIXELS, stamp_ns=bench.now_ns() - 1_000_000)
        broken.data = broken.data[:40]
        bench.planner.add(WRIST, broken)
        bench.feed(skip=(WRIST,))
        time.sleep(0.03)
    assert bench.chunks == []
    assert sum("frame refused" in line or "message refused" in line for line in bench.told) == 1
    bench.feed(0.2)
    bench.wait(lambda: bench.chunks)


@pytest.mark.parametrize(
    "text",
    ["", "   ", "x" * (MAX_INSTRUCTION_CHARS + 1), "x" * 10_000, "?!"],
    ids=["empty", "blank", "one too many", "ten thousand", "no word"],
)
def test_an_unusable_instruction_stops_planning(bench: Bench, text: str) -> None:
    bench.instruction.set("go")
    bench.feed()
    bench.wait(lambda: bench.chunks)
    bench.instruction.set(text)
    bench.feed(0.3)
    assert len(bench.chunks) == 1
    assert bench.planner.progress.state == State.WAITING
    about = [line for line in bench.told if "instruction" in line]
    assert len(about) == 1
    assert len(about[0]) < 300
    bench.instruction.set("go on")
    bench.feed(0.1)
    bench.wait(lambda: bench.chunks[-1].instruction == "go on")


def test_without_any_instruction_nothing_is_planned(bench: Bench) -> None:
    bench.feed(0.3)
    assert bench.policy.seen == []
    assert bench.planner.progress.reason == "no instruction yet: say it"


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


def test_a_chunk_that_is_ready_after_the_stop_is_not_published(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.policy.release.clear()
    bench.feed()
    bench.wait(lambda: bench.policy.seen)
    threading.Timer(0.2, bench.policy.release.set).start()
    assert bench.planner.stop()
    assert bench.chunks == []
