# SPDX-License-Identifier: Apache-2.0
"""``record.launch.py`` under launch_testing: an episode by service, kept at the end of the launch.

Needs ``launch_testing``, which comes with a ROS installation; ``test/gr00t_ros/nodes`` asks the same, and
more, without it.
"""

import os
import sys
import tempfile
import unittest
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing comes with a ROS installation and is not on PyPI"
)

import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from gr00t_ros.share import share_directory
from launch import LaunchDescription

# launch_test knows nothing of pytest's settings.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from support_processes import RosGraph, claim_domain, ros_environment

pytestmark = pytest.mark.ros

DOMAIN, _LOCK = claim_domain()
OUTPUT = Path(tempfile.mkdtemp())
START = "/gr00t/episode_recorder/start"


@pytest.mark.launch_test
@launch_testing.markers.keep_alive
def generate_test_description():
    os.environ.update(ros_environment(DOMAIN))
    # An instruction that YAML reads as a number must stay a text on its way through launch.
    arguments = {"robot": "so101", "output": str(OUTPUT), "instruction": "123"}
    record = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / "launch" / "record.launch.py")),
        launch_arguments=arguments.items(),
    )
    return LaunchDescription([record, launch_testing.actions.ReadyToTest()])


class TestRecording(unittest.TestCase):
    """While the recorder runs."""

    def test_an_episode_begins(self):
        from gr00t_ros.srv import StartEpisode

        with RosGraph(DOMAIN, "test_record_launch") as graph:
            answer = graph.call(START, StartEpisode, again_s=None)
        assert (answer.success, answer.episode) == (True, "episode_000000"), answer.message


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """After launch has ended it."""

    def test_the_episode_is_kept_and_the_node_ends_cleanly(self, proc_info):
        from gr00t_ros.recording.episode_record import EpisodeRecord

        record = EpisodeRecord.read(OUTPUT / "episode_000000" / "episode.json")
        assert (record.instruction, record.ended_by) == ("123", "shutdown")
        launch_testing.asserts.assertExitCodes(proc_info)
