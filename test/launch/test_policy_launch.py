# SPDX-License-Identifier: Apache-2.0
"""``policy.launch.py`` started by launch_testing, as a robot's integration test would start it.

Promises: both nodes walk to active by themselves, hear a robot, give chunks and commands, and end cleanly.
Needs ``launch_testing``, which comes with a ROS installation. Where it is missing,
``test/gr00t_ros/nodes`` starts the same programs without it.
"""

import tempfile
import time
import unittest
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing comes with a ROS installation and is not on PyPI"
)

import launch.actions
import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
import rclpy
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.srv import GetState
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from gr00t_ros.cli.random_checkpoint import write
from gr00t_ros.msg import ActionChunk
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file, share_directory

pytestmark = pytest.mark.ros

ROBOT = RobotConfig.from_file(robot_file("so101"))
# Loading torch and building the tokenizer take seconds on a small machine; nothing waits this long.
TIMEOUT_S = 120.0


@pytest.mark.launch_test
@launch_testing.markers.keep_alive
def generate_test_description():
    checkpoint = Path(tempfile.mkdtemp()) / "checkpoint"
    write(ROBOT, checkpoint)
    policy = launch.actions.IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / "launch" / "policy.launch.py")),
        launch_arguments={"checkpoint": str(checkpoint), "instruction": "pick up the cube"}.items(),
    )
    return launch.LaunchDescription([policy, launch_testing.actions.ReadyToTest()])


class TestGraph(unittest.TestCase):
    """While the system runs."""

    def setUp(self):
        rclpy.init()
        self.node = rclpy.create_node("test_policy_launch")

    def tearDown(self):
        self.node.destroy_node()
        rclpy.shutdown()

    def wait_for(self, condition, what, every=lambda: None):
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, f"waited {TIMEOUT_S} s for {what}"
            every()
            rclpy.spin_once(self.node, timeout_sec=0.03)

    def state_of(self, name):
        client = self.node.create_client(GetState, f"/gr00t/{name}/get_state")
        self.wait_for(client.service_is_ready, f"the lifecycle service of {name}")
        future = client.call_async(GetState.Request())
        self.wait_for(future.done, f"the state of {name}")
        return future.result().current_state.label

    def test_observations_become_commands(self):
        for name in ("chunk_executor", "policy"):
            self.wait_for(lambda name=name: self.state_of(name) == "active", f"{name} to be active")

        chunks, commands = [], []
        self.node.create_subscription(ActionChunk, "/gr00t/action_chunk", chunks.append, 10)
        arm = ROBOT.action["arm"]
        self.node.create_subscription(JointTrajectory, arm.topic, commands.append, 10)
        cameras = [self.node.create_publisher(Image, source.topic, 1) for source in ROBOT.video.values()]
        joints = self.node.create_publisher(JointState, ROBOT.executor_joint_state_topic, 1)

        def publish():
            stamp = self.node.get_clock().now().to_msg()
            state = JointState(name=list(ROBOT.joints), position=[0.1] * len(ROBOT.joints))
            state.header.stamp = stamp
            joints.publish(state)
            for camera in cameras:
                image = Image(height=24, width=32, encoding="rgb8", step=96, data=bytes(24 * 96))
                image.header.stamp = stamp
                camera.publish(image)

        self.wait_for(lambda: len(chunks) >= 3 and len(commands) >= 10, "chunks and commands", publish)
        sequences = [chunk.sequence for chunk in chunks]
        assert sequences == sorted(set(sequences))
        assert list(commands[0].joint_names) == list(arm.joints)
        for command in commands:
            for point in command.points:
                for joint, position in zip(arm.joints, point.positions, strict=True):
                    assert ROBOT.limits[joint].min <= position <= ROBOT.limits[joint].max


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """After launch has ended the system."""

    def test_nodes_end_cleanly(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
