# SPDX-License-Identifier: Apache-2.0
"""How smoothly the executor goes over from one chunk to the next.

    python bench/border_jerk.py [--seconds S] [--every S] [--error RAD ...] [--json FILE] [--plot FILE]

A policy with 20 steps a second and 150 ms of latency replays a smooth motion (sums of sines, inside the
SO-101's limits), wrong by a little in every chunk: see ``border_policy.py``. Its chunks go through
``Execution`` (checks, timeline, safety filter; no ROS) and the arm's trajectories through the spline of a
joint_trajectory_controller; its reference, once a period, is differentiated three times. "border" is the RMS
jerk from the moment a chunk is accepted to the end of the hand-over, with a margin on both sides; "inside" is
the rest; "motion" is that of the motion itself. The same seed gives the same errors to every row.

The first table compares ways of merging and curves without real-time chunking, with the first of the errors;
the second real-time chunking with the plain ways, for chunks of 16 and of 40 steps and for each error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from border_policy import CONTINUED, NONE, OWN, START_NS, Policy, motion

from gr00t_ros.execution import Execution
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import BLEND, CUBIC, INTERPOLATIONS, MERGES, REPLACE
from gr00t_ros.sim.controllers import TrajectoryController

ROBOT = RobotConfig.from_file(Path(__file__).parents[1] / "config/robots/so101.yaml")
ARM = ROBOT.action["arm"]
RATES = (50.0, 200.0)
# Steps of a chunk: the SO-101's example checkpoint, and a long one as the released checkpoints have.
SHORT, LONG = 16, 40
# What the points of a trajectory and a discrete third derivative smear of a border (s) to both sides.
MARGIN_S = 0.06
# The first second is the way from standing to the motion.
SETTLED_S = 1.0


@dataclass(frozen=True)
class Setting:
    """What one row is measured with."""

    rate: float
    error: float
    merge: str = BLEND
    interpolation: str = CUBIC
    horizon: int = SHORT
    guidance: str = NONE


@dataclass(frozen=True)
class Replay:
    """times [P] in s, the arm controller's reference path [P, 5], when chunks were accepted, and how many
    commands were clipped once the motion was reached."""

    times: np.ndarray
    path: np.ndarray
    borders: np.ndarray
    clipped: int


def replay(setting: Setting, seconds: float, every: float) -> Replay:
    options = replace(ROBOT.executor, merge=setting.merge, interpolation=setting.interpolation)
    robot = replace(ROBOT, executor=options)
    execution = Execution(robot, period_s=1 / setting.rate, lookahead_s=0.2, hold_s=0.5)
    policy = Policy(
        robot, horizon=setting.horizon, every_s=every, error=setting.error, guidance=setting.guidance
    )
    position = dict(zip(robot.joints, motion(np.zeros(1))[0], strict=True))
    controller = TrajectoryController(ARM.joints, motion(np.zeros(1))[0, :5])
    times, path, borders = [], [], []
    clipped = 0
    for period in range(round(seconds * setting.rate)):
        t = period / setting.rate
        now_ns = START_NS + round(t * 1e9)
        position.update(zip(ARM.joints, controller.sample(now_ns), strict=True))
        times.append(t)
        path.append([position[joint] for joint in ARM.joints])
        execution.measure(list(position), list(position.values()), now_ns, now_ns)
        chunk = policy.send(t)
        if chunk is not None:
            execution.offer(chunk, now_ns)
            borders.append(t)
        for command in execution.step(now_ns, now_ns):
            if command.group.key == "gripper":
                position["gripper"] = command.positions[0, 0]
                continue
            due = [
                (*point,)
                for point in zip(command.times_s, command.positions, command.velocities, strict=True)
            ]
            if command.begin is not None:
                due.insert(0, (0.0, *command.begin))
            due_s, positions, velocities = zip(*due, strict=True)
            offsets = [round(at * 1e9) for at in due_s]
            controller.accept(ARM.joints, offsets, positions, velocities, stamp_ns=now_ns, now_ns=now_ns)
        policy.hear(execution, t)
        policy.look(t)
        if t < SETTLED_S:
            clipped = execution.counters.commands_clipped
    clipped = execution.counters.commands_clipped - clipped
    return Replay(np.array(times), np.array(path), np.array(borders), clipped)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def measure(run: Replay, rate: float) -> dict[str, float]:
    jerk = np.diff(run.path, 3, axis=0) * rate**3
    at = run.times[1:-2] + 0.5 / rate
    window = ROBOT.executor.blend_time + MARGIN_S
    near = ((at[:, None] > run.borders - MARGIN_S) & (at[:, None] < run.borders + window)).any(axis=1)
    settled = at > SETTLED_S
    border, inside = rms(jerk[near & settled]), rms(jerk[~near & settled])
    bends = np.abs(np.diff(run.path, 2, axis=0)).max(axis=1)[run.times[2:] > SETTLED_S]
    return {
        "border": border,
        "inside": inside,
        "ratio": border / inside,
        "acceleration": float(bends.max()) * rate**2,
    }


def row(setting: Setting, seconds: float, every: float) -> dict[str, Any]:
    run = replay(setting, seconds, every)
    own = motion(np.arange(round(seconds * setting.rate)) / setting.rate)[:, :5]
    jerk = rms(np.diff(own, 3, axis=0) * setting.rate**3)
    clipped = {"motion": jerk, "clipped": run.clipped, "periods": len(run.times)}
    return vars(setting) | measure(run, setting.rate) | clipped


def settings(errors: list[float]) -> tuple[list[Setting], list[Setting]]:
    """Those of the two tables."""
    plain = [
        Setting(rate, errors[0], merge, interpolation)
        for rate in RATES
        for merge in MERGES
        for interpolation in INTERPOLATIONS
    ]
    guided = []
    for rate in RATES:
        for error in errors:
            for horizon in (SHORT, LONG):
                guided.append(Setting(rate, error, REPLACE, horizon=horizon))
                guided += [Setting(rate, error, horizon=horizon, guidance=g) for g in (NONE, OWN, CONTINUED)]
    return plain, guided


def show(table: list[dict[str, Any]]) -> None:
    print(
        " rate merge    between       steps guidance   error   border   inside  ratio  motion   most  clipped"
    )
    print(
        "   Hz          steps                          mrad  rad/s^3  rad/s^3        rad/s^3 rad/s2        %"
    )
    for row in table:
        print(
            f"{row['rate']:5.0f} {row['merge']:8} {row['interpolation']:13} {row['horizon']:5} "
            f"{row['guidance']:9} "
            f"{1e3 * row['error']:6.1f} {row['border']:8.1f} {row['inside']:8.1f} {row['ratio']:6.2f} "
            f"{row['motion']:7.1f} {row['acceleration']:6.2f} {100 * row['clipped'] / row['periods']:8.2f}"
        )


def plot(file: Path, table: list[dict[str, Any]], every: float, error: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(9, 9.5), constrained_layout=True)
    rate, begin, end = 50.0, 3.0, 5.5
    shown = {
        "replace": (Setting(rate, error, REPLACE, horizon=LONG), "#c0392b"),
        "blend": (Setting(rate, error, horizon=LONG), "#1f6fb2"),
        "real-time chunking and blend": (Setting(rate, error, horizon=LONG, guidance=OWN), "#2e8b57"),
    }
    for label, (setting, colour) in shown.items():
        run = replay(setting, end + 0.1, every)
        seen = (run.times >= begin) & (run.times <= end)
        speed = np.gradient(run.path[:, 0], 1 / rate)
        axes[0].plot(run.times[seen], run.path[seen, 0], color=colour, label=label, lw=1.4)
        axes[1].plot(run.times[seen], speed[seen], color=colour, label=label, lw=1.4)
    t = np.arange(begin, end, 1 / rate)
    wanted = motion(t)[:, 0]
    axes[0].plot(t, wanted, color="0.5", ls=":", label="the motion itself")
    axes[1].plot(t, np.gradient(wanted, 1 / rate), color="0.5", ls=":")
    for axis in axes[:2]:
        for border in run.borders[(run.borders >= begin) & (run.borders <= end)]:
            axis.axvline(border, color="0.8", lw=0.8, zorder=0)
        axis.set_xlabel("s")
    axes[0].set_ylabel("shoulder_pan, rad")
    axes[1].set_ylabel("its speed, rad/s")
    title = f"chunks of {LONG} steps, off by {1e3 * error:g} mrad, at {rate:.0f} Hz"
    axes[0].set_title(f"{title}; grey: a newer chunk is accepted", fontsize=10)
    axes[0].legend(fontsize=8)
    chosen = [row for row in table if row["error"] == error and row["rate"] == rate]
    names = {NONE: "blend", OWN: "RTC and blend", CONTINUED: "RTC and blend,\ntail continued"}
    places = np.arange(len(chosen))
    for shift, key, colour, label in (
        (-0.2, "border", "#c0392b", "at chunk borders"),
        (0.2, "inside", "#8fb8de", "inside chunks"),
    ):
        axes[2].bar(places + shift, [row[key] for row in chosen], 0.4, label=label, color=colour)
    for place, row in zip(places, chosen, strict=True):
        top = max(row["border"], row["inside"])
        axes[2].text(place, top + 0.5, f"{row['ratio']:.2f}", ha="center", fontsize=7)
    axes[2].axhline(chosen[0]["motion"], color="0.5", ls=":", lw=1, label="the motion itself")
    axes[2].margins(y=0.12)
    ticks = [
        f"{REPLACE if row['merge'] == REPLACE else names[row['guidance']]}\n{row['horizon']} steps"
        for row in chosen
    ]
    axes[2].set_xticks(places, ticks, fontsize=7)
    axes[2].set_title("numbers: at chunk borders / inside chunks", fontsize=10)
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
        "--error",
        type=float,
        nargs="+",
        default=[0.005, 0.001, 0.01],
        help="standard deviations of a chunk's offset, rad",
    )
    parser.add_argument("--json", type=Path, help="write the table here")
    parser.add_argument("--plot", type=Path, help="write the picture here (needs matplotlib)")
    options = parser.parse_args()
    tables = []
    for chosen in settings(options.error):
        tables.append([row(setting, options.seconds, options.every) for setting in chosen])
        show(tables[-1])
        print(flush=True)
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        chosen = {"seconds": options.seconds, "every": options.every, "errors": options.error}
        result = {"machine": machine, **chosen, "rows": tables[0], "real_time_chunking": tables[1]}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.plot:
        plot(options.plot, tables[1], options.every, options.error[0])


if __name__ == "__main__":
    main()
