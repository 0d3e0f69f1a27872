# SPDX-License-Identifier: Apache-2.0
"""The action ``run_task``: the protocol around ``gr00t_ros.tasks``.

Everything here runs on the node's one thread and nothing waits: a goal's coroutine sleeps on a future until
a timer, a cancel request or a transition ends its task. The server is there as long as the node, since rclpy
cannot take one away while a goal is being answered; while the policy is not active it refuses goals, and
says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from gr00t_ros.action import RunTask
from gr00t_ros.causes import one_line
from gr00t_ros.nodes.lifecycle import ManagedNode
from gr00t_ros.progress import Progress
from gr00t_ros.tasks import End, Outcome, Seen, Task, TaskRefused, Tasks, check_goal

# How often a task is looked at: the reaction to its end is one of these and the braking. Feedback is for
# people and behaviour trees.
STEP_S = 0.05
FEEDBACK_S = 0.5
# How long a result can be asked for after the end, by those who did not when the goal was accepted.
RESULT_TIMEOUT_S = 60


class TaskServer:
    """One ``run_task`` for one policy node.

    ``tasks`` is the present task machine, None while the node is not active; ``look`` gives what a task is
    judged by, ``progress`` and ``remaining_s`` the rest of the feedback.
    """

    def __init__(
        self,
        node: ManagedNode,
        *,
        tasks: Callable[[], Tasks | None],
        begun: Callable[[], None],
        look: Callable[[], Seen],
        progress: Callable[[], Progress],
        remaining_s: Callable[[], float],
    ) -> None:
        """``begun`` is called when a goal has begun a task."""
        self._node, self._tasks, self._begun = node, tasks, begun
        self._look, self._progress, self._remaining_s = look, progress, remaining_s
        self._waiting: dict[bytes, tuple[Task, Future, Any]] = {}  # by goal id, with the goal's handle
        self._feedback_due_s = 0.0
        node.create_steady_timer(STEP_S, self._step)
        self._server = ActionServer(
            node,
            RunTask,
            "run_task",
            self._execute,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            result_timeout=RESULT_TIMEOUT_S,
        )

    def destroy(self) -> None:
        """Takes the server away; only when the node is no longer spun."""
        self._server.destroy()

    def _on_goal(self, request: Any) -> GoalResponse:
        try:
            check_goal(request.instruction, request.time_limit)
            if self._tasks() is None:
                raise TaskRefused("the policy is not active")
        except TaskRefused as refusal:
            self._node.tell_warning(f"run_task: goal refused: {refusal}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: Any) -> None:
        goal = check_goal(handle.request.instruction, handle.request.time_limit)
        tasks, now_s = self._tasks(), time.monotonic()
        assert tasks is not None  # it was there a moment ago, and there is one thread
        task = tasks.begin(goal, now_s)
        self._waiting[_identity(handle)] = (task, Future(), handle)
        limit = f", for at most {goal.time_limit_s:g} s" if goal.time_limit_s else ""
        self._node.tell_info(f"task: {goal.instruction!r}{limit}")
        self._feedback_due_s = now_s
        self._begun()
        self.settle()
        handle.execute()

    def _on_cancel(self, handle: Any) -> CancelResponse:
        waiting, tasks = self._waiting.get(_identity(handle)), self._tasks()
        if waiting is None or tasks is None:
            return CancelResponse.REJECT
        tasks.cancel(waiting[0], time.monotonic())
        return CancelResponse.ACCEPT

    def _step(self) -> None:
        tasks = self._tasks()
        task = None if tasks is None else tasks.task
        if tasks is not None and task is not None:
            tasks.step(self._look())
            self._feed_back(task)
        self.settle()

    @property
    def awaited(self) -> bool:
        """Whether a goal that was accepted has no result yet."""
        return bool(self._waiting)

    def settle(self) -> None:
        """Tells the goals whose task has ended."""
        for task, future, _ in self._waiting.values():
            if task.ended_s is not None and not future.done():
                future.set_result(None)

    def _feed_back(self, task: Task) -> None:
        now_s = time.monotonic()
        if now_s < self._feedback_due_s or task.ended_s is not None:
            return
        self._feedback_due_s = now_s + FEEDBACK_S
        handle = next((handle for one, _, handle in self._waiting.values() if one is task), None)
        if handle is None:
            return
        handle.publish_feedback(
            RunTask.Feedback(
                phase=int(task.phase),
                chunks=task.chunks,
                latency=self._progress().observation_age_s if task.chunks else 0.0,
                remaining_plan=self._remaining_s(),
                elapsed=task.elapsed_s(now_s),
            )
        )

    async def _execute(self, handle: Any) -> Any:
        """A goal from its acceptance to its result."""
        identity = _identity(handle)
        task, future, _ = self._waiting[identity]
        await future
        del self._waiting[identity]
        end = task.end
        assert end is not None
        seconds = task.elapsed_s(time.monotonic())
        self._tell(task, end, seconds)
        try:
            if end.outcome == Outcome.CANCELED:
                handle.canceled()
            elif end.outcome == Outcome.STILL:
                handle.succeed()
            else:
                handle.abort()
        except RuntimeError as error:  # RCLError: the client's request and the end crossed
            self._node.tell_warning(f"run_task: the goal's end could not be told: {one_line(error)}")
        return RunTask.Result(
            outcome=int(end.outcome), message=end.message, chunks=task.chunks, duration=seconds
        )

    def _tell(self, task: Task, end: End, seconds: float) -> None:
        after = f"after {seconds:.1f} s and {task.chunks} chunks"
        text = f"task {task.goal.instruction!r} ended {after}: {end.message}"
        if end.outcome == Outcome.FAULT:
            self._node.tell_warning(text)
        else:
            self._node.tell_info(text)


def _identity(handle: Any) -> bytes:
    return bytes(handle.goal_id.uuid)
