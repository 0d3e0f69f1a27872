# SPDX-License-Identifier: Apache-2.0
"""What both storages of rosbag2 give: messages as they were written, and a survey of what is there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

# Receive times are taken by several threads of a recorder, and by the clock of a machine that chrony or PTP
# slews: they go back by less than this in a recording in order, and by more when a clock is set.
BACK_NS = 1_000_000_000


class Stored(NamedTuple):
    """One recorded message: ``data`` is a view of its bytes in CDR, valid as long as it is held."""

    topic: str
    type: str
    receive_ns: int
    data: memoryview


class Definition(NamedTuple):
    """How a message type is described: ``ros2msg`` or ``ros2idl``, and the text."""

    encoding: str
    text: str


@dataclass(frozen=True)
class Survey:
    """What a storage file holds.

    ``counts`` are messages by topic. ``whole`` says that its recorder ended well. ``by_topic`` means that
    receive times go back although no topic's own do: a tool wrote one topic after another.
    """

    topics: Mapping[str, str]
    counts: Mapping[str, int]
    start_ns: int
    end_ns: int
    definitions: Mapping[str, Definition]
    whole: bool
    by_topic: bool = False


class Storage(Protocol):
    """One storage file."""

    path: Path
    notes: list[str]

    def survey(self) -> Survey:
        """What it holds."""

    def stored(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Stored]:
        """Messages as they were written."""

    def by_time(self, topics: Collection[str] | None = None) -> Iterator[Stored]:
        """Messages by receive time."""


def apart(newest_ns: int, time_ns: int) -> bool:
    """Whether a time lies so far before the newest one that a clock was set back."""
    return newest_ns - time_ns > BACK_NS
