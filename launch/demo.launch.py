# SPDX-License-Identifier: Apache-2.0
"""The simulated SO-101 driven through the policy and the executor: ``ros2 launch gr00t_ros demo.launch.py``.

Makes a small checkpoint with random weights on first use, and ends when the monitor does.
"""

from gr00t_ros.demo_checkpoint import with_checkpoint
from gr00t_ros.launching import description
from gr00t_ros.system import DEMO_ARGUMENTS, demo_programs


def generate_launch_description():
    """What ``ros2 launch`` asks for."""
    return description(
        DEMO_ARGUMENTS, lambda values: demo_programs(with_checkpoint(values)), ends_with="demo_monitor"
    )
