# SPDX-License-Identifier: Apache-2.0
"""A policy node in a process of its own, with everything around it that it listens to and talks with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support_checkpoints import tiny_checkpoint
from support_processes import Collector, RosGraph
from support_tasks import FakeExecutor, TaskClient
from support_topics import ROBOT, FakeRobot, NodeUnderTest, nanoseconds, so101_node


@dataclass
class PolicyBench:
    """The policy node in a process, a robot and an executor in this one, and a client of the action."""

    node: NodeUnderTest
    graph: RosGraph
    robot: FakeRobot
    executor: FakeExecutor
    client: TaskClient
    chunks: Collector
    status: Collector
    diagnostics: Collector

    def until(self, state: int, word: str = "") -> None:
        self.graph.wait_until(
            lambda: self.status and self.status[-1].state == state and word in self.status[-1].reason,
            f"state {state} with {word!r}; the last status is {self.status[-1] if self.status else None}",
        )

    def until_well(self) -> None:
        """Until it plans and there is nothing to tell about that."""
        self.graph.wait_until(
            lambda: self.status and self.status[-1].state == 2 and not self.status[-1].reason,
            f"chunks without a remark; {self.node.process.output}",
        )

    def until_chunk(self, instruction: str) -> None:
        self.graph.wait_until(
            lambda: self.chunks and self.chunks[-1].instruction == instruction and self.chunks[-1].horizon,
            f"a chunk for {instruction!r}; {self.node.process.output}",
        )

    def silent(self, seconds: float = 0.5) -> bool:
        """Whether no chunk comes."""
        before = self.chunks[-1] if self.chunks else None
        time.sleep(seconds)
        return before is (self.chunks[-1] if self.chunks else None)

    def ended_plan(self, instruction: str) -> bool:
        """Whether the newest chunk tells the executor to come to rest, after all others of its session."""
        last = self.chunks[-1]
        assert (last.horizon, list(last.groups), last.instruction) == (0, [], instruction)
        assert nanoseconds(last.step) == ROBOT.step_ns
        assert abs(nanoseconds(last.header.stamp) - self.graph.now_ns()) < 30e9
        return self.contiguous()

    def contiguous(self) -> bool:
        """Whether no sequence number is missing or twice in the newest session."""
        session = [c.sequence for c in list(self.chunks) if c.session == self.chunks[-1].session]
        return session == list(range(session[0], session[0] + len(session)))

    def freeze(self, *frozen: str) -> None:
        """These cameras send one picture on and on, under new stamps; the others a new one each time."""
        count = 0

        def spoil(topic: str, message: Any) -> Any:
            nonlocal count
            count += 1
            if topic not in frozen:
                message.data[count % len(message.data)] ^= 0xFF
            return message

        self.robot.spoil_image = spoil

    def diagnosed(self, level: bytes, word: str = "") -> dict[str, str]:
        """The values once the level and a word of the message are there."""

        def found() -> bool:
            if not self.diagnostics:
                return False
            status = self.diagnostics[-1].status[0]
            return bool(status.level == level and word in status.message)

        self.graph.wait_until(found, f"diagnostics of level {level!r}")
        return {value.key: value.value for value in self.diagnostics[-1].status[0].values}


@contextmanager
def policy_bench(*parameters: str) -> Iterator[PolicyBench]:
    """A loaded and active policy node with the tiny checkpoint; ``parameters`` are ``name:=value``."""
    from diagnostic_msgs.msg import DiagnosticArray

    from gr00t_ros.msg import ActionChunk, PolicyStatus

    given = [f"checkpoint:={tiny_checkpoint()}", "device:=cpu", "autostart:=true", *parameters]
    with so101_node("gr00t_ros.nodes.policy_node", *given) as (process, graph):
        chunks = graph.collect("/gr00t/action_chunk", ActionChunk, 10)
        status = graph.collect("/gr00t/policy/status", PolicyStatus, 10)
        diagnostics = graph.collect("/diagnostics", DiagnosticArray, 10)
        robot, executor = FakeRobot(graph), FakeExecutor(graph)
        process.wait_for("loaded", 120.0)
        client = TaskClient(graph)
        client.connect()
        node = NodeUnderTest(process, graph, "/gr00t/policy")
        try:
            yield PolicyBench(node, graph, robot, executor, client, chunks, status, diagnostics)
        finally:
            executor.close()
            robot.close()
