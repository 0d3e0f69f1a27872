# SPDX-License-Identifier: Apache-2.0
"""Where the episodes of a recording begin and end, what they are called, and what was said about them later.

By the recorder's marks (``gr00t_ros/msg/EpisodeEvent``), by changes of the instruction, or a bag an episode.
A mark that throws away or labels an episode comes after the episode: all marks are read before any row is
made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gr00t_ros.data.bags import Bag
from gr00t_ros.data.bags_storage import Definition, Stored
from gr00t_ros.data.bags_types import Types
from gr00t_ros.errors import DatasetError, MessageError, RecordingError
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.names import EVENT_TYPE, RECORD_FILE, RECORDING
from gr00t_ros.state_reading import stamp_ns

AUTO, MARKS, INSTRUCTION, BAG = "auto", "marks", "instruction", "bag"
RULES = (AUTO, MARKS, INSTRUCTION, BAG)

# For bags of recorders that store no definitions (before Iron).
_DEFINITION = Definition(
    "ros2msg",
    "uint8 START=1\nuint8 STOP=2\nuint8 DISCARD=3\nuint8 LABEL=4\nstd_msgs/Header header\nuint8 event\n"
    "string episode\nstring instruction\nstring label\n"
    f"{'=' * 80}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    f"{'=' * 80}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n",
)


@dataclass(frozen=True)
class Mark:
    """One message of the recorder. ``kind`` is START, STOP, DISCARD or LABEL."""

    kind: str
    time_ns: int
    receive_ns: int
    episode: str
    instruction: str
    label: str


@dataclass(frozen=True)
class Episode:
    """What is known of an episode at the end of the recording. An empty ``instruction`` says that the
    instruction topic tells; ``corrected`` that it was changed afterwards, for the whole episode."""

    name: str
    instruction: str = ""
    corrected: bool = False
    label: str = ""
    discarded: bool = False


class Marks:
    """The marks of one bag: the episodes in the order in which they began."""

    def __init__(self, marks: list[Mark]) -> None:
        self.episodes: list[Episode] = []
        for mark in marks:
            if mark.kind == "START":
                self.episodes.append(Episode(mark.episode, mark.instruction.strip(), label=mark.label))
                continue
            at = self._find(mark.episode)
            if at is None:
                continue  # of an episode that this bag does not hold
            old = self.episodes[at]
            told = mark.instruction.strip()
            changed = mark.kind == "LABEL" and told not in ("", old.instruction)
            self.episodes[at] = replace(
                old,
                instruction=told if changed else old.instruction,
                corrected=old.corrected or changed,
                label=mark.label or old.label,
                discarded=old.discarded or mark.kind == "DISCARD",
            )

    @classmethod
    def of(cls, bag: Bag) -> Marks:
        """Reads them. Raises DatasetError where they cannot be understood."""
        topic = events_topic(bag)
        return cls([read_mark(bag.types, stored) for stored in bag.stored([topic])] if topic else [])

    def _find(self, name: str) -> int | None:
        """The newest episode of a name; without a name the newest of all."""
        places = [i for i, episode in enumerate(self.episodes) if not name or episode.name == name]
        return places[-1] if places else None


def events_topic(bag: Bag) -> str:
    """The topic of the recorder's marks, whatever its namespace was; empty where the bag has none.

    Raises:
        DatasetError: it has those of several recorders.
    """
    found = [topic for topic, kind in bag.topics.items() if kind == EVENT_TYPE]
    if len(found) > 1:
        raise DatasetError(
            f"{bag.path}: marks of several recorders, on {', '.join(found)}; expected those of one. Record "
            "each robot by itself"
        )
    return found[0] if found else ""


def read_mark(types: Types, stored: Stored) -> Mark:
    """One recorded mark. Raises DatasetError."""
    try:
        try:
            message: Any = types.decode(stored.type, stored.data, stored.topic)
        except DatasetError:
            message = Types({EVENT_TYPE: _DEFINITION}).decode(stored.type, stored.data, stored.topic)
        kinds = {getattr(message, name): name for name in ("START", "STOP", "DISCARD", "LABEL")}
        kind = kinds[int(message.event)]
    except (MessageError, AttributeError, KeyError) as error:
        raise DatasetError(f"{stored.topic}: a mark of the recorder cannot be read ({error})") from error
    return Mark(
        kind,
        stamp_ns(message.header.stamp) or stored.receive_ns,
        stored.receive_ns,
        str(message.episode),
        str(message.instruction),
        str(message.label),
    )


def bag_name(bag: Bag) -> str:
    """What a bag is called in the dataset: its folder, without what a killed recorder left behind it."""
    return bag.path.resolve().name.removesuffix(RECORDING)


def record_file(recording: Path) -> Path:
    """Where the recorder wrote what it knows about a recording: in its folder, which a storage file that is
    named instead of it is called after."""
    folder = recording.parent
    inside = recording.is_file() and recording.stem == folder.resolve().name.removesuffix(RECORDING)
    return (folder if inside else recording) / RECORD_FILE


def recorded_episode(bag: Bag) -> Episode | None:
    """What the recorder wrote about the one episode of a bag; None where it did not.

    Raises:
        DatasetError: the file is damaged.
    """
    path = record_file(bag.path)
    if not path.is_file():
        return None
    try:
        record = EpisodeRecord.read(path)
    except RecordingError as error:
        raise DatasetError(f"{error}; remove it to convert without it") from error
    instruction = record.instruction.strip()
    corrected = instruction not in ("", record.told.strip())
    return Episode(record.episode, instruction, corrected, record.label)


def chosen_rule(rule: str, marks: Marks, bag: Bag) -> str:
    """How this bag is split: ``auto`` takes marks where there are any, else the instruction.

    Raises:
        DatasetError: marks are wanted and there are none.
    """
    if rule == AUTO:
        return MARKS if marks.episodes else INSTRUCTION
    if rule == MARKS and not marks.episodes:
        raise DatasetError(
            f"{bag.path}: no mark of the recorder, which --episodes marks needs; use --episodes "
            "instruction or bag"
        )
    return rule
