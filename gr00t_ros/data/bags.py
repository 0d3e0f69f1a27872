# SPDX-License-Identifier: Apache-2.0
"""Reads rosbag2 recordings (MCAP and SQLite, compressed or not) without ROS.

``replay`` republishes their messages as they are; the converter decodes them. Message definitions come from
the bag where it holds them, so custom messages need not be installed; older bags without them fall back to
the standard types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, TypesysError, get_typestore

from gr00t_ros.errors import DatasetError


@dataclass(frozen=True)
class BagMessage:
    """One recorded message. ``receive_ns`` is when the recorder got it; ``data`` is its CDR encoding."""

    topic: str
    type: str
    receive_ns: int
    data: bytes


class Bag:
    """One rosbag2 folder, open while used as a context manager."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise DatasetError(f"{self.path} does not exist; expected a rosbag2 folder")
        if self.path.is_file() or not (self.path / "metadata.yaml").is_file():
            raise DatasetError(
                f"{self.path}: no metadata.yaml; expected a rosbag2 folder "
                "('ros2 bag reindex' repairs one that was cut off)"
            )
        try:
            self._reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        except (AnyReaderError, OSError) as error:
            raise DatasetError(f"{self.path}: cannot be read as a rosbag2 ({error})") from error

    def __enter__(self) -> Bag:
        try:
            self._reader.open()
        except Exception as error:  # rosbags and its storage plugins raise types of their own
            raise DatasetError(f"{self.path}: cannot be read as a rosbag2 ({error})") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Topic to message type, as ``sensor_msgs/msg/Image``."""
        return {name: info.msgtype or "" for name, info in self._reader.topics.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Topic to number of messages."""
        return {name: info.msgcount for name, info in self._reader.topics.items()}

    @property
    def start_ns(self) -> int:
        """Receive time of the first message."""
        return int(self._reader.start_time)

    @property
    def end_ns(self) -> int:
        """Receive time of the last message."""
        return int(self._reader.end_time)

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Messages in the order of their receive times, from ``start_ns`` until before ``stop_ns``.

        Raises DatasetError for a topic that the bag does not have, and when the bag turns out damaged.
        """
        missing = sorted(set(topics or ()) - set(self.topics))
        if missing:
            have = ", ".join(sorted(self.topics)) or "none"
            raise DatasetError(f"{self.path}: no topic {', '.join(missing)}; the bag has {have}")
        if topics is not None and not topics:
            return
        connections = [c for c in self._reader.connections if topics is None or c.topic in topics]
        try:
            for connection, time, data in self._reader.messages(connections, start_ns, stop_ns):
                yield BagMessage(connection.topic, connection.msgtype, int(time), bytes(data))
        except (OSError, ValueError, AnyReaderError) as error:
            raise DatasetError(f"{self.path}: damaged after a part of its messages ({error})") from error

    def decode(self, message: BagMessage) -> Any:
        """The message with the fields of its type, as numpy arrays and numbers."""
        try:
            return self._reader.deserialize(message.data, message.type)
        except (TypesysError, ValueError, KeyError, IndexError) as error:
            raise DatasetError(
                f"{self.path}: a {message.type} on {message.topic} cannot be decoded ({error})"
            ) from error
