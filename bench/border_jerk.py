# SPDX-License-Identifier: Apache-2.0
"""How smoothly the executor goes over from one chunk to the next.

    python bench/border_jerk.py [--seconds S] [--every S] [--error RAD] [--json FILE] [--plot FILE]

A smooth motion (sums of sines, inside the SO-101's limits) is what a policy with 20 steps a second and 150 ms
of latency sees and predicts, 16 steps at a time. Each of its chunks is off by an error of its own, as a real
policy's are: an offset, and a drift. The chunks go through ``Execution`` (checks, timeline, safety filter; no
ROS) and the arm's trajectories through the spline of a joint_trajectory_controller; its reference, once a
period, is differentiated three times. "border" is the RMS jerk from the moment a chunk is accepted to the end
of the hand-over, with a margin on both sides; "inside" is the rest; "motion" is that of the motion itself.
The same seed gives the same chunks to every row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.execution import Execution
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import INTERPOLATIONS, MERGES
from gr00t_ros.sim.controllers import TrajectoryController

ROBOT = RobotConfig.from_file(Path(__file__).parents[1] / "config/robots/so101.yaml")
ARM, GRIPPER = ROBOT.action["arm"], ROBOT.action["gripper"]
RATES = (50.0, 200.0)
LATENCY_S = 0.15
HORIZON = 16
# What the points of a trajectory and a discrete third derivative smear of a border (s) to both sides.
MARGIN_S = 0.06
START_NS = 10**18
# The first second is the way from standing to the motion.
SETTLED_S = 1.0


def motion(t: np.ndarray, joints: int = 6) -> np.ndarray:
    """Positions [T, joints], rad: at most 0.5 rad, 1.2 rad/s and 4 rad/s^2 about the middle of the range."""
    phases = np.random.default_rng(3).uniform(0, 2 * np.pi, (3, joints))
    scale = np.linspace(1.0, 1.3, joints)
    parts = [
        amplitude * np.sin(2 * np.pi * hertz * scale * t[:, None] + phase)
        for amplitude, hertz, phase in zip((0.25, 0.15, 0.06), (0.15, 0.4, 0.8), phases, strict=True)
    ]
    return np.sum(parts, axis=0) + np.r_[np.zeros(joints - 1), 0.7]


def make_chunk(sequence: int, obs_s: float, error: float, generator: np.random.Generator) -> Chunk:
    ahead = np.arange(HORIZON) / ROBOT.step_rate
    wrong = generator.normal(0, error, 6) + ahead[:, None] * generator.normal(0, error, 6)  # and per second
    values = motion(obs_s + ahead) + wrong
    groups = (
        ChunkGroup("arm", ARM.representation, ARM.joints, values[:, :5]),
        ChunkGroup("gripper", GRIPPER.representation, GRIPPER.joints, values[:, 5:]),
    )
    stamp = START_NS + round(obs_s * 1e9)
    return Chunk(1, sequence, "", stamp, stamp, ROBOT.step_ns, groups)


def replay(
    merge: str, interpolation: str, rate: float, seconds: float, every: float, error: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Times [P], the arm controller's reference [P, 5], when chunks were accepted, clipped commands."""
    robot = replace(ROBOT, executor=replace(ROBOT.executor, merge=merge, interpolation=interpolation))
    execution = Execution(robot, period_s=1 / rate, lookahead_s=0.2, hold_s=0.5)
    generator = np.random.default_rng(7)
    position = dict(zip(robot.joints, motion(np.zeros(1))[0], strict=True))
    controller = TrajectoryController(ARM.joints, motion(np.zeros(1))[0, :5])
    times, path, borders = [], [], []
    clipped = 0
    for period in range(round(seconds * rate)):
        t = period / rate
        now_ns = START_NS + round(t * 1e9)
        position.update(zip(ARM.joints, controller.sample(now_ns), strict=True))
        times.append(t)
        path.append([position[joint] for joint in ARM.joints])
        execution.measure(list(position), list(position.values()), now_ns, now_ns)
        if t >= LATENCY_S + len(borders) * every - 1e-9:
            execution.offer(make_chunk(len(borders), t - LATENCY_S, error, generator), now_ns)
            borders.append(t)
        for command in execution.step(now_ns, now_ns):
            if command.group.key == "gripper":
                position["gripper"] = command.positions[0, 0]
                continue
            due_ns = [round(due * 1e9) for due in command.times_s]
            points = command.positions.tolist(), command.velocities.tolist()
            controller.accept(ARM.joints, due_ns, *points, stamp_ns=now_ns, now_ns=now_ns)
        if t < SETTLED_S:
            clipped = execution.counters.commands_clipped
    return np.array(times), np.array(path), np.array(borders), execution.counters.commands_clipped - clipped


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def measure(times: np.ndarray, path: np.ndarray, borders: np.ndarray, rate: float) -> dict[str, float]:
    jerk = np.diff(path, 3, axis=0) * rate**3
    at = times[1:-2] + 0.5 / rate
    window = ROBOT.executor.blend_time
    near = ((at[:, None] > borders - MARGIN_S) & (at[:, None] < borders + window + MARGIN_S)).any(axis=1)
    settled = at > SETTLED_S
    border, inside = rms(jerk[near & settled]), rms(jerk[~near & settled])
    acceleration = np.abs(np.diff(path, 2, axis=0)).max(axis=1)[times[2:] > SETTLED_S].max() * rate**2
    return {"border": border, "inside": inside, "ratio": border / inside, "acceleration": float(acceleration)}


def rows(seconds: float, every: float, error: float) -> list[dict[str, Any]]:
    table = []
    for rate in RATES:
        t = np.arange(round(seconds * rate)) / rate
        own = np.diff(motion(t)[:, :5], 3, axis=0) * rate**3
        for merge in MERGES:
            for interpolation in INTERPOLATIONS:
                times, path, borders, clipped = replay(merge, interpolation, rate, seconds, every, error)
                table.append(
                    {"rate_hz": rate, "merge": merge, "interpolation": interpolation}
                    | measure(times, path, borders, rate)
                    | {"motion": rms(own), "clipped": clipped, "periods": len(times)}
                )
    return table


def show(table: list[dict[str, Any]]) -> None:
    print(" rate merge     between steps   border   inside  ratio  motion   most  clipped")
    print("   Hz                          rad/s^3  rad/s^3        rad/s^3 rad/s2        %")
    for row in table:
        print(
            f"{row['rate_hz']:5.0f} {row['merge']:9} {row['interpolation']:13} {row['border']:8.1f} "
            f"{row['inside']:8.1f} {row['ratio']:6.2f} {row['motion']:7.1f} {row['acceleration']:6.2f} "
            f"{100 * row['clipped'] / row['periods']:8.2f}"
        )


def plot(file: Path, table: list[dict[str, Any]], every: float, error: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(9, 9.5), constrained_layout=True)
    rate, begin, end = 200.0, 3.0, 5.5
    colours = {"replace": "#c0392b", "blend": "#1f6fb2", "ensemble": "#2e8b57"}
    for merge, colour in colours.items():
        times, path, borders, _ = replay(merge, ROBOT.executor.interpolation, rate, end + 0.1, every, error)
        shown = (times >= begin) & (times <= end)
        speed = np.gradient(path[:, 0], 1 / rate)
        axes[0].plot(times[shown], path[shown, 0], color=colour, label=merge, lw=1.4)
        axes[1].plot(times[shown], speed[shown], color=colour, label=merge, lw=1.4)
    t = np.arange(begin, end, 1 / rate)
    wanted = motion(t)[:, 0]
    axes[0].plot(t, wanted, color="0.5", ls=":", label="the motion itself")
    axes[1].plot(t, np.gradient(wanted, 1 / rate), color="0.5", ls=":")
    for axis in axes[:2]:
        for border in borders[(borders >= begin) & (borders <= end)]:
            axis.axvline(border, color="0.8", lw=0.8, zorder=0)
        axis.set_xlabel("s")
    axes[0].set_ylabel("shoulder_pan, rad")
    axes[1].set_ylabel("its speed, rad/s")
    axes[0].set_title(
        f"{ROBOT.executor.interpolation}, {rate:.0f} Hz; grey: a newer chunk is accepted", fontsize=10
    )
    axes[0].legend(fontsize=8)
    chosen = [row for row in table if row["rate_hz"] == rate]
    places = np.arange(len(chosen))
    axes[2].bar(
        places - 0.2, [row["border"] for row in chosen], 0.4, label="at chunk borders", color="#c0392b"
    )
    axes[2].bar(places + 0.2, [row["inside"] for row in chosen], 0.4, label="inside chunks", color="#8fb8de")
    axes[2].axhline(chosen[0]["motion"], color="0.5", ls=":", lw=1, label="the motion itself")
    axes[2].set_yscale("log")
    axes[2].set_xticks(places, [f"{row['merge']}\n{row['interpolation']}" for row in chosen], fontsize=8)
    axes[2].set_ylabel("RMS jerk, rad/s³")
    axes[2].legend(fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the motion")
    parser.add_argument("--every", type=float, default=0.4, help="seconds from one chunk to the next")
    parser.add_argument(
        "--error", type=float, default=0.005, help="standard deviation of a chunk's offset, rad"
    )
    parser.add_argument("--json", type=Path, help="write the table here")
    parser.add_argument("--plot", type=Path, help="write the picture here (needs matplotlib)")
    options = parser.parse_args()
    table = rows(options.seconds, options.every, options.error)
    show(table)
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        settings = {"seconds": options.seconds, "every": options.every, "error": options.error}
        options.json.write_text(json.dumps({"machine": machine, **settings, "rows": table}, indent=2) + "\n")
    if options.plot:
        plot(options.plot, table, options.every, options.error)


if __name__ == "__main__":
    main()
