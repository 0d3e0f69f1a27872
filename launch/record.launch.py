# SPDX-License-Identifier: Apache-2.0
"""The episode recorder for one robot: ``ros2 launch gr00t_ros record.launch.py robot:=... output:=...``

``--show-args`` lists the arguments. What runs, and with which parameters, is
``gr00t_ros.system.record_programs``.
"""

from gr00t_ros.launching import description
from gr00t_ros.system import RECORD_ARGUMENTS, record_programs


def generate_launch_description():
    """What ``ros2 launch`` asks for."""
    return description(RECORD_ARGUMENTS, record_programs)
