# SPDX-License-Identifier: Apache-2.0
"""What the planner says and does when its sources are missing, spoiled or not to be used."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from gr00t_ros.observation import MAX_INSTRUCTION_CHARS
from gr00t_ros.progress import State
from support_messages import compressed_image, joint_state
from support_planning import FRONT, JOINTS, PIXELS, WRIST, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.planner.start()
    yield bench
    bench.policy.release.set()
    assert bench.planner.stop()


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


def test_a_camera_that_turns_to_rubbish_is_told_in_the_status(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed(0.3)
    bench.wait(lambda: bench.planner.progress.state == State.RUNNING)
    for i in range(100):
        now = bench.now_ns()
        bench.planner.add(JOINTS, joint_state({"shoulder": 0.1, "elbow": 0.2, "gripper": 0.3}, now))
        bench.planner.add(WRIST, compressed_image(PIXELS, stamp_ns=now))
        rubbish = compressed_image(PIXELS, "jpeg", now)
        rubbish.data = b"\xff\xd8\xff" + bytes(500) + b"\xff\xd9"
        bench.planner.add(FRONT, rubbish)
        if i > 5 and bench.planner.progress.state == State.WAITING:
            break
        time.sleep(0.02)
    assert bench.planner.progress.state == State.WAITING
    assert "video.front" in bench.planner.progress.reason
    assert bench.states[-1] == State.WAITING
    bench.feed(0.2)
    bench.wait(lambda: bench.planner.progress.state == State.RUNNING)


def test_another_publisher_on_a_shared_topic_is_nothing_to_tell(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed()
    for _ in range(10):
        bench.feed()
        bench.planner.add(JOINTS, joint_state({"wheel": 1.0}, bench.now_ns()))
        time.sleep(0.02)
    bench.wait(lambda: bench.planner.progress.state == State.RUNNING)
    assert bench.told == []
    assert "refused message" not in bench.planner.progress.skipped


def test_another_publisher_does_not_hide_that_ours_is_refused(bench: Bench) -> None:
    bench.instruction.set("go")
    bench.feed()
    for _ in range(20):
        bench.feed(joints={"shoulder": float("nan"), "elbow": 0.0, "gripper": 0.0})
        bench.planner.add(JOINTS, joint_state({"wheel": 1.0}, bench.now_ns()))
        time.sleep(0.03)
    bench.wait(lambda: bench.planner.progress.state == State.WAITING)
    assert "nan" in bench.planner.progress.reason
    assert sum("nan" in line for line in bench.told) == 1


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
