# SPDX-License-Identifier: Apache-2.0
"""One episode while it is recorded: a bag, what is noted about its topics, and who of them is silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gr00t_ros.errors import RecordingError
from gr00t_ros.recording.audit import Audit, judge
from gr00t_ros.recording.bag_writing import BagWriter
from gr00t_ros.recording.definitions import Definition
from gr00t_ros.recording.episode_folder import EpisodeFolder
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.expectations import Expected
from gr00t_ros.recording.names import RECORD_FILE
from gr00t_ros.recording.topic_audit import TopicAudit, TopicWatch

# Where nothing says how long a required topic may be silent (commands), something should have come by then.
FIRST_MESSAGE_S = 5.0


@dataclass(frozen=True)
class Mark:
    """A message that the recorder itself puts into the bag: topic, definition and encoding."""

    topic: str
    definition: Definition
    data: bytes


# Messages wait for this long at most, in the middleware and in the thread that takes them.
EARLY_S = 1.0


def cut_short(why: str) -> str:
    """The note about an episode that was not ended by whoever began it."""
    return f"cut short: {why}"


class Episode:
    """A running episode. ``add`` may be called by any thread, the others by one."""

    def __init__(
        self,
        folder: EpisodeFolder,
        record: EpisodeRecord,
        expected: Mapping[str, Expected],
        queue_bytes: int,
    ) -> None:
        """Makes the bag. Raises RecordingError when it cannot be made."""
        self.record = record
        self._folder, self._expected = folder, expected
        self._writer = BagWriter(folder.recording(record.episode), queue_bytes)
        self._lock = threading.Lock()
        self._watches: dict[str, TopicWatch] = {}
        self._seen_s: dict[str, float] = {}
        self._start_s = time.monotonic()
        self.audit = Audit("", (), ())  # once it is finished
        try:
            record.write(self._writer.folder / RECORD_FILE)
        except Exception:
            self._writer.abandon()
            folder.discard(record.episode)
            raise

    # What comes in.

    def connect(self, topic: str, definition: Definition, qos: Sequence[Any] = ()) -> None:
        """Messages of ``topic`` may come; again does nothing."""
        if self._writer.knows(topic):
            return
        self._writer.connect(topic, definition, qos)
        with self._lock:
            self._watches[topic] = TopicWatch(
                topic,
                definition.name,
                has_header=definition.has_header,
                start_ns=self.record.start_ns,
                expected=self._expected.get(topic),
            )

    def mark(self, mark: Mark, time_ns: int) -> None:
        """Puts a message of the recorder's own into the bag; the audit does not count it."""
        if not self._writer.knows(mark.topic):
            self._writer.connect(mark.topic, mark.definition, ())
        self._writer.put(mark.topic, time_ns, mark.data)

    def add(self, topic: str, data: bytes, receive_ns: int, sequence: int | None = None) -> None:
        """A message came. One that came before the episode is left out; later than ``EARLY_S`` into it, such
        a time only says that the clock was set back."""
        if receive_ns < self.record.start_ns and time.monotonic() < self._start_s + EARLY_S:
            return
        with self._lock:
            watch = self._watches.get(topic)
            if watch is None:
                return
            watch.add(receive_ns, data, sequence)
            self._seen_s[topic] = time.monotonic()
            if not self._writer.put(topic, receive_ns, data) and not self._writer.failure:
                watch.dropped += 1

    # How it goes.

    @property
    def failure(self) -> str:
        """Why nothing can be written any more, or an empty text."""
        return self._writer.failure

    @property
    def dropped(self) -> int:
        """Messages that came and found the queue full."""
        with self._lock:
            return sum(watch.dropped for watch in self._watches.values())

    @property
    def messages(self) -> int:
        """Messages that came."""
        with self._lock:
            return sum(watch.messages for watch in self._watches.values())

    @property
    def written_bytes(self) -> int:
        """Bytes of messages in the bag, before compression."""
        return self._writer.written

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the disk."""
        return self._writer.queued_bytes

    def silent(self) -> dict[str, str]:
        """The required topics from which nothing comes: by name, each with a sentence."""
        now_s, found = time.monotonic(), {}
        for expected in self._expected.values():
            if not expected.required:
                continue
            seen_s = self._seen_s.get(expected.topic)
            silent_s = now_s - (self._start_s if seen_s is None else seen_s)
            if expected.max_age is not None and silent_s > expected.max_age:
                limit = f" (at most {expected.max_age:g} s)"
            elif expected.max_age is None and seen_s is None and silent_s > FIRST_MESSAGE_S:
                limit = " since the episode began"
            else:
                continue
            found[expected.topic] = (
                f"{expected.path}: nothing on {expected.topic} for {silent_s:.1f} s{limit}"
            )
        return found

    # How it ends.

    def label(self, label: str, instruction: str) -> EpisodeRecord:
        """Labels the episode while it runs."""
        self.record = self.record.labelled(label, instruction)
        self.record.write(self._writer.folder / RECORD_FILE)
        return self.record

    def finish(self, stop_ns: int, ended_by: str, notes: Iterable[str] = ()) -> EpisodeRecord:
        """Closes the bag, judges it, and gives the episode its final name.

        ``notes`` are reasons why it is no better than usable, apart from what is found here.

        Raises:
            RecordingError: it could not be ended in order; what was written stays under its provisional name.
        """
        problem: RecordingError | None = None
        try:
            self._writer.close()
        except RecordingError as error:
            problem = error
        if self._writer.failure:
            notes = dict.fromkeys([*notes, cut_short(self._writer.failure)])
        self.audit = judge(self._audits(stop_ns), tuple(notes))
        self.record = replace(
            self.record,
            stop_ns=stop_ns,
            ended_by=ended_by,
            messages=self._writer.messages,
            audit=self.audit.as_dict(),
        )
        try:
            self.record.write(self._writer.folder / RECORD_FILE)
        except RecordingError as error:
            problem = problem or error  # the bag is worth keeping all the same
        if problem is None or self._writer.closed:
            self._folder.keep(self.record.episode)
        if problem is not None:
            raise problem
        return self.record

    def discard(self) -> None:
        """Throws the episode away. Raises RecordingError when it cannot be deleted."""
        self._writer.abandon()
        self._folder.discard(self.record.episode)

    def _audits(self, stop_ns: int) -> list[TopicAudit]:
        """What came of every topic; of a required one that never showed up, too."""
        with self._lock:
            watches = dict(self._watches)
        for topic, expected in self._expected.items():
            if topic not in watches:
                watches[topic] = TopicWatch(
                    topic,
                    expected.message_type,
                    has_header=False,
                    start_ns=self.record.start_ns,
                    expected=expected,
                )
        order = {topic: place for place, topic in enumerate(self._expected)}
        return [
            watches[topic].finish(stop_ns)
            for topic in sorted(watches, key=lambda topic: (order.get(topic, len(order)), topic))
        ]
