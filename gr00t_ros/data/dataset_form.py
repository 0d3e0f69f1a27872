# SPDX-License-Identifier: Apache-2.0
"""What a dataset's ``meta/info.json`` and ``meta/modality.json`` say, from the layout of its columns.

LeRobot's readers want the first, GR00T's the second as well; both are described in their documentation
("LeRobotDataset format" and "GR00T-flavoured LeRobot v2").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gr00t_ros.data.lerobot_writing import ACTION, STATE
from gr00t_ros.data.rows import Layout
from gr00t_ros.data.video_writing import number, rate_of
from gr00t_ros.errors import DatasetError

V21 = "v2.1"
V30 = "v3.0"
FORMATS = (V21, V30)
# Episodes (v2.1) or files (v3.0) in one folder: LeRobot's own number.
CHUNK = 1000
# Sizes at which v3.0 begins another file: LeRobot's own defaults.
DATA_MB = 100
VIDEO_MB = 200
# The column with each row's instruction, as GR00T's own datasets call it, and its name in modality.json.
TASK_COLUMN = "annotation.human.task_description"
_TASK_KEY = "human.task_description"
_PREFIX = "observation.images."

_V21_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_V21_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_V30_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_V30_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

_INDEX_COLUMNS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def video_feature(key: str) -> str:
    """A camera's name in the dataset."""
    return _PREFIX + key


def features_of(layout: Layout, videos: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``features`` of info.json. ``videos`` are {camera key: the entries that describe its video}."""
    features: dict[str, Any] = {STATE: _vector(layout.state), ACTION: _vector(layout.action)}
    for key in layout.video:
        info = dict(videos[key])
        features[video_feature(key)] = {
            "dtype": "video",
            "shape": [info["video.height"], info["video.width"], 3],
            "names": ["height", "width", "channels"],
            "info": info,
        }
    columns = _INDEX_COLUMNS | {TASK_COLUMN: "int64"}
    return features | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in columns.items()}


def _vector(groups: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, Any]:
    names = [name for _, group in groups for name in group]
    if len(set(names)) != len(names):
        # Two poses both have an x.
        names = [f"{key}_{name}" for key, group in groups for name in group]
    return {"dtype": "float32", "shape": [len(names)], "names": names}


def modality_of(layout: Layout) -> dict[str, Any]:
    """``meta/modality.json``: which columns, videos and annotations the keys of a checkpoint mean."""
    return {
        "state": _slices(layout.state, STATE),
        "action": _slices(layout.action, ACTION),
        "video": {key: {"original_key": video_feature(key)} for key in layout.video},
        "annotation": {_TASK_KEY: {"original_key": TASK_COLUMN}},
    }


def _slices(groups: tuple[tuple[str, tuple[str, ...]], ...], column: str) -> dict[str, Any]:
    slices, start = {}, 0
    for key, names in groups:
        slices[key] = {"original_key": column, "start": start, "end": start + len(names)}
        start += len(names)
    return slices


def info_of(
    fmt: str, robot_type: str, fps: float, features: Mapping[str, Any], lengths: list[int], tasks: int
) -> dict[str, Any]:
    """``meta/info.json`` of a dataset with episodes of these lengths."""
    if fmt not in FORMATS:
        raise DatasetError(f"dataset format {fmt!r}: expected one of {', '.join(FORMATS)}")
    episodes = len(lengths)
    cameras = sum(feature["dtype"] == "video" for feature in features.values())
    info: dict[str, Any] = {
        "codebase_version": fmt,
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": sum(lengths),
        "total_tasks": tasks,
    }
    if fmt == V21:
        info |= {"total_videos": episodes * cameras, "total_chunks": -(-episodes // CHUNK)}
    info["chunks_size"] = CHUNK
    if fmt == V30:
        info |= {"data_files_size_in_mb": DATA_MB, "video_files_size_in_mb": VIDEO_MB}
    video_path = _V21_VIDEO if fmt == V21 else _V30_VIDEO
    return info | {
        "fps": number(rate_of(fps)),
        "splits": {"train": f"0:{episodes}"},
        "data_path": _V21_DATA if fmt == V21 else _V30_DATA,
        "video_path": video_path if cameras else None,
        "features": dict(features),
    }
