# SPDX-License-Identifier: Apache-2.0
"""A real executor's trajectories over real DDS, followed by joint_trajectory_controller's rules at 1000 Hz.

The arm neither stops nor jumps where chunks meet, and rests within the lookahead when the executor is killed.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import numpy as np
import pytest

from gr00t_ros.chunk import Chunk, ChunkGroup
from support_processes import RosGraph
from support_ros2_control import HUMBLE, JAZZY, JointTrajectoryController, Message, Point
from support_topics import ARM_COMMANDS, GRIPPER_COMMANDS, JOINTS, ROBOT, FakeRobot, nanoseconds, so101_node

pytestmark = pytest.mark.ros

ARM, GRIPPER = ROBOT.action["arm"].joints, ROBOT.action["gripper"].joints
LOOKAHEAD_S = 0.2
MS = 1_000_000
SETTLED_NS, SECONDS = 1_000 * MS, 4.0
# As in test_spline_replay, and more for machines whose periods are late by several.
ACCELERATION = 2.0 * min(ROBOT.limits[joint].acceleration or np.inf for joint in ARM)
OFF_RAD = 0.005


def motion(t: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Positions [T, 6] about ``middle``: some joint always moves, by 0.1 rad/s and more."""
    phases = np.array([0.0, 1.3, 2.6, 3.9, 5.2, 0.0])
    return middle + 0.15 * np.sin(1.5 * t[:, None] + phases)


def send_chunks(graph: RosGraph, chunks: Any, seconds: float, middle: np.ndarray) -> None:
    """A chunk every 0.4 s, of a picture taken 0.15 s ago, each off by something of its own."""
    from gr00t_ros.nodes.conversions import chunk_msg

    errors = np.random.default_rng(3)
    begin_ns, end = graph.now_ns(), time.monotonic() + seconds
    sequence = 0
    while time.monotonic() < end:
        seen_ns = graph.now_ns() - 150 * MS
        # Long enough for the plan to last when this process is kept waiting.
        values = motion((seen_ns - begin_ns) / 1e9 + np.arange(24) / ROBOT.step_rate, middle)
        values = values + errors.normal(0, 0.005, 6)
        groups = (
            ChunkGroup("arm", "joint_position", ARM, values[:, :5]),
            ChunkGroup("gripper", "scalar", GRIPPER, values[:, 5:]),
        )
        chunks.publish(chunk_msg(Chunk(1, sequence, "test", seen_ns, seen_ns, ROBOT.step_ns, groups)))
        sequence += 1
        time.sleep(0.4)


@pytest.fixture(scope="module")
def sent() -> list[tuple[int, Message]]:
    """What came out and when (ns, the stamps' clock), the executor killed at the end."""
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory

    from gr00t_ros.msg import ActionChunk, ExecutorStatus

    arguments = ("autostart:=true", "enabled:=true", "rate:=50.0")
    with so101_node("gr00t_ros.nodes.chunk_executor", *arguments) as (process, graph):
        arrived: list[int] = []
        arm = graph.collect(ARM_COMMANDS, JointTrajectory, 1000)
        graph.collect(GRIPPER_COMMANDS, Float64MultiArray)  # without a listener the executor stops
        status = graph.collect("/gr00t/executor/status", ExecutorStatus, 10)
        chunks = graph.publisher("/gr00t/action_chunk", ActionChunk, 10)
        robot = FakeRobot(graph, cameras=False)
        try:
            graph.wait_until(lambda: status, "a status")
            middle = np.array([robot.positions[joint] for joint in ROBOT.joints])
            send_chunks(graph, chunks, SECONDS, middle)
            offset_ns = graph.now_ns() - time.monotonic_ns()
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
            time.sleep(0.3)
        finally:
            robot.close()
        arrived = [at + offset_ns for at in arm.received_ns]
        return [(at, _message(message)) for at, message in zip(arrived, list(arm), strict=True)]


def _message(message: Any) -> Message:
    points = tuple(
        Point(nanoseconds(p.time_from_start), np.array(p.positions), np.array(p.velocities))
        for p in message.points
    )
    return Message(tuple(message.joint_names), nanoseconds(message.header.stamp), points)


@pytest.mark.parametrize("rules", [HUMBLE, JAZZY])
def test_a_controller_neither_stops_nor_jumps_and_rests_when_the_executor_is_killed(
    sent: list[tuple[int, Message]], rules: str
) -> None:
    assert len(sent) > 20 * SECONDS, f"{len(sent)} trajectories; {JOINTS} or chunks did not come through"
    first, last = sent[0], sent[-1]
    controller = JointTrajectoryController(ARM, first[1].points[0].position, rate_hz=1000.0, rules=rules)
    waiting, path = list(sent), []
    rest_ns = last[1].stamp_ns + round(LOOKAHEAD_S * 1e9)
    times = range(first[0], rest_ns + 100 * MS, MS)
    for now_ns in times:
        while waiting and waiting[0][0] <= now_ns:
            controller.receive(waiting.pop(0)[1], now_ns)  # Refused would fail the test
        path.append(controller.update(now_ns))
    begin, alive = SETTLED_NS // MS, (last[0] - first[0]) // MS
    moving = np.array(path[begin:alive])
    assert np.linalg.norm(np.diff(moving, axis=0), axis=1).min() * 1000 > 0.05, "stood still"
    assert np.abs(np.diff(moving, 2, axis=0)).max() < OFF_RAD, "jumped"
    bend = (moving[40:] - 2 * moving[20:-20] + moving[:-40]) / 0.02**2
    assert np.abs(bend).max() < ACCELERATION, "bent more than the limit"
    at_rest = np.array(path[(rest_ns - first[0]) // MS + 2 :])
    assert (at_rest == at_rest[0]).all(), "moves on without an executor"
