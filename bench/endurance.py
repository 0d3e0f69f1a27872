# SPDX-License-Identifier: Apache-2.0
"""The demo for as long as a shift: does memory stay flat, and is every missed deadline reported?

    python bench/endurance.py [--minutes M] [--json FILE] [--plot FILE] [--output DIR]

Starts ``demo`` (simulated robot, policy with a small network, executor, monitor) and looks at it from
outside: resident memory and processor time of every process from /proc, what the nodes report on their
topics, and the time stamps of the trajectories themselves. A deadline was missed where two stamps are further
apart than two periods while the executor says that it executes: the later period began after the next one was
due. The executor must have counted a late period, or a stop, for each. Memory is flat when the median of the
last fifth of the run exceeds that of the second fifth by at most ``FLAT_MB`` in every process; what is loaded
at first use comes in the first fifth. The monitor is left out: it collects pictures for its strip, 32 of each
camera spread over the run. Exit code 0: the demo's own verdict is good, memory is flat and no missed deadline
is unreported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from trajectory_msgs.msg import JointTrajectory

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.executables import find_executable
from gr00t_ros.msg import ExecutorStatus, PolicyStatus
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_TRAJECTORY
from gr00t_ros.share import robot_file

SAMPLE_S = 5.0
# A Python process's resident memory moves by this much without growing: arenas and thread pools.
FLAT_MB = 8.0
# Stamps are taken a moment after a period began.
MISSED_PERIODS = 2.05
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Process:
    """One program of the demo: when it was looked at, its resident memory and its processor time."""

    pid: int
    times_s: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def look(self, at_s: float) -> None:
        """One more sample; none once the process has ended."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return
        resident = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
        if not resident:
            return
        after_name = stat.rsplit(")", 1)[1].split()
        self.times_s.append(at_s)
        self.resident_mb.append(int(resident[0]) / 1024.0)
        self.cpu_s.append((int(after_name[11]) + int(after_name[12])) / _TICKS)

    def growth_mb(self) -> float:
        """The median of the last fifth of the run less that of the second fifth."""
        fifth = len(self.resident_mb) // 5
        if fifth == 0:
            return float("nan")
        memory = np.array(self.resident_mb)
        return float(np.median(memory[-fifth:]) - np.median(memory[fifth : 2 * fifth]))

    def cpu_percent(self) -> float:
        """Of one core, over the whole run."""
        if len(self.times_s) < 2:
            return float("nan")
        return 100.0 * (self.cpu_s[-1] - self.cpu_s[0]) / (self.times_s[-1] - self.times_s[0])


class Listener:
    """What the nodes report, and when their trajectories are stamped."""

    def __init__(self, robot: RobotConfig) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node("endurance", namespace="/gr00t", context=self.context)
        self.executor: ExecutorStatus | None = None
        self.policy: PolicyStatus | None = None
        self.missed = self.trajectories = 0
        self.worst_gap_s = self.worst_jitter_s = 0.0
        self._stamp_ns: int | None = None
        self._stops = 0
        self._spinner = SingleThreadedExecutor(context=self.context)
        self._spinner.add_node(self.node)
        newest = QoSProfile(depth=10)
        self.node.create_subscription(ExecutorStatus, "executor/status", self._on_executor, newest)
        self.node.create_subscription(PolicyStatus, "policy/status", self._on_policy, newest)
        topics = [group.topic for group in robot.action.values() if group.interface == JOINT_TRAJECTORY]
        # Deep enough that none is lost while this process waits for its turn.
        self.node.create_subscription(JointTrajectory, topics[0], self._on_trajectory, QoSProfile(depth=500))

    def spin(self, until: float) -> None:
        """Listens until the monotonic time ``until``."""
        while (left := until - time.monotonic()) > 0.0:
            self._spinner.spin_once(timeout_sec=min(left, 0.2))

    def close(self) -> None:
        self._spinner.shutdown(1.0)
        self.node.destroy_node()
        self.context.try_shutdown()

    def _on_executor(self, message: ExecutorStatus) -> None:
        self.executor = message
        self.worst_jitter_s = max(self.worst_jitter_s, message.jitter)

    def _on_policy(self, message: PolicyStatus) -> None:
        if message.state != PolicyStatus.INACTIVE:  # which tells nothing of the session any more
            self.policy = message

    def _on_trajectory(self, message: JointTrajectory) -> None:
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        last_ns, self._stamp_ns = self._stamp_ns, stamp_ns
        status = self.executor
        self.trajectories += 1
        if last_ns is None or status is None:
            return
        # Silence after a stop or a hold is no missed deadline; both are counted as stops.
        stops, self._stops = self._stops, status.stops
        if status.state != ExecutorStatus.EXECUTING or stops != status.stops:
            return
        gap_s = (stamp_ns - last_ns) / 1e9
        self.worst_gap_s = max(self.worst_gap_s, gap_s)
        self.missed += gap_s > MISSED_PERIODS * status.period


def children(pid: int) -> list[int]:
    """Every process below ``pid``."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="ascii").split():
            found += [int(child), *children(int(child))]
    return found


def program(pid: int) -> str:
    """The name of a demo program, empty for shells and others."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    names = [word.removeprefix("__node:=") for word in line if word.startswith("__node:=")]
    return names[0] if names else ""


def run(minutes: float, output: str) -> dict[str, Any]:
    """Runs the demo and gives what was seen."""
    robot = RobotConfig.from_file(robot_file("so101"))
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **os.environ}
    os.environ.update(environment)
    command = [str(find_executable("demo")), "--duration", str(60.0 * minutes), "--output", output]
    command += ["--task", "none"]
    listener = Listener(robot)
    processes: dict[str, Process] = {}
    told = began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        demo = subprocess.Popen(command, env=environment, stdout=said)
        try:
            while demo.poll() is None:
                listener.spin(time.monotonic() + SAMPLE_S)
                at_s = time.monotonic() - began
                for pid in children(demo.pid):
                    name = program(pid)
                    if name and name not in processes:
                        processes[name] = Process(pid)
                for process in processes.values():
                    process.look(at_s)
                if time.monotonic() - told >= 60.0:
                    told = time.monotonic()
                    memory = ", ".join(f"{n} {p.resident_mb[-1]:.0f}" for n, p in processes.items())
                    print(f"{at_s / 60.0:5.1f} of {minutes:g} min; resident MB: {memory}", file=sys.stderr)
        finally:
            listener.close()
            if demo.poll() is None:
                demo.send_signal(signal.SIGINT)
                demo.wait(30.0)
        said.seek(0)
        lines = said.read().splitlines()
    executor, policy = listener.executor, listener.policy
    if executor is None or policy is None:
        raise Gr00tRosError("the demo's nodes were not heard: does it start by itself? Run `demo` and see")
    reported = executor.late_periods + executor.stops
    return {
        "minutes": minutes,
        "demo_exit_code": demo.returncode,
        "processes": {
            name: {
                "first_mb": round(process.resident_mb[0], 1),
                "last_mb": round(process.resident_mb[-1], 1),
                "growth_mb": round(process.growth_mb(), 2),
                "cpu_percent": round(process.cpu_percent(), 1),
                "times_s": [round(t, 1) for t in process.times_s],
                "resident_mb": [round(m, 1) for m in process.resident_mb],
            }
            for name, process in processes.items()
            if process.resident_mb
        },
        "trajectories": listener.trajectories,
        "missed_deadlines": listener.missed,
        "reported_late_periods": executor.late_periods,
        "reported_stops": executor.stops,
        "unreported": max(0, listener.missed - reported),
        "worst_gap_ms": round(1e3 * listener.worst_gap_s, 1),
        "worst_jitter_p99_ms": round(1e3 * listener.worst_jitter_s, 2),
        "realtime": executor.realtime,
        "chunks": policy.chunks,
        "skipped": dict(zip(policy.skip_causes, map(int, policy.skip_counts), strict=True)),
        "summary": [line for line in lines if "demo_monitor" in line][-8:],
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}",
    }


def draw(path: str, result: dict[str, Any]) -> None:
    """Resident memory of every process over the run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, process in result["processes"].items():
        minutes = np.array(process["times_s"]) / 60.0
        axes.plot(minutes, process["resident_mb"], label=f"{name} ({process['growth_mb']:+.1f} MB)")
    axes.set(xlabel="min", ylabel="resident memory [MB]", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE", help="a picture of memory over time")
    parser.add_argument("--output", default=".demo", help="the demo's own folder")
    options = parser.parse_args()
    result = run(options.minutes, options.output)
    print(f"{'process':16} {'first MB':>9} {'last MB':>9} {'growth MB':>10} {'cpu %':>7}")
    for name, process in result["processes"].items():
        values = [process[key] for key in ("first_mb", "last_mb", "growth_mb", "cpu_percent")]
        print(f"{name:16} {values[0]:9.1f} {values[1]:9.1f} {values[2]:10.2f} {values[3]:7.1f}")
    for key in (
        "trajectories",
        "missed_deadlines",
        "reported_late_periods",
        "reported_stops",
        "unreported",
        "worst_gap_ms",
        "worst_jitter_p99_ms",
        "realtime",
        "chunks",
        "skipped",
        "machine",
    ):
        print(f"{key.replace('_', ' ')}: {result[key]}")
    print("\n".join(result["summary"]))
    if options.plot:
        draw(options.plot, result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), encoding="utf-8")
    grown = [
        name
        for name, process in result["processes"].items()
        if name != "demo_monitor" and not process["growth_mb"] <= FLAT_MB
    ]
    for name in grown:
        print(f"FAILED: the memory of {name} is not flat", file=sys.stderr)
    if result["unreported"]:
        print(f"FAILED: {result['unreported']} missed deadlines are not reported", file=sys.stderr)
    return 1 if grown or result["unreported"] or result["demo_exit_code"] else 0


if __name__ == "__main__":
    sys.exit(main())
