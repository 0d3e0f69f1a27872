# SPDX-License-Identifier: Apache-2.0
"""A known chunk, played back by the real executor on the simulated arm, under the eyes of the demo's monitor.

The test stands in for the policy; simulator, executor and monitor are the real nodes in processes of their
own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support_processes import NodeProcess, ProcessStarter, RosGraph

pytest.importorskip("rclpy", reason="needs ROS 2")

from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.msg import ActionChunk, ExecutorStatus
from gr00t_ros.nodes.conversions import chunk_msg, nanoseconds
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import config_file, robot_file
from gr00t_ros.sim.monitoring import EXACT_RAD, chunk_deviation
from gr00t_ros.timeline import Timeline
from support_simulator import NEEDS_SIMULATOR

pytestmark = [
    pytest.mark.ros,
    NEEDS_SIMULATOR,
]

ROBOT = RobotConfig.from_file(robot_file("so101"))
ARM = ROBOT.action["arm"].joints
STEP_NS = 50_000_000
START = np.array([0.0, -0.6, 0.7, 0.9, 0.0, 0.6])  # where the simulated arm begins
SWING = np.array([0.4, 0.2, -0.2, -0.3, 0.5, -0.3])


def path(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joint positions [N, 6] that swing out and back once in 4 s, slowly enough for every limit."""
    phase = np.clip(seconds, 0.0, 4.0) * np.pi / 2.0
    return START + SWING * (1.0 - np.cos(phase))[:, None] / 2.0


def known_chunk(sequence: int, t_obs_ns: int, begin_ns: int, steps: int) -> Chunk:
    """The part of ``path`` (which begins at begin_ns) from t_obs on."""
    values = path((t_obs_ns - begin_ns + np.arange(steps) * STEP_NS) / 1e9)
    groups = (
        ChunkGroup("arm", "joint_position", ARM, values[:, :5]),
        ChunkGroup("gripper", "scalar", ("gripper",), values[:, 5:]),
    )
    return Chunk(1, sequence, "swing", t_obs_ns, t_obs_ns, STEP_NS, groups)


def start_robot(processes: ProcessStarter) -> tuple[NodeProcess, NodeProcess]:
    robot = str(robot_file("so101"))
    simulator = processes("gr00t_ros.nodes.so101_sim", "--ros-args", "--params-file", robot)
    executor = processes(
        "gr00t_ros.nodes.chunk_executor", "--ros-args", "-r", "__ns:=/gr00t",
        "--params-file", str(config_file("policy.yaml")), "--params-file", robot,
        "-p", "autostart:=true", "-p", "enabled:=true",
    )  # fmt: skip
    simulator.wait_for("ready")
    executor.wait_for("configured")
    return simulator, executor


def test_a_known_chunk_is_played_back_exactly(processes: ProcessStarter, graph: RosGraph) -> None:
    simulator, executor = start_robot(processes)
    joints = graph.collect("/joint_states", JointState)
    trajectories = graph.collect("/arm_controller/joint_trajectory", JointTrajectory, qos=100)
    gripper = graph.collect("/gripper_controller/commands", Float64MultiArray, qos=100)
    status = graph.collect("/gr00t/executor/status", ExecutorStatus, qos=100)
    publisher = graph.publisher("/gr00t/action_chunk", ActionChunk)
    graph.wait_until(
        lambda: len(joints) > 50 and status and "no chunk" in status[-1].reason, "a waiting executor"
    )

    begin = graph.now_ns()
    chunk = known_chunk(0, begin, begin, 41)  # out and half the way back
    publisher.publish(chunk_msg(chunk))
    graph.wait_until(lambda: "the plan has ended" in status[-1].reason, "the end of the chunk")
    end = chunk.groups[0].values[-1]
    graph.wait_until(lambda: np.allclose(joints[-1].position[:5], end, atol=0.02), f"the arm at {end}")

    assert status[-1].commands_clipped == 0, "the path keeps every limit: nothing may be changed on the way"
    assert status[-1].chunks_accepted == 1
    timeline = Timeline()
    timeline.add(chunk)
    # A motion begins where the arm is measured and goes over to its plan; it ends with a slow-down.
    blend_ns = round(ROBOT.executor.blend_time * 1e9)
    joined = nanoseconds(trajectories[0].header.stamp) + blend_ns
    slows = chunk.end_ns - blend_ns
    deviations = []
    for message in trajectories:
        sent = nanoseconds(message.header.stamp)
        # The last point is where the arm comes to rest if nothing newer comes.
        for point in message.points[:-1]:
            due = sent + nanoseconds(point.time_from_start)
            deviation = chunk_deviation(timeline, "arm", message.joint_names, point.positions, due)
            if deviation is not None and joined <= due <= slows:
                deviations.append(deviation)
    assert len(deviations) > 100
    assert max(deviations) < EXACT_RAD, "commanded points are not the chunk's"
    values = np.array([message.data[0] for message in gripper])
    wanted = path(np.linspace(0, 2.0, 20_001))[:, 5]
    # Streamed values carry no time; each must lie on the path, up to its straight pieces.
    assert np.abs(values[:, None] - wanted[None]).min(axis=1).max() < 1e-3
    assert executor.stop() == 0, executor.output
    assert simulator.stop() == 0, simulator.output


class StandInPolicy:
    """Publishes overlapping chunks of ``path`` four times a second, as a policy does."""

    def __init__(self, graph: RosGraph, change: Callable[[Chunk], Chunk] = lambda chunk: chunk) -> None:
        self._graph, self._change = graph, change
        self._publisher = graph.publisher("/gr00t/action_chunk", ActionChunk, subscribers=2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begin, sequence = self._graph.now_ns(), 0
        while not self._stop.is_set():
            chunk = known_chunk(sequence, self._graph.now_ns(), begin, 16)
            self._publisher.publish(chunk_msg(self._change(chunk)))
            sequence += 1
            time.sleep(0.25)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def monitor(processes: ProcessStarter, output: Path, *parameters: str) -> NodeProcess:
    words = [word for parameter in (f"output:={output}", *parameters) for word in ("-p", parameter)]
    robot = str(robot_file("so101"))
    return processes("gr00t_ros.nodes.demo_monitor", "--ros-args", "--params-file", robot, *words)


def test_the_monitor_passes_a_run_that_works(
    tmp_path: Path, processes: ProcessStarter, graph: RosGraph
) -> None:
    pytest.importorskip("matplotlib", reason="the demo's picture needs the extra 'demo'")
    start_robot(processes)
    # Generous: this machine may be busy, and the promise here is the monitor's judgement, not the servos'
    # speed.
    watching = monitor(
        processes, tmp_path, "duration:=4.0", "max_tracking_error:=0.5", "note:='made by a test'"
    )
    policy = StandInPolicy(graph)
    try:
        assert watching.wait() == 0, watching.output
    finally:
        policy.stop()
    assert watching.lines[-1] == "OK: the whole chain ran and every limit was kept"
    for expected in (
        r"camera \d.* Hz \| chunks \d.* Hz \| commands \d.* Hz .*tracking error .* executor executing",
        r"^frames: front [1-9]\d*, wrist [1-9]\d*; chunks: [1-9]\d*; commands: arm [1-9]\d*, gripper [1-9]",
        r"^commands outside limits: 0; not finite: 0",
        r"^commanded points equal to the chunk at their time: ",
        r"^made by a test$",
    ):
        watching.wait_for(expected)
    assert (tmp_path / "demo.png").stat().st_size > 20_000


def test_the_monitor_fails_a_run_without_a_policy(
    tmp_path: Path, processes: ProcessStarter, graph: RosGraph
) -> None:
    start_robot(processes)
    watching = monitor(processes, tmp_path, "startup_timeout:=3.0")
    assert watching.wait() == 1
    for expected in (
        "FAILED: no action chunks",
        "FAILED: no commands for arm",
        "FAILED: policy: not heard; executor: waiting",
    ):
        assert expected in watching.output


def test_the_monitor_ends_when_told_and_says_that_it_was_early(
    tmp_path: Path, processes: ProcessStarter
) -> None:
    watching = monitor(processes, tmp_path)
    watching.wait_for("camera 0.0 0.0 Hz")
    assert watching.stop() == 1
    assert "FAILED: no joint states" in watching.output
    assert "FAILED: stopped before its time" in watching.output


def test_the_monitor_needs_a_robot_description(processes: ProcessStarter) -> None:
    node = processes("gr00t_ros.nodes.demo_monitor")
    assert node.wait() == 2
    assert node.lines[-1].startswith("error: no robot description")
