# SPDX-License-Identifier: Apache-2.0
"""An episode on its way into a dataset, whatever it comes from: a staged folder, or another dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data.dataset_form import TASK_COLUMN, video_feature
from gr00t_ros.data.lerobot_writing import ACTION, STATE, StagedEpisode
from gr00t_ros.errors import DatasetError

Columns = dict[str, NDArray[Any]]
# What the writer of a dataset counts itself.
COUNTED = ("frame_index", "episode_index", "index")


@dataclass(frozen=True)
class VideoPart:
    """Some frames of a video file: all, or as many as the episode has rows from ``start`` (s) on."""

    path: Path
    start: float = 0.0
    whole: bool = True


@dataclass(frozen=True)
class EpisodeSource:
    """One episode.

    Attributes:
        where: what to call it in messages.
        length: rows.
        columns: reads its columns, {name: [N] or [N, D]}, those in ``COUNTED`` may be missing. Columns whose
            values stand for a text (``task_index``, ``annotation...``) hold positions in ``texts``.
        texts: what the task columns stand for.
        tasks: the texts that count as the episode's tasks.
        videos: {video feature: where its frames are}.
        images: reads the statistics of the frames, {video feature: LeRobot's fields}.
        record: where it comes from, drops and timing, for ``conversion.json``.
    """

    where: str
    length: int
    columns: Callable[[], Columns]
    texts: tuple[str, ...]
    tasks: tuple[str, ...]
    videos: Mapping[str, VideoPart]
    images: Callable[[], Mapping[str, Any]]
    record: Mapping[str, Any] = field(default_factory=dict)


def staged_source(staged: StagedEpisode) -> EpisodeSource:
    """The episode of a staged folder."""

    def columns() -> Columns:
        table = staged.table()
        if table.num_rows != staged.length:
            raise DatasetError(
                f"{staged.path}: {table.num_rows} rows, expected {staged.length}; remove the folder and "
                "convert again"
            )
        read = {name: _array(table[name]) for name in (STATE, ACTION, "timestamp", "task_index")}
        return read | {TASK_COLUMN: read["task_index"]}

    def images() -> dict[str, Any]:
        statistics = staged.statistics()
        return {video_feature(key): statistics[key] for key in staged.layout.video}

    return EpisodeSource(
        where=str(staged.path),
        length=staged.length,
        columns=columns,
        texts=staged.tasks,
        tasks=staged.tasks,
        videos={video_feature(key): VideoPart(staged.video(key)) for key in staged.layout.video},
        images=images,
        record={
            "source": dict(staged.source),
            "drops": dict(staged.drops),
            "timing": dict(staged.timing),
            "repeated_frames": dict(staged.repeated),
        },
    )


def _array(column: Any) -> NDArray[Any]:
    array = column.combine_chunks()
    if hasattr(array.type, "list_size"):
        return np.asarray(array.flatten().to_numpy(zero_copy_only=False)).reshape(len(array), -1)
    return np.asarray(array.to_numpy(zero_copy_only=False))
