# SPDX-License-Identifier: Apache-2.0
"""Tasks: the policy follows one text until something ends it. No ROS types.

:class:`Tasks` holds the one task under way. A goal begins one and takes over from the one before without a
stop: the plan goes on and only the text changes. Every other end is a controlled stop: the text is taken
away, the executor is told to come to rest, and the task has ended when the robot has. When to end is decided
by :meth:`Tasks.step` from what is seen many times a second; ``nodes/task_server`` calls it and speaks the
action's protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from gr00t_ros.causes import one_line
from gr00t_ros.errors import Gr00tRosError, MessageError
from gr00t_ros.executor_report import ExecutorReport
from gr00t_ros.instruction import Instruction
from gr00t_ros.observation import check_instruction
from gr00t_ros.progress import State

# An inference that takes longer will not end: ten times what the full network takes on a slow CPU.
MAX_INFERENCE_S = 60.0
# The robot has come to rest when it has stood still for this long; a task waits for that no longer than
# STOP_S, which is four times what a joint at 2 rad/s needs at 4 rad/s^2.
REST_S = 0.2
STOP_S = 2.0


class TaskRefused(Gr00tRosError):
    """A goal that cannot be a task; ``str()`` is the reason."""


class Outcome(IntEnum):
    """Why a task ended. The numbers are those of ``RunTask``."""

    CANCELED = 1
    TIME_LIMIT = 2
    STILL = 3
    FAULT = 4
    PREEMPTED = 5


class Phase(IntEnum):
    """The numbers are those of ``RunTask``."""

    STARTING = 1
    RUNNING = 2
    WAITING = 3
    STOPPING = 4


@dataclass(frozen=True)
class Goal:
    """What is asked for: a usable text, and after how many seconds the task ends (0: not by time)."""

    instruction: str
    time_limit_s: float = 0.0


@dataclass(frozen=True)
class Settings:
    """``still_s``: standing still for this long ends a task, 0 never does. ``patience_s``: how long a task
    goes on while no chunk can be made, or none is followed."""

    still_s: float
    patience_s: float


@dataclass(frozen=True)
class Seen:
    """The moment that a task is judged by. ``now_s`` is monotonic; ``busy_s`` for how long an inference has
    been running, 0 between two; ``still_s`` for how long the measured joints have stood still; ``faults``
    counts the inferences that failed."""

    now_s: float
    state: State
    reason: str
    busy_s: float
    executor: ExecutorReport | None
    still_s: float
    faults: int = 0


@dataclass(frozen=True)
class End:
    """Why a task ended, as a number and as a sentence."""

    outcome: Outcome
    message: str


def check_goal(instruction: str, time_limit_s: float) -> Goal:
    """The goal. Raises TaskRefused for an unusable text or time."""
    try:
        text = check_instruction(instruction)
    except MessageError as error:
        raise TaskRefused(one_line(error)) from error
    if not (math.isfinite(time_limit_s) and time_limit_s >= 0.0):
        raise TaskRefused(f"time_limit: found {time_limit_s:g} s, expected seconds, or 0 for no limit")
    return Goal(text, time_limit_s)


class Task:
    """One task. ``end`` is set as soon as it is to end, ``ended_s`` (monotonic) when it has."""

    def __init__(self, goal: Goal, now_s: float) -> None:
        self.goal = goal
        self.began_s = now_s
        self.chunks = 0
        self.end: End | None = None
        self.ended_s: float | None = None
        self._stopping_s = 0.0
        self._faults: int | None = None  # those of before
        self._phase = Phase.STARTING
        # Monotonic times since when: no chunk could be made, no chunk was followed, all was well.
        self._dry_s: float | None = None
        self._ignored_s: float | None = None
        self._followed_s: float | None = None
        self._followed_chunks = 0  # when a chunk was last followed

    def elapsed_s(self, now_s: float) -> float:
        """Since it was accepted, until it ended."""
        return (now_s if self.ended_s is None else self.ended_s) - self.began_s

    @property
    def phase(self) -> Phase:
        """What the task is doing, as of the last step."""
        return Phase.STOPPING if self.end is not None else self._phase

    def close(self, end: End, now_s: float) -> None:
        """It has ended. An end that came before counts."""
        self.end = self.end or end
        self.ended_s = now_s

    def stop(self, end: End, now_s: float) -> None:
        """It is to end, once the robot has come to rest."""
        self.end, self._stopping_s = end, now_s

    def at_rest(self, seen: Seen) -> bool:
        """Whether the robot has come to rest since ``stop``, or it is no use to wait for that any longer."""
        executor, waited_s = seen.executor, seen.now_s - self._stopping_s
        if waited_s >= STOP_S or executor is None or executor.silent(seen.now_s):
            return True
        resting = executor.heard_s > self._stopping_s and not executor.executing
        return resting and seen.still_s >= REST_S

    def why_end(self, seen: Seen, settings: Settings) -> End | None:
        """What ends the task now, if anything does."""
        self._look(seen)
        now_s, limit_s = seen.now_s, self.goal.time_limit_s
        if 0.0 < limit_s <= now_s - self.began_s:
            return End(Outcome.TIME_LIMIT, f"the time limit of {limit_s:g} s was reached")
        if seen.state == State.FAULT and seen.faults != self._faults:
            return End(Outcome.FAULT, seen.reason)
        if seen.busy_s > MAX_INFERENCE_S:
            return End(Outcome.FAULT, f"an inference has been running for {seen.busy_s:.0f} s")
        if _lasts(self._dry_s, seen, settings):
            return End(Outcome.FAULT, f"no chunk for {settings.patience_s:g} s: {seen.reason}")
        if _lasts(self._ignored_s, seen, settings):
            return End(Outcome.FAULT, f"no chunk was followed for {settings.patience_s:g} s: {_idle(seen)}")
        if settings.still_s > 0.0 and self._followed_s is not None:
            still_s = min(seen.still_s, now_s - self._followed_s)
            if still_s >= settings.still_s:
                return End(Outcome.STILL, f"the robot has stood still for {settings.still_s:g} s")
        return None

    def _look(self, seen: Seen) -> None:
        """Brings the times and the phase up to date."""
        executor, now_s = seen.executor, seen.now_s
        self._faults = seen.faults if self._faults is None else self._faults
        planning = seen.state == State.RUNNING or seen.busy_s > 0.0
        heard = executor is not None and not executor.silent(now_s)
        following = heard and executor is not None and executor.executing
        if following:
            self._followed_chunks = self.chunks
        # Between two chunks of a slow policy the executor holds; two that it lets pass it does not follow.
        ignored = not heard or (executor is not None and executor.stopped)
        ignored = ignored or (not following and self.chunks - self._followed_chunks >= 2)
        self._dry_s = _since(self._dry_s, not planning, now_s)
        self._ignored_s = _since(self._ignored_s, ignored, now_s)
        # What stands still for lack of a plan has not finished anything.
        self._followed_s = _since(self._followed_s, planning and following and self.chunks > 0, now_s)
        if not self.chunks:
            self._phase = Phase.STARTING
        else:
            self._phase = Phase.RUNNING if planning else Phase.WAITING


class Tasks:
    """The task under way, if there is one. For one thread, but for ``published``."""

    def __init__(
        self,
        instruction: Instruction,
        *,
        settings: Callable[[], Settings],
        end_plan: Callable[[str], None],
        how_to: str,
    ) -> None:
        """``end_plan`` is given the instruction that is over, and tells the executor to come to rest;
        ``how_to`` ends the sentence about there being no task."""
        self.task: Task | None = None
        self._instruction, self._settings, self._end_plan = instruction, settings, end_plan
        self._how_to = how_to

    def begin(self, goal: Goal, now_s: float) -> Task:
        """A new task, at once; the one before is over and the plan goes on."""
        old, task = self.task, Task(goal, now_s)
        self.task = task
        self._instruction.set(goal.instruction)
        if old is not None:
            old.close(End(Outcome.PREEMPTED, "a newer goal took over"), now_s)
        return task

    def cancel(self, task: Task, now_s: float) -> None:
        """The client asks for the end of a task; one that is ending anyway goes on to."""
        if task is self.task and task.end is None:
            self._stop(task, End(Outcome.CANCELED, "canceled by the client"), now_s)

    def supersede(self, text: str, now_s: float) -> None:
        """An instruction has come from elsewhere, so the task is over, if there is one. Without a usable text
        the robot comes to rest, task or not; else the plan goes on."""
        old, task, self.task = self._instruction.text, self.task, None
        self._instruction.set(text)
        if not self._instruction.text:
            self._end_plan(old)
        if task is not None:
            task.close(End(Outcome.PREEMPTED, "an instruction by topic or parameter took over"), now_s)

    def abandon(self, why: str, now_s: float) -> None:
        """The policy ends: the executor is told to come to rest, and nothing is waited for."""
        task = self.task
        if task is None:
            return
        if task.end is None:
            self._stop(task, End(Outcome.FAULT, why), now_s)
        self._close(task, now_s)

    def step(self, seen: Seen) -> None:
        """Looks whether the task is to end, and whether it has."""
        task = self.task
        if task is None:
            return
        if task.end is not None:
            if task.at_rest(seen):
                self._close(task, seen.now_s)
            return
        end = task.why_end(seen, self._settings())
        if end is not None:
            self._stop(task, end, seen.now_s)

    def published(self, instruction: str) -> None:
        """A chunk for this text went out. Any thread."""
        task = self.task
        if task is not None and task.goal.instruction == instruction:
            task.chunks += 1

    def rest(self, why: str) -> None:
        """Without a task nothing is planned from now on."""
        self._instruction.rest(f"{why}: {self._how_to}")

    def _stop(self, task: Task, end: End, now_s: float) -> None:
        # In this order: a chunk whose planning begins between the two has no text, and so is none.
        self.rest("the task ended")
        self._end_plan(task.goal.instruction)
        task.stop(end, now_s)

    def _close(self, task: Task, now_s: float) -> None:
        self.task = None
        assert task.end is not None
        task.close(task.end, now_s)


def _since(begin_s: float | None, holds: bool, now_s: float) -> float | None:
    """Since when something holds, None while it does not."""
    if not holds:
        return None
    return now_s if begin_s is None else begin_s


def _lasts(begin_s: float | None, seen: Seen, settings: Settings) -> bool:
    return begin_s is not None and seen.now_s - begin_s >= settings.patience_s


def _idle(seen: Seen) -> str:
    """Why no chunk is followed, as a sentence."""
    executor = seen.executor
    if executor is None or executor.silent(seen.now_s):
        return "nothing is heard of the executor"
    what = "the executor is stopped" if executor.stopped else "the executor holds"
    return f"{what}{': ' if executor.reason else ''}{executor.reason}"
