# SPDX-License-Identifier: Apache-2.0
"""rosbag2 recordings of the small robot, message by message, as any test wants them: late, damaged, cut.

A ``BagMaker`` collects messages with their receive times; ``write`` makes real files with rosbags' writer,
in the order in which the messages were put.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.names import EVENT_TYPE, EVENTS, RECORD_FILE
from support_robots import REPOSITORY

NS = 1_000_000_000
START = 1_700_000_000 * NS
FRONT, WRIST = "/camera/front/image_raw", "/camera/wrist/image_raw/compressed"
JOINTS = "/joint_states"
ARM, GRIPPER = "/arm_controller/joint_trajectory", "/gripper_controller/commands"
INSTRUCTION = "/gr00t/instruction"
SIZE = (24, 32)


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [H, W, 3], different for every number."""
    rng = np.random.default_rng(number)
    base = np.full((*size, 3), 20 + 3 * (number % 70), np.uint8)
    base[: size[0] // 2, :, number % 3] += rng.integers(0, 20, (size[0] // 2, size[1]), dtype=np.uint8)
    return base


def store() -> Any:
    """Jazzy's types and the recorder's own."""
    types = get_typestore(Stores.ROS2_JAZZY)
    text = (REPOSITORY / "msg" / "EpisodeEvent.msg").read_text()
    types.register(get_types_from_msg(text, EVENT_TYPE))
    return types


class BagMaker:
    """Messages of a recording. Times are seconds after ``START``; a stamp is 3 ms before arrival unless
    given."""

    def __init__(self) -> None:
        self.store = store()
        self.messages: list[tuple[str, str, int, Any]] = []

    def make(self, kind: str, **fields: Any) -> Any:
        return self.store.types[kind](**fields)

    def put(self, topic: str, kind: str, receive: float, message: Any) -> None:
        self.messages.append((topic, kind, START + round(receive * NS), message))

    def header(self, stamp: float, frame_id: str = "") -> Any:
        ns = START + round(stamp * NS)
        return self.header_ns(ns, frame_id)

    def header_ns(self, ns: int, frame_id: str = "") -> Any:
        time = self.make("builtin_interfaces/msg/Time", sec=ns // NS, nanosec=ns % NS)
        return self.make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)

    def image(
        self, receive: float, pixels: np.ndarray, stamp: float | None = None, topic: str = FRONT
    ) -> None:
        header = self.header(receive - 0.003 if stamp is None else stamp)
        height, width, _ = pixels.shape
        if topic.endswith("compressed"):
            data = np.frombuffer(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes(), np.uint8)
            kind, fields = "sensor_msgs/msg/CompressedImage", {"format": "png", "data": data}
        else:
            kind = "sensor_msgs/msg/Image"
            fields = {"height": height, "width": width, "encoding": "rgb8", "is_bigendian": 0}
            fields |= {"step": 3 * width, "data": pixels.reshape(-1)}
        self.put(topic, kind, receive, self.make(kind, header=header, **fields))

    def joints(
        self,
        receive: float,
        positions: dict[str, float],
        stamp: float | None = None,
        topic: str = JOINTS,
        velocity: Sequence[float] = (),
    ) -> None:
        kind = "sensor_msgs/msg/JointState"
        message = self.make(
            kind,
            header=self.header(receive - 0.003 if stamp is None else stamp),
            name=list(positions),
            position=np.array(list(positions.values()), np.float64),
            velocity=np.array(velocity, np.float64),
            effort=np.array([], np.float64),
        )
        self.put(topic, kind, receive, message)

    def trajectory(
        self,
        receive: float,
        points: Sequence[tuple[float, Sequence[float], Sequence[float]]],
        stamp: float | None = None,
        joints: Sequence[str] = ("shoulder", "elbow"),
    ) -> None:
        """Points are (time from start, positions, velocities); ``stamp`` None is a zero stamp."""
        kind = "trajectory_msgs/msg/JointTrajectory"
        made = [
            self.make(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=np.array(positions, np.float64),
                velocities=np.array(velocities, np.float64),
                accelerations=np.array([], np.float64),
                effort=np.array([], np.float64),
                time_from_start=self.make(
                    "builtin_interfaces/msg/Duration", sec=int(due), nanosec=round((due % 1.0) * NS)
                ),
            )
            for due, positions, velocities in points
        ]
        header = self.header_ns(0) if stamp is None else self.header(stamp)
        self.put(ARM, kind, receive, self.make(kind, header=header, joint_names=list(joints), points=made))

    def array(self, receive: float, values: Sequence[float], topic: str = GRIPPER) -> None:
        kind = "std_msgs/msg/Float64MultiArray"
        layout = self.make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
        self.put(topic, kind, receive, self.make(kind, layout=layout, data=np.array(values, np.float64)))

    def instruction(self, receive: float, text: str) -> None:
        self.put(INSTRUCTION, "std_msgs/msg/String", receive, self.make("std_msgs/msg/String", data=text))

    def event(
        self,
        receive: float,
        kind: str,
        episode: str,
        instruction: str = "",
        label: str = "",
        topic: str = f"/gr00t/{EVENTS}",
    ) -> None:
        number = getattr(self.store.types[EVENT_TYPE], kind)
        message = self.make(
            EVENT_TYPE,
            header=self.header(receive),
            event=number,
            episode=episode,
            instruction=instruction,
            label=label,
        )
        self.put(topic, EVENT_TYPE, receive, message)

    def moment(
        self, at: float, number: int, *, size: tuple[int, int] = SIZE, position: float | None = None
    ) -> None:
        """Everything that one frame of the small robot needs; the frame is stamped 3 ms before ``at``."""
        value = 0.01 * number if position is None else position
        self.joints(at, {"shoulder": value, "elbow": -value, "gripper": 0.1 + value / 10})
        self.trajectory(at, [(0.05, (value + 1.0, 1.0 - value), ())])
        self.array(at, (0.2 + value / 10,))
        self.image(at, picture(number, size))
        self.image(at + 0.0001, picture(number + 1000, size), at - 0.003, WRIST)

    def run(self, seconds: float, fps: float = 20.0, begin: float = 0.0, **fields: Any) -> BagMaker:
        """A recording of ``seconds`` without anything odd; frame k is stamped begin + k / fps."""
        for number in range(round(seconds * fps)):
            self.moment(begin + number / fps + 0.003, number, **fields)
        return self

    def write(
        self,
        folder: Path,
        *,
        storage: str = "mcap",
        compression: str = "none",
        typeless: bool = False,
    ) -> Path:
        """``compression`` is none, file, message or storage; ``typeless`` leaves the definitions out, as
        recorders before Iron do (SQLite)."""
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        writer = Writer(folder, version=9, storage_plugin=plugin)
        if compression != "none":
            writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
        with writer:
            connections: dict[str, Any] = {}
            for topic, kind, receive, message in self.messages:
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=self.store)
                data = message if isinstance(message, bytes) else self.store.serialize_cdr(message, kind)
                writer.write(connections[topic], receive, bytes(data))
        if typeless:
            forget_definitions(folder)
        return folder


def told(maker: BagMaker, text: str = "pick") -> BagMaker:
    """With an instruction at its beginning."""
    maker.instruction(0.0, text)
    return maker


def beside(folder: Path, episode: str = "bag", **fields: Any) -> None:
    """What the recorder writes beside a bag: instruction, told, label."""
    record = EpisodeRecord(
        **{"robot": "small", "instruction": "", "told": "", **fields}, episode=episode, start_ns=START
    )
    record.write(folder / RECORD_FILE)


def forget_definitions(folder: Path) -> None:
    """Makes a SQLite bag look like one from before Iron."""
    import sqlite3

    with sqlite3.connect(next(folder.glob("*.db3"))) as database:
        database.execute("DROP TABLE message_definitions")


def crashed(folder: Path, keep: float | None = None) -> Path:
    """The recording as a killed recorder leaves it: no metadata, and of the file only the share ``keep``."""
    (folder / "metadata.yaml").unlink()
    if keep is not None:
        file = next(folder.glob("*.mcap"))
        os.truncate(file, round(file.stat().st_size * keep))
    return folder
