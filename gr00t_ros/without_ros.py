# SPDX-License-Identifier: Apache-2.0
"""What a node's command runs where gr00t_ros was installed without ROS 2: it says so, in one line.

setup.py points the commands of all nodes here when it finds no ROS 2, because pip hides what a build prints.
"""

import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Says that this command was left out and how to get it; always fails."""
    name = Path(sys.argv[0]).name
    print(
        f"{name}: not available: gr00t_ros was installed where no ROS 2 was found, so its nodes and "
        "interfaces were left out. Source ROS 2 (source /opt/ros/<distro>/setup.bash) or install it with "
        "`pip install -r requirements/ros-jazzy.txt`, then install gr00t_ros again.",
        file=sys.stderr,
    )
    return 1
