# SPDX-License-Identifier: Apache-2.0
"""``evaluate``: a checkpoint against a recording, open loop; without a checkpoint, what is in the recording.

The policy sees recorded observations, and its chunks are compared with what was done: by joint, by group and
by step of the chunk, beside the error of holding still. Exits with 0 when all went well, 1 for a mistake or
where rows could not be evaluated, 3 where a threshold was missed or the dataset should not be trained on, 130
when it was interrupted, with the figures so far.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from gr00t_ros import findings
from gr00t_ros.cli import evaluating
from gr00t_ros.cli.subjects import INTERRUPTED, MISTAKES, Subject, add_subject, explain, terminable
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.findings import Finding, Level
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file

DESCRIPTION = __doc__
MISTAKE = 1
# Apart from a mistake, so that a script can tell "not good enough" from "not evaluated".
MISSED = 3


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit codes are those of the module's text."""
    options = _parser().parse_args(argv)
    try:
        _check_files(options)
        with terminable():
            if options.checkpoint is None:
                return _describe(options)
            return _evaluate(options)
    except KeyboardInterrupt:
        print("evaluate: interrupted; no more figures than above, and no more files", file=sys.stderr)
        return INTERRUPTED
    except MISTAKES as error:
        print(explain("evaluate", error), file=sys.stderr)
        return MISTAKE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evaluate", description=DESCRIPTION)
    add_subject(parser, required=False)
    add = parser.add_argument
    add("--dataset", type=Path, required=True, metavar="DIR", help="LeRobot dataset")
    add("--episodes", type=_numbers, metavar="3-5,8", help="default: all")
    add(
        "--interval",
        type=_positive,
        metavar="STEPS",
        help="rows from one chunk to the next (default: the horizon, so that each step is predicted once)",
    )
    add("--limit", type=_positive, metavar="N", help="at most N chunks, spread over the recording")
    add("--seed", type=int, default=0, help="of the noise; runs repeat exactly (default: %(default)s)")
    add("--backend", default="auto", help="auto, tensorrt or pytorch (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add("--precision", default="auto", help="as the policy node's parameter (default: %(default)s)")
    add("--engine", type=Path, metavar="DIR", help="TensorRT engines (default: tensorrt in the checkpoint)")
    add("--num-steps", type=int, metavar="N", help="denoising steps (default: the checkpoint's number)")
    add("--plot", type=Path, metavar="PNG", help="predicted and recorded actions of one episode")
    add("--plot-episode", type=int, metavar="N", help="which (default: the first that is evaluated)")
    add("--json", type=Path, metavar="FILE", help="all figures, by joint and by horizon step")
    for name in ("mse", "mae"):
        add(
            f"--max-{name}",
            type=_threshold,
            action="append",
            default=[],
            metavar="[KEY=]X",
            help=f"exit with {MISSED} where the {name.upper()} is larger: of all values, of an action key, "
            "or of a joint as KEY.JOINT; dataset units; repeat for several",
        )
    add(
        "--better-than-hold-still",
        action="store_true",
        help=f"exit with {MISSED} unless the error is smaller than that of keeping the present state, on the "
        "joints that move",
    )
    return parser


# ---- what is in the recording --------------------------------------------------------------------


def _describe(options: argparse.Namespace) -> int:
    from gr00t_ros.training.dataset_report import report

    asked = [name for name in ("plot", "embodiment_tag", "engine") if getattr(options, name) is not None]
    if asked or options.max_mse or options.max_mae or options.better_than_hold_still:
        raise Gr00tRosError("predictions are asked for, but no --checkpoint is given")
    dataset = LeRobotDataset(options.dataset)
    own = dataset.path / "meta/robot.yaml"  # where the converter leaves the description that it went by
    named = own if options.robot is None and own.is_file() else options.robot
    robot = None if named is None else RobotConfig.from_file(robot_file(str(named)))
    found = report(
        dataset, robot=robot, episodes=options.episodes, tell=evaluating.reading(dataset, options.episodes)
    )
    print(f"{dataset.path.name}: LeRobot {dataset.version}, {len(dataset)} episodes, {dataset.fps:g} fps")
    print(findings.table(found, _width()))
    if options.json is not None:
        values = {**evaluating.about(dataset), "findings": evaluating.plain(found)}
        evaluating.write(options.json, values)
    return MISSED if findings.worst(found) is Level.FAIL else 0


# ---- a checkpoint on it --------------------------------------------------------------------------


def _evaluate(options: argparse.Namespace) -> int:
    from gr00t_ros.training.open_loop import Chosen, OpenLoop
    from gr00t_ros.training.open_loop_report import Wanted, summarize, table

    wanted = Wanted(dict(options.max_mse), dict(options.max_mae), options.better_than_hold_still)
    dataset = LeRobotDataset(options.dataset)
    subject = evaluating.tuned_subject(options)
    found = _look(options, dataset, subject)
    loop = OpenLoop(
        dataset,
        subject.processor,
        subject.tag,
        robot=subject.robot,
        chosen=Chosen(options.episodes, options.interval, options.limit),
        seed=options.seed,
        trace=options.plot_episode,
    )
    wanted.check(loop.result.compared)
    policy = evaluating.open_policy(options, subject)
    with evaluating.Bar(loop.planned, "chunk", "evaluating") as bar:
        evaluation = loop.run(policy, bar.at)
    summary = summarize(evaluation)
    if summary is None:  # interrupted at once; without interruption there are figures
        raise KeyboardInterrupt
    print("\n".join(evaluating.heading(policy, subject, dataset)))
    print("\n".join(table(evaluation, summary)))
    if not evaluation.complete:
        left = loop.planned - evaluation.rows - evaluation.refused_rows
        evaluating.tell(f"evaluate: {left} chunks were still to come; the figures are those so far")
        raise KeyboardInterrupt
    missed = wanted.missed(summary)
    if options.json is not None:
        values = evaluating.content(subject, dataset, policy, evaluation, summary)
        values |= {"limit": options.limit, "wanted": asdict(wanted), "missed": missed}
        evaluating.write(options.json, {**values, "findings": evaluating.plain(found)})
    if options.plot is not None:
        from gr00t_ros.training.plotting import plot

        plot(evaluation, summary, options.plot)
        evaluating.tell(f"wrote {options.plot}")
    for text in missed:
        evaluating.tell(f"evaluate: {text}")
    if evaluation.refused_rows:
        evaluating.tell(f"evaluate: {evaluation.refused_rows} chunks could not be evaluated; see above")
        return MISTAKE
    return MISSED if missed else 0


def _look(options: argparse.Namespace, dataset: LeRobotDataset, subject: Subject) -> list[Finding]:
    """What is odd with the dataset, printed; all findings, for the file."""
    from gr00t_ros.training.dataset_report import report, unwell

    found = report(
        dataset,
        modality=subject.processor.modality(subject.tag),
        statistics=evaluating.trained_ranges(subject),
        robot=subject.robot,
        episodes=options.episodes,
        tell=evaluating.reading(dataset, options.episodes),
    )
    if unwell(found):
        print(findings.table(unwell(found), _width()))
    return found


# ---- options -------------------------------------------------------------------------------------


def _check_files(options: argparse.Namespace) -> None:
    """Before minutes of work: what is to be written can be."""
    for path in (options.json, options.plot):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise Gr00tRosError(f"{path} cannot be written: expected a file in a folder that exists")
    if options.plot is not None:
        from gr00t_ros.training.plotting import require_matplotlib

        require_matplotlib()
    elif options.plot_episode is not None:
        raise Gr00tRosError("--plot-episode says what --plot shows, but there is no --plot")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    """``3-5,8`` as (3, 4, 5, 8)."""
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if ends is None:
            raise argparse.ArgumentTypeError(f"{part!r} is not an episode or a range such as 3-5")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} ends before it begins")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def _threshold(text: str) -> tuple[str, float]:
    key, _, value = text.rpartition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = -1.0
    if not limit >= 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0, or KEY=number")
    return key or "all", limit


def _width() -> int | None:
    """Columns of the terminal; None where there is none, and lines may be long."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


if __name__ == "__main__":
    sys.exit(main())
