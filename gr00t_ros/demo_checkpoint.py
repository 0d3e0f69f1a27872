# SPDX-License-Identifier: Apache-2.0
"""The checkpoint of the demo, made on first use. The demo command and the demo launch file share it."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from gr00t_ros import share
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.executables import find_executable
from gr00t_ros.sim.so101 import START_POSE
from gr00t_ros.system import DEMO_ARGUMENTS, demo_robot, with_defaults

RANDOM_WEIGHTS_NOTICE = (
    "The weights are random: the arm is moved through the whole chain, from cameras to commands, but it does "
    "not know the task."
)


def with_checkpoint(arguments: Mapping[str, str]) -> dict[str, str]:
    """The demo's arguments with ``checkpoint`` filled in; makes the checkpoint when it is not there yet.

    Raises:
        Gr00tRosError: the checkpoint could not be made.
    """
    values = with_defaults(DEMO_ARGUMENTS, arguments)
    if values["checkpoint"]:
        return values
    directory = Path(values["output"]).expanduser().resolve() / "checkpoint"
    print(RANDOM_WEIGHTS_NOTICE, flush=True)
    values["note"] = values["note"] or RANDOM_WEIGHTS_NOTICE
    if not (directory / "config.json").is_file():
        # A process of its own: torch stays out of the one that only starts and watches others.
        robot = str(share.robot_file(demo_robot(values)))
        command = [str(find_executable("random_checkpoint")), "--robot", robot, "--output", str(directory)]
        # Near the start, where both cameras see the arm and the objects.
        command += [f"--around={joint}={value}" for joint, value in START_POSE.items()]
        if subprocess.run(command, check=False).returncode:
            raise Gr00tRosError(f"the demo's checkpoint could not be made by: {' '.join(command)}")
    return {**values, "checkpoint": str(directory)}
