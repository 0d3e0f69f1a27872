# SPDX-License-Identifier: Apache-2.0
"""``demo``: the simulated SO-101 driven through real topics, where ``ros2 launch`` is not installed.

Starts what ``gr00t_ros.system.demo_programs`` lists, as ``launch/demo.launch.py`` does, under honcho. The
exit code is the monitor's: 0 only when frames, chunks and commands flowed and every limit was kept.
"""

import argparse
import sys

from gr00t_ros.cli.running import run_programs
from gr00t_ros.demo_checkpoint import with_checkpoint
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.system import DEMO_ARGUMENTS, demo_programs


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is the monitor's."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.split("\n\n")[0])
    for argument in DEMO_ARGUMENTS:
        flag = "--" + argument.name.replace("_", "-")
        parser.add_argument(flag, dest=argument.name, default=argument.default, help=argument.description)
    try:
        return run(vars(parser.parse_args(argv)))
    except Gr00tRosError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def run(arguments: dict[str, str]) -> int:
    """Start the demo's programs, relay their output, and end them all when one ends."""
    return run_programs(demo_programs(with_checkpoint(arguments)))


if __name__ == "__main__":
    sys.exit(main())
