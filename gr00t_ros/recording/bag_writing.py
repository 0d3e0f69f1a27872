# SPDX-License-Identifier: Apache-2.0
"""Messages into a bag, on a thread of their own: whoever brings one never waits for a disk.

Between the two is a queue that holds so many bytes and no more. What does not fit is refused and counted by
the caller: a disk that is too slow costs messages, which is told, and never memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gr00t_ros.causes import one_line
from gr00t_ros.errors import RecordingError
from gr00t_ros.recording.definitions import Definition
from gr00t_ros.recording.mcap_storage import McapBag

# What a process that is killed may lose.
FLUSH_PERIOD_S = 1.0
# How long the end of an episode waits for a disk that does not answer any more.
CLOSE_TIMEOUT_S = 60.0


class BagWriter:
    """One bag that is being written. ``put`` may be called by any thread, the others by one."""

    def __init__(self, folder: Path, queue_bytes: int) -> None:
        """Makes the folder, which must not exist yet, and the file in it.

        Raises:
            RecordingError: the folder exists or cannot be made.
        """
        try:
            self._bag = McapBag(folder)
        except Exception as error:  # OSError, or rosbags' own
            raise RecordingError(f"{folder} cannot be written: {one_line(error)}") from error
        self.folder, self._limit = folder, queue_bytes
        self._topics: dict[str, tuple[Definition, Sequence[Any]]] = {}
        self._connections: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, int, bytes]] = deque()
        self._queued = 0
        self._ending = False
        self.written = 0  # bytes of messages, before compression
        self.failure = ""  # why nothing can be written any more
        self.closed = False  # the bag is whole
        self._thread = threading.Thread(target=self._run, name="bag writer", daemon=True)
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """What waits for the disk."""
        return self._queued

    @property
    def messages(self) -> int:
        """Messages in the bag, as far as they were handed to it."""
        return sum(self._bag.counts.values())

    def knows(self, topic: str) -> bool:
        """Whether messages of ``topic`` may come."""
        return topic in self._topics

    def connect(self, topic: str, definition: Definition, qos: Sequence[Any]) -> None:
        """Messages of ``topic`` may come. ``qos`` are what its publishers offer (``rosbags.interfaces.Qos``).

        It gets into the bag with its first message.
        """
        self._topics[topic] = (definition, tuple(qos))

    def put(self, topic: str, receive_ns: int, data: bytes) -> bool:
        """One message for the bag; False when there is no room for it, or writing has failed."""
        with self._changed:
            if self.failure or self._ending or self._queued + len(data) > self._limit:
                return False
            self._queue.append((topic, receive_ns, data))
            self._queued += len(data)
            self._changed.notify()
        return True

    def close(self) -> None:
        """Writes what waits and ends the bag. ``failure`` says what could not be written.

        Raises:
            RecordingError: the bag could not be ended; what was written up to then is in its folder.
        """
        if not self._end():
            raise RecordingError(
                f"{self.folder}: the disk has not answered for {CLOSE_TIMEOUT_S:g} s; what was written stays"
            )
        try:
            if not self.failure:
                try:
                    self._bag.file.flush()
                except OSError as error:
                    self.failure = one_line(error)
            if self.failure:
                self._bag.recount()
            if not self.messages:
                raise RecordingError(f"{self.folder}: nothing could be written ({self.failure})")
            handed = self.messages
            self._bag.close()
            self.closed = True
            if self.messages < handed and not self.failure:
                self.failure = "there was no room for the end of the bag"
        except RecordingError:
            self._bag.abort()
            raise
        except Exception as error:  # OSError, or rosbags' own
            self._bag.abort()
            raise RecordingError(
                f"{self.folder}: the bag cannot be ended ({one_line(error)}); what was written is there"
            ) from error

    def abandon(self) -> None:
        """Ends without a bag that is worth anything: its folder is about to be deleted."""
        with self._changed:
            self._queue.clear()
        self._end()
        self._bag.abort()

    def _end(self) -> bool:
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        flush_s = time.monotonic() + FLUSH_PERIOD_S
        try:
            while True:
                with self._changed:
                    if not self._queue and not self._ending:
                        self._changed.wait(max(0.0, flush_s - time.monotonic()))
                    taken = self._queue.popleft() if self._queue else None
                    if taken is None and self._ending:
                        return
                if taken is not None:
                    self._write(*taken)
                    # Only now: a message that is being written still takes memory.
                    with self._changed:
                        self._queued -= len(taken[2])
                if time.monotonic() >= flush_s:
                    self._bag.file.flush()
                    flush_s = time.monotonic() + FLUSH_PERIOD_S
        except Exception as error:  # whatever it is, the recording must end and say so
            with self._changed:
                self.failure = one_line(error) or type(error).__name__
                self._queue.clear()
                self._queued = 0

    def _write(self, topic: str, receive_ns: int, data: bytes) -> None:
        connection = self._connections.get(topic)
        if connection is None:
            definition, qos = self._topics[topic]
            connection = self._connections[topic] = self._bag.add_connection(
                topic,
                definition.name,
                msgdef=definition.text,
                rihs01=definition.digest,
                offered_qos_profiles=qos,
            )
        self._bag.write(connection, receive_ns, data)
        self.written += len(data)
