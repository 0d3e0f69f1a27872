# SPDX-License-Identifier: Apache-2.0
"""Tasks: one at a time, one reason for each end, and at every end but a take-over the executor is told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.executor_report import SILENT_S, ExecutorReport
from gr00t_ros.instruction import Instruction
from gr00t_ros.observation import MAX_INSTRUCTION_CHARS
from gr00t_ros.progress import State
from gr00t_ros.tasks import (
    MAX_INFERENCE_S,
    STOP_S,
    Goal,
    Outcome,
    Phase,
    Seen,
    Settings,
    Task,
    TaskRefused,
    Tasks,
    check_goal,
)

STEP_S = 0.05
EXECUTING = ExecutorReport(0.0, True, False, "", 1, 1, None)
HOLDING = ExecutorReport(0.0, False, False, "the plan ended", 1, 1, None)
STOPPED = ExecutorReport(0.0, False, True, "stopped by executor/stop", 1, 1, None)
WELL = Seen(0.0, State.RUNNING, "", 0.0, EXECUTING, 0.0)


class Bench:
    """Tasks under a clock of their own; ``ends`` are the texts whose plan the executor was told to end."""

    def __init__(self, still_s: float = 0.0, patience_s: float = 2.0) -> None:
        self.now_s = 100.0
        self.ends: list[str] = []
        self.settings = Settings(still_s, patience_s)
        self.instruction = Instruction("say it")
        self.tasks = Tasks(
            self.instruction, settings=lambda: self.settings, end_plan=self.end_plan, how_to="send a goal"
        )

    def end_plan(self, text: str) -> None:
        # Whatever is planned from here on is for a text that is asked for.
        assert self.instruction.text != text or not text
        self.ends.append(text)

    def begin(self, text: str = "go", time_limit_s: float = 0.0) -> Task:
        return self.tasks.begin(Goal(text, time_limit_s), self.now_s)

    def step(self, seconds: float, seen: Seen = WELL, *, chunks: bool = True, heard: bool = True) -> None:
        """Lets time pass, with a chunk of the task at every step."""
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            executor = seen.executor
            if executor is not None and heard:
                executor = replace(executor, heard_s=self.now_s)
            if chunks and self.tasks.task is not None:
                self.tasks.published(self.tasks.task.goal.instruction)
            self.tasks.step(replace(seen, now_s=self.now_s, executor=executor))


def test_a_goal_is_followed_and_a_canceled_one_comes_to_rest_first() -> None:
    bench = Bench()
    task = bench.begin("pick it up")
    assert bench.instruction.text == "pick it up"
    assert task.phase == Phase.STARTING
    bench.step(1.0)
    assert (task.phase, task.end, task.chunks) == (Phase.RUNNING, None, 20)
    bench.tasks.cancel(task, bench.now_s)
    assert bench.ends == ["pick it up"]
    assert bench.instruction.text == ""
    assert "send a goal" in bench.instruction.current.idle
    bench.step(0.5)  # it still executes
    assert (task.phase, task.ended_s) == (Phase.STOPPING, None)
    bench.step(0.1, replace(WELL, executor=HOLDING, still_s=0.1))  # and is still moving
    assert task.ended_s is None
    bench.step(0.1, replace(WELL, executor=HOLDING, still_s=0.3))
    assert task.ended_s is not None
    assert task.end is not None
    assert task.end.outcome == Outcome.CANCELED
    assert bench.tasks.task is None
    assert bench.ends == ["pick it up"]


def test_a_robot_that_is_not_seen_to_rest_is_not_waited_for_for_ever() -> None:
    bench = Bench()
    task = bench.begin()
    bench.step(0.2)
    bench.tasks.cancel(task, bench.now_s)
    bench.step(STOP_S - 0.1)
    assert task.ended_s is None
    bench.step(0.2)
    assert task.ended_s is not None


def test_what_the_executor_said_before_the_stop_is_no_rest() -> None:
    bench = Bench()
    task = bench.begin()
    before = replace(HOLDING, heard_s=bench.now_s)
    bench.tasks.cancel(task, bench.now_s)
    bench.step(0.5, replace(WELL, executor=before, still_s=9.0), heard=False)
    assert task.ended_s is None
    bench.step(SILENT_S, replace(WELL, executor=before, still_s=9.0), heard=False)
    assert task.ended_s is not None  # nothing is to be heard of it any more


def test_a_newer_goal_takes_over_without_a_stop() -> None:
    bench = Bench()
    first = bench.begin("one")
    bench.step(0.5)
    second = bench.begin("two")
    assert first.end is not None
    assert first.end.outcome == Outcome.PREEMPTED
    assert first.ended_s == bench.now_s
    assert bench.ends == []
    assert bench.instruction.text == "two"
    bench.tasks.published("one")  # it was being computed
    bench.tasks.published("two")
    assert second.chunks == 1
    bench.tasks.cancel(first, bench.now_s)  # the client did not know yet
    assert bench.tasks.task is second
    assert second.end is None


def test_a_newer_goal_does_not_change_why_the_one_before_is_ending() -> None:
    bench = Bench()
    first = bench.begin("one", time_limit_s=0.5)
    bench.step(0.6)
    assert first.phase == Phase.STOPPING
    bench.begin("two")
    assert first.end is not None
    assert first.end.outcome == Outcome.TIME_LIMIT
    assert bench.ends == ["one"]
    assert bench.instruction.text == "two"


@pytest.mark.parametrize(("text", "ends"), [("come back", []), ("", ["go"]), ("x" * 5000, ["go"])])
def test_an_instruction_from_elsewhere_takes_over(text: str, ends: list[str]) -> None:
    """With a text the plan goes on, without a usable one it ends."""
    bench = Bench()
    task = bench.begin()
    bench.step(0.5)
    bench.tasks.supersede(text, bench.now_s)
    assert task.end is not None
    assert task.end.outcome == Outcome.PREEMPTED
    assert bench.ends == ends
    assert bench.instruction.current.idle == ""


@pytest.mark.parametrize(("text", "ends"), [("come back", []), ("", ["go"]), ("x" * 5000, ["go"])])
def test_without_a_task_too_an_unusable_instruction_ends_the_plan(text: str, ends: list[str]) -> None:
    bench = Bench()
    bench.instruction.set("go")
    bench.tasks.supersede(text, bench.now_s)
    assert bench.ends == ends
    assert (bench.instruction.text == "") == bool(ends)


def test_the_time_limit_counts_from_the_goal_also_without_chunks() -> None:
    bench = Bench(patience_s=100.0)
    task = bench.begin(time_limit_s=3.0)
    waiting = replace(WELL, state=State.WAITING, reason="no camera")
    bench.step(2.9, waiting, chunks=False)
    assert task.end is None
    bench.step(0.2, waiting, chunks=False)
    assert task.end is not None
    assert task.end.outcome == Outcome.TIME_LIMIT


def test_standing_still_counts_from_the_first_chunk_that_is_followed() -> None:
    bench = Bench(still_s=1.0, patience_s=100.0)
    still = replace(WELL, still_s=50.0)
    task = bench.begin()
    bench.step(3.0, still, chunks=False)  # the first inference runs
    bench.step(0.9, still)
    assert task.end is None
    bench.step(1.0, replace(still, executor=HOLDING))  # no plan: no wonder that it stands still
    bench.step(0.9, still)
    bench.step(0.1, replace(still, state=State.WAITING, reason="no camera"))
    bench.step(0.9, still)
    bench.step(0.2, replace(still, still_s=0.0))  # it moves, or is not measured
    assert task.end is None
    bench.step(0.1, still)
    assert task.end is not None
    assert task.end.outcome == Outcome.STILL
    assert "1 s" in task.end.message


def test_without_a_time_for_it_standing_still_ends_nothing() -> None:
    bench = Bench(still_s=0.0)
    task = bench.begin()
    bench.step(60.0, replace(WELL, still_s=1000.0))
    assert task.end is None


FAULTS = [
    pytest.param(
        replace(WELL, state=State.FAULT, reason="it failed", faults=1), "it failed", 0.0, id="fault"
    ),
    pytest.param(replace(WELL, state=State.WAITING, reason="no camera"), "no camera", 2.0, id="waiting"),
    pytest.param(replace(WELL, executor=STOPPED), "executor/stop", 2.0, id="stopped"),
    pytest.param(replace(WELL, executor=None), "nothing is heard", 2.0, id="no executor"),
    pytest.param(replace(WELL, executor=HOLDING), "the plan ended", 2.0, id="ignored chunks"),
    pytest.param(replace(WELL, busy_s=MAX_INFERENCE_S + 1.0), "has been running", 0.0, id="hung"),
]


@pytest.mark.parametrize(("seen", "word", "after_s"), FAULTS)
def test_what_cannot_go_on_ends_a_task_as_a_fault(seen: Seen, word: str, after_s: float) -> None:
    bench = Bench(patience_s=2.0)
    task = bench.begin()
    bench.step(1.0)
    if after_s:
        bench.step(after_s - 0.1, seen)
        assert task.end is None
        bench.step(0.1)  # it comes back in time
        bench.step(after_s - 0.1, seen)
        assert task.end is None
    bench.step(0.3, seen)
    assert task.end is not None
    assert task.end.outcome == Outcome.FAULT
    assert word in task.end.message
    assert bench.ends == ["go"]


def test_an_inference_that_failed_before_a_task_is_no_fault_of_it() -> None:
    bench = Bench(patience_s=2.0)
    task = bench.begin()
    before = replace(WELL, state=State.FAULT, reason="the older text", faults=7)
    bench.step(0.05, before)
    bench.step(0.05, before)
    assert task.end is None
    bench.step(0.05, replace(before, reason="this one", faults=8))
    assert task.end is not None
    assert "this one" in task.end.message


def test_a_slow_policy_is_no_fault() -> None:
    """An inference takes longer than the patience, and between two chunks the executor holds."""
    bench = Bench(patience_s=2.0)
    task = bench.begin()
    bench.step(10.0, replace(WELL, state=State.WAITING, busy_s=5.0, executor=HOLDING), chunks=False)
    for _ in range(3):
        bench.step(STEP_S)
        bench.step(8.0, replace(WELL, busy_s=5.0, executor=HOLDING), chunks=False)
    assert task.end is None


def test_one_chunk_that_is_not_followed_yet_is_no_fault_but_two_are() -> None:
    bench = Bench(patience_s=2.0)
    task, holding = bench.begin(), replace(WELL, executor=HOLDING)
    bench.step(1.0)
    bench.step(STEP_S, holding)
    bench.step(10.0, holding, chunks=False)
    assert task.end is None
    bench.step(STEP_S, holding)
    bench.step(2.1, holding, chunks=False)
    assert task.end is not None
    assert "the plan ended" in task.end.message


def test_a_policy_that_ends_ends_its_task_at_once() -> None:
    bench = Bench()
    task = bench.begin()
    bench.step(0.5)
    bench.tasks.abandon("deactivated", bench.now_s)
    assert (task.end is not None, task.ended_s) == (True, bench.now_s)
    assert bench.ends == ["go"]
    bench.tasks.abandon("deactivated", bench.now_s)
    assert bench.ends == ["go"]


@pytest.mark.parametrize(
    ("instruction", "time_limit_s"),
    [("", 0.0), ("  ", 0.0), ("x" * (MAX_INSTRUCTION_CHARS + 1), 0.0), ("go", -0.1), ("go", math.nan)],
)
def test_a_goal_that_cannot_be_a_task_is_refused(instruction: str, time_limit_s: float) -> None:
    with pytest.raises(TaskRefused):
        check_goal(instruction, time_limit_s)


def test_a_goal_is_taken_without_the_blanks_around_it() -> None:
    assert check_goal(" go \n", 2.5) == Goal("go", 2.5)


ACTIONS = st.sampled_from(
    ["begin", "cancel", "supersede", "quiet", "well", "fault", "waiting", "holding", "lost"]
)


@given(actions=st.lists(ACTIONS, max_size=40), still_s=st.sampled_from([0.0, 0.3]))
def test_every_task_ends_once_and_the_executor_is_told_unless_another_takes_over(
    actions: list[str], still_s: float
) -> None:
    bench = Bench(still_s=still_s, patience_s=0.3)
    begun: list[Task] = []
    told: dict[int, str] = {}
    moments = {
        "well": WELL,
        "fault": replace(WELL, state=State.FAULT, reason="broken", faults=1),
        "waiting": replace(WELL, state=State.WAITING, reason="no camera"),
        "holding": replace(WELL, executor=HOLDING, still_s=9.0),
        "lost": replace(WELL, executor=None),
    }
    for action in actions:
        if action == "begin":
            begun.append(bench.begin(f"task {len(begun)}"))
        elif action == "cancel" and begun:
            bench.tasks.cancel(begun[-1], bench.now_s)
        elif action == "supersede":
            bench.tasks.supersede("elsewhere", bench.now_s)
        elif action == "quiet":
            bench.tasks.supersede("", bench.now_s)
        elif action in moments:
            bench.step(0.2, moments[action])
        for number, task in enumerate(begun):
            if task.end is not None:
                assert told.setdefault(number, task.end.message) == task.end.message
        running = [task for task in begun if task.ended_s is None]
        assert running == ([] if bench.tasks.task is None else [bench.tasks.task])
        # The text is followed from its goal to its end, not a moment longer.
        text = bench.instruction.text
        assert text in ("", "elsewhere") or (running and running[0].goal.instruction == text)
        if running:
            assert (text == running[0].goal.instruction) == (running[0].end is None)
    of_tasks = [text for text in bench.ends if text.startswith("task")]
    assert len(of_tasks) == len(set(of_tasks))
    for task in begun:
        if task.end is not None and task.end.outcome != Outcome.PREEMPTED:
            assert task.goal.instruction in bench.ends
