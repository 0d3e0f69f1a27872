# SPDX-License-Identifier: Apache-2.0
"""The policy and the chunk executor for one robot: ``ros2 launch gr00t_ros policy.launch.py robot:=...
checkpoint:=...``

``--show-args`` lists the arguments. What runs, and with which parameters, is
``gr00t_ros.system.policy_programs``.
"""

from gr00t_ros.launching import description
from gr00t_ros.system import POLICY_ARGUMENTS, policy_programs


def generate_launch_description():
    """What ``ros2 launch`` asks for."""
    return description(POLICY_ARGUMENTS, policy_programs)
