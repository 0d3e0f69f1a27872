# SPDX-License-Identifier: Apache-2.0
"""Reads rosbag2 recordings (MCAP and SQLite, compressed or not) without ROS.

``replay`` republishes their messages as they are; the converter decodes them. Message definitions come from
the bag where it holds them, so custom messages need not be installed; older bags without them fall back to
the standard types.

A recording that broke off (no metadata.yaml, a file that is cut, a recorder's ``.recording`` folder) is read
as far as it goes, and ``recovered`` says how far. Messages come in the order in which they were recorded, not
sorted by time: where the clock was set back, sorting would mix two stretches of the recording.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from gr00t_ros.data.bag_recovery import BagFiles, find_files, unpacked
from gr00t_ros.data.bags_packed import ZSTD_MAGIC, decompressed
from gr00t_ros.data.bags_storage import Definition, Storage, Stored, Survey
from gr00t_ros.data.bags_types import Types
from gr00t_ros.errors import DatasetError, MessageError

# A message that is compressed by itself does not say how long it is; no camera's is longer.
_MAX_MESSAGE = 1 << 30


@dataclass(frozen=True)
class BagMessage:
    """One recorded message. ``receive_ns`` is when the recorder got it; ``data`` is its CDR encoding."""

    topic: str
    type: str
    receive_ns: int
    data: bytes


class Bag:
    """One rosbag2 folder, or a storage file of one; open while used as a context manager."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files: BagFiles = find_files(self.path)
        self._storages: list[Storage] = []
        self._surveys: list[Survey] = []
        self._topics: dict[str, str] = {}
        self._types = Types({})
        self._notes: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bag:
        with contextlib.ExitStack() as stack:
            try:
                self._storages = list(unpacked(self._files, stack))
                self._surveys = [storage.survey() for storage in self._storages]
            except OSError as error:
                raise DatasetError(f"{self.path}: cannot be read as a rosbag2 ({error})") from error
            self._stack = stack.pop_all()
        definitions: dict[str, Definition] = {}
        for survey in self._surveys:
            for topic, kind in survey.topics.items():
                first = self._topics.setdefault(topic, kind)
                if kind != first:
                    raise DatasetError(f"{self.path}: {topic} holds {first} and {kind}, expected one type")
            definitions |= survey.definitions
        self._types = Types(definitions)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def topics(self) -> dict[str, str]:
        """Topic to message type, as ``sensor_msgs/msg/Image``."""
        return dict(sorted(self._topics.items()))

    @property
    def counts(self) -> dict[str, int]:
        """Topic to number of messages."""
        counts: Counter[str] = Counter(dict.fromkeys(self._topics, 0))
        for survey in self._surveys:
            counts.update(survey.counts)
        return dict(counts)

    @property
    def start_ns(self) -> int:
        """Receive time of the earliest message; 0 in an empty bag."""
        return min((s.start_ns for s in self._surveys if any(s.counts.values())), default=0)

    @property
    def end_ns(self) -> int:
        """Receive time of the latest message; 0 in an empty bag."""
        return max((s.end_ns for s in self._surveys if any(s.counts.values())), default=0)

    @property
    def recovered(self) -> str:
        """What is wrong with a recording that broke off and how much of it is there; empty for a whole one.

        Damage in the middle of a file shows only when its messages are read.
        """
        notes = [*self._files.notes, *self._notes.values()]
        for storage in self._storages:
            notes += [f"{storage.path.name} {note}" for note in storage.notes]
        if not notes:
            return ""
        seconds = (self.end_ns - self.start_ns) / 1e9
        count = sum(self.counts.values())
        known = f" of {self._files.message_count}" if self._files.message_count > count else ""
        return f"{'; '.join(notes)}; {count}{known} messages over {seconds:.1f} s are there"

    def stored(
        self,
        topics: Collection[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[Stored]:
        """Messages as they were recorded, from ``start_ns`` until before ``stop_ns``; nothing is copied.

        A file into which a tool wrote one topic after another is read by receive time instead. Raises
        DatasetError for a topic that the bag does not have, and when a file cannot be read.
        """
        missing = sorted(set(topics or ()) - set(self._topics))
        if missing:
            have = ", ".join(self.topics) or "none"
            raise DatasetError(f"{self.path}: no topic {', '.join(missing)}; the bag has {have}")
        try:
            for storage, survey in zip(self._storages, self._surveys, strict=True):
                if survey.by_topic:
                    first, last = start_ns or 0, 2**63 if stop_ns is None else stop_ns
                    sorted_ = storage.by_time(topics)
                    found: Iterator[Stored] = (m for m in sorted_ if first <= m.receive_ns < last)
                else:
                    found = storage.stored(topics, start_ns, stop_ns)
                for message in found:
                    if message.data[:4] != ZSTD_MAGIC:
                        yield message
                    elif (data := self._unpacked(message)) is not None:
                        yield message._replace(data=data)
        except OSError as error:
            raise DatasetError(f"{self.path}: damaged after a part of its messages ({error})") from error

    def _unpacked(self, message: Stored) -> memoryview | None:
        """The bytes of a message that was compressed by itself (compression mode ``message``); None, and a
        note, where they are damaged."""
        try:
            return decompressed(message.data, "zstd", _MAX_MESSAGE)
        except DatasetError as error:
            self._notes.setdefault(message.topic, f"a message on {message.topic} is left out ({error})")
            return None

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """The same with the bytes of each message on their own, to keep or to publish."""
        for message in self.stored(topics, start_ns, stop_ns):
            yield BagMessage(message.topic, message.type, message.receive_ns, bytes(message.data))

    def decode(self, message: BagMessage | Stored) -> Any:
        """The message with the fields of its type, as numpy arrays and numbers. Raises DatasetError."""
        try:
            return self._types.decode(message.type, memoryview(message.data), message.topic)
        except MessageError as error:
            raise DatasetError(f"{self.path}: {error}") from error

    @property
    def types(self) -> Types:
        """Decodes single messages, and tells those that are damaged from a bag that is."""
        return self._types
