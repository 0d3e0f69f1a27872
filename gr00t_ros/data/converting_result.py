# SPDX-License-Identifier: Apache-2.0
"""What became of a conversion: which episodes go into the dataset, and what a person should know about it."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gr00t_ros.data.converting import Converted, ConvertOptions
from gr00t_ros.data.converting_jobs import Failed
from gr00t_ros.data.lerobot_writing import read_staged
from gr00t_ros.robot import RobotConfig

NOTHING_LEFT_OUT = "no episode is left for a dataset"
ANOTHER_SIZE = "another picture size"
Sizes = tuple[tuple[str, int, int], ...]


def chosen_sizes(episodes: Sequence[Path]) -> tuple[list[Path], list[str], int]:
    """The episodes whose pictures have the size of most rows, a sentence for each of the others, and how many
    rows those have: a dataset has one size a camera."""
    rows: Counter[Sizes] = Counter()
    members: dict[Sizes, list[Path]] = defaultdict(list)
    named: dict[Path, str] = {}
    for path in episodes:
        staged = read_staged(path)
        sizes = tuple(
            (key, int(info["video.width"]), int(info["video.height"])) for key, info in staged.videos.items()
        )
        rows[sizes] += staged.length
        members[sizes].append(path)
        source = staged.source
        part = f" (part {source['part'] + 1})" if source.get("part") else ""
        named[path] = f"{source.get('episode', path.name)}{part}, {staged.length} rows"
    if not rows:
        return [], [], 0
    wanted = rows.most_common(1)[0][0]
    left_out = [
        f"{named[path]} is left out: {_shown(sizes)}, the others have {_shown(wanted)}; make it a dataset of "
        "its own, or give a --size that makes them alike"
        for sizes, paths in members.items()
        if sizes != wanted
        for path in paths
    ]
    kept = set(members[wanted])
    return [path for path in episodes if path in kept], left_out, rows.total() - rows[wanted]


def rows_in_no_episode(
    converted: Sequence[Converted], episodes: Sequence[Path], other_sizes: int
) -> dict[str, int]:
    """Of the rows that were left out those that none of ``episodes``, which make the dataset, tells of."""
    left_out: Counter[str] = Counter()
    for bag in converted:
        left_out.update(bag.drops)
    for path in episodes:
        left_out.subtract(read_staged(path).drops)
    left_out[ANOTHER_SIZE] += other_sizes
    return {cause: count for cause, count in left_out.items() if count > 0}


def conversion_record(
    command: str,
    robot: RobotConfig,
    options: ConvertOptions,
    converted: Sequence[Converted],
    failed: Sequence[Failed],
    left_out: Sequence[str],
    shard: tuple[int, int] | None,
) -> dict[str, Any]:
    """For ``meta/conversion.json``: how the dataset came about."""
    return {
        "command": command,
        "robot": robot.name,
        "action_source": robot.recording.action_source,
        "python": platform.python_version(),
        "shard": None if shard is None else list(shard),
        "options": _plain(asdict(options)),
        "bags": [
            {
                "name": bag.name,
                "rows": bag.rows,
                "seconds": bag.seconds,
                "episodes": len(bag.episodes),
                "drops": dict(bag.drops),
                "refused": dict(bag.refused),
                "texts": dict(bag.texts),
                "notes": list(bag.notes),
            }
            for bag in converted
        ],
        "failed": [failure.text for failure in failed],
        "left_out": list(left_out),
    }


def lines_about(
    converted: Sequence[Converted], failed: Sequence[Failed], left_out: Sequence[str]
) -> Iterator[str]:
    """For the terminal, beside the dataset's own report: what is odd, bag by bag, and what the causes in that
    report mean, in the words of the first time that it happened."""
    before = sum(bag.skipped for bag in converted)
    if before:
        yield f"{before} of {len(converted)} bags had been converted by an earlier run"
    drops: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for bag in converted:
        drops.update(bag.drops)
        refused.update(bag.refused)
        for name, text in bag.texts.items():
            texts.setdefault(name, text)
        yield from (f"note: {bag.name}: {note}" for note in bag.notes)
    yield from (f"note: {text}" for text in left_out)
    yield from (f"note: left out: {failure.text}" for failure in failed)
    for name, _ in drops.most_common():
        yield f"rows left out for {name}, the first: {texts.get(name, '')}"
    for topic, count in refused.most_common():
        yield f"{count} messages on {topic} refused, the first: {texts.get(f'refused {topic}', '')}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _shown(sizes: Sizes) -> str:
    return ", ".join(f"{key} {width}x{height}" for key, width, height in sizes)
