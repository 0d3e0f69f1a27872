# SPDX-License-Identifier: Apache-2.0
"""How well the chunk executor keeps its rate, what it costs, and whether it keeps the limits.

    python bench/executor.py [--seconds S] [--rate HZ] [--load] [--checkpoint DIR] [--json FILE]

Runs the real ``chunk_executor`` process over real DDS: this program publishes the joint states of an SO-101
that follows its commands (100 Hz) and chunks of a swinging arm (5 Hz), and records every command. Once with
SCHED_FIFO where the system allows it, and once without. ``--load`` runs the rest of the demo beside it
(simulated robot with cameras, policy, monitor; in a ROS domain of their own), which saturates two cores.

Jitter is how late periods began, as the control thread measured it, over all periods from the activation on.
``cpu_percent`` is of the executor process, all its threads, in percent of one core, from /proc. A violation
is a command that is not finite, outside a position or velocity limit, does not end at rest inside the
lookahead, or does not begin where the one before it stands at that moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from gr00t_ros import share
from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.demo_checkpoint import with_checkpoint
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.msg import ActionChunk, ExecutorStatus
from gr00t_ros.nodes.conversions import chunk_msg, nanoseconds
from gr00t_ros.nodes.polling import Polled, nothing, take
from gr00t_ros.realtime import try_priority
from gr00t_ros.robot import RobotConfig
from gr00t_ros.system import demo_programs, find_executable

JOINT_RATE_HZ, CHUNK_RATE_HZ, STEPS = 100.0, 5.0, 16
LOOKAHEAD_S = 0.2
START_S = 60.0  # until the executor executes
WARM_UP_S = 2.0  # until what is measured outside begins
# Where a trajectory begins may differ by this (rad) from where the last one stands: an integer of ns.
CONTINUOUS_RAD = 1e-4
SLACK = 1e-9
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Result:
    """One run. ``rate_hz`` is what was held: commands a second, by their own stamps."""

    real_time: bool
    rate_hz: float
    jitter_p50_ms: float
    jitter_p99_ms: float
    jitter_worst_ms: float
    late_periods: int
    cpu_percent: float
    commands: int
    limit_violations: int


class Robot:
    """The SO-101's topics from outside: joint states and chunks out, commands in."""

    def __init__(self, config: RobotConfig) -> None:
        self.config = config
        self.node = rclpy.create_node("executor_bench", namespace="/gr00t")
        self.status: ExecutorStatus | None = None
        self.values: dict[str, str] = {}
        self.trajectories: list[bytes] = []
        self.grips: list[bytes] = []
        arm, gripper = (config.action[key] for key in ("arm", "gripper"))
        self._names = (*arm.joints, *gripper.joints)
        self._positions = np.zeros(len(self._names))
        self._sequence = 0
        self._session = time.time_ns()
        self._begin = time.monotonic()
        node, group, deep = self.node, Polled(), QoSProfile(depth=2000)
        self._states = node.create_publisher(
            JointState, config.executor.joint_state_topic, qos_profile_sensor_data
        )
        self._chunks = node.create_publisher(ActionChunk, "action_chunk", 1)
        self._in = [
            node.create_subscription(kind, topic, nothing, deep, callback_group=group, raw=raw)
            for kind, topic, raw in (
                (JointTrajectory, arm.topic, True),
                (Float64MultiArray, gripper.topic, True),
                (ExecutorStatus, "executor/status", False),
                (DiagnosticArray, "/diagnostics", False),
            )
        ]

    def run(self, seconds: float, *, until_executing: bool = False) -> None:
        """Joint states, chunks and what comes in, for so long or until commands follow a plan."""
        end = time.monotonic() + seconds
        due = chunk_due = time.monotonic()
        while (now := time.monotonic()) < end:
            self._read()
            if until_executing and self.status is not None and self.status.state == ExecutorStatus.EXECUTING:
                return
            self._publish_state()
            if now >= chunk_due:
                self._publish_chunk()
                chunk_due = now + 1.0 / CHUNK_RATE_HZ
            due = max(due + 1.0 / JOINT_RATE_HZ, now)
            time.sleep(max(0.0, due - time.monotonic()))
        if until_executing:
            raise Gr00tRosError(f"the executor did not begin to execute within {seconds:g} s: {self.status}")

    def _read(self) -> None:
        arm, gripper, status, diagnostics = self._in
        self.trajectories += take(arm, 1000)
        self.grips += take(gripper, 1000)
        for self.status in take(status, 100):
            pass
        for message in take(diagnostics, 100):
            for entry in message.status:
                if entry.name.endswith("chunk_executor"):
                    self.values = {value.key: value.value for value in entry.values}

    def _publish_state(self) -> None:
        """The joints stand where the last trajectory wants them: a robot without any lag."""
        if self.trajectories:
            first = deserialize_message(self.trajectories[-1], JointTrajectory).points[0]
            self._positions[: len(first.positions)] = first.positions
        if self.grips:
            self._positions[-1] = deserialize_message(self.grips[-1], Float64MultiArray).data[0]
        message = JointState(name=list(self._names), position=self._positions.tolist())
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._states.publish(message)

    def _publish_chunk(self) -> None:
        now_ns = self.node.get_clock().now().nanoseconds
        ahead = np.arange(STEPS) * self.config.step_ns / 1e9 + (time.monotonic() - self._begin)
        # 0.4 rad at 0.4 Hz: at most 1 rad/s and 2.5 rad/s^2, every joint at its own phase.
        phases = np.arange(len(self._names))
        values = 0.4 * np.sin(2.0 * math.pi * 0.4 * ahead[:, None] + phases)
        values[:, -1] = 0.8 + values[:, -1]
        arm, gripper = (self.config.action[key] for key in ("arm", "gripper"))
        chunk = Chunk(
            session=self._session,
            sequence=self._sequence,
            instruction="bench",
            t_obs_ns=now_ns,
            start_ns=now_ns,
            step_ns=self.config.step_ns,
            groups=(
                ChunkGroup("arm", arm.representation, arm.joints, values[:, :-1]),
                ChunkGroup("gripper", gripper.representation, gripper.joints, values[:, -1:]),
            ),
        )
        self._sequence += 1
        self._chunks.publish(chunk_msg(chunk))


def limit_violations(config: RobotConfig, trajectories: Sequence[bytes], grips: Sequence[bytes]) -> int:
    """Commands that break one of the promises of the module's docstring."""
    arm, gripper = (config.action[key] for key in ("arm", "gripper"))
    low, high, speed = (
        np.array([getattr(config.limits[joint], what) for joint in arm.joints])
        for what in ("min", "max", "velocity")
    )
    found = 0
    last: tuple[int, Any, Any, Any] | None = None
    for raw in trajectories:
        message = deserialize_message(raw, JointTrajectory)
        positions = np.array([point.positions for point in message.points])
        velocities = np.array([point.velocities for point in message.points])
        due = np.array([nanoseconds(point.time_from_start) for point in message.points]) / 1e9
        stamp_ns = nanoseconds(message.header.stamp)
        good = (
            np.isfinite(positions).all()
            and np.isfinite(velocities).all()
            and (positions >= low - SLACK).all()
            and (positions <= high + SLACK).all()
            and (np.abs(velocities) <= speed + 1e-6).all()
            and not velocities[-1].any()
            and due[-1] <= LOOKAHEAD_S + SLACK
        )
        if good and last is not None and due[0] == 0.0:
            stands = _hermite((stamp_ns - last[0]) / 1e9, *last[1:])
            good = stands is None or bool((np.abs(stands - positions[0]) <= CONTINUOUS_RAD).all())
        found += not good
        last = (stamp_ns, due, positions, velocities)
    limit = config.limits[gripper.joints[0]]
    values = np.array([deserialize_message(raw, Float64MultiArray).data for raw in grips]).reshape(-1)
    found += int((~np.isfinite(values) | (values < limit.min - SLACK) | (values > limit.max + SLACK)).sum())
    return found


def _hermite(at_s: float, due: Any, positions: Any, velocities: Any) -> Any:
    """Where a controller that follows the points stands after ``at_s``; None before the first one."""
    if at_s < due[0]:
        return None
    after = int(np.searchsorted(due, at_s, side="right"))
    if after >= len(due):
        return positions[-1]
    span = due[after] - due[after - 1]
    u = (at_s - due[after - 1]) / span
    p0, p1 = positions[after - 1], positions[after]
    m0, m1 = velocities[after - 1] * span, velocities[after] * span
    return p0 + u * u * (3 - 2 * u) * (p1 - p0) + u * (1 - u) * ((1 - u) * m0 - u * m1)


def cpu_s(pid: int) -> float:
    """Processor time of a process, all threads, in s."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextlib.contextmanager
def program(
    command: Sequence[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone at the end; its output goes to ``log``."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(arguments: argparse.Namespace, *, real_time: bool, log: Path) -> Result:
    """One run with or without SCHED_FIFO."""
    config = RobotConfig.from_file(share.robot_file("so101"))
    command = [str(find_executable("chunk_executor")), "--ros-args", "-r", "__ns:=/gr00t"]
    for path in (share.config_file("policy.yaml"), share.robot_file("so101")):
        command += ["--params-file", str(path)]
    values = {"rate": arguments.rate, "enabled": True, "autostart": True, "hold_time": 0.5}
    values |= {"real_time": "on" if real_time else "off", "lookahead": LOOKAHEAD_S}
    for key, value in values.items():
        command += ["-p", f"{key}:={json.dumps(value)}"]
    robot = Robot(config)
    try:
        with program(command, dict(os.environ), log) as process:
            robot.run(START_S, until_executing=True)
            robot.run(WARM_UP_S)
            robot.trajectories.clear()
            robot.grips.clear()
            before, began = cpu_s(process.pid), time.monotonic()
            robot.run(arguments.seconds)
            used, passed = cpu_s(process.pid) - before, time.monotonic() - began
            status = robot.status
    finally:
        robot.node.destroy_node()
    assert status is not None
    stamps = [
        nanoseconds(deserialize_message(raw, JointTrajectory).header.stamp) for raw in robot.trajectories
    ]
    if len(stamps) < 2:
        raise Gr00tRosError(f"the executor sent {len(stamps)} commands; its output is in {log}")
    return Result(
        real_time=bool(status.realtime),
        rate_hz=(len(stamps) - 1) / ((stamps[-1] - stamps[0]) / 1e9),
        jitter_p50_ms=float(robot.values["jitter p50 [ms]"]),
        jitter_p99_ms=float(robot.values["jitter p99 [ms]"]),
        jitter_worst_ms=float(robot.values["jitter worst [ms]"]),
        late_periods=int(status.late_periods),
        cpu_percent=100.0 * used / passed,
        commands=len(stamps),
        limit_violations=limit_violations(config, robot.trajectories, robot.grips),
    )


@contextlib.contextmanager
def load(arguments: argparse.Namespace, folder: Path) -> Iterator[None]:
    """The demo without its executor, in a ROS domain of its own."""
    given = {"output": str(folder), "checkpoint": arguments.checkpoint, "duration": "0", "task": "none"}
    domain = str(int(os.environ["ROS_DOMAIN_ID"]) + 1)
    with contextlib.ExitStack() as stack:
        for one in demo_programs(with_checkpoint(given)):
            if one.name != "chunk_executor":
                environment = {**os.environ, **getattr(one, "environment", {}), "ROS_DOMAIN_ID": domain}
                stack.enter_context(program(one.command(), environment, folder / f"{one.name}.log"))
        deadline = time.monotonic() + START_S
        policy = folder / "policy.log"
        while ": loaded " not in policy.read_text(errors="replace") and time.monotonic() < deadline:
            time.sleep(0.5)
        yield


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each run (default 30)")
    parser.add_argument("--rate", type=float, default=200.0, help="commands per second (default 200)")
    parser.add_argument("--load", action="store_true", help="run the rest of the demo beside it")
    parser.add_argument("--checkpoint", default="", help="of the demo; empty makes a small one")
    parser.add_argument("--output", type=Path, help="folder for logs and the checkpoint (default temporary)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args(argv)

    # Away from whatever else runs on this machine.
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + 2 * (os.getpid() % 45)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.update(PYTHONUNBUFFERED="1")
    folder = arguments.output or Path(tempfile.mkdtemp(prefix="executor_bench_"))
    folder.mkdir(parents=True, exist_ok=True)
    problem = try_priority()
    results: list[Result] = []
    rclpy.init(args=[])
    try:
        with load(arguments, folder) if arguments.load else contextlib.nullcontext():
            for real_time in (False,) if problem else (True, False):
                results.append(measure(arguments, real_time=real_time, log=folder / "executor.log"))
    except Gr00tRosError as error:
        print(f"bench: {error} (logs in {folder})", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()

    cores = len(os.sched_getaffinity(0))
    beside = "the demo beside it" if arguments.load else "nothing beside it"
    print(f"{arguments.rate:g} Hz for {arguments.seconds:g} s on {cores} cores, {beside}")
    if problem:
        print(f"without SCHED_FIFO: {problem}")
    print(f"{'':<12}{'rate':>9}{'p50':>9}{'p99':>9}{'worst':>9}{'late':>7}{'cpu':>8}{'violations':>12}")
    for row in results:
        name = "SCHED_FIFO" if row.real_time else "normal"
        print(
            f"{name:<12}{row.rate_hz:7.1f}Hz{row.jitter_p50_ms:7.2f}ms{row.jitter_p99_ms:7.2f}ms"
            f"{row.jitter_worst_ms:7.2f}ms{row.late_periods:7d}{row.cpu_percent:7.1f}%"
            f"{row.limit_violations:12d}"
        )
    if arguments.json:
        report = {
            **asdict(results[0]),
            "requested_rate_hz": arguments.rate,
            "seconds": arguments.seconds,
            "load": arguments.load,
            "cores": cores,
            "python": platform.python_version(),
            "runs": [asdict(row) for row in results],
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
