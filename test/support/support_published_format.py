# SPDX-License-Identifier: Apache-2.0
"""LeRobot's dataset formats v2.1 and v3.0 and GR00T's additions, as their documentation and readers say.

Written from what is published, not from this package's writer: "LeRobotDataset v3.0" and the v2.1 description
in huggingface/lerobot (docs, and what its dataset classes ask of a folder), and "Robot Data Preparation" in
NVIDIA/Isaac-GR00T with what its episode loader asks. ``complaints`` goes through every file of a dataset and
says all that its readers would trip over. It uses pyarrow and PyAV only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Key, types, whether it must be there: meta/info.json.
INFO_COMMON = {
    "codebase_version": str,
    "robot_type": (str, type(None)),
    "total_episodes": int,
    "total_frames": int,
    "total_tasks": int,
    "chunks_size": int,
    "fps": (int, float),
    "splits": dict,
    "data_path": str,
    "video_path": (str, type(None)),
    "features": dict,
}
INFO = {
    "v2.1": INFO_COMMON | {"total_videos": int, "total_chunks": int},
    "v3.0": INFO_COMMON | {"data_files_size_in_mb": int, "video_files_size_in_mb": int},
}
PATHS = {
    "v2.1": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3.0": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}
# Columns that every dataset has.
DEFAULT_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
VIDEO_INFO = {
    "video.height": int,
    "video.width": int,
    "video.codec": str,
    "video.pix_fmt": str,
    "video.is_depth_map": bool,
    "video.fps": (int, float),
    "video.channels": int,
    "has_audio": bool,
}
STATS = {
    "v2.1": ("min", "max", "mean", "std", "count"),
    "v3.0": ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"),
}
# What GR00T's training asks of meta/stats.json, or it computes the file anew.
GR00T_STATS = ("mean", "std", "min", "max", "q01", "q99")
# LeRobot's tolerance between a row's time and its frame's, s.
TOLERANCE = 1e-4


def complaints(root: Path) -> list[str]:
    """All that does not follow the published formats; empty for a good dataset."""
    return list(_all(root))


def _all(root: Path) -> Iterator[str]:
    info = json.loads((root / "meta/info.json").read_text())
    version = info.get("codebase_version")
    if version not in INFO:
        yield f"codebase_version {version}"
        return
    yield from _info(info, version)
    episodes = _episodes_v2(root) if version == "v2.1" else _episodes_v3(root)
    tasks = _tasks_v2(root) if version == "v2.1" else _tasks_v3(root)
    yield from _index(info, episodes, tasks)
    frames = 0
    for episode in episodes:
        yield from _episode(root, info, version, episode, tasks, frames)
        frames += episode["length"]
    if frames != info["total_frames"]:
        yield f"total_frames {info['total_frames']}, the episodes have {frames}"
    stats = json.loads((root / "meta/stats.json").read_text())
    yield from _gr00t(root, info, stats)
    if version == "v2.1":
        lines = _lines(root / "meta/episodes_stats.jsonl")
        if [line["episode_index"] for line in lines] != [e["episode_index"] for e in episodes]:
            yield "episodes_stats.jsonl has other episodes than episodes.jsonl"
        for line in lines:
            if set(line) != {"episode_index", "stats"}:
                yield f"episodes_stats.jsonl: {sorted(line)}"
            yield from _statistics(info, line["stats"], STATS[version], f"episode {line['episode_index']}")
    else:
        yield from _statistics(info, stats, STATS[version], "stats.json")
        for episode in episodes:
            where = f"episode {episode['episode_index']}"
            yield from _statistics(info, _unflattened(episode), STATS[version], where)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _info(info: dict[str, Any], version: str) -> Iterator[str]:
    for key, kinds in INFO[version].items():
        if key not in info:
            yield f"info.json lacks {key}"
        elif not isinstance(info[key], kinds) or isinstance(info[key], bool):
            yield f"info.json: {key} is {info[key]!r}"
    for key in set(info) - set(INFO[version]):
        yield f"info.json has {key}, which no reader knows"
    data, video = PATHS[version]
    if info["data_path"] != data or info["video_path"] not in (video, None):
        yield f"paths {info['data_path']}, {info['video_path']}"
    if info["splits"] != {"train": f"0:{info['total_episodes']}"}:
        yield f"splits {info['splits']}"
    for name, feature in info["features"].items():
        if "/" in name:
            yield f"feature {name} has a slash"
        if set(feature) - {"info"} != {"dtype", "shape", "names"} or not isinstance(feature["shape"], list):
            yield f"feature {name}: {feature}"
        if feature["dtype"] == "video":
            height, width, channels = feature["shape"]
            if feature["names"] != ["height", "width", "channels"] or channels != 3:
                yield f"feature {name}: {feature}"
            for key, kinds in VIDEO_INFO.items():
                if not isinstance(feature["info"].get(key), kinds):
                    yield f"feature {name}: {key} is {feature['info'].get(key)!r}"
            if (feature["info"]["video.height"], feature["info"]["video.width"]) != (height, width):
                yield f"feature {name}: shape and info differ"
        elif feature["names"] is not None and len(feature["names"]) != feature["shape"][0]:
            yield f"feature {name}: {len(feature['names'])} names for {feature['shape']}"
    for name, dtype in DEFAULT_FEATURES.items():
        if info["features"].get(name) != {"dtype": dtype, "shape": [1], "names": None}:
            yield f"feature {name}: {info['features'].get(name)}"


def _episodes_v2(root: Path) -> list[dict[str, Any]]:
    return _lines(root / "meta/episodes.jsonl")


def _episodes_v3(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


def _tasks_v2(root: Path) -> dict[int, str]:
    lines = _lines(root / "meta/tasks.jsonl")
    assert all(set(line) == {"task_index", "task"} for line in lines)
    return {line["task_index"]: line["task"] for line in lines}


def _tasks_v3(root: Path) -> dict[int, str]:
    """A pandas frame with the one column task_index and the text as its index, row i task i."""
    table = pq.read_table(root / "meta/tasks.parquet")
    described = json.loads(table.schema.metadata[b"pandas"])
    (index,) = described["index_columns"]
    assert set(table.column_names) == {"task_index", index}
    assert {c["field_name"] for c in described["columns"]} == {"task_index", index}
    assert described["column_indexes"]
    assert table["task_index"].to_pylist() == list(range(len(table)))
    return dict(enumerate(table[index].to_pylist()))


def _index(info: dict[str, Any], episodes: list[dict[str, Any]], tasks: dict[int, str]) -> Iterator[str]:
    numbers = [episode["episode_index"] for episode in episodes]
    if numbers != list(range(info["total_episodes"])):
        yield f"episodes {numbers} of {info['total_episodes']}"
    if list(tasks) != list(range(info["total_tasks"])) or len(set(tasks.values())) != len(tasks):
        yield f"tasks {tasks} of {info['total_tasks']}"
    for episode in episodes:
        if not set(episode["tasks"]) <= set(tasks.values()):
            yield f"episode {episode['episode_index']}: tasks {episode['tasks']}"


def _episode(
    root: Path,
    info: dict[str, Any],
    version: str,
    episode: dict[str, Any],
    tasks: dict[int, str],
    first: int,
) -> Iterator[str]:
    number, length = episode["episode_index"], episode["length"]
    where = f"episode {number}"
    places = _places(info, episode, "data")
    table = pq.read_table(root / info["data_path"].format(**places))
    if version == "v3.0":
        table = table.filter(pa.compute.equal(table["episode_index"], number))
        if (episode["dataset_from_index"], episode["dataset_to_index"]) != (first, first + length):
            yield f"{where}: rows {episode['dataset_from_index']} to {episode['dataset_to_index']}"
        if (episode["meta/episodes/chunk_index"], episode["meta/episodes/file_index"]) != (0, 0):
            yield f"{where}: place of its own index"
    if len(table) != length:
        yield f"{where}: {len(table)} rows, expected {length}"
    columns = {name: f for name, f in info["features"].items() if f["dtype"] != "video"}
    if set(table.column_names) != set(columns):
        yield f"{where}: columns {table.column_names}, expected {list(columns)}"
        return
    for name, feature in columns.items():
        kind = table.schema.field(name).type
        wanted = pa.from_numpy_dtype(np.dtype(feature["dtype"]))
        if feature["shape"] != [1]:
            wanted = pa.list_(wanted, feature["shape"][0])
        if kind != wanted:
            yield f"{where}: {name} is {kind}, expected {wanted}"
        if table[name].null_count:
            yield f"{where}: {name} has nulls"
    timestamps = table["timestamp"].to_numpy()
    if not np.allclose(timestamps, np.arange(length) / info["fps"], atol=TOLERANCE):
        yield f"{where}: timestamps are not k / fps"
    for name, values in (
        ("frame_index", np.arange(length)),
        ("index", first + np.arange(length)),
        ("episode_index", np.full(length, number)),
    ):
        if not np.array_equal(table[name], values):
            yield f"{where}: {name} {table[name].to_pylist()}"
    used = {tasks.get(i) for i in table["task_index"].to_pylist()}
    if used != set(episode["tasks"]):
        yield f"{where}: rows have the tasks {used}, the index {episode['tasks']}"
    for key, feature in info["features"].items():
        if feature["dtype"] == "video":
            yield from _video(root, info, episode, key, timestamps)


def _places(info: dict[str, Any], episode: dict[str, Any], prefix: str) -> dict[str, int]:
    number = episode["episode_index"]
    if info["codebase_version"] == "v2.1":
        return {"episode_index": number, "episode_chunk": number // info["chunks_size"]}
    return {name: episode[f"{prefix}/{name}"] for name in ("chunk_index", "file_index")}


def _video(
    root: Path, info: dict[str, Any], episode: dict[str, Any], key: str, timestamps: np.ndarray
) -> Iterator[str]:
    where = f"episode {episode['episode_index']}, {key}"
    path = root / info["video_path"].format(video_key=key, **_places(info, episode, f"videos/{key}"))
    start = episode.get(f"videos/{key}/from_timestamp", 0.0)
    end = episode.get(f"videos/{key}/to_timestamp", len(timestamps) / info["fps"])
    if abs(end - start - len(timestamps) / info["fps"]) > TOLERANCE:
        yield f"{where}: from {start} to {end} s for {len(timestamps)} rows"
    described = info["features"][key]["info"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if len(container.streams) != 1:
            yield f"{where}: more than one stream"
        if stream.codec.canonical_name != described["video.codec"]:
            yield f"{where}: {stream.codec.canonical_name}"
        if [stream.height, stream.width, 3] != info["features"][key]["shape"]:
            yield f"{where}: {stream.width}x{stream.height}"
        if stream.pix_fmt != described["video.pix_fmt"]:
            yield f"{where}: {stream.pix_fmt}"
        if stream.average_rate != Fraction(info["fps"]).limit_denominator(1001):
            yield f"{where}: {stream.average_rate} frames/s"
        times = np.array([float(f.pts * f.time_base) for f in container.decode(stream)])
    for time in start + timestamps:
        if np.abs(times - time).min() > TOLERANCE:
            yield f"{where}: no frame at {time:.4f} s"
            return


def _statistics(
    info: dict[str, Any], stats: dict[str, Any], fields: tuple[str, ...], where: str
) -> Iterator[str]:
    for name, feature in info["features"].items():
        entry = stats.get(name)
        if entry is None:
            yield f"{where}: no statistics of {name}"
            continue
        for field in fields:
            shape = np.shape(entry.get(field))
            wanted = (1,) if field == "count" else tuple(feature["shape"])
            if feature["dtype"] == "video" and field != "count":
                wanted = (3, 1, 1)
                if shape == wanted and not (0 <= np.min(entry[field]) <= np.max(entry[field]) <= 1):
                    yield f"{where}: {name} {field} is not within 0..1"
            if shape != wanted:
                yield f"{where}: {name} {field} has shape {shape}, expected {wanted}"
    for name in set(stats) - set(info["features"]):
        yield f"{where}: statistics of {name}, which is no feature"


def _unflattened(episode: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in episode.items():
        if key.startswith("stats/"):
            name, field = key.removeprefix("stats/").rsplit("/", 1)
            found.setdefault(name, {})[field] = value
    return found


def _gr00t(root: Path, info: dict[str, Any], stats: dict[str, Any]) -> Iterator[str]:
    """What GR00T's loader asks of modality.json, stats.json and relative_stats.json."""
    features = info["features"]
    modality = json.loads((root / "meta/modality.json").read_text())
    if set(modality) != {"state", "action", "video", "annotation"}:
        yield f"modality.json: {sorted(modality)}"
    for kind, column in (("state", "observation.state"), ("action", "action")):
        at = 0
        for key, entry in modality[kind].items():
            if entry.get("original_key", column) not in features or not entry["end"] > entry["start"] == at:
                yield f"modality.json: {kind}.{key} {entry}"
            at = entry["end"]
        if at != features[column]["shape"][0]:
            yield f"modality.json: {kind} covers {at} of {features[column]['shape'][0]} columns"
    for key, entry in modality["video"].items():
        if features.get(entry["original_key"], {}).get("dtype") != "video":
            yield f"modality.json: video.{key} {entry}"
    for key, entry in modality["annotation"].items():
        if features.get(entry.get("original_key", f"annotation.{key}"), {}).get("dtype") != "int64":
            yield f"modality.json: annotation.{key} {entry}"
    for name, feature in features.items():
        if "float" not in feature["dtype"]:
            continue
        for field in GR00T_STATS:
            if np.shape(stats[name].get(field)) != tuple(feature["shape"]):
                yield f"stats.json: {name} {field}"
        if info["codebase_version"] == "v2.1" and set(stats[name]) != set(GR00T_STATS):
            # Its loader slices every field it finds by column.
            yield f"stats.json: {name} has {sorted(stats[name])}"
    relative = json.loads((root / "meta/relative_stats.json").read_text())
    for key, entry in relative.items():
        part = modality["action"][key]
        for field in GR00T_STATS:
            shape = np.shape(entry.get(field))
            if len(shape) != 2 or shape[1] != part["end"] - part["start"]:
                yield f"relative_stats.json: {key} {field} has shape {shape}"
