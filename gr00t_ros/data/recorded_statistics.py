# SPDX-License-Identifier: Apache-2.0
"""What a dataset's index says of each episode's statistics, in either format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.errors import DatasetError

_PREFIX = "stats/"


def recorded_statistics(dataset: LeRobotDataset) -> dict[int, Mapping[str, Any]]:
    """{episode: {feature: {field: values}}}; empty for a dataset that has none (v2.0).

    Raises DatasetError when they cannot be read.
    """
    if dataset.version.startswith("v3"):
        return _packed(dataset)
    path = dataset.path / "meta/episodes_stats.jsonl"
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {int(row["episode_index"]): row["stats"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: cannot be read ({error}), expected one episode's statistics a line"
        ) from error


def _packed(dataset: LeRobotDataset) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for path in sorted((dataset.path / "meta/episodes").glob("*/*.parquet")):
        try:
            names = [n for n in pq.read_schema(path).names if n == "episode_index" or n.startswith(_PREFIX)]
            rows = pq.read_table(path, columns=names).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path}: cannot be read ({error})") from error
        for row in rows:
            features: dict[str, dict[str, Any]] = {}
            for name, value in row.items():
                if name.startswith(_PREFIX):
                    feature, field = name.removeprefix(_PREFIX).rsplit("/", 1)
                    features.setdefault(feature, {})[field] = value
            found[int(row["episode_index"])] = features
    return found
