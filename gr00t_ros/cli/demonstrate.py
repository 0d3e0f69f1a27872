# SPDX-License-Identifier: Apache-2.0
"""``demonstrate``: episodes to train on, without an arm: the simulated SO-101 is shown a task and recorded.

Starts what ``gr00t_ros.demonstrating.demonstration_programs`` lists: the simulator, a scripted teacher that
moves its arm, and the episode recorder. Everything goes through the topics and services of a real robot.
"""

import argparse
import sys

from gr00t_ros.cli.running import run_programs
from gr00t_ros.demonstrating import DEMONSTRATION_ARGUMENTS, demonstration_programs
from gr00t_ros.errors import Gr00tRosError


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when every episode was recorded."""
    parser = argparse.ArgumentParser(prog="demonstrate", description=__doc__.split("\n\n")[0])
    for argument in DEMONSTRATION_ARGUMENTS:
        flag = "--" + argument.name.replace("_", "-")
        parser.add_argument(flag, dest=argument.name, default=argument.default, help=argument.description)
    try:
        return run_programs(demonstration_programs(vars(parser.parse_args(argv))))
    except Gr00tRosError as error:
        print(f"demonstrate: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
