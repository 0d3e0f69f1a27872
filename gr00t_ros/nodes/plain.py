# SPDX-License-Identifier: Apache-2.0
"""How every node starts and ends: command line, signals, rclpy, exit code.

:func:`run_ros` is what all have in common; the lifecycle nodes add spinning (``lifecycle.run``), the others
(simulator, replay, monitor) a loop of their own (:func:`run_plain`). A signal only sets a flag: loops end,
threads are joined, publishers go away in order, and the exit code is the node's own verdict.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import rclpy
from rclpy.signals import SignalHandlerOptions

from gr00t_ros.causes import one_line
from gr00t_ros.errors import Gr00tRosError


def run_ros(
    body: Callable[[list[str]], int],
    argv: list[str] | None,
    description: str,
    on_signal: Callable[[], None],
) -> int:
    """Runs ``body(arguments without the ROS ones)`` with rclpy initialised; returns the exit code.

    SIGINT and SIGTERM call ``on_signal``. A Gr00tRosError, and ROS arguments that cannot be read, become one
    line on stderr and exit code 2. With a ``description``, --help prints it and does nothing else.
    """
    argv = sys.argv if argv is None else ["", *argv]
    if {"-h", "--help"} & set(argv[1:]) and description:
        print(description)
        return 0

    def handle(number: int, frame: FrameType | None) -> None:
        on_signal()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    try:
        try:
            # rclpy's own handlers would tear down the context while threads still publish.
            rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:  # RCLError: what follows --ros-args cannot be read
            raise Gr00tRosError(f"wrong ROS arguments: {error}") from error
        return body(rclpy.utilities.remove_ros_args(argv)[1:])
    except Gr00tRosError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


def run_plain(
    body: Callable[[list[str], threading.Event], int], argv: list[str] | None, description: str
) -> int:
    """As :func:`run_ros` for a ``body(arguments, stop)`` that returns soon after the event ``stop`` is set,
    which is what a signal does."""
    stop = threading.Event()
    return run_ros(lambda arguments: body(arguments, stop), argv, description, stop.set)


def refuse_arguments(arguments: list[str]) -> None:
    """For nodes whose settings are all ROS parameters."""
    if arguments:
        raise Gr00tRosError(f"unknown arguments {' '.join(arguments)}; ROS arguments come after --ros-args")
