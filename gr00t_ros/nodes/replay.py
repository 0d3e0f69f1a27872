# SPDX-License-Identifier: Apache-2.0
"""``replay``: a recorded episode, published as live topics at its own pace.

The source is a LeRobot dataset (v2.0, v2.1, v3.0) or a rosbag2; the robot description says which topics the
robot would have used. Stamps are those of a live robot: the recording starts now. With ``--clock`` they are
the recording's own, and ``/clock`` runs along for nodes with ``use_sim_time``.

Everything of one recorded moment has one stamp, and joint states go out before the pictures of the same
stamp, so that an observation can be made as soon as the picture is there. Recorded commands are never
published on command topics.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock

from gr00t_ros.data.bag_recovery import is_bag
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.errors import DatasetError, Gr00tRosError
from gr00t_ros.nodes.parameters import Parameters
from gr00t_ros.nodes.plain import run_plain
from gr00t_ros.nodes.replay_sources import BagSource, EpisodeSource, Item, Source, time_of
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file

_NS = 1_000_000_000
NAMESPACE = "/gr00t"
# Simulated time moves at least this often, so that timers of the listening nodes keep their periods.
_CLOCK_PERIOD_S = 0.005
# Later than this and the recording is not at its own pace any more; said once.
_LATE_S = 0.5
# Time for the other subscriptions of a node that was just found.
_SETTLE_S = 0.5
# Time for the last best-effort messages to leave before the publishers go.
_FLUSH_S = 0.3

_LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
_QOS = {"sensor": qos_profile_sensor_data, "state": QoSProfile(depth=10), "latched": _LATCHED}


def parser() -> argparse.ArgumentParser:
    """The command line of ``replay``."""
    result = argparse.ArgumentParser(prog="replay", description=(__doc__ or "").split("\n\n")[0])
    result.add_argument("source", type=Path, help="folder of a LeRobot dataset or of a rosbag2")
    result.add_argument(
        "--robot",
        help="shipped robot name or robot YAML; without it the parameters robot.* (--ros-args --params-file)",
    )
    result.add_argument("--episode", type=int, default=0, help="episode of a dataset (default 0)")
    result.add_argument("--rate", type=_positive, default=1.0, help="pace: 2 plays twice as fast (default 1)")
    result.add_argument("--loop", action="store_true", help="start again at the end; time goes on")
    result.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="seconds to leave out at the start"
    )
    result.add_argument(
        "--duration", type=_positive, metavar="S", help="seconds to play (default: to the end)"
    )
    result.add_argument(
        "--clock", action="store_true", help="publish /clock and stamp with the recorded time"
    )
    result.add_argument(
        "--actions",
        action="store_true",
        help="also publish recorded actions, below /recorded, never as commands",
    )
    result.add_argument(
        "--wait",
        type=_positive,
        metavar="N",
        help="wait up to N seconds for a listener on every camera topic",
    )
    result.add_argument(
        "--log", type=Path, metavar="FILE", help="JSON lines: which frame went out with which stamp"
    )
    return result


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


class Replay(Node):
    """Publishes a source's items when they are due."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(
            "replay",
            namespace=NAMESPACE,
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self._arguments = arguments
        if arguments.robot:
            self.robot = RobotConfig.from_file(robot_file(arguments.robot))
        else:
            described = Parameters(self, ()).robot()
            if not described:
                raise Gr00tRosError(
                    "no robot description: give --robot NAME, or --ros-args --params-file ROBOT_YAML"
                )
            self.robot = RobotConfig.from_flat(described)
        self._publishers_of: dict[str, Any] = {}
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10) if arguments.clock else None
        self.frames = 0  # published so far
        self._told_late = False

    def advertise(self, source: Source) -> None:
        """Makes the publishers, so that listeners can find them before anything is due."""
        for outlet in source.outlets:
            if outlet.topic not in self._publishers_of:
                self._publishers_of[outlet.topic] = self.create_publisher(
                    outlet.message, outlet.topic, _QOS[outlet.kind]
                )

    def wait_for_listeners(self, seconds: float, stop: threading.Event) -> None:
        """Returns when every camera topic has a subscriber. Raises Gr00tRosError after ``seconds``."""
        cameras = [video.topic for video in self.robot.video.values()]
        end = time.monotonic() + seconds
        while not stop.is_set():
            silent = [t for t in cameras if self._publishers_of[t].get_subscription_count() == 0]
            if not silent:
                # Discovery goes topic by topic: the camera's listener has others still to come.
                stop.wait(_SETTLE_S)
                return
            if time.monotonic() > end:
                raise Gr00tRosError(f"nobody listens to {', '.join(silent)} after {seconds:g} s")
            stop.wait(0.05)

    def play(self, source: Source, stop: threading.Event, log: TextIO | None) -> None:
        """All items at their times, again and again with ``--loop``, until ``stop`` is set."""
        first, end = source.span_ns
        rate, base_mono = self._arguments.rate, time.monotonic()
        base_ns = self.get_clock().now().nanoseconds
        progress = Progress((end - first) / _NS / rate)
        shift = 0  # recorded time of all repetitions before this one
        while not stop.is_set():

            def stamps(recorded_ns: int, shift: int = shift) -> int:
                if self._arguments.clock:
                    return recorded_ns + shift
                return base_ns + round((recorded_ns - first + shift) / rate)

            for item in source.items():
                due = base_mono + (item.recorded_ns - first + shift) / _NS / rate
                if not self._wait_until(due, item.recorded_ns + shift, stop):
                    return
                self._publish(item, stamps)
                if item.frame is not None:
                    self.frames += 1
                    if log is not None:
                        entry = {"frame": item.frame, "stamp_ns": stamps(item.recorded_ns)}
                        print(json.dumps(entry), file=log, flush=True)
                progress.show(time.monotonic() - base_mono, self.frames)
            shift += end - first
            if not self._arguments.loop:
                break
        # The last moment lasts as long as the others: who listens sees the recording's full length.
        self._wait_until(base_mono + shift / _NS / rate, first + shift, stop)
        progress.done(time.monotonic() - base_mono, self.frames)

    def _wait_until(self, due: float, recorded_ns: int, stop: threading.Event) -> bool:
        """Sleeps, moving ``/clock`` along, until ``due`` (monotonic s); False when stopped."""
        late = time.monotonic() - due
        if late > _LATE_S and not self._told_late:
            self._told_late = True
            self.get_logger().warning(f"{late:.1f} s behind the recording's pace: try a smaller --rate")
        while not stop.is_set():
            left = due - time.monotonic()
            if self._clock_publisher is not None:
                now = recorded_ns - max(0, round(left * self._arguments.rate * _NS))
                self._clock_publisher.publish(Clock(clock=time_of(max(0, now))))
            if left <= 0:
                return True
            stop.wait(min(left, _CLOCK_PERIOD_S) if self._clock_publisher is not None else left)
        return False

    def _publish(self, item: Item, stamps: Any) -> None:
        for topic, message in item.make(stamps):
            self._publishers_of[topic].publish(message)


class Progress:
    """One line that is rewritten on a terminal, and a line every five seconds in a log."""

    def __init__(self, total_s: float) -> None:
        self._total = total_s
        self._terminal = sys.stdout.isatty()
        self._next = 0.0

    def show(self, elapsed_s: float, frames: int) -> None:
        """Called after every item; prints now and then."""
        if elapsed_s < self._next:
            return
        self._next = elapsed_s + (0.2 if self._terminal else 5.0)
        self._print(f"replay: {elapsed_s:6.1f} of {self._total:.1f} s, {frames} frames", end="\r")

    def done(self, elapsed_s: float, frames: int) -> None:
        """The last line."""
        self._print(f"replay: {frames} frames in {elapsed_s:.1f} s", end="\n")

    def _print(self, line: str, end: str) -> None:
        print(line, end=end if self._terminal else "\n", flush=True)


@contextlib.contextmanager
def open_source(arguments: argparse.Namespace, robot: RobotConfig, namespace: str) -> Iterator[Source]:
    """The recording at ``arguments.source``, whichever kind it is."""
    part = {"start": arguments.start, "duration": arguments.duration, "actions": arguments.actions}
    path: Path = arguments.source
    if (path / "meta" / "info.json").is_file():
        yield EpisodeSource(LeRobotDataset(path), robot, arguments.episode, **part)
    elif is_bag(path):
        with Bag(path) as bag:
            if bag.recovered:
                print(f"replay: {path}: {bag.recovered}", file=sys.stderr)
            yield BagSource(bag, robot, namespace=namespace, **part)
    else:
        what = "does not exist" if not path.exists() else "is neither"
        raise DatasetError(f"{path} {what}; expected the folder of a LeRobot dataset or of a rosbag2")


def _body(arguments: list[str], stop: threading.Event) -> int:
    parsed = parser().parse_args(arguments)
    node = Replay(parsed)
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(open_source(parsed, node.robot, node.get_namespace()))
            try:
                log = stack.enter_context(parsed.log.open("w", encoding="utf-8")) if parsed.log else None
            except OSError as error:
                raise Gr00tRosError(f"--log {parsed.log}: cannot be written ({error})") from error
            node.advertise(source)
            node.get_logger().info(f"ready: {source.description}")
            if parsed.wait:
                node.wait_for_listeners(parsed.wait, stop)
            node.play(source, stop, log)
        time.sleep(_FLUSH_S)
    finally:
        node.destroy_node()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``replay``."""
    return run_plain(_body, argv, "")


if __name__ == "__main__":
    raise SystemExit(main())
