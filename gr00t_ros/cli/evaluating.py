# SPDX-License-Identifier: Apache-2.0
"""What ``evaluate`` needs around its figures: the checkpoint opened, the progress shown, the file written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from gr00t_ros.cli.subjects import Subject, subject_of
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.whole_files import write_json
from gr00t_ros.findings import Finding
from gr00t_ros.robot import RobotConfig

if TYPE_CHECKING:
    from gr00t_model.policy import Gr00tPolicy
    from gr00t_ros.training.open_loop import Evaluation
    from gr00t_ros.training.open_loop_report import Summary

# Seconds between two states of the progress bar: a log file should not fill up with them.
_ON_TERMINAL, _IN_LOG = 0.5, 15.0


# ---- the checkpoint ----


def tuned_subject(options: argparse.Namespace) -> Subject:
    """What the options mean, as ``subject_of``; where no robot is given, the one that the checkpoint was
    fine-tuned for."""
    if options.robot is None:
        own = _own_robot(options.checkpoint, options.embodiment_tag)
        if own is not None:
            tell(f"robot: {own}")
            options.robot = str(own)
    return subject_of(options)


def _own_robot(checkpoint: str, tag: str | None) -> Path | None:
    """As fine-tuning leaves it: the only robot's, or one of several by its tag; None where there is none."""
    from gr00t_model.checkpoint import resolve

    directory = resolve(checkpoint)
    only, of_tag = directory / "robot.yaml", directory / f"robot_{tag}.yaml"
    if tag is not None and of_tag.is_file():
        return of_tag
    fits = only.is_file() and (tag is None or RobotConfig.from_file(only).embodiment_tag == tag)
    return only if fits else None


def trained_ranges(subject: Subject) -> dict[str, Any]:
    """What the checkpoint scales by; the processor has read and checked this very file."""
    from gr00t_model.processing.processor import STATISTICS_FILE

    text = (subject.directory / STATISTICS_FILE).read_text(encoding="utf-8")
    return dict(json.loads(text)[subject.tag])


def open_policy(options: argparse.Namespace, subject: Subject) -> Gr00tPolicy:
    """The policy that would run on the robot with these options."""
    from gr00t_model.policy import Gr00tPolicy

    tell(f"loading {subject.directory}")
    accuracy = subject.accuracy
    return Gr00tPolicy(
        subject.directory,
        subject.tag,
        options.backend,
        options.device,
        options.precision,
        options.num_steps,
        processor=subject.processor,
        engine=options.engine,
        engine_limits=accuracy["limits"],
        joint_names=accuracy["names"],
        tell=tell,
    )


def heading(policy: Gr00tPolicy, subject: Subject, dataset: LeRobotDataset) -> Iterator[str]:
    """Lines about what is evaluated and how it runs."""
    choice = policy.choice
    yield (
        f"{subject.directory.name} ({subject.tag}) on {dataset.path.name}: {choice.backend} on "
        f"{choice.device} in {choice.precision}, {policy.num_steps} denoising steps"
    )
    if policy.untrained:
        yield f"the checkpoint was never trained for {subject.tag}: its actions mean nothing"
    yield from (f"note: {note}" for note in policy.notes)


# ---- the file ----


def content(
    subject: Subject,
    dataset: LeRobotDataset,
    policy: Gr00tPolicy,
    evaluation: Evaluation,
    summary: Summary,
) -> dict[str, Any]:
    """What the JSON file says of an evaluation: figures, checkpoint, dataset, versions."""
    from gr00t_ros.training.open_loop_report import to_mapping

    choice = policy.choice
    return {
        **to_mapping(evaluation, summary),
        "checkpoint": {
            "name": subject.directory.resolve().name,
            "embodiment_tag": subject.tag,
            "backend": choice.backend,
            "device": str(choice.device),
            "precision": choice.precision,
            "num_steps": policy.num_steps,
            "untrained": bool(policy.untrained),
        },
        "robot": None if subject.robot is None else subject.robot.name,
        **about(dataset),
    }


def about(dataset: LeRobotDataset) -> dict[str, Any]:
    """What the JSON file says of a dataset, and the versions of what has read it."""
    from gr00t_ros.training.provenance import versions

    return {
        "dataset": {
            "name": dataset.path.resolve().name,
            "version": dataset.version,
            "episodes": len(dataset),
            "fps": dataset.fps,
        },
        "versions": versions(),
    }


def plain(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as plain data."""
    return [{**asdict(finding), "level": finding.level.name} for finding in found]


def write(path: Path, values: Mapping[str, Any]) -> None:
    """All or nothing. Raises OSError."""
    write_json(path, values)
    tell(f"wrote {path}")


def tell(text: str) -> None:
    """A line about what is being done; results alone go to standard output."""
    print(text, file=sys.stderr, flush=True)


# ---- progress ----


class Bar:
    """A progress bar with the time left, on stderr."""

    def __init__(self, total: int, unit: str, text: str) -> None:
        interval = _ON_TERMINAL if sys.stderr.isatty() else _IN_LOG
        self._bar = tqdm(total=total, unit=unit, desc=text, mininterval=interval, miniters=0)

    def at(self, done: int) -> None:
        """So many are done."""
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def reading(dataset: LeRobotDataset, episodes: Sequence[int] | None) -> Callable[[int], None]:
    """A bar for a report's ``tell``, which takes the number of episodes that are done."""
    total = len(dataset if episodes is None else episodes)
    bar = Bar(total, "episode", "reading")

    def at(done: int) -> None:
        bar.at(done)
        if done == total:
            bar.__exit__()

    return at
