# SPDX-License-Identifier: Apache-2.0
"""The chunk executor in a process of its own, a fake robot beside it, and all commands ever sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gr00t_ros.chunk import Chunk, ChunkGroup
from support_processes import Collector, RosGraph
from support_topics import ARM_COMMANDS, GRIPPER_COMMANDS, ROBOT, FakeRobot, NodeUnderTest, so101_node

ARM, GRIPPER = ROBOT.action["arm"].joints, ROBOT.action["gripper"].joints
WAITING, EXECUTING, HOLDING, STOPPED = range(4)
# A message may be delivered this much after it was sent, on a machine that is busy with other tests.
IN_FLIGHT_S = 0.1


@dataclass
class Bench:
    """The executor, a robot that goes where it is told, and all commands ever sent."""

    node: NodeUnderTest
    graph: RosGraph
    robot: FakeRobot
    arm: Collector
    gripper: Collector
    status: Collector
    chunks: Any
    session: int = 1
    sequence: int = -1

    @property
    def state(self) -> int:
        return self.status[-1].state

    @property
    def sent(self) -> int:
        return len(self.arm) + len(self.gripper)

    def plan(self, arm: Any = 0.0, gripper: float = 0.3, steps: int = 16) -> Chunk:
        """A chunk from now on: arm [T, 5], or one offset from where the arm stands."""
        self.sequence += 1
        now = self.graph.now_ns()
        if np.ndim(arm) == 0:
            here = np.array([self.robot.positions[joint] for joint in ARM])
            arm = here + np.linspace(0.0, float(arm), steps)[:, None]
        arm = np.asarray(arm, np.float64)
        return Chunk(
            session=self.session,
            sequence=self.sequence,
            instruction="test",
            t_obs_ns=now,
            start_ns=now,
            step_ns=ROBOT.step_ns,
            groups=(
                ChunkGroup("arm", "joint_position", ARM, arm),
                ChunkGroup("gripper", "scalar", GRIPPER, np.full((len(arm), 1), gripper)),
            ),
        )

    def send(self, chunk: Chunk) -> Any:
        from gr00t_ros.nodes.conversions import chunk_msg

        message = chunk_msg(chunk)
        self.chunks.publish(message)
        return message

    def call(self, name: str) -> Any:
        from std_srvs.srv import Trigger

        return self.graph.call(f"/gr00t/executor/{name}", Trigger)

    def until(self, state: int, word: str = "") -> None:
        self.graph.wait_until(
            lambda: self.state == state and word in self.status[-1].reason,
            f"state {state} with {word!r}; the last status is {self.status[-1] if self.status else None}",
        )

    def execute(self, arm: Any = 0.1, steps: int = 60) -> None:
        """Chunks until one is executed: the first ones may come while clocks settle."""
        end = time.monotonic() + 30.0
        while self.state != EXECUTING:
            assert time.monotonic() < end, self.status[-1]
            self.send(self.plan(arm, steps=steps))
            time.sleep(0.1)

    def quiet(self, seconds: float = 0.5) -> bool:
        """Whether no command arrives for a while, but for those that are on their way already."""
        begin_ns = time.monotonic_ns() + round(IN_FLIGHT_S * 1e9)
        time.sleep(IN_FLIGHT_S + seconds)
        return not any(c.received_ns and c.received_ns[-1] > begin_ns for c in (self.arm, self.gripper))

    def rest(self) -> None:
        """Back to where every test begins: well, started, and silent."""
        self.robot.restore()
        self.call("start")
        self.graph.wait_until(lambda: self.quiet(0.3), "silence")


@contextmanager
def executor_bench(*parameters: str, joints: bool = True) -> Iterator[Bench]:
    """A running executor with ``parameters`` (``name:=value``); ``joints`` are published from the start."""
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory

    from gr00t_ros.msg import ActionChunk, ExecutorStatus

    with so101_node("gr00t_ros.nodes.chunk_executor", "autostart:=true", *parameters) as (process, graph):
        arm = graph.collect(ARM_COMMANDS, JointTrajectory, 1000)
        gripper = graph.collect(GRIPPER_COMMANDS, Float64MultiArray, 1000)
        status = graph.collect("/gr00t/executor/status", ExecutorStatus, 1000)
        chunks = graph.publisher("/gr00t/action_chunk", ActionChunk, 10)
        graph.wait_until(lambda: status, "a status")
        node = NodeUnderTest(process, graph, "/gr00t/chunk_executor")
        robot = FakeRobot(graph, cameras=False, joints=joints)
        try:
            yield Bench(node, graph, robot, arm, gripper, status, chunks)
        finally:
            robot.close()
