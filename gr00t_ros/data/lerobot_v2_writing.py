# SPDX-License-Identifier: Apache-2.0
"""The files of LeRobot v2.1: one parquet and one video a camera for each episode, indices as JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gr00t_ros.data.dataset_form import CHUNK
from gr00t_ros.data.episode_source import Columns, EpisodeSource
from gr00t_ros.data.lerobot_writing import as_table
from gr00t_ros.data.video_joining import copy_video
from gr00t_ros.data.whole_files import write_json_lines


class V2Writer:
    """Writes below ``root``; see ``assembling.FormatWriter``."""

    def __init__(self, root: Path, features: Mapping[str, Any], fps: float) -> None:
        self._root = root
        self._fps = fps
        self._episodes: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Any]] = []

    def add(self, index: int, source: EpisodeSource, columns: Columns, statistics: Mapping[str, Any]) -> None:
        """Appends an episode."""
        chunk, name = f"chunk-{index // CHUNK:03d}", f"episode_{index:06d}"
        data = self._root / "data" / chunk / f"{name}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(as_table(columns), data)
        for key, part in source.videos.items():
            copy_video(part, self._root / "videos" / chunk / key / f"{name}.mp4", source.length, self._fps)
        self._episodes.append({"episode_index": index, "tasks": list(source.tasks), "length": source.length})
        self._statistics.append({"episode_index": index, "stats": dict(statistics)})

    def finish(self, tasks: Sequence[str]) -> None:
        """Writes the indices."""
        meta = self._root / "meta"
        lines = [{"task_index": number, "task": text} for number, text in enumerate(tasks)]
        write_json_lines(meta / "tasks.jsonl", lines)
        write_json_lines(meta / "episodes.jsonl", self._episodes)
        write_json_lines(meta / "episodes_stats.jsonl", self._statistics)
