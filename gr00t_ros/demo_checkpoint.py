# SPDX-License-Identifier: Apache-2.0
"""The demo's checkpoint: the shipped one, or random weights. Shared by the command and the launch file."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from gr00t_ros import share
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.executables import find_executable
from gr00t_ros.sim.so101 import START_POSE
from gr00t_ros.system import AUTO, DEMO_ARGUMENTS, NO_TASK, REACH, demo_robot, with_defaults

# Of the task ``reach``, below config/.
SHIPPED = "checkpoints/so101_reach"

RANDOM_WEIGHTS_NOTICE = (
    "The weights are random: the arm is moved through the whole chain, from cameras to commands, but it does "
    "not know the task."
)


def with_checkpoint(arguments: Mapping[str, str]) -> dict[str, str]:
    """The demo's arguments with ``checkpoint`` and ``task`` decided; makes a checkpoint with random weights
    where none is given and none is shipped.

    Raises:
        Gr00tRosError: the checkpoint could not be made.
    """
    values = with_defaults(DEMO_ARGUMENTS, arguments)
    given, shipped = values["checkpoint"], share.config_file(SHIPPED)
    if not given and values["task"] != NO_TASK and (shipped / "config.json").is_file():
        return {**values, "task": REACH, "checkpoint": str(shipped)}
    if values["task"] == AUTO:
        values["task"] = NO_TASK
    if given:
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
