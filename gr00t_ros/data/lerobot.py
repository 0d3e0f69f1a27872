# SPDX-License-Identifier: Apache-2.0
"""Reads LeRobot datasets, format v2.0, v2.1 and v3.0, with GR00T's ``meta/modality.json`` where there is one.

The one reader of the package: ``replay`` publishes what it returns, training and evaluation learn from it. It
only reads; nothing below the dataset's folder is ever written. What is wrong with a dataset is a
``DatasetError`` that names the file; what is odd but can be lived with is in ``LeRobotDataset.warnings``, and
logged once.

The formats differ in where things lie: v2 has one parquet and one video file per episode and JSON-lines
indices, v3 packs many episodes into each file and indexes them in parquet.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gr00t_ros.data.video import frames_at
from gr00t_ros.errors import DatasetError

_LOG = logging.getLogger(__name__)
_VERSIONS = ("v2.0", "v2.1", "v3.0")
_VERSION = re.compile(r"v(2\.[01]|3\.0)")
# Columns that hold a row's task as a number, the first that exists: GR00T's annotation, then LeRobot's own.
_TASK_COLUMNS = (
    "annotation.human.action.task_description",
    "annotation.human.task_description",
    "task_index",
)


@dataclass(frozen=True)
class ColumnGroup:
    """A named slice of a dataset column: one key of ``modality.json``. ``start`` and ``end`` are column
    numbers.
    """

    column: str
    start: int
    end: int

    @property
    def width(self) -> int:
        """Number of values."""
        return self.end - self.start


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode's frames lie: the file, and the time in it (s) of the episode's first frame."""

    path: Path
    start: float


@dataclass(frozen=True)
class Episode:
    """One episode: N rows. ``columns`` hold numbers, [N] or [N, D], in the dataset's own units.

    ``timestamps`` [N] are seconds as recorded (ascending; the first need not be zero); ``instructions`` [N]
    the task text of each row, empty where the dataset has none.
    """

    index: int
    columns: Mapping[str, NDArray[Any]]
    timestamps: NDArray[np.float64]
    instructions: tuple[str, ...]
    videos: Mapping[str, VideoSpan]
    fps: float = field(repr=False)

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def state(self) -> NDArray[np.float64]:
        """``observation.state`` [N, D]."""
        return self.column("observation.state")

    @property
    def action(self) -> NDArray[np.float64]:
        """``action`` [N, D]."""
        return self.column("action")

    def column(self, name: str) -> NDArray[np.float64]:
        """A numeric column as float64 [N, D]. Raises DatasetError with the names that exist."""
        if name not in self.columns:
            have = ", ".join(self.columns)
            raise DatasetError(f"episode {self.index}: no column {name!r}; the dataset has {have}")
        values = np.asarray(self.columns[name], np.float64)
        return values.reshape(len(self), -1)

    def group(self, group: ColumnGroup) -> NDArray[np.float64]:
        """The values of one modality group [N, D]."""
        values = self.column(group.column)
        if group.end > values.shape[1]:
            raise DatasetError(
                f"episode {self.index}: {group.column} has {values.shape[1]} values, modality.json asks for "
                f"{group.start} to {group.end}"
            )
        return values[:, group.start : group.end]

    def frames(
        self, key: str, start: int = 0, stop: int | None = None, *, threads: int = 0
    ) -> Iterator[NDArray[np.uint8]]:
        """Decoded frames uint8 [H, W, 3] RGB of the rows start..stop, one a row; ``threads`` as for
        ``video.frames_at``."""
        if key not in self.videos:
            raise DatasetError(
                f"episode {self.index}: no video {key!r}; it has {', '.join(self.videos) or 'none'}"
            )
        span = self.videos[key]
        if not span.path.is_file():
            raise DatasetError(f"{span.path}: missing; it should hold the frames of episode {self.index}")
        # The first row belongs to the first frame, whatever clock the timestamps were counted on.
        times = span.start + (self.timestamps - self.timestamps[0])[start:stop]
        if len(times) == 0:
            return iter(())
        return frames_at(span.path, times, 0.5 / self.fps, threads)


class LeRobotDataset:
    """One dataset folder. Small indices are read at once, episodes when they are asked for."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info: dict[str, Any] = self._json("meta/info.json")
        version = str(self.info.get("codebase_version", "missing"))
        if not _VERSION.match(version):
            raise DatasetError(
                f"{self.path / 'meta/info.json'}: codebase_version is {version}; "
                f"{', '.join(_VERSIONS)} can be read"
            )
        self.version = version
        self.fps = float(self.info.get("fps") or 0.0)
        if not self.fps > 0:
            raise DatasetError(
                f"{self.path / 'meta/info.json'}: fps is {self.info.get('fps')!r}, expected a rate in Hz"
            )
        self.features: dict[str, Any] = self.info.get("features", {})
        self.warnings: list[str] = []
        self.video_keys = self._find_videos()
        if not self.episodes:
            raise DatasetError(f"{self.path}: the dataset holds no episodes")

    @property
    def _packed(self) -> bool:
        return self.version.startswith("v3")

    def __len__(self) -> int:
        return len(self.episodes)

    # Indices.

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            where = f"{self.path} does not exist" if not self.path.exists() else f"{path} is missing"
            raise DatasetError(f"{where}; expected the folder of a LeRobot dataset") from None
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise DatasetError(f"{path}: expected a JSON object")
        return value

    def _json_lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        rows, number = [], 0
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                number += 1
                if line.strip():
                    rows.append(json.loads(line))
        except FileNotFoundError:
            raise DatasetError(f"{path} is missing; a {self.version} dataset has it") from None
        except ValueError as error:
            raise DatasetError(f"{path}: line {number} is not valid JSON ({error})") from error
        return rows

    def _table(self, path: Path, **options: Any) -> pa.Table:
        try:
            return pq.read_table(path, **options)
        except FileNotFoundError:
            raise DatasetError(f"{path}: missing; info.json says that it should be there") from None
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(
                f"{path}: not a readable parquet file ({error}); copy the dataset again"
            ) from error

    @cached_property
    def episodes(self) -> dict[int, dict[str, Any]]:
        """What the index says of each episode, by its number, in order."""
        if self._packed:
            files = sorted((self.path / "meta/episodes").glob("*/*.parquet"))
            if not files:
                raise DatasetError(f"{self.path / 'meta/episodes'}: no parquet file; a v3.0 dataset has one")
            rows: list[dict[str, Any]] = []
            for file in files:
                # The statistics columns are wide and of no use here.
                names = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
                rows += self._table(file, columns=names).to_pylist()
        else:
            rows = self._json_lines("meta/episodes.jsonl")
        return {
            int(row["episode_index"]): row for row in sorted(rows, key=lambda row: int(row["episode_index"]))
        }

    @cached_property
    def tasks(self) -> dict[int, str]:
        """Task texts by number."""
        if not self._packed:
            return {int(row["task_index"]): str(row["task"]) for row in self._json_lines("meta/tasks.jsonl")}
        path = self.path / "meta/tasks.parquet"
        rows = self._table(path).to_pylist()
        # pandas writes the text as the table's index, which becomes a column of this name.
        texts = "task" if rows and "task" in rows[0] else "__index_level_0__"
        return {int(row["task_index"]): str(row.get(texts, "")) for row in rows}

    @cached_property
    def modality(self) -> dict[str, Any] | None:
        """``meta/modality.json``, or None."""
        return self._json("meta/modality.json") if (self.path / "meta/modality.json").is_file() else None

    def groups(self, kind: str) -> dict[str, ColumnGroup]:
        """The groups of ``state`` or ``action``: from modality.json, else the whole column under the name
        ``all``.
        """
        column = "observation.state" if kind == "state" else "action"
        if self.modality is None:
            if column not in self.features:
                return {}
            return {"all": ColumnGroup(column, 0, int(self.features[column]["shape"][0]))}
        groups = {}
        for key, entry in self.modality.get(kind, {}).items():
            try:
                groups[key] = ColumnGroup(
                    entry.get("original_key", column), int(entry["start"]), int(entry["end"])
                )
            except (KeyError, TypeError, ValueError) as error:
                path = self.path / "meta/modality.json"
                raise DatasetError(f"{path}: {kind}.{key} is {entry!r}, expected start and end") from error
        return groups

    def names(self, column: str) -> tuple[str, ...]:
        """What info.json calls the values of a column; empty where it does not say."""
        names = self.features.get(column, {}).get("names") or ()
        if isinstance(names, Mapping):
            names = next(iter(names.values()), ())
        return tuple(map(str, names))

    # Videos.

    def video(self, key: str) -> str:
        """The feature behind a camera name: modality.json's, ``observation.images.<key>``, or the feature
        itself.

        Raises DatasetError with the cameras that exist.
        """
        entry = ((self.modality or {}).get("video") or {}).get(key) or {}
        for candidate in (entry.get("original_key"), f"observation.images.{key}", f"observation.{key}", key):
            if candidate in self.video_keys:
                return str(candidate)
        known = ", ".join(self.video_keys) or "none"
        raise DatasetError(f"{self.path}: no video for camera {key!r}; those with files are {known}")

    def _find_videos(self) -> tuple[str, ...]:
        keys = []
        for key, feature in self.features.items():
            if feature.get("dtype") != "video":
                continue
            folder = (self.path / "videos").glob(f"*/{key}/*.mp4" if not self._packed else f"{key}/*/*.mp4")
            if next(iter(folder), None) is not None:
                keys.append(key)
                continue
            self.warnings.append(
                f"{self.path}: info.json names the camera {key}, but it has no files; left out"
            )
            _LOG.warning(self.warnings[-1])
        return tuple(keys)

    def _span(self, key: str, row: Mapping[str, Any]) -> VideoSpan:
        start = float(row.get(f"videos/{key}/from_timestamp") or 0.0)
        return VideoSpan(self._file("video_path", row, f"videos/{key}", video_key=key), start)

    def _file(self, template: str, row: Mapping[str, Any], prefix: str, **extra: str) -> Path:
        """The file that a template of info.json names for an episode."""
        index = int(row["episode_index"])
        places = {
            "episode_index": index,
            "episode_chunk": index // int(self.info.get("chunks_size") or 1000),
            "chunk_index": int(row.get(f"{prefix}/chunk_index") or 0),
            "file_index": int(row.get(f"{prefix}/file_index") or 0),
        }
        try:
            return self.path / str(self.info[template]).format(**places, **extra)
        except (KeyError, IndexError, ValueError) as error:
            found = self.info.get(template)
            raise DatasetError(
                f"{self.path / 'meta/info.json'}: {template} is {found!r}, expected a path with the fields "
                f"of a {self.version} dataset"
            ) from error

    # Episodes.

    def data_file(self, index: int) -> Path:
        """The parquet file that holds an episode's rows."""
        return self._file("data_path", self.episodes[index], "data")

    def length(self, index: int) -> int:
        """Rows of an episode, by the index where it says; :meth:`episode` checks it."""
        length = self.episodes[index].get("length")
        return len(self.episode(index)) if length is None else int(length)

    def video_span(self, index: int, key: str) -> VideoSpan:
        """Where an episode's frames of a video feature lie, without reading its rows."""
        return self._span(key, self.episodes[index])

    def episode(self, index: int) -> Episode:
        """Reads one episode's rows; its frames are decoded later. Raises DatasetError for a number that is
        not there.
        """
        if index not in self.episodes:
            known = f"{min(self.episodes)} to {max(self.episodes)}"
            raise DatasetError(f"{self.path}: no episode {index}; the dataset has {known}")
        row = self.episodes[index]
        path = self.data_file(index)
        filters = [("episode_index", "=", index)] if self._packed else None
        table = self._table(path, filters=filters)
        columns = {
            name: values
            for name in table.column_names
            if (values := _numbers(path, name, table[name])) is not None
        }
        rows = table.num_rows
        if rows == 0:
            raise DatasetError(f"{path}: episode {index} has no rows")
        if rows != int(row.get("length", rows)):
            raise DatasetError(f"{path}: episode {index} has {rows} rows, the index says {row['length']}")
        timestamps = columns.get("timestamp")
        if timestamps is None:
            timestamps = np.arange(rows) / self.fps
        timestamps = np.asarray(timestamps, np.float64).reshape(-1)
        if not np.isfinite(timestamps).all() or (np.diff(timestamps) <= 0).any():
            raise DatasetError(f"{path}: the timestamps of episode {index} do not ascend")
        return Episode(
            index=index,
            columns=columns,
            timestamps=timestamps,
            instructions=self._instructions(row, columns, rows),
            videos={key: self._span(key, row) for key in self.video_keys},
            fps=self.fps,
        )

    def _instructions(
        self, row: Mapping[str, Any], columns: Mapping[str, NDArray[Any]], rows: int
    ) -> tuple[str, ...]:
        for name in _TASK_COLUMNS:
            if name in columns:
                return tuple(self.tasks.get(int(i), "") for i in columns[name].reshape(-1))
        texts = row.get("tasks") or [""]
        return (str(texts[0]),) * rows


def _numbers(path: Path, name: str, column: pa.ChunkedArray) -> NDArray[Any] | None:
    """A column as an array [N] or [N, D]; None when it holds no numbers."""
    array = column.combine_chunks()
    kind = array.type
    try:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            inner = kind.value_type
            if not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
                return None
            values = array.flatten().to_numpy(zero_copy_only=False)
            return values.reshape(len(array), -1) if len(array) else values.reshape(0, 0)
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return np.asarray(array.to_numpy(zero_copy_only=False))
    except ValueError as error:
        raise DatasetError(f"{path}: column {name} has rows of different lengths ({error})") from error
    return None
