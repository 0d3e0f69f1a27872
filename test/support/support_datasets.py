# SPDX-License-Identifier: Apache-2.0
"""Small LeRobot datasets and rosbag2 folders, made by the test that reads them.

Every frame tells its number: its brightness is ``grey(row)``, with a colour per camera, so a test can see
that row k got frame k after lossy encoding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

CAMERAS = ("front", "wrist")
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
SIZE = (48, 64)  # height, width
# Receive time of the first message of a bag.
BAG_START_NS = 1_700_000_000_000_000_000
# First row's time in v2 episodes: recordings need not start at zero.
FIRST_TIME = 0.05


def grey(row: int) -> int:
    """Brightness of frame ``row``; neighbours differ by more than encoding changes them."""
    return 30 + 12 * (row % 16)


def frame(row: int, camera: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB; the wrist camera has no blue."""
    picture = np.full((*SIZE, 3), grey(row), np.uint8)
    if camera == "wrist":
        picture[:, :, 2] = 0
    return picture


def row_of(picture: NDArray[np.uint8], near: int) -> int:
    """Which row a decoded picture shows, looking at rows within 7 of ``near``."""
    level = float(picture[:, :, 0].mean())
    candidates = range(max(0, near - 7), near + 8)
    return min(candidates, key=lambda row: abs(grey(row) - level))


def states(episode: int, rows: int) -> NDArray[np.float32]:
    """[N, 6], different in every episode, row and column."""
    return (episode + 0.01 * np.arange(rows)[:, None] + 0.1 * np.arange(6)[None]).astype(np.float32)


def write_video(path: Path, camera: str, rows: Sequence[int], fps: int) -> None:
    """Frames of ``rows``, one after the other, H.264 with few key frames so that seeking is tested."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "10", "crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for row in rows:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame(row, camera), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _info(
    version: str, fps: int, lengths: Sequence[int], names: Sequence[str], phantom: str
) -> dict[str, Any]:
    vector = {"dtype": "float32", "shape": [6], "names": {"motors": list(names)}}
    video = {"dtype": "video", "shape": [*SIZE, 3], "names": ["height", "width", "channel"]}
    features = {"observation.state": vector, "action": vector}
    features |= {f"observation.images.{camera}": video for camera in (*CAMERAS, phantom) if camera}
    packed = version == "v3.0"
    data = (
        "chunk-{chunk_index:03d}/file-{file_index:03d}"
        if packed
        else "chunk-{episode_chunk:03d}/episode_{episode_index:06d}"
    )
    video_path = "videos/{video_key}/" + data if packed else "videos/" + data.replace("/", "/{video_key}/")
    return {
        "codebase_version": version,
        "fps": fps,
        "total_episodes": len(lengths),
        "chunks_size": 1000,
        "data_path": f"data/{data}.parquet",
        "video_path": f"{video_path}.mp4",
        "features": features,
    }


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _write_lines(path: Path, values: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def _table(episode: int, rows: int, fps: int, first_time: float) -> dict[str, Any]:
    return {
        "observation.state": states(episode, rows).tolist(),
        "action": (states(episode, rows) + 0.5).tolist(),
        "timestamp": (first_time + np.arange(rows) / fps).tolist(),
        "episode_index": [episode] * rows,
        "task_index": [episode] * rows,
    }


def write_dataset(
    folder: Path,
    *,
    version: str = "v2.1",
    lengths: Sequence[int] = (12, 25),
    fps: int = 20,
    names: Sequence[str] = JOINTS,
    modality: bool = True,
    phantom: str = "",
) -> Path:
    """A dataset of two cameras and six joints. ``phantom`` is a camera that info.json names and that has no
    files.
    """
    _write_json(folder / "meta/info.json", _info(version, fps, lengths, names, phantom))
    tasks = [f"task {episode}" for episode in range(len(lengths))]
    if modality:
        groups = {"arm": {"start": 0, "end": 5}, "gripper": {"start": 5, "end": 6}}
        cameras = {camera: {"original_key": f"observation.images.{camera}"} for camera in CAMERAS}
        _write_json(folder / "meta/modality.json", {"state": groups, "action": groups, "video": cameras})
    if version == "v3.0":
        _write_packed(folder, lengths, fps, tasks)
        return folder
    for episode, rows in enumerate(lengths):
        path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(_table(episode, rows, fps, FIRST_TIME)), path)
        for camera in CAMERAS:
            video = folder / f"videos/chunk-000/observation.images.{camera}/episode_{episode:06d}.mp4"
            write_video(video, camera, range(rows), fps)
    _write_lines(
        folder / "meta/tasks.jsonl", [{"task_index": i, "task": text} for i, text in enumerate(tasks)]
    )
    index = [{"episode_index": i, "tasks": [tasks[i]], "length": rows} for i, rows in enumerate(lengths)]
    _write_lines(folder / "meta/episodes.jsonl", index)
    return folder


def _write_packed(folder: Path, lengths: Sequence[int], fps: int, tasks: Sequence[str]) -> None:
    columns: dict[str, list[Any]] = {}
    index = []
    for episode, rows in enumerate(lengths):
        for name, values in _table(episode, rows, fps, 0.0).items():
            columns.setdefault(name, []).extend(values)
        before = sum(lengths[:episode])
        row: dict[str, Any] = {"episode_index": episode, "tasks": [tasks[episode]], "length": rows}
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        for camera in CAMERAS:
            key = f"videos/observation.images.{camera}"
            row |= {f"{key}/chunk_index": 0, f"{key}/file_index": 0}
            row |= {f"{key}/from_timestamp": before / fps, f"{key}/to_timestamp": (before + rows) / fps}
        index.append(row)
    for name, table in (
        ("data/chunk-000/file-000.parquet", pa.table(columns)),
        ("meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(index)),
        (
            "meta/tasks.parquet",
            pa.table({"task_index": list(range(len(tasks))), "__index_level_0__": list(tasks)}),
        ),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    rows = [row for length in lengths for row in range(length)]
    for camera in CAMERAS:
        write_video(folder / f"videos/observation.images.{camera}/chunk-000/file-000.mp4", camera, rows, fps)


def write_bag(folder: Path, *, storage: str = "mcap", rows: int = 10, fps: int = 20) -> Path:
    """A rosbag2 with ``/joint_states``, ``/camera/front/image_raw``, the instruction and an arm command, in
    which every header stamp is 3 ms before its receive time. ``storage`` is mcap or sqlite3.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    names = np.array(JOINTS)
    empty = np.array([], np.float64)
    with Writer(folder, version=9, storage_plugin=plugin) as writer:

        def add(topic: str, kind: str) -> Any:
            return writer.add_connection(topic, kind, typestore=store)

        joints = add("/joint_states", "sensor_msgs/msg/JointState")
        camera = add("/camera/front/image_raw", "sensor_msgs/msg/Image")
        told = add("/gr00t/instruction", "std_msgs/msg/String")
        commands = add("/gripper_controller/commands", "std_msgs/msg/Float64MultiArray")

        def put(connection: Any, receive_ns: int, message: Any) -> None:
            writer.write(connection, receive_ns, store.serialize_cdr(message, connection.msgtype))

        put(told, BAG_START_NS, types["std_msgs/msg/String"](data="task 0"))
        for row in range(rows):
            receive = BAG_START_NS + 10_000_000 + row * 1_000_000_000 // fps
            stamp = receive - 3_000_000
            time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
            header = types["std_msgs/msg/Header"](stamp=time, frame_id="")
            position = states(0, rows)[row].astype(np.float64)
            put(
                joints,
                receive,
                types["sensor_msgs/msg/JointState"](
                    header=header, name=list(names), position=position, velocity=empty, effort=empty
                ),
            )
            picture = frame(row, "front")
            put(
                camera,
                receive + 1_000_000,
                types["sensor_msgs/msg/Image"](
                    header=header,
                    height=SIZE[0],
                    width=SIZE[1],
                    encoding="rgb8",
                    is_bigendian=0,
                    step=3 * SIZE[1],
                    data=picture.reshape(-1),
                ),
            )
            layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
            values = types["std_msgs/msg/Float64MultiArray"](layout=layout, data=position[5:])
            put(commands, receive + 2_000_000, values)
    return folder
