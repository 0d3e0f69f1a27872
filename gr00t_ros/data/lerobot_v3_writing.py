# SPDX-License-Identifier: Apache-2.0
"""The files of LeRobot v3.0: many episodes in each parquet and video file, indices as parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gr00t_ros.data.dataset_form import CHUNK, DATA_MB, VIDEO_MB
from gr00t_ros.data.episode_source import Columns, EpisodeSource, VideoPart
from gr00t_ros.data.lerobot_writing import as_table
from gr00t_ros.data.video_joining import JoinedVideo

_MB = 1 << 20


class V3Writer:
    """Writes below ``root``; see ``assembling.FormatWriter``. A file is closed before it grows beyond its
    limit; an episode is never split."""

    def __init__(
        self,
        root: Path,
        features: Mapping[str, Any],
        fps: float,
        data_bytes: int = DATA_MB * _MB,
        video_bytes: int = VIDEO_MB * _MB,
    ) -> None:
        self._root = root
        self._rows: list[dict[str, Any]] = []
        self._data = _DataFiles(root / "data", data_bytes)
        keys = [name for name, feature in features.items() if feature["dtype"] == "video"]
        self._videos = {key: _VideoFiles(root / "videos" / key, fps, video_bytes) for key in keys}

    def add(self, index: int, source: EpisodeSource, columns: Columns, statistics: Mapping[str, Any]) -> None:
        """Appends an episode."""
        table = as_table(columns)
        first = int(columns["index"][0])
        row: dict[str, Any] = {"episode_index": index, "tasks": list(source.tasks), "length": source.length}
        row |= _place("data", self._data.add(table))
        row |= {"dataset_from_index": first, "dataset_to_index": first + source.length}
        for key, files in self._videos.items():
            number, start, end = files.add(source, key)
            row |= _place(f"videos/{key}", number)
            row |= {f"videos/{key}/from_timestamp": start, f"videos/{key}/to_timestamp": end}
        for name, fields in statistics.items():
            row |= {f"stats/{name}/{field}": value for field, value in fields.items()}
        self._rows.append(row | _place("meta/episodes", 0))

    def finish(self, tasks: Sequence[str]) -> None:
        """Writes the indices."""
        self._data.close()
        for files in self._videos.values():
            files.close()
        episodes = self._root / "meta/episodes/chunk-000/file-000.parquet"
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._rows), episodes)
        pq.write_table(_tasks(tasks), self._root / "meta/tasks.parquet")


def _place(prefix: str, number: int) -> dict[str, int]:
    return {f"{prefix}/chunk_index": number // CHUNK, f"{prefix}/file_index": number % CHUNK}


def _file(folder: Path, number: int, suffix: str) -> Path:
    path = folder / f"chunk-{number // CHUNK:03d}" / f"file-{number % CHUNK:03d}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _tasks(tasks: Sequence[str]) -> pa.Table:
    """The list of tasks as pandas stores a frame whose index is the text, which is how LeRobot reads it."""
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())}
    )

    def column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_kind,
            "metadata": None,
        }

    described = {
        "index_columns": ["task"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


class _DataFiles:
    """Parquet files of rows, one row group for each episode."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._number, self._size = -1, 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> int:
        """Appends an episode; returns the number of the file it is in."""
        if self._writer is None or self._size + table.nbytes > self._limit:
            self.close()
            self._number += 1
            self._size = 0
            self._writer = pq.ParquetWriter(_file(self._folder, self._number, ".parquet"), table.schema)
        self._writer.write_table(table)
        self._size += table.nbytes
        return self._number

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class _VideoFiles:
    """Video files of one camera."""

    def __init__(self, folder: Path, fps: float, limit: int) -> None:
        self._folder, self._fps, self._limit = folder, fps, limit
        self._number = -1
        self._video: JoinedVideo | None = None

    def add(self, source: EpisodeSource, key: str) -> tuple[int, float, float]:
        """Appends an episode; returns the number of the file, and its beginning and end in it, s."""
        part, video = source.videos[key], self._video
        if video is None or video.size + self._expected(part, source.length, video) > self._limit:
            self.close()
            self._number += 1
            self._video = video = JoinedVideo(_file(self._folder, self._number, ".mp4"), self._fps)
        start = video.duration
        video.append(part, source.length)
        return self._number, start, video.duration

    @staticmethod
    def _expected(part: VideoPart, frames: int, video: JoinedVideo) -> float:
        """Bytes that an episode adds: its file's, or as much a frame as those before."""
        if part.whole and part.path.is_file():
            return part.path.stat().st_size
        return video.size / max(video.frames, 1) * frames

    def close(self) -> None:
        if self._video is not None:
            self._video.close()
        self._video = None
