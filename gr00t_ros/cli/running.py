# SPDX-License-Identifier: Apache-2.0
"""Several programs as one command, where ``ros2 launch`` is not installed: ``demo`` and ``demonstrate``."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.system import Program


def run_programs(programs: Sequence[Program]) -> int:
    """Starts all, relays their output, and ends them all when one ends; its exit code is theirs.

    Raises Gr00tRosError where honcho, which does it, is not installed.
    """
    try:
        from honcho.manager import Manager
        from honcho.printer import Printer
    except ImportError as error:
        raise Gr00tRosError(
            "honcho is not installed; install the demo extra: pip install '.[demo]' in the clone"
        ) from error
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
