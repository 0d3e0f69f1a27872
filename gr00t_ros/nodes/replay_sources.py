# SPDX-License-Identifier: Apache-2.0
"""Recordings as a sequence of things to publish: what ``replay`` plays, from LeRobot episodes and from
rosbag2.

A source yields ``Item``s in the order of their recorded times. An item makes its messages when it is due,
given the map from recorded time to the stamps of this replay; the source knows nothing of pace, clock or
loops.
"""

from __future__ import annotations

import array
import importlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String

from gr00t_ros.data.bags import Bag, BagMessage
from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.mapping import DatasetMapping, map_dataset
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig, StateSource, VideoSource
from gr00t_ros.robot_types import COMPRESSED_IMAGE, FLOAT64_MULTI_ARRAY, JOINT_STATE, MESSAGE_TYPES

_NS = 1_000_000_000
# Recorded actions go here, so that nothing that listens to commands can hear them.
RECORDED = "/recorded"
# Datasets count from about zero, but a zero stamp means "no time" in ROS: their recorded time starts at one
# second.
DATASET_EPOCH_NS = _NS

StampMap = Callable[[int], int]


@dataclass(frozen=True)
class Outlet:
    """A topic that a source publishes on. ``kind`` says which QoS fits: sensor, state, latched or plain."""

    topic: str
    message: type
    kind: str


@dataclass(frozen=True)
class Item:
    """What is due at one recorded time (ns): ``make(stamps)`` gives (topic, message or CDR bytes) in order.

    ``frame`` is the dataset row, None for a bag's messages.
    """

    recorded_ns: int
    make: Callable[[StampMap], list[tuple[str, Any]]]
    frame: int | None = None


class Source(Protocol):
    """What ``replay`` can play."""

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """Every topic that items may name."""

    @property
    def description(self) -> str:
        """One line: what is played."""

    @property
    def span_ns(self) -> tuple[int, int]:
        """Recorded time of the first item and the time at which a repetition would start."""

    def items(self) -> Iterator[Item]:
        """All items, in order."""


def time_of(nanoseconds: int) -> Time:
    """A point in time as a message."""
    return Time(sec=nanoseconds // _NS, nanosec=nanoseconds % _NS)


def image_message(source: VideoSource, picture: NDArray[np.uint8], stamp_ns: int) -> Image | CompressedImage:
    """picture [H, W, 3] RGB as the robot description wants it; compressed pictures are PNG, which loses
    nothing.
    """
    frame_id, stamp = f"{source.key}_camera", time_of(stamp_ns)
    message: Image | CompressedImage
    if source.type == COMPRESSED_IMAGE:
        done, data = cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise DatasetError(
                f"camera {source.key}: a frame of shape {picture.shape} cannot be encoded as PNG"
            )
        message = CompressedImage(format="png", data=array.array("B", data.tobytes()))
    else:
        height, width, _ = picture.shape
        pixels = array.array("B", picture.tobytes())
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=pixels)
    message.header.stamp, message.header.frame_id = stamp, frame_id
    return message


class EpisodeSource:
    """One episode of a LeRobot dataset, row by row: instruction, joint states, then frames, all with one
    stamp.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        robot: RobotConfig,
        index: int,
        *,
        start: float = 0.0,
        duration: float | None = None,
        actions: bool = False,
    ) -> None:
        """start and duration: the part to play, seconds from the episode's first row."""
        self._robot, self._dataset, self._actions = robot, dataset, actions
        self._mapping: DatasetMapping = map_dataset(dataset, robot)
        self.episode: Episode = dataset.episode(index)
        since_start = self.episode.timestamps - self.episode.timestamps[0]
        end = np.inf if duration is None else start + duration
        half = 0.5 / dataset.fps  # recorded times are a little off the grid
        chosen = np.flatnonzero((since_start >= start - half) & (since_start < end - half))
        if len(chosen) == 0:
            raise DatasetError(
                f"episode {index}: nothing between {start:g} and {end:g} s; it has {since_start[-1]:.2f} s"
            )
        self.first, self.stop = int(chosen[0]), int(chosen[-1]) + 1
        self._states = {key: self._mapping.state_si(robot, self.episode, key) for key in robot.state}
        for source in robot.state.values():
            if source.type not in (JOINT_STATE, FLOAT64_MULTI_ARRAY):
                raise DatasetError(
                    f"robot.state.{source.key}: type {source.type} cannot be replayed from a dataset, only "
                    f"{JOINT_STATE} and {FLOAT64_MULTI_ARRAY}"
                )

    @property
    def description(self) -> str:
        """What is played, in one line."""
        seconds = (self.stop - self.first) / self._dataset.fps
        return (
            f"{self._dataset.path.name} episode {self.episode.index}, frames {self.first} to {self.stop - 1} "
            f"({seconds:.1f} s at {self._dataset.fps:g} Hz)"
        )

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """Every topic that items name."""
        outlets = [Outlet(self._robot.instruction.topic, String, "latched")]
        for topic in dict.fromkeys(source.topic for source in self._robot.state.values()):
            source = next(s for s in self._robot.state.values() if s.topic == topic)
            kind = JointState if source.type == JOINT_STATE else Float64MultiArray
            outlets.append(Outlet(topic, kind, "state"))
        for video in self._robot.video.values():
            kind = CompressedImage if video.type == COMPRESSED_IMAGE else Image
            outlets.append(Outlet(video.topic, kind, "sensor"))
        if self._actions:
            outlets.append(Outlet(f"{RECORDED}/actions", JointState, "state"))
        return tuple(outlets)

    def _recorded_ns(self, row: int) -> int:
        return DATASET_EPOCH_NS + round(float(self.episode.timestamps[row]) * _NS)

    @property
    def span_ns(self) -> tuple[int, int]:
        """Recorded time of the first item and the time at which a repetition would start."""
        last = self._recorded_ns(self.stop - 1)
        return self._recorded_ns(self.first), last + round(_NS / self._dataset.fps)

    def items(self) -> Iterator[Item]:
        """One item a row; its frames are decoded when the item is taken, ahead of its time."""
        cameras = {
            key: self.episode.frames(self._mapping.videos[key], self.first, self.stop)
            for key in self._robot.video
        }
        told: str | None = None
        for row in range(self.first, self.stop):
            pictures = {key: next(frames) for key, frames in cameras.items()}
            instruction = self.episode.instructions[row]
            new = instruction if instruction and instruction != told else None
            told = new or told
            yield Item(self._recorded_ns(row), self._maker(row, pictures, new), row)

    def _maker(
        self, row: int, pictures: dict[str, NDArray[np.uint8]], instruction: str | None
    ) -> Callable[[StampMap], list[tuple[str, Any]]]:
        def make(stamps: StampMap) -> list[tuple[str, Any]]:
            stamp = stamps(self._recorded_ns(row))
            messages: list[tuple[str, Any]] = []
            if instruction is not None:
                messages.append((self._robot.instruction.topic, String(data=instruction)))
            messages += self._state_messages(row, stamp)
            if self._actions:
                messages.append((f"{RECORDED}/actions", self._action_message(row, stamp)))
            for key, picture in pictures.items():
                source = self._robot.video[key]
                messages.append((source.topic, image_message(source, picture, stamp)))
            return messages

        return make

    def _state_messages(self, row: int, stamp: int) -> list[tuple[str, Any]]:
        """One message a topic, holding all groups that read it."""
        messages: dict[str, Any] = {}
        for key, source in self._robot.state.items():
            values = self._states[key][row].tolist()
            if source.type == JOINT_STATE:
                message = messages.setdefault(source.topic, JointState())
                message.header.stamp = time_of(stamp)
                _add_joints(message, source, values)
            else:
                message = messages.setdefault(source.topic, Float64MultiArray())
                _add_values(message, source, values)
        return list(messages.items())

    def _action_message(self, row: int, stamp: int) -> JointState:
        message = JointState()
        message.header.stamp = time_of(stamp)
        for key, group in self._robot.action.items():
            names = group.joints or tuple(f"{key}_{name}" for name in group.names)
            message.name = [*message.name, *names]
            values = self._mapping.action_si(self._robot, self.episode, key)[row]
            message.position = [*message.position, *values.tolist()]
        return message


def _add_joints(message: JointState, source: StateSource, values: list[float]) -> None:
    """Writes values of one field (position, velocity or effort); joints are added once, other fields filled
    up.
    """
    names = list(message.name)
    fields = {name: list(getattr(message, name)) for name in ("position", "velocity", "effort")}
    used = {source.field} | {name for name, column in fields.items() if column}
    for joint, value in zip(source.joints, values, strict=True):
        if joint not in names:
            names.append(joint)
        for name in used:
            fields[name] += [0.0] * (len(names) - len(fields[name]))
        fields[source.field][names.index(joint)] = value
    message.name = names
    for name in used:
        setattr(message, name, fields[name])


def _add_values(message: Float64MultiArray, source: StateSource, values: list[float]) -> None:
    indices = source.indices or tuple(range(len(values)))
    data = list(message.data)
    data += [0.0] * (max(source.array_width or 0, max(indices) + 1) - len(data))
    for index, value in zip(indices, values, strict=True):
        data[index] = value
    message.data = data


class BagSource:
    """The topics of a rosbag2 that a robot description names, message for message as they were recorded."""

    def __init__(
        self,
        bag: Bag,
        robot: RobotConfig,
        *,
        start: float = 0.0,
        duration: float | None = None,
        actions: bool = False,
        namespace: str = "",
    ) -> None:
        """bag is open; namespace is where a relative instruction topic lies."""
        self._bag = bag
        have = bag.topics
        instruction = robot.instruction.topic
        if not instruction.startswith("/"):
            instruction = f"{namespace}/{instruction}"
        wanted = {source.topic: MESSAGE_TYPES[source.type] for _, source in robot.sources()}
        missing = [topic for topic in wanted if topic not in have]
        if missing:
            raise DatasetError(
                f"{bag.path}: no topic {', '.join(missing)}, which the robot {robot.name} needs; the bag has "
                f"{', '.join(sorted(have)) or 'none'}"
            )
        if instruction in have:
            wanted[instruction] = MESSAGE_TYPES["string"]
        self._renamed = {topic: topic for topic in wanted}
        if actions:
            for spec in robot.command_topics:
                if spec.topic in have:
                    wanted[spec.topic] = spec.message_type
                    self._renamed[spec.topic] = RECORDED + spec.topic
        for topic, kind in wanted.items():
            if have[topic] != kind:
                raise DatasetError(
                    f"{bag.path}: {topic} holds {have[topic]}, the robot description says {kind}"
                )
        self._latched = instruction
        self._classes: dict[str, Any] = {topic: message_class(have[topic]) for topic in wanted}
        self._start = bag.start_ns + round(start * _NS)
        self._stop = bag.end_ns + 1 if duration is None else self._start + round(duration * _NS)
        if self._start > bag.end_ns:
            length = (bag.end_ns - bag.start_ns) / _NS
            raise DatasetError(f"{bag.path}: nothing after {start:g} s; the bag is {length:.2f} s long")

    @property
    def description(self) -> str:
        """What is played, in one line."""
        start, end = self.span_ns
        return f"{self._bag.path.name}, {(end - start) / _NS:.1f} s of {len(self._classes)} topics"

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """Every topic that items name."""
        sensors = (Image, CompressedImage)
        return tuple(
            Outlet(
                self._renamed[topic],
                kind,
                "sensor" if kind in sensors else "latched" if topic == self._latched else "state",
            )
            for topic, kind in self._classes.items()
        )

    @property
    def span_ns(self) -> tuple[int, int]:
        """Recorded time of the first item and the time at which a repetition would start."""
        return self._start, min(self._stop, self._bag.end_ns + 1)

    def items(self) -> Iterator[Item]:
        """One item a message."""
        for message in self._bag.messages(list(self._classes), self._start, self._stop):
            yield Item(message.receive_ns, self._maker(message))

    def _maker(self, message: BagMessage) -> Callable[[StampMap], list[tuple[str, Any]]]:
        # Only what starts with a header carries a stamp that can be moved.
        fields = self._classes[message.topic].get_fields_and_field_types()
        stamped = next(iter(fields.items()), None) == ("header", "std_msgs/Header")

        def make(stamps: StampMap) -> list[tuple[str, Any]]:
            data = restamped(message.data, stamps) if stamped else message.data
            return [(self._renamed[message.topic], data)]

        return make


def restamped(cdr: bytes, stamps: StampMap) -> bytes:
    """The CDR encoding of a message that starts with a std_msgs/Header, with the stamp mapped; zero stays
    zero.
    """
    order = "<" if cdr[1] & 1 else ">"
    seconds, rest = struct.unpack_from(order + "iI", cdr, 4)
    old = seconds * _NS + rest
    if old == 0:
        return cdr
    new = stamps(old)
    return cdr[:4] + struct.pack(order + "iI", new // _NS, new % _NS) + cdr[12:]


def message_class(name: str) -> type:
    """The Python class of ``sensor_msgs/msg/Image`` and the like. Raises DatasetError when it is not
    installed.
    """
    package, _, kind = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)  # type: ignore[no-any-return]
    except (ImportError, AttributeError):
        raise DatasetError(f"message type {name} is not installed; install {package}") from None
