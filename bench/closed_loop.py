# SPDX-License-Identifier: Apache-2.0
"""Does the arm do what it is told? A policy in closed loop with the simulated SO-101, in lock step.

    python bench/closed_loop.py --checkpoint DIR [--episodes N] [--seed S] [--interval STEPS]
        [--latency MS ...] [--mode replace|blend|ensemble|rtc ...] [--drop P] [--noise SIGMA] [--jobs J]
        [--json FILE] [--plot FILE]
    python bench/closed_loop.py --expert ...      the scripted expert through the same executor, as a check

Each of N seeds is three episodes (``gr00t_ros/sim/reaching_episodes.py``): nothing changes, the named object
moves in mid-motion, the instruction changes in mid-motion. An episode is a success when the first object that
the arm touches is the one that is named by then. Everything between camera and servos is the code of the
nodes, without transport (``gr00t_ros/sim/lock_step.py``); time stands still while the network computes and
its chunk arrives ``--latency`` after it was begun, so the same seeds give the same table again.

One row for each mode and latency:

static, moved, swapped   share of successes in %; the two changes count only where they came before a touch
wrong                    static episodes in which another object was touched first, in %
time                     seconds to the touch, median of the static successes
chunks                   per simulated second
stops                    per 100 episodes: the executor came to rest because a plan ran out or was refused
clipped                  executor periods in which a limit held a command back, in %
inference                real milliseconds of a chunk, median, on this machine
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import MERGES, REPLACE
from gr00t_ros.sim.lock_step import RTC, Conditions, LockStep, Run
from gr00t_ros.sim.reaching import SUCCESS, WRONG, ReachingTask
from gr00t_ros.sim.reaching_episodes import KINDS, STATIC
from gr00t_ros.system import REACHING_PICTURE

ROBOT = Path(__file__).parents[1] / "config/robots/so101_reach.yaml"
MODES = (*MERGES, RTC)
_EXECUTOR_RATE = 50.0
# Of a normal distribution: 95 % lie within.
_Z = 1.96


class Worker:
    """What one process keeps: robot, task and policy."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.robot = RobotConfig.from_file(options.robot)
        self.task = ReachingTask(width=options.size, height=options.size)
        self.policy: Any = _expert(self) if options.expert else _network(self.robot, options)

    def run(self, conditions: Conditions, seed: int, kind: str) -> Run:
        return LockStep(self.robot, self.policy, self.task, conditions).run(seed, kind)


def _expert(worker: Worker) -> Any:
    from gr00t_ros.sim.expert_policy import ExpertPolicy

    return ExpertPolicy(worker.robot, worker.task)


def _network(robot: RobotConfig, options: argparse.Namespace) -> Any:
    import torch

    from gr00t_model import Gr00tPolicy

    torch.set_num_threads(options.threads)
    policy = Gr00tPolicy(
        options.checkpoint,
        robot.embodiment_tag,
        options.backend,
        options.device,
        options.precision,
        options.num_steps or None,
    )
    policy.warm_up()
    return policy


_worker: Worker | None = None


def _begin(options: argparse.Namespace) -> None:
    global _worker
    _worker = Worker(options)


def _run(job: tuple[Conditions, int, str]) -> Run:
    assert _worker is not None
    return _worker.run(*job)


def runs(options: argparse.Namespace, jobs: Sequence[tuple[Conditions, int, str]]) -> Iterator[Run]:
    """The result of every job, in order."""
    if options.jobs == 1:
        worker = Worker(options)
        yield from (worker.run(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # OpenGL and torch do not survive a fork
    with ProcessPoolExecutor(options.jobs, context, _begin, (options,)) as pool:
        yield from pool.map(_run, jobs, chunksize=4)


def succeeded(run: Run) -> bool:
    return run.outcome == SUCCESS and (run.kind == STATIC or run.changed_s is not None)


def interval(share: float, count: int) -> tuple[float, float]:
    """Between what the true share is with 95 % (Wilson)."""
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return float(middle - half), float(middle + half)


def figures(conditions: Conditions, found: list[Run]) -> dict[str, Any]:
    """One row of the table. A kind that was not run has no figures."""
    row: dict[str, Any] = asdict(conditions)
    by_kind = {kind: [run for run in found if run.kind == kind] for kind in KINDS}
    for kind, ran in by_kind.items():
        if not ran:
            continue
        name = "" if kind == STATIC else f"{kind}_"
        share = sum(map(succeeded, ran)) / len(ran)
        row[f"{name}success_rate"] = share
        row[f"{name}success_interval"] = interval(share, len(ran))
        row[f"{name}wrong_target_rate"] = sum(run.outcome == WRONG for run in ran) / len(ran)
    times = [run.touched_s for run in by_kind[STATIC] if succeeded(run) and run.touched_s is not None]
    if times:
        row["time_to_success_s"] = float(np.median(times))
    seconds = sum(run.seconds for run in found)
    row["chunks_per_s"] = sum(run.chunks for run in found) / seconds
    row["stops_per_episode"] = sum(run.stops for run in found) / len(found)
    row["chunks_refused"] = sum(run.refused for run in found)
    row["clipped_share"] = sum(run.clipped for run in found) / (seconds * _EXECUTOR_RATE)
    row["inference_s"] = float(np.median([value for run in found for value in run.inference_s]))
    row["episodes"] = [asdict(replace(run, inference_s=[])) for run in found]
    for episode in row["episodes"]:
        del episode["inference_s"]
    return row


def show(row: dict[str, Any]) -> str:
    def percent(key: str) -> str:
        return f"{100 * row[key]:8.1f}" if key in row else "       -"

    time_s = f"{row['time_to_success_s']:6.2f}" if "time_to_success_s" in row else "     -"
    shares = "".join(
        map(percent, ("success_rate", "wrong_target_rate", "moved_success_rate", "swapped_success_rate"))
    )
    return (
        f"{row['mode']:9}{1e3 * row['latency_s']:7.0f}{shares}{time_s}{row['chunks_per_s']:8.2f}"
        f"{100 * row['stops_per_episode']:7.0f}{100 * row['clipped_share']:9.1f}"
        f"{1e3 * row['inference_s']:11.1f}"
    )


HEADER = (
    "mode     latency  static   wrong   moved swapped  time  chunks  stops  clipped  inference\n"
    "              ms       %       %       %       %     s     1/s  /100         %         ms"
)


def plot(file: Path, rows: list[dict[str, Any]]) -> None:
    """Success against latency, a panel a kind, a line a mode."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {"success_rate": "nothing changes", "moved_success_rate": "the object moves",
              "swapped_success_rate": "the instruction changes"}  # fmt: skip
    figure, axes = plt.subplots(1, len(titles), figsize=(12, 3.8), sharey=True, constrained_layout=True)
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for mode in dict.fromkeys(row["mode"] for row in rows):
            points = [
                (1e3 * row["latency_s"], 100 * row[key]) for row in rows if row["mode"] == mode and key in row
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", ms=4, label=mode)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("latency of a chunk, ms")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("success, %")
    axes[0].set_ylim(0, 102)
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=110)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--checkpoint", help="directory of the checkpoint")
    who.add_argument("--expert", action="store_true", help="the scripted expert instead of a network")
    parser.add_argument("--robot", type=Path, default=ROBOT, help="robot YAML")
    parser.add_argument("--episodes", type=int, default=200, help="seeds, each an episode of every kind")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--interval", type=int, default=4, help="steps from one chunk's frame to the next")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0], help="ms that a chunk takes")
    parser.add_argument(
        "--mode", nargs="+", choices=MODES, default=[REPLACE], help="how chunks follow each other"
    )
    parser.add_argument("--drop", type=float, default=0.0, help="share of camera frames that are lost")
    parser.add_argument("--noise", type=float, default=0.0, help="noise of each pixel, of 255")
    parser.add_argument(
        "--noise-seed", type=int, default=0, help="seed of the chunks' noise, losses and pixels"
    )
    parser.add_argument("--size", type=int, default=REACHING_PICTURE, help="edge of the pictures, pixels")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--num-steps", type=int, default=0, help="denoising steps; 0: the checkpoint's")
    parser.add_argument("--threads", type=int, default=1, help="torch's, in each process")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="write success against latency here (needs matplotlib)")
    options = parser.parse_args(argv)
    if options.episodes < 1 or options.jobs < 1 or options.interval < 1:
        parser.error("--episodes, --jobs and --interval are at least 1")
    if not 0.0 <= options.drop < 1.0 or options.noise < 0.0 or min(options.latency) < 0.0:
        parser.error("--drop is in [0, 1), --noise and --latency are not negative")
    if options.expert and RTC in options.mode:
        parser.error("--mode rtc guides a network's denoising: the expert has none")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    settings = [
        Conditions(
            interval=options.interval, latency_s=latency / 1e3, drop=options.drop, noise=options.noise,
            mode=mode, seed=options.noise_seed,
        )
        for mode in options.mode
        for latency in options.latency
    ]  # fmt: skip
    seeds = range(options.seed, options.seed + options.episodes)
    each = [(seed, kind) for kind in options.kinds for seed in seeds]
    print(HEADER, flush=True)
    rows: list[dict[str, Any]] = []
    try:
        found = runs(options, [(conditions, *job) for conditions in settings for job in each])
        for conditions in settings:
            rows.append(figures(conditions, [next(found) for _ in each]))
            print(show(rows[-1]), flush=True)
    except Gr00tRosError as error:
        print(f"closed_loop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"closed_loop: interrupted; {len(rows)} of {len(settings)} rows were measured", file=sys.stderr)
        return 130
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        who = "expert" if options.expert else options.checkpoint
        # The first row's figures stand at the top as well: most runs have one.
        result = {
            "machine": machine,
            "policy": who,
            **rows[0],
            "seeds": [seeds.start, seeds.stop],
            "rows": rows,
        }
        result["episodes"] = options.episodes
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        plot(options.plot, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
