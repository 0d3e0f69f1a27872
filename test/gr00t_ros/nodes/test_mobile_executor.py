# SPDX-License-Identifier: Apache-2.0
"""The executor of a mobile manipulator over DDS: an arm told velocities, a base told a twist, a tool told a
pose. Chunks come from a process that is killed; every command is recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gr00t_ros.rotations import between
from support_mobile import HOME, mobile_robot
from support_processes import REPO, Collector, NodeProcess, ProcessStarter, RosGraph, claim_domain
from support_topics import NodeUnderTest, nanoseconds, stamp

pytestmark = pytest.mark.ros

WAITING, EXECUTING, HOLDING, STOPPED = range(4)
PERIOD_S = 0.02
ARM_TOPIC, BASE_TOPIC = "/arm_controller/commands", "/base_controller/cmd_vel"
TOOL_TOPIC = "/tool/target_pose"


@dataclass
class Robot:
    """Does what it is told, and publishes joints and the tool's pose at 50 Hz."""

    graph: RosGraph
    arm: np.ndarray = field(default_factory=lambda: np.zeros(2))
    tool: np.ndarray = field(default_factory=lambda: HOME.copy())
    pose: bool = True
    running: bool = True

    def start(self, commands: dict[str, Collector]) -> threading.Thread:
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState

        joints = self.graph.publisher("/joint_states", JointState)
        tool = self.graph.publisher("/tool/pose", PoseStamped)

        def run() -> None:
            last = time.monotonic()
            while self.running:
                now = time.monotonic()
                if commands["arm"]:
                    self.arm = self.arm + np.array(commands["arm"][-1].data) * (now - last)
                if commands["tool"]:
                    self.tool = pose_of(commands["tool"][-1])
                last = now
                message = JointState(name=["lift", "wheel"], position=self.arm.tolist())
                message.header.stamp = stamp(self.graph.now_ns())
                joints.publish(message)
                if self.pose:
                    tool.publish(self._pose())
                time.sleep(PERIOD_S)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _pose(self) -> Any:
        from geometry_msgs.msg import Point, PoseStamped, Quaternion

        message = PoseStamped()
        message.header.frame_id, message.header.stamp = "base_link", stamp(self.graph.now_ns())
        x, y, z, qx, qy, qz, qw = self.tool.tolist()
        message.pose.position = Point(x=x, y=y, z=z)
        message.pose.orientation = Quaternion(x=qx, y=qy, z=qz, w=qw)
        return message


@dataclass
class Bench:
    """The executor, its robot and every command ever sent."""

    node: NodeUnderTest
    graph: RosGraph
    start: ProcessStarter
    robot: Robot
    commands: dict[str, Collector]
    status: Collector

    def until(self, state: int, word: str = "") -> None:
        self.graph.wait_until(
            lambda: self.status and self.status[-1].state == state and word in self.status[-1].reason,
            f"state {state} with {word!r}; the last status is {self.status[-1] if self.status else None}",
        )

    def source(self) -> NodeProcess:
        """A policy's stand-in, in a process of its own."""
        return self.start("support_mobile_source")

    def silence(self) -> None:
        """Until nothing has been sent for a while."""

        def quiet() -> bool:
            return time.monotonic_ns() - max(c.received_ns[-1] for c in self.commands.values()) > 4e8

        self.graph.wait_until(quiet, "silence")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    from geometry_msgs.msg import PoseStamped, TwistStamped
    from rclpy.qos import QoSProfile
    from std_msgs.msg import Float64MultiArray

    from gr00t_ros.msg import ExecutorStatus

    file = written(tmp_path_factory.mktemp("robot") / "mobile.yaml", mobile_robot())
    domain, lock = claim_domain()
    starter = ProcessStarter(domain)
    try:
        with RosGraph(domain) as graph:
            process = starter("gr00t_ros.nodes.chunk_executor", *arguments(file))
            all_of_it = QoSProfile(depth=1000)
            commands = {
                "arm": graph.collect(ARM_TOPIC, Float64MultiArray, all_of_it),
                "base": graph.collect(BASE_TOPIC, TwistStamped, all_of_it),
                "tool": graph.collect(TOOL_TOPIC, PoseStamped, all_of_it),
            }
            status = graph.collect("/gr00t/executor/status", ExecutorStatus)
            robot = Robot(graph, pose=False)
            graph.wait_until(lambda: status, "a status")
            node = NodeUnderTest(process, graph, "/gr00t/chunk_executor")
            thread = robot.start(commands)
            yield Bench(node, graph, starter, robot, commands, status)
            robot.running = False
            thread.join(10.0)
    finally:
        starter.close()
        lock.close()


def written(path: Path, robot: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"robot": robot}}}))
    return path


def arguments(file: Path) -> list[str]:
    files = ["--params-file", str(REPO / "config/policy.yaml"), "--params-file", str(file)]
    return ["--ros-args", "-r", "__ns:=/gr00t", *files, "-p", "autostart:=true", "-p", "enabled:=true"]


def pose_of(message: Any) -> np.ndarray:
    at, turn = message.pose.position, message.pose.orientation
    return np.array([at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w])


def twist_of(message: Any) -> np.ndarray:
    return np.array([message.twist.linear.x, message.twist.angular.z])


def test_without_a_measured_pose_nothing_moves(bench: Bench) -> None:
    source = bench.source()
    bench.until(WAITING, "no pose of tool on /tool/pose yet")
    bench.graph.wait_until(lambda: bench.status[-1].chunks_accepted > 2, "chunks")
    assert not any(bench.commands.values())
    source.kill()
    bench.robot.pose = True


def test_commands_keep_the_limits_and_end_at_zero_when_the_source_is_killed(bench: Bench) -> None:
    source = bench.source()
    bench.until(EXECUTING)
    time.sleep(4.0)
    assert bench.status[-1].state == EXECUTING, bench.status[-1].reason
    assert [group.rotation for group in bench.status[-1].plan] == ["", "", "quaternion"]
    source.kill()
    bench.until(HOLDING)
    bench.silence()
    check_limits(bench.commands)
    # The velocities end at zero exactly, and are told so for the hold time; the pose stands.
    arm, base, tool = (list(bench.commands[key]) for key in ("arm", "base", "tool"))
    assert list(arm[-1].data) == [0.0, 0.0]
    assert all(not twist_of(message).any() for message in base[-15:])
    assert all((pose_of(message) == pose_of(tool[-1])).all() for message in tool[-10:])
    assert np.linalg.norm(pose_of(tool[-1])[:3]) > 0.3, "never the zero pose"
    # Something was asked for: all of it moved, the velocities to their limits.
    assert max(abs(twist_of(message)[0]) for message in base) > 0.45
    assert max(abs(message.data[1]) for message in arm) > 2.7
    assert np.ptp([pose_of(message)[1] for message in tool]) > 0.05
    assert {message.header.frame_id for message in (*base, *tool)} == {"base_link"}
    assert abs(bench.robot.arm[0]) < 0.52, "inside its limits"


def check_limits(commands: dict[str, Collector]) -> None:
    """Every recorded command, against the one before."""
    arm = np.array([message.data for message in commands["arm"]])
    assert np.isfinite(arm).all()
    assert (np.abs(arm) <= [0.8 + 1e-9, 3.0 + 1e-9]).all()
    # A late period may make up for one more.
    assert (np.abs(np.diff(arm, axis=0)) <= 2 * np.array([4.0, 10.0]) * PERIOD_S + 1e-9).all()
    base = np.stack([twist_of(message) for message in commands["base"]])
    between_s = np.diff([nanoseconds(message.header.stamp) for message in commands["base"]]) / 1e9
    assert (np.abs(base) <= [0.5 + 1e-9, 1.5 + 1e-9]).all()
    assert (np.abs(np.diff(base, axis=0)) <= np.outer(between_s, [1.0, 3.0]) + 1e-9).all()
    tool = np.stack([pose_of(message) for message in commands["tool"]])
    between_s = np.diff([nanoseconds(message.header.stamp) for message in commands["tool"]]) / 1e9
    assert (tool[:, :3] >= [0.2, -0.3, 0.1]).all()
    assert (tool[:, :3] <= [0.6, 0.3, 0.6]).all()
    assert (np.linalg.norm(np.diff(tool[:, :3], axis=0), axis=1) <= 0.3 * between_s + 1e-9).all()
    assert (np.linalg.norm(between(tool[:-1, 3:], tool[1:, 3:]), axis=1) <= 1.5 * between_s + 1e-9).all()


def test_stop_and_deactivate_say_zero_last(bench: Bench) -> None:
    bench.robot.pose = True
    source = bench.source()
    bench.until(EXECUTING)
    time.sleep(1.0)
    assert bench.node.change("deactivate")
    bench.silence()  # what was sent before may arrive after the answer
    assert list(bench.commands["arm"][-1].data) == [0.0, 0.0]
    assert twist_of(bench.commands["base"][-1]).tolist() == [0.0, 0.0]
    assert bench.node.change("activate")
    bench.until(EXECUTING)
    bench.graph.call("/gr00t/executor/stop", trigger())
    bench.until(STOPPED)
    bench.silence()
    assert list(bench.commands["arm"][-1].data) == [0.0, 0.0]
    assert twist_of(bench.commands["base"][-1]).tolist() == [0.0, 0.0]
    check_limits(bench.commands)
    source.kill()


def trigger() -> Any:
    from std_srvs.srv import Trigger

    return Trigger


def test_velocities_without_a_declared_timeout_are_refused_at_configure(bench: Bench, tmp_path: Path) -> None:
    robot = mobile_robot()
    del robot["action"]["base"]["downstream_timeout"]
    file = written(tmp_path / "mobile.yaml", robot)
    node = bench.start("gr00t_ros.nodes.chunk_executor", *arguments(file), "-r", "__node:=other")
    line = node.wait_for(r"robot\.action\.base\.downstream_timeout: missing.*").group()
    assert "the last velocity would run on when the executor dies" in line
    assert node.stop() == 0
    check = bench.start("gr00t_ros.nodes.check_robot", "--robot", str(file))
    assert check.wait() == 2
    assert "downstream_timeout" in check.output
