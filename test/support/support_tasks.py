# SPDX-License-Identifier: Apache-2.0
"""A client of ``run_task``, and the part of an executor that the policy sees: its status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from support_processes import RosGraph
from support_topics import stamp


class FakeExecutor:
    """Publishes ``executor/status`` as an executor would that follows every chunk, at 20 Hz until ``close``.

    ``stopped`` and ``silent`` are for a test to set; ``plan_ahead_s`` replaces the end of the plan that it
    tells.
    """

    def __init__(self, graph: RosGraph) -> None:
        from gr00t_ros.msg import ActionChunk, ExecutorStatus

        self.stopped = self.silent = False
        self.plan_ahead_s: float | None = None
        self._graph, self._kind = graph, ExecutorStatus
        self._chunk: Any = None
        graph.node.create_subscription(ActionChunk, "/gr00t/action_chunk", self._on_chunk, 1)
        self._publisher = graph.node.create_publisher(ExecutorStatus, "/gr00t/executor/status", 1)
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join(10.0)

    def restore(self) -> None:
        """It follows chunks again."""
        self.stopped = self.silent = False
        self.plan_ahead_s = None

    def _on_chunk(self, chunk: Any) -> None:
        self._chunk = chunk

    def _status(self) -> Any:
        message, now_ns, chunk = self._kind(), self._graph.now_ns(), self._chunk
        message.header.stamp = stamp(now_ns)
        if self.stopped:
            message.state, message.reason = self._kind.STOPPED, "stopped by a test"
            return message
        if chunk is None:
            return message
        message.session, message.sequence = chunk.session, chunk.sequence
        message.state, message.reason = self._kind.HOLDING, "the policy ended its plan"
        if chunk.horizon:
            message.state, message.reason = self._kind.EXECUTING, ""
            message.plan_start, message.plan_step = chunk.start, chunk.step
            message.plan_horizon, message.plan = chunk.horizon, chunk.groups
            if self.plan_ahead_s is not None:
                message.plan_start = stamp(now_ns + round(self.plan_ahead_s * 1e9))
        return message

    def _run(self) -> None:
        while self._running:
            if not self.silent:
                self._publisher.publish(self._status())
            time.sleep(0.05)


def on_graph(graph: RosGraph, function: Callable[[], Any]) -> Any:
    """What ``function`` gives on the graph's own thread. rclpy's action client takes an answer that arrives
    before ``send_goal_async`` has returned for somebody else's, so both must not run at once."""
    task = graph.node.executor.create_task(function)
    graph.wait_until(task.done, "the graph's thread")
    return task.result()


class Goal:
    """A goal that was sent: ``accepted`` once it was answered, ``feedback`` as it comes."""

    def __init__(self, graph: RosGraph, client: Any, request: Any) -> None:
        self.feedback: list[Any] = []
        self._graph, self._request = graph, request
        future = on_graph(graph, lambda: client.send_goal_async(request, self._on_feedback))
        graph.wait_until(future.done, f"an answer to {request}")
        self._handle = future.result()
        self.accepted = bool(self._handle.accepted)
        self._result = on_graph(graph, self._handle.get_result_async) if self.accepted else None

    def _on_feedback(self, message: Any) -> None:
        self.feedback.append(message.feedback)

    @property
    def ended(self) -> bool:
        return self._result is not None and self._result.done()

    def cancel(self) -> None:
        """Asks for the end, and waits until that is answered."""
        future = on_graph(self._graph, self._handle.cancel_goal_async)
        self._graph.wait_until(future.done, "an answer to the cancel request")
        assert len(future.result().goals_canceling) == 1

    def result(self) -> tuple[int, Any]:
        """The goal's status (of action_msgs/GoalStatus) and its result."""
        assert self._result is not None, "the goal was not accepted"
        self._graph.wait_until(self._result.done, f"the result of {self._request}")
        response = self._result.result()
        return int(response.status), response.result


class TaskClient:
    """Sends goals to the policy's ``run_task``."""

    def __init__(self, graph: RosGraph) -> None:
        from rclpy.action import ActionClient

        from gr00t_ros.action import RunTask

        self._graph, self._kind = graph, RunTask
        self._client = ActionClient(graph.node, RunTask, "/gr00t/run_task")
        self._last: Goal | None = None

    def connect(self) -> None:
        """Until the server knows this client: rmw_fastrtps drops answers to one that it does not know yet. A
        goal that is refused can be sent again and again."""
        assert self._client.wait_for_server(60.0), "run_task did not appear"

        def answered() -> bool:
            future = on_graph(
                self._graph, lambda: self._client.send_goal_async(self._kind.Goal(instruction=""))
            )
            end = time.monotonic() + 2.0
            while not future.done() and time.monotonic() < end:
                time.sleep(0.01)
            return bool(future.done())

        self._graph.wait_until(answered, "an answer of run_task")

    def send(self, instruction: str, time_limit: float = 0.0) -> Goal:
        request = self._kind.Goal(instruction=instruction, time_limit=time_limit)
        self._last = Goal(self._graph, self._client, request)
        return self._last

    def restore(self) -> None:
        """No task is under way any more: a test that failed may have left one."""
        if self._last is not None and self._last.accepted and not self._last.ended:
            self._last.cancel()
            self._last.result()
        self._last = None


def swaying(message: Any) -> Any:
    """Joint states of a robot that moves all the time; for ``FakeRobot.spoil_joints``."""
    message.position[0] += 0.3 * (time.monotonic() % 1.0)
    return message
