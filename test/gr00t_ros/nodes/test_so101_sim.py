# SPDX-License-Identifier: Apache-2.0
"""The simulated SO-101 on topics: what a real arm with two cameras and ros2_control gives and takes."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import numpy as np
import pytest

from support_processes import NodeProcess, ProcessStarter, RosGraph

pytest.importorskip("rclpy", reason="needs ROS 2")

from builtin_interfaces.msg import Duration
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from support_simulator import NEEDS_SIMULATOR

pytestmark = [
    pytest.mark.ros,
    NEEDS_SIMULATOR,
]
ARM = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"]
START = [0.0, -0.6, 0.7, 0.9, 0.0]


def stamp_ns(message: Image | JointState) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def start(processes: ProcessStarter, *parameters: str) -> NodeProcess:
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    node = processes("gr00t_ros.nodes.so101_sim", *(("--ros-args", *arguments) if arguments else ()))
    node.wait_for("ready")
    return node


def trajectory(seconds: float, positions: list[float], names: list[str] = ARM) -> JointTrajectory:
    point = JointTrajectoryPoint(positions=positions)
    point.time_from_start = Duration(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))
    return JointTrajectory(joint_names=names, points=[point])


def test_gives_pictures_and_joint_states_that_fit_together(
    processes: ProcessStarter, graph: RosGraph
) -> None:
    joints = graph.collect("/joint_states", JointState)
    front = graph.collect("/camera/front/image_raw", Image)
    wrist = graph.collect("/camera/wrist/image_raw", Image)
    node = start(processes)
    graph.wait_until(lambda: len(front) > 10 and len(wrist) > 10, "ten pictures of each camera")

    assert joints[0].name == [*ARM, "gripper"]
    np.testing.assert_allclose(joints[0].position[:5], START, atol=0.01)
    picture = front[-1]
    assert (picture.height, picture.width, picture.step, picture.encoding) == (240, 320, 960, "rgb8")
    assert np.frombuffer(picture.data, np.uint8).std() > 20, "the picture shows nothing"
    stamps = [stamp_ns(message) for message in joints]
    assert stamps == sorted(set(stamps)), "joint states must come in order, each with a stamp of its own"
    assert abs(stamps[-1] - graph.now_ns()) < 10**9
    # An observation takes, for a picture, the latest joint state with stamp <= the picture's: there is one
    # with the same stamp, and it went out before the picture.
    for picture in list(front)[2:] + list(wrist)[2:]:
        assert stamp_ns(picture) in stamps
    assert node.stop() == 0, node.output


def test_follows_trajectories_and_gripper_commands(processes: ProcessStarter, graph: RosGraph) -> None:
    joints = graph.collect("/joint_states", JointState)
    node = start(processes)
    arm = graph.publisher("/arm_controller/joint_trajectory", JointTrajectory)
    gripper = graph.publisher("/gripper_controller/commands", Float64MultiArray)
    goal = [0.4, -0.4, 0.5, 0.7, -0.3]
    # In another order than the joint states': commands are matched by name.
    arm.publish(trajectory(0.5, goal[::-1], ARM[::-1]))
    gripper.publish(Float64MultiArray(data=[0.1]))

    def there() -> bool:
        return bool(joints) and np.allclose(joints[-1].position, [*goal, 0.1], atol=0.02)

    graph.wait_until(there, f"the arm at {goal}")
    assert node.stop(signal.SIGTERM) == 0, node.output


def test_refused_commands_are_told_once_and_move_nothing(processes: ProcessStarter, graph: RosGraph) -> None:
    joints = graph.collect("/joint_states", JointState)
    node = start(processes)
    arm = graph.publisher("/arm_controller/joint_trajectory", JointTrajectory)
    gripper = graph.publisher("/gripper_controller/commands", Float64MultiArray)
    for _ in range(3):
        arm.publish(trajectory(0.5, [1.0], ["shoulder_pan"]))
        gripper.publish(Float64MultiArray(data=[math.nan]))
    node.wait_for("refused a trajectory for joints")
    node.wait_for("are not all finite")
    count = len(joints)
    graph.wait_until(lambda: len(joints) > count + 50, "half a second of joint states")
    np.testing.assert_allclose(joints[-1].position[:5], START, atol=0.01)
    assert node.stop() == 0
    assert node.output.count("refused") == 2, node.output


def test_reset_puts_the_arm_back(processes: ProcessStarter, graph: RosGraph) -> None:
    joints = graph.collect("/joint_states", JointState)
    start(processes)
    graph.publisher("/arm_controller/joint_trajectory", JointTrajectory).publish(trajectory(0.1, [0.5] * 5))
    graph.wait_until(lambda: joints and abs(joints[-1].position[0] - 0.5) < 0.05, "the arm to move")
    assert graph.call("/so101_sim/reset", Trigger).success
    count = len(joints)
    graph.wait_until(lambda: len(joints) > count + 30, "joint states after the reset")
    np.testing.assert_allclose(joints[-1].position[:5], START, atol=0.02)


def test_publishes_simulated_time_and_stamps_with_it(processes: ProcessStarter, graph: RosGraph) -> None:
    clock = graph.collect("/clock", Clock, qos=10)
    joints = graph.collect("/joint_states", JointState, qos=10)
    front = graph.collect("/camera/front/image_raw", Image)
    node = start(processes, "publish_clock:=true", "real_time_factor:=3.0", "camera_rate:=10.0")
    graph.wait_until(lambda: len(front) > 10, "ten pictures")
    assert node.stop() == 0, node.output
    times = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    # A loaded machine may lose messages on the way here, so gaps are whole multiples.
    steps = np.diff(times)
    assert np.median(steps) == 10_000_000, "the clock advances by one joint state period at a time"
    assert ((steps > 0) & (steps % 10_000_000 == 0)).all()
    assert all(stamp_ns(message) % 10_000_000 == 0 for message in joints)
    # In simulated time the physics waits for the renderer: no picture is left out.
    assert np.median(np.diff([stamp_ns(message) for message in front])) == 100_000_000


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("width:=3", "width: got 3, expected a whole number from 16 to 4096 pixels"),
        ("robot.name:=so101", "robot.embodiment_tag"),
    ],
)
def test_wrong_settings_end_it_with_one_line(processes: ProcessStarter, parameter: str, said: str) -> None:
    node = processes("gr00t_ros.nodes.so101_sim", "--ros-args", "-p", parameter)
    assert node.wait() == 2
    assert said in node.lines[-1], node.output


def test_serves_the_shipped_robot_description(processes: ProcessStarter, graph: RosGraph) -> None:
    robot = Path(__file__).parents[3] / "config" / "robots" / "so101.yaml"
    node = processes("gr00t_ros.nodes.so101_sim", "--ros-args", "--params-file", str(robot))
    node.wait_for("ready: front on .*wrist on ")
    assert node.stop() == 0, node.output
