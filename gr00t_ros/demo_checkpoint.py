# SPDX-License-Identifier: Apache-2.0
"""The checkpoint of the demo, made on first use. The demo command and the demo launch file share it."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from gr00t_ros import share
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.system import DEMO_ARGUMENTS, find_executable, with_defaults

RANDOM_WEIGHTS_NOTICE = (
    "The demo's weights are RANDOM: the arm moves through the whole chain, cameras to commands, but it does "
    "not know the task. Point checkpoint at a trained one to see it act."
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
    if not (directory / "config.json").is_file():
        # A process of its own: torch stays out of the one that only starts and watches others.
        robot = str(share.robot_file("so101"))
        command = [str(find_executable("random_checkpoint")), "--robot", robot, "--output", str(directory)]
        if subprocess.run(command, check=False).returncode:
            raise Gr00tRosError(f"the demo's checkpoint could not be made by: {' '.join(command)}")
    return {**values, "checkpoint": str(directory)}
