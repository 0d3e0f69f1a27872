# SPDX-License-Identifier: Apache-2.0
"""``bag_to_dataset``: a LeRobot dataset from rosbag2 recordings.

Rows are made by the observation code of the live policy, episode by episode, below OUTPUT.partial; the
dataset gets its name when all of it is there. After an interruption the same command goes on with the bags
that were not finished.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gr00t_ros.cli.converting_progress import ConversionBar
from gr00t_ros.cli.subjects import INTERRUPTED, MISTAKES, explain
from gr00t_ros.data.assembling import assemble
from gr00t_ros.data.bag_episodes import AUTO, RULES
from gr00t_ros.data.bag_recovery import find_files, is_bag
from gr00t_ros.data.conversion_report import read_report
from gr00t_ros.data.converting import LEAVE_OUT, MIN_SECONDS, SPLIT, Converted, ConvertOptions, Job
from gr00t_ros.data.converting_jobs import Failed, run_jobs
from gr00t_ros.data.converting_result import (
    NOTHING_LEFT_OUT,
    chosen_sizes,
    conversion_record,
    lines_about,
    rows_in_no_episode,
)
from gr00t_ros.data.dataset_form import FORMATS, V21
from gr00t_ros.data.rows import Layout
from gr00t_ros.data.video_writing import CODECS, VideoOptions
from gr00t_ros.data.whole_files import alone, partial_path, remove, storing
from gr00t_ros.errors import DatasetError
from gr00t_ros.recording.names import DISCARDED
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file

DESCRIPTION = __doc__


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the dataset was made, 1 for a mistake, 130 when it was interrupted."""
    options = _parser().parse_args(argv)
    output: Path = options.output
    try:
        with _Interruption() as interruption:
            if options.merge:
                return _merge(options, interruption)
            return _convert(options, sys.argv[1:] if argv is None else argv, interruption)
    except KeyboardInterrupt:
        print(f"bag_to_dataset: interrupted; {_kept(output)}", file=sys.stderr)
        return INTERRUPTED
    except MISTAKES as error:
        print(explain("bag_to_dataset", error), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bag_to_dataset", description=DESCRIPTION)
    add = parser.add_argument
    add(
        "bags",
        nargs="*",
        type=Path,
        metavar="BAG",
        help="folder of a recording, a storage file, or a folder of recordings",
    )
    add("--robot", metavar="NAME|YAML", help="a shipped robot description or a robot YAML")
    add("--output", type=Path, required=True, metavar="DIR", help="the dataset")
    add("--fps", type=_positive, metavar="HZ", help="rows a second (default: the robot's step_rate)")
    add("--task", metavar="TEXT", help="takes the place of every recorded instruction")
    add(
        "--episodes",
        choices=RULES,
        default=AUTO,
        help="where episodes begin and end: at the recorder's marks, where the instruction changes, or a bag "
        "an episode; auto takes marks where a bag has them, else instruction (default: %(default)s)",
    )
    add("--format", choices=FORMATS, help="of the dataset (default: v2.1; with --merge the first one's)")
    add("--size", type=int, metavar="N", help="shrink frames to N pixels on their shorter side first")
    add("--codec", choices=CODECS, default=CODECS[0], help="of the videos (default: %(default)s)")
    add("--crf", type=int, metavar="N", help="quality of the videos, lower is better (default: the codec's)")
    add(
        "--gaps",
        choices=(SPLIT, LEAVE_OUT),
        default=SPLIT,
        help="an episode in which rows are missing: split it there, or leave it out (default: %(default)s)",
    )
    add(
        "--min-seconds",
        type=_not_negative,
        default=MIN_SECONDS,
        metavar="S",
        help="shorter episodes, and parts of them, are left out (default: %(default)s)",
    )
    add(
        "--leave-out",
        action="append",
        default=[],
        metavar="LABEL",
        help="leave out episodes with this label, such as failure; can be given several times",
    )
    add("--skip-bad", action="store_true", help="make the dataset without the bags that cannot be converted")
    add("--jobs", type=_count, metavar="N", help="bags at once (default: one a CPU)")
    add("--shard", type=_share, metavar="I/N", help="only the Ith of N shares of the bags, 1 to N")
    add(
        "--merge",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="join datasets, such as the shards of one conversion, in this order; no bags then",
    )
    add("--force", action="store_true", help="replace a dataset that is there, once the new one is whole")
    return parser


# ---- converting ----------------------------------------------------------------------------------


def _convert(options: argparse.Namespace, argv: Sequence[str], interruption: _Interruption) -> int:
    output: Path = options.output
    if not options.bags or not options.robot:
        raise DatasetError("give one BAG or more, and --robot; or --merge with datasets")
    robot_yaml = robot_file(options.robot)
    robot = RobotConfig.from_file(robot_yaml)
    bags = _shared(_bags(options.bags), options.shard)
    _refuse_existing(output, options.force)
    chosen = ConvertOptions(
        fps=options.fps or robot.step_rate,
        task=_task(options.task),
        episodes=options.episodes,
        gaps=options.gaps,
        min_seconds=options.min_seconds,
        leave_out=tuple(options.leave_out),
        video=VideoOptions(codec=options.codec, size=options.size, crf=options.crf),
    )
    work = partial_path(output)
    jobs = [Job(bag, robot_yaml, work / "bags" / _folder_name(bag), chosen) for bag in bags]
    with alone(work):
        _make(options, argv, interruption, robot, jobs)
    return 0


def _make(
    options: argparse.Namespace,
    argv: Sequence[str],
    interruption: _Interruption,
    robot: RobotConfig,
    jobs: list[Job],
) -> None:
    """The dataset of all jobs, which differ in their bags only."""
    output, work = options.output, partial_path(options.output)
    robot_yaml, chosen = jobs[0].robot, jobs[0].options
    processes = options.jobs or len(os.sched_getaffinity(0))
    converted, failed = _run(jobs, min(processes, len(jobs)), interruption)
    for failure in failed:
        print(f"bag_to_dataset: {' '.join(failure.text.split())}", file=sys.stderr)
    if failed and (not options.skip_bad or not converted or any(f.final for f in failed)):
        hint = "" if any(f.final for f in failed) else ", or give --skip-bad to leave them out"
        raise DatasetError(
            f"{len(failed)} of {len(jobs)} bags could not be converted; {_kept(output)}: correct them{hint}"
        )
    made_of = [path for bag in converted for path in bag.episodes]
    episodes, left_out, other_sizes = chosen_sizes(made_of)
    if not episodes:
        raise DatasetError(f"{output}: {NOTHING_LEFT_OUT}")
    record = conversion_record(
        shlex.join(["bag_to_dataset", *argv]), robot, chosen, converted, failed, left_out, options.shard
    )
    made = work / "dataset"
    with storing(made):
        remove(made)
    assemble(
        episodes,
        made,
        Layout.from_robot(robot, chosen.fps),
        options.format or V21,
        robot_yaml=robot_yaml,
        conversion=record,
        left_out=rows_in_no_episode(converted, episodes, other_sizes),
        progress=interruption,
    )
    _put(made, output, options.force)
    print(
        "\n".join([*_report(output), *_rate_lines(robot, chosen), *lines_about(converted, failed, left_out)])
    )


def _run(
    jobs: Sequence[Job], processes: int, interruption: _Interruption
) -> tuple[list[Converted], list[Failed]]:
    """All jobs, with a progress bar; outcomes in the order of the jobs."""
    outcomes: dict[int, Converted | Failed] = {}
    sizes = [sum(path.stat().st_size for path in find_files(job.bag).paths) for job in jobs]
    with ConversionBar(sizes) as bar:
        for number, outcome in run_jobs(jobs, processes, bar, interruption):
            outcomes[number] = outcome
            bar.ended(number, outcome)
    ordered = [outcomes[number] for number in sorted(outcomes)]
    return (
        [outcome for outcome in ordered if isinstance(outcome, Converted)],
        [outcome for outcome in ordered if isinstance(outcome, Failed)],
    )


def _bags(paths: Sequence[Path]) -> list[Path]:
    """The recordings that are meant: a folder that is none stands for those in it, by name."""
    bags: list[Path] = []
    for path in paths:
        if path.is_dir() and not is_bag(path):
            found = (p for p in path.iterdir() if p.is_dir() and p.suffix != DISCARDED and is_bag(p))
            inside = sorted(found, key=_by_number)
            if not inside:
                raise DatasetError(f"{path}: no recording in it; expected rosbag2 folders")
            bags += inside
        else:
            find_files(path)  # raises where there is none
            bags.append(path)
    known: dict[Path, Path] = {}
    for bag in bags:
        known.setdefault(bag.resolve(), bag)
    return list(known.values())


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    """Names in the order in which people count: bag_2 before bag_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _shared(bags: list[Path], shard: tuple[int, int] | None) -> list[Path]:
    """The bags of one share; shares are contiguous, so that merged in order they are the whole."""
    if shard is None:
        return bags
    index, count = shard
    begin, end = ((len(bags) * edge) // count for edge in (index - 1, index))
    if begin == end:
        raise DatasetError(f"share {index} of {count} of {len(bags)} bags is empty; make fewer shares")
    return bags[begin:end]


def _folder_name(bag: Path) -> str:
    """A name of its own for each bag, as long as it lies where it does."""
    place = str(bag.resolve())
    return f"{bag.resolve().name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


# ---- the output ----------------------------------------------------------------------------------


def _merge(options: argparse.Namespace, interruption: _Interruption) -> int:
    from gr00t_ros.data.merging_datasets import merge

    output: Path = options.output
    if options.bags:
        raise DatasetError("--merge joins datasets: give no bags with it")
    _refuse_existing(output, options.force)
    made = partial_path(output) / "dataset"
    with alone(made.parent):
        with storing(made):
            remove(made)
        merge(options.merge, made, fmt=options.format, progress=interruption)
        _put(made, output, options.force)
    print("\n".join(_report(output)))
    return 0


def _report(output: Path) -> Iterator[str]:
    """What the dataset is, in lines."""
    yield f"{output}:"
    yield from read_report(output).lines()
    sheet = output / "meta" / "contact_sheet.png"
    if sheet.is_file():
        yield f"contact sheet: {sheet}"


def _rate_lines(robot: RobotConfig, chosen: ConvertOptions) -> Iterator[str]:
    """A line where the dataset does not fit the robot YAML that goes with it."""
    if chosen.fps != robot.step_rate:
        yield (
            f"note: rows are {chosen.fps:g} a second, the robot's step_rate is {robot.step_rate:g}: finetune "
            "takes them when meta/robot.yaml has the step_rate at which the policy is to run"
        )


def _refuse_existing(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise DatasetError(f"{output} exists; --force replaces it once the new one is whole")
    if output.exists() and not (output / "meta" / "info.json").is_file():
        raise DatasetError(f"{output} exists and is no dataset; --force does not replace it")


def _put(made: Path, output: Path, force: bool) -> None:
    """Gives the dataset its name and removes what it was made from."""
    work = partial_path(output)
    with storing(output):
        if output.exists():
            if not force:
                raise DatasetError(f"{output} was made by someone else in the meantime; it is left alone")
            old = work / "replaced"
            remove(old)
            output.rename(old)
        made.rename(output)
    shutil.rmtree(work, ignore_errors=True)


def _kept(output: Path) -> str:
    """What the next run can go on from, in words."""
    work = partial_path(output)
    done = len(list((work / "bags").glob("*/bag.json"))) if work.is_dir() else 0
    if done:
        return f"{done} converted bags are kept in {work}, and the same command goes on from there"
    return "no bag was finished; the same command begins anew"


class _Interruption:
    """SIGINT and SIGTERM stop the command at the next safe point, where it is called; a second one at once.

    An exception in the middle of anything would leave threads of encoders behind, with locks that nobody
    gives back.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self, *_: Any) -> None:
        """Raises KeyboardInterrupt when the command is to stop."""
        if self._asked:
            raise KeyboardInterrupt

    def __enter__(self) -> _Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, *_: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


# ---- options -------------------------------------------------------------------------------------


def _task(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise DatasetError("--task is empty, expected a text that says what to do")
    return None if text is None else text.strip()


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value == 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not greater than 0")
    return value


_not_negative = _number


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found.group(1)) <= int(found.group(2)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 1/4: the first of four")
    return int(found.group(1)), int(found.group(2))


if __name__ == "__main__":
    sys.exit(main())
