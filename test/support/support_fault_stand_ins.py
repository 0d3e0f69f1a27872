# SPDX-License-Identifier: Apache-2.0
"""What stands in for the world around an executor, inside the test, so that each message can be spoiled: a
robot that goes where it is told, a source of smooth chunks, and a clock that can be set."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gr00t_ros.chunk import Chunk, ChunkGroup
from support_fault_recording import ARM, GRIPPER, NS, ROBOT, Reference
from support_processes import RosGraph
from support_topics import FakeRobot, stamp

STEPS = 16
# Between two chunks, and two signs of life.
PERIOD_S = 0.2


def smooth(seconds: np.ndarray) -> np.ndarray:
    """Positions [N, 6] of a motion without end: at most 0.25 rad, 0.8 rad/s and 2.5 rad/s^2 about a middle,
    and always some joint in motion."""
    phase = 2 * np.pi * 0.5 * seconds[:, None] + np.arange(6) * 0.9
    return 0.25 * np.sin(phase) + np.r_[np.zeros(5), 0.7]


class Body:
    """Arm and gripper with their controllers: at ``arm`` [5] and ``gripper`` first, then as told."""

    def __init__(self, arm: Iterable[float], gripper: float) -> None:
        self._arm, self._gripper = Reference(list(arm)), gripper

    def take_arm(self, message: Any) -> None:
        self._arm.take(message, time.monotonic_ns())

    def take_gripper(self, message: Any) -> None:
        self._gripper = float(message.data[0])

    def place(self) -> list[float]:
        """Where the joints are now, the arm's five and the gripper."""
        return [*map(float, self._arm.at(time.monotonic_ns())[0]), self._gripper]


class MovingRobot(FakeRobot):
    """A robot without cameras that publishes where its body is."""

    def __init__(self, graph: RosGraph, body: Body) -> None:
        self._body = body
        super().__init__(graph, cameras=False)

    @property
    def positions(self) -> dict[str, float]:  # type: ignore[override]
        """By joint, now."""
        return dict(zip((*ARM, *GRIPPER), self._body.place(), strict=True))

    @positions.setter
    def positions(self, _: dict[str, float]) -> None:
        """FakeRobot's, which stands still, are not needed."""


class SharedPlace:
    """Writes where a body is into a file, for the process that publishes it (``support_fault_sources``): what
    dies there is the source of the joint states, not the robot."""

    def __init__(self, body: Body, file: Path) -> None:
        self._body, self._running = body, True
        self._values = np.memmap(file, np.float64, "w+", shape=(6,))
        self._values[:] = body.place()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._running:
            self._values[:] = self._body.place()
            time.sleep(0.01)

    def close(self) -> None:
        self._running = False
        self._thread.join(10.0)


class ChunkSource:
    """Chunks of the smooth motion and signs of life, five a second, in place of a policy. ``spoil`` may
    replace each chunk by others, or by none; without ``alive`` there is no sign of life. ``now_ns`` gives the
    time."""

    def __init__(self, graph: RosGraph) -> None:
        from gr00t_ros.msg import ActionChunk, PolicyStatus

        self.now_ns: Callable[[], int] = graph.now_ns
        self.spoil: Callable[[Chunk], Iterable[Chunk]] = lambda chunk: (chunk,)
        self.session, self.sequence, self.alive = 1, -1, True
        self._status = PolicyStatus(state=PolicyStatus.RUNNING)
        self._life = graph.publisher("/gr00t/policy/status", PolicyStatus, 10)
        self._flood: Any = None
        self._begin_s = time.monotonic()
        self._publisher = graph.publisher("/gr00t/action_chunk", ActionChunk, 10)
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def restore(self) -> None:
        self.spoil, self.alive = lambda chunk: (chunk,), True

    def close(self) -> None:
        self._running = False
        self._thread.join(10.0)

    def chunk(self, steps: int = STEPS) -> Chunk:
        """The next chunk, from now on."""
        self.sequence += 1
        now_ns = self.now_ns()
        values = smooth(time.monotonic() - self._begin_s + np.arange(steps) * ROBOT.step_ns / NS)
        groups = (
            ChunkGroup("arm", "joint_position", ARM, values[:, :5]),
            ChunkGroup("gripper", "scalar", GRIPPER, values[:, 5:]),
        )
        return Chunk(self.session, self.sequence, "test", now_ns, now_ns, ROBOT.step_ns, groups)

    def send(self, chunk: Chunk) -> None:
        from gr00t_ros.nodes.conversions import chunk_msg

        self._publisher.publish(chunk_msg(chunk))

    def flood(self) -> None:
        """One more chunk, at the least cost: all but its time and number is made before."""
        from gr00t_ros.nodes.conversions import chunk_msg

        if self._flood is None:
            self._flood = chunk_msg(self.chunk())
        self.sequence += 1
        self._flood.sequence = self.sequence
        self._flood.header.stamp = self._flood.start = stamp(self.now_ns())
        self._publisher.publish(self._flood)

    def _run(self) -> None:
        while self._running:
            due = time.monotonic() + PERIOD_S
            if self.alive:
                self._life.publish(self._status)
            for chunk in self.spoil(self.chunk()):
                self.send(chunk)
            time.sleep(max(0.0, due - time.monotonic()))


class SimulatedTime:
    """A clock that can be set and paused."""

    def __init__(self) -> None:
        self._origin_ns, self._from_ns, self.paused = 1_000 * NS, time.monotonic_ns(), False
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        with self._lock:
            return self._origin_ns + (0 if self.paused else time.monotonic_ns() - self._from_ns)

    def jump(self, seconds: float) -> None:
        with self._lock:
            self._origin_ns += round(seconds * NS)

    def pause(self, paused: bool) -> None:
        now_ns = self.now_ns()
        with self._lock:
            self._origin_ns, self._from_ns, self.paused = now_ns, time.monotonic_ns(), paused
