# SPDX-License-Identifier: Apache-2.0
"""How the nodes without a lifecycle start and end: simulator, replay and monitor. The lifecycle nodes have
their own.

SIGINT and SIGTERM only set an event: the node's loop ends, threads are joined, publishers go away in order,
and the exit code is the node's own verdict.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import rclpy
from rclpy.signals import SignalHandlerOptions

from gr00t_ros.errors import Gr00tRosError


def run_plain(
    body: Callable[[list[str], threading.Event], int], argv: list[str] | None, description: str
) -> int:
    """Runs ``body(arguments without the ROS ones, stop)`` with rclpy initialised; returns the exit code.

    ``body`` returns soon after ``stop`` is set. A Gr00tRosError becomes one line on stderr and exit code 2.
    """
    argv = sys.argv if argv is None else ["", *argv]
    if {"-h", "--help"} & set(argv[1:]) and description:
        print(description)
        return 0
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        try:
            # rclpy's own handlers would tear down the context while threads still publish.
            rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:  # RCLError: what follows --ros-args cannot be read
            raise Gr00tRosError(f"wrong ROS arguments: {error}") from error
        return body(rclpy.utilities.remove_ros_args(argv)[1:], stop)
    except Gr00tRosError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


def refuse_arguments(arguments: list[str]) -> None:
    """For nodes whose settings are all ROS parameters."""
    if arguments:
        raise Gr00tRosError(f"unknown arguments {' '.join(arguments)}; ROS arguments come after --ros-args")
