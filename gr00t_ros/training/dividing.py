# SPDX-License-Identifier: Apache-2.0
"""Which episodes of a dataset a run learns from, which it is evaluated on, and which it leaves out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.training.options import TrainingError

_OPTION = "--skip-episodes"
_RANGE = re.compile(r"\s*(\d+)(?:-(\d+))?\s*")


def parse_skipped(texts: Sequence[str], datasets: Sequence[Path]) -> list[tuple[int, ...]]:
    """For each dataset the episodes to leave out: ``3-5,8`` of the only one, or ``DIR:3-5,8``.

    Raises:
        TrainingError: a text is none of these, or its folder is none of the datasets.
    """
    skipped: list[set[int]] = [set() for _ in datasets]
    for text in texts:
        folder, colon, numbers = text.rpartition(":")
        if colon:
            place = Path(folder).expanduser().resolve()
            meant = [number for number, path in enumerate(datasets) if path.resolve() == place]
            if not meant:
                known = ", ".join(map(str, datasets))
                raise TrainingError(f"{_OPTION} {text}: {folder} is none of the datasets, which are {known}")
        elif len(datasets) > 1:
            raise TrainingError(
                f"{_OPTION} {text}: there are {len(datasets)} datasets; say which, as in {datasets[0]}:{text}"
            )
        else:
            meant = [0]
        for number in meant:
            skipped[number] |= _numbers(text, numbers)
    return [tuple(sorted(one)) for one in skipped]


def _numbers(text: str, numbers: str) -> set[int]:
    found: set[int] = set()
    for part in numbers.split(","):
        ends = _RANGE.fullmatch(part)
        if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
            raise TrainingError(f"{_OPTION} {text}: {part!r} is no episode and no range such as 3-5")
        found |= {*range(int(ends[1]), int(ends[2] or ends[1]) + 1)}
    return found


def without(dataset: LeRobotDataset, skipped: Sequence[int]) -> list[int]:
    """The episodes that are not left out.

    Raises:
        TrainingError: the dataset lacks one that is to be left out, or none is left.
    """
    have = list(dataset.episodes)
    missing = [number for number in skipped if number not in have]
    if missing:
        raise TrainingError(
            f"{_OPTION}: {dataset.path} has no episode {missing[0]}; it has {min(have)} to {max(have)}"
        )
    left = [number for number in have if number not in skipped]
    if not left:
        raise TrainingError(f"{_OPTION}: no episode of {dataset.path} is left to learn from")
    return left


def held_out(dataset: LeRobotDataset, episodes: Sequence[int], count: int) -> tuple[int, ...]:
    """Of these episodes ``count`` to evaluate on, spread evenly; the first is never among them unless all but
    one are asked for.

    Raises:
        TrainingError: none would be left to learn from.
    """
    if count and count >= len(episodes):
        raise TrainingError(
            f"--eval-episodes {count}: {dataset.path} has {len(episodes)} episodes; at least one must be "
            "left to learn from"
        )
    places = [(2 * number + 1) * len(episodes) // (2 * count) for number in range(count)]
    return tuple(episodes[place] for place in places)
