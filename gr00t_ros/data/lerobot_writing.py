# SPDX-License-Identifier: Apache-2.0
"""Writes one episode, row by row, into a folder of its own: the unit in which a conversion is interrupted.

A converter opens an :class:`EpisodeWriter` for each episode, ``assembling.py`` makes a dataset of the
folders. A folder holds ``data.parquet``, one video a camera, ``stats.json`` and ``episode.json``; it has its
name only when all of that is on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gr00t_ros.data.rows import Layout, Row
from gr00t_ros.data.timing import Timing
from gr00t_ros.data.video_writing import VideoOptions, VideoWriter
from gr00t_ros.data.whole_files import WholeFolder, read_json, storing, write_json
from gr00t_ros.errors import DatasetError

# Of the folder's own form; a folder of another form is converted again.
_FORM = 1
STATE = "observation.state"
ACTION = "action"


@dataclass(frozen=True)
class StagedEpisode:
    """A whole episode on the disk, not yet part of a dataset.

    Attributes:
        path: its folder.
        layout: the columns.
        length: rows.
        tasks: the instructions in the order in which they first appear.
        videos: {camera key: what info.json says about its video}.
        source: where it comes from, as the converter told.
        drops: {cause: rows that the converter left out}.
        timing: how old what the rows show was, see :class:`~gr00t_ros.data.timing.Timing`.
        repeated: {camera key: rows whose frame equals the one before}.
    """

    path: Path
    layout: Layout
    length: int
    tasks: tuple[str, ...]
    videos: Mapping[str, Mapping[str, Any]]
    source: Mapping[str, Any]
    drops: Mapping[str, int]
    timing: Mapping[str, Any]
    repeated: Mapping[str, int]

    def table(self) -> pa.Table:
        """Its rows. Raises DatasetError when the file cannot be read."""
        try:
            return pq.read_table(self.path / "data.parquet")
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{self.path / 'data.parquet'}: cannot be read ({error})") from error

    def statistics(self) -> dict[str, Any]:
        """{column or camera key: statistics} of the episode."""
        return read_json(self.path / "stats.json", "the statistics of an episode")

    def video(self, key: str) -> Path:
        """The video of a camera."""
        return self.path / f"{key}.mp4"


class EpisodeWriter:
    """Takes the rows of one episode; memory does not grow but for their states and actions.

    ``finish`` makes the folder, ``abort`` (or leaving the ``with`` block without ``finish``) leaves nothing.
    """

    def __init__(self, folder: str | Path, layout: Layout, options: VideoOptions | None = None) -> None:
        self.layout = layout
        self._folder = WholeFolder(Path(folder))
        self._columns: dict[str, list[NDArray[np.float32]]] = {STATE: [], ACTION: []}
        self._tasks: dict[str, int] = {}
        self._row_tasks: list[int] = []
        self._times: list[tuple[int, int]] = []
        self._last: dict[str, NDArray[np.uint8]] = {}
        self._repeated = dict.fromkeys(layout.video, 0)
        self._done = False
        options = options or VideoOptions()
        work = self._folder.partial
        self._videos = {key: VideoWriter(work / f"{key}.mp4", layout.fps, options) for key in layout.video}

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._done:
            self.abort()

    def __len__(self) -> int:
        return len(self._row_tasks)

    def add(self, row: Row) -> None:
        """Appends a row.

        Raises:
            DatasetError: a key is missing or has another width than the layout's, a value is not finite, a
                frame has another size than the first, or the disk is full. The message names the row.
        """
        where = f"{self._folder.path.name}, row {len(self)}"
        for column, groups, values in (
            (STATE, self.layout.state, row.state),
            (ACTION, self.layout.action, row.action),
        ):
            self._columns[column].append(_concatenated(where, column, groups, values))
        for key, video in self._videos.items():
            if key not in row.video:
                raise DatasetError(f"{where}: no frame of camera {key}")
            frame = row.video[key]
            try:
                video.add(frame)
            except DatasetError as error:
                raise DatasetError(f"{where}, camera {key}: {error}") from error
            if key in self._last and _equal(self._last[key], frame):
                self._repeated[key] += 1
            self._last[key] = frame
        self._row_tasks.append(self._tasks.setdefault(row.instruction, len(self._tasks)))
        self._times.append((row.stamp_ns, row.t_obs_ns))

    def finish(
        self, source: Mapping[str, Any] | None = None, drops: Mapping[str, int] | None = None
    ) -> StagedEpisode:
        """Waits for the videos, writes the rest and gives the folder its name.

        Args:
            source: where the episode comes from (bag, times, ...), kept as it is; JSON.
            drops: {cause: rows left out}.

        Raises:
            DatasetError: there are no rows, or something cannot be written; nothing is left then.
        """
        try:
            staged = self._finish(dict(source or {}), dict(drops or {}))
        except BaseException:
            self.abort()
            raise
        self._done = True
        return staged

    def abort(self) -> None:
        """Stops and removes what was written."""
        self._done = True
        for video in self._videos.values():
            video.abort()
        self._folder.discard()

    def _finish(self, source: dict[str, Any], drops: dict[str, int]) -> StagedEpisode:
        if not len(self):
            raise DatasetError(f"{self._folder.path.name}: an episode without rows")
        work = self._folder.partial
        videos = {key: video.finish() for key, video in self._videos.items()}
        states, actions = (np.stack(self._columns[name]) for name in (STATE, ACTION))
        times = np.array(self._times, np.int64)
        rows = np.arange(len(self))
        columns: dict[str, NDArray[Any]] = {
            STATE: states,
            ACTION: actions,
            "timestamp": (rows / self.layout.fps).astype(np.float32),
            "frame_index": rows,
            "task_index": np.array(self._row_tasks, np.int64),
            "stamp_ns": times[:, 0],
            "t_obs_ns": times[:, 1],
        }
        statistics: dict[str, Any] = {key: video.images.result() for key, video in self._videos.items()}
        staged = StagedEpisode(
            path=self._folder.path,
            layout=self.layout,
            length=len(self),
            tasks=tuple(self._tasks),
            videos=videos,
            source=source,
            drops=drops,
            timing=Timing.of(times[:, 0], times[:, 1]).to_json(),
            repeated=self._repeated,
        )
        with storing(self._folder.path):
            pq.write_table(as_table(columns), work / "data.parquet")
            write_json(work / "stats.json", statistics)
            write_json(work / "episode.json", _to_json(staged))
        self._folder.commit()
        return staged


def read_staged(folder: str | Path) -> StagedEpisode:
    """An episode that :meth:`EpisodeWriter.finish` made.

    Raises:
        DatasetError: the folder is not there, or was made by another version.
    """
    path = Path(folder)
    record = read_json(path / "episode.json", "an episode that bag_to_dataset wrote")
    if record.get("form") != _FORM:
        raise DatasetError(
            f"{path}: an episode of form {record.get('form')!r}, this version writes {_FORM}; remove the "
            "folder and convert again"
        )
    try:
        return StagedEpisode(
            path=path,
            layout=layout_from_json(record["layout"]),
            length=int(record["length"]),
            tasks=tuple(record["tasks"]),
            **{key: dict(record[key]) for key in ("videos", "source", "drops", "timing", "repeated")},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path / 'episode.json'}: damaged ({error}); remove the folder") from error


def as_table(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Columns [N] or [N, D] as LeRobot stores them: fixed lists, and plain numbers where D is 1."""
    arrays = {}
    for name, values in columns.items():
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim == 1:
            arrays[name] = pa.array(values)
        else:
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.table(arrays)


def layout_from_json(value: Mapping[str, Any]) -> Layout:
    """The inverse of ``dataclasses.asdict``."""
    return Layout(
        robot_type=str(value["robot_type"]),
        fps=float(value["fps"]),
        video=tuple(value["video"]),
        state=tuple((key, tuple(names)) for key, names in value["state"]),
        action=tuple((key, tuple(names)) for key, names in value["action"]),
    )


def _to_json(staged: StagedEpisode) -> dict[str, Any]:
    record = {name: value for name, value in vars(staged).items() if name not in ("path", "layout")}
    return {"form": _FORM, "layout": asdict(staged.layout), **record}


def _concatenated(
    where: str,
    column: str,
    groups: tuple[tuple[str, tuple[str, ...]], ...],
    values: Mapping[str, NDArray[np.float32]],
) -> NDArray[np.float32]:
    """The groups' values in the layout's order [D]."""
    parts = []
    for key, names in groups:
        if key not in values:
            raise DatasetError(
                f"{where}: {column} lacks the group {key}; it has {', '.join(values) or 'none'}"
            )
        part = np.asarray(values[key], np.float32)
        if part.shape != (len(names),):
            raise DatasetError(
                f"{where}: {column} {key} has shape {list(part.shape)}, expected {len(names)} values "
                f"({', '.join(names)})"
            )
        if not np.isfinite(part).all():
            name = names[int(np.argmin(np.isfinite(part)))]
            raise DatasetError(f"{where}: {column} {key}, {name} is not a finite number")
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _equal(before: NDArray[np.uint8], frame: NDArray[np.uint8]) -> bool:
    """Whether two frames are the same. The row in the middle tells most that are not; pixels spread over both
    pictures would have to be fetched from memory one by one."""
    if before is frame:
        return True
    middle = len(frame) // 2
    return bool(np.array_equal(before[middle], frame[middle]) and np.array_equal(before, frame))


__all__ = ["ACTION", "STATE", "EpisodeWriter", "StagedEpisode", "as_table", "layout_from_json", "read_staged"]
