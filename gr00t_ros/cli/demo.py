# SPDX-License-Identifier: Apache-2.0
"""``demo``: the simulated SO-101 driven through real topics, where ``ros2 launch`` is not installed.

Starts what ``gr00t_ros.system.demo_programs`` lists, as ``launch/demo.launch.py`` does, under honcho. The
exit code is the monitor's: 0 only when frames, chunks and commands flowed and every limit was kept.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

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


class _Output:
    """Standard output that may lose its reader, as in ``demo | head``: the programs are then ended in order,
    and what they still say is dropped. They would run on without anybody to end them otherwise."""

    def __init__(self, started: Callable[[], bool]) -> None:
        """``started`` tells whether every program has been started: honcho can end no others."""
        self._started = started
        self._lost = False

    def write(self, text: str) -> None:
        """As a stream's."""
        self._try(lambda: sys.stdout.write(text))

    def flush(self) -> None:
        """As a stream's."""
        self._try(sys.stdout.flush)

    def isatty(self) -> bool:
        """As a stream's."""
        return sys.stdout.isatty()

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BrokenPipeError:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            self._lost = True
        if self._lost and self._started():
            self._lost = False
            os.kill(os.getpid(), signal.SIGTERM)  # which honcho passes on


def run(arguments: dict[str, str]) -> int:
    """Start the demo's programs, relay their output, and end them all when one ends."""
    try:
        from honcho.manager import Manager
        from honcho.printer import Printer
    except ImportError as error:
        raise Gr00tRosError(
            "honcho is not installed; install the demo extra: pip install '.[demo]' in the clone"
        ) from error
    programs = demo_programs(with_checkpoint(arguments))
    # Children write into pipes here: unbuffered, or their lines would come late. The demo talks to nobody
    # else.
    environment = {"PYTHONUNBUFFERED": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **os.environ}
    manager = Manager(Printer(_Output(lambda: manager._all_started())))
    for program in programs:
        # exec, so that signals and exit codes are the program's own and not its shell's
        command = f"exec {shlex.join(program.command())}"
        manager.add_process(program.name, command, env={**environment, **program.environment})
    manager.loop()
    return 1 if manager.returncode is None else manager.returncode


if __name__ == "__main__":
    sys.exit(main())
