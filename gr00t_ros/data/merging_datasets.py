# SPDX-License-Identifier: Apache-2.0
"""Joins datasets of equal columns into one: shards of a conversion, or recordings of several days.

Rows and encoded frames are taken as they are; numbers of episodes, rows and tasks are counted anew, and
statistics made of all rows, so that shards give what one conversion would have. Of one dataset it makes a
copy, in another format where that is asked for.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gr00t_ros.data.assembling import DatasetPlan, is_task, write_dataset
from gr00t_ros.data.dataset_form import V21, V30
from gr00t_ros.data.episode_source import Columns, EpisodeSource, VideoPart
from gr00t_ros.data.image_statistics import ImageStatistics
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.recorded_statistics import recorded_statistics
from gr00t_ros.data.relative_actions import HORIZON
from gr00t_ros.data.statistics import PERCENTILES
from gr00t_ros.data.whole_files import read_json
from gr00t_ros.errors import DatasetError

_LOG = logging.getLogger(__name__)
# Entries of a feature that may differ: how its video was encoded (joining refuses what cannot share a file).
_LOOSE = ("info", "video_info")
# Entries of conversion.json that are written for the whole.
_MADE_ANEW = ("episodes", "report", "relative_horizon")
# What a camera's statistics must have to be taken over.
_IMAGE_FIELDS = ("min", "max", "mean", "std", *PERCENTILES, "count")


def merge(
    datasets: Sequence[str | Path],
    output: str | Path,
    *,
    fmt: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Makes ``output`` of all episodes of ``datasets``, in that order. The datasets stay as they are.

    Args:
        fmt: ``v2.1`` or ``v3.0``; None is the first dataset's (v2.1 where that is v2.0).
        progress: called with (episodes done, all episodes).

    Raises:
        DatasetError: one cannot be read, or differs from the first in its columns, rate, robot or
            modality.json, with what differs; a share of a conversion is missing or given twice; ``output``
            exists; the disk is full.
    """
    opened = [LeRobotDataset(path) for path in datasets]
    if not opened:
        raise DatasetError(f"{output}: no datasets to merge")
    first = opened[0]
    features = _features(first)
    for other in opened[1:]:
        _refuse_other(first, features, other)
    records = [_conversion(dataset) for dataset in opened]
    _refuse_other_shares(opened, records)
    plan = DatasetPlan(
        fmt=fmt or (V30 if first.version == V30 else V21),
        robot_type=str(first.info.get("robot_type") or ""),
        fps=first.fps,
        features=features,
        modality=first.modality,
        horizon=int(records[0].get("relative_horizon", HORIZON)),
        conversion=_joined(opened, records),
        left_out=_left_out(records),
        robot_yaml=_robot_yaml(opened),
    )
    sources = [
        source
        for dataset, record in zip(opened, records, strict=True)
        for source in _sources(dataset, features, record)
    ]
    return write_dataset(sources, Path(output), plan, progress)


def _features(dataset: LeRobotDataset) -> dict[str, Any]:
    """Those that have data: info.json may name a camera without files."""
    return {
        name: feature
        for name, feature in dataset.features.items()
        if feature.get("dtype") != "video" or name in dataset.video_keys
    }


def _refuse_other(first: LeRobotDataset, features: Mapping[str, Any], other: LeRobotDataset) -> None:
    found = _features(other)
    differences = [
        f"{name}: {_shown(found.get(name))}, not {_shown(features.get(name))}"
        for name in dict.fromkeys([*features, *found])
        if _shown(found.get(name)) != _shown(features.get(name))
    ]
    if other.fps != first.fps:
        differences.append(f"fps: {other.fps:g}, not {first.fps:g}")
    if other.info.get("robot_type") != first.info.get("robot_type"):
        differences.append(f"robot_type: {other.info.get('robot_type')}, not {first.info.get('robot_type')}")
    if other.modality != first.modality:
        differences.append("meta/modality.json is another")
    if differences:
        raise DatasetError(
            f"{other.path} cannot be joined to {first.path}: {'; '.join(differences)}. Convert the "
            "recordings with one robot YAML, rate and size"
        )


def _shown(feature: Mapping[str, Any] | None) -> str:
    if feature is None:
        return "missing"
    return ", ".join(f"{name} {value}" for name, value in sorted(feature.items()) if name not in _LOOSE)


def _conversion(dataset: LeRobotDataset) -> dict[str, Any]:
    path = dataset.path / "meta/conversion.json"
    return read_json(path, "how the dataset was made") if path.is_file() else {}


def _refuse_other_shares(opened: list[LeRobotDataset], records: list[dict[str, Any]]) -> None:
    """Shares of one conversion are merged all, and none of them twice."""
    shares: dict[str, list[int]] = {}  # by what says that they belong together
    seen: dict[str, LeRobotDataset] = {}  # by what each was made of
    for dataset, record in zip(opened, records, strict=True):
        if not record.get("shard"):
            continue
        number, count = record["shard"]
        bags = json.dumps([number, record.get("bags"), record.get("options")])
        if bags in seen:
            raise DatasetError(f"{dataset.path}: is the same share {number}/{count} as {seen[bags].path}")
        seen[bags] = dataset
        shares.setdefault(json.dumps([count, record.get("options")]), []).append(number)
    for about, numbers in shares.items():
        count = json.loads(about)[0]
        have = Counter(numbers)  # of two conversions with the same options, each number twice
        missing = [n for n in range(1, count + 1) if have[n] < max(have.values())]
        if missing:
            raise DatasetError(
                f"share {', '.join(f'{n}/{count}' for n in missing)} is missing: a merge takes all shares of "
                "a conversion"
            )


def _left_out(records: list[dict[str, Any]]) -> dict[str, int]:
    """{cause: rows} that belong to no episode, of all datasets."""
    left_out: Counter[str] = Counter()
    for record in records:
        left_out.update((record.get("report") or {}).get("drops") or {})
        for episode in record.get("episodes") or []:
            left_out.subtract(episode.get("drops") or {})
    return {cause: count for cause, count in left_out.items() if count > 0}


def _joined(opened: list[LeRobotDataset], records: list[dict[str, Any]]) -> dict[str, Any]:
    """Provenance: the shards' own where they say the same, else that of each."""
    own = [{name: value for name, value in record.items() if name not in _MADE_ANEW} for record in records]
    if all(record == own[0] for record in own):
        return own[0]
    parts = [{"dataset": str(d.path), **record} for d, record in zip(opened, own, strict=True)]
    return {"merged": parts}


def _robot_yaml(opened: list[LeRobotDataset]) -> Path | None:
    found = [path for d in opened if (path := d.path / "meta/robot.yaml").is_file()]
    if len({path.read_bytes() for path in found}) > 1:
        _LOG.warning(
            f"the datasets were recorded with different robot YAMLs of equal columns; kept is {found[0]}"
        )
    return found[0] if found else None


def _sources(
    dataset: LeRobotDataset, features: Mapping[str, Any], record: Mapping[str, Any]
) -> list[EpisodeSource]:
    """The episodes of a dataset, none read yet."""
    numbers = {old: new for new, old in enumerate(dataset.tasks)}
    told = record.get("episodes") or []
    statistics = recorded_statistics(dataset)
    sources = []
    for place, (index, row) in enumerate(dataset.episodes.items()):
        tasks = row.get("tasks")
        texts = [str(task) for task in (tasks if isinstance(tasks, list) else [])]
        spans = {key: dataset.video_span(index, key) for key in dataset.video_keys}
        sources.append(
            EpisodeSource(
                where=f"{dataset.path}, episode {index}",
                length=int(row["length"]),
                columns=_reader(dataset, index, features, numbers),
                texts=tuple(dataset.tasks.values()),
                tasks=tuple(texts),
                videos={
                    key: VideoPart(span.path, span.start, whole=dataset.version != V30)
                    for key, span in spans.items()
                },
                images=_images(dataset, index, statistics),
                record=_record(told[place]) if place < len(told) else {},
            )
        )
    return sources


def _record(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in ("length", "tasks")}


def _reader(
    dataset: LeRobotDataset, index: int, features: Mapping[str, Any], numbers: Mapping[int, int]
) -> Callable[[], Columns]:
    def read() -> Columns:
        columns = dict(dataset.episode(index).columns)
        for name in features:
            if not is_task(name) or name not in columns:
                continue
            values = columns[name].reshape(-1)
            unknown = sorted({int(value) for value in values} - set(numbers))
            if unknown:
                raise DatasetError(
                    f"{dataset.path}, episode {index}: {name} has the task {unknown[0]}, which the list of "
                    "tasks lacks"
                )
            columns[name] = np.array([numbers[int(value)] for value in values], np.int64)
        return columns

    return read


def _images(
    dataset: LeRobotDataset, index: int, statistics: Mapping[int, Mapping[str, Any]]
) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        known = statistics.get(index, {})
        found = {}
        for key in dataset.video_keys:
            entry = known.get(key, {})
            if all(name in entry for name in _IMAGE_FIELDS):
                found[key] = {name: entry[name] for name in _IMAGE_FIELDS}
                continue
            counted = ImageStatistics()
            for frame in dataset.episode(index).frames(key):
                counted.add(frame)
            found[key] = counted.result()
        return found

    return read
