# SPDX-License-Identifier: Apache-2.0
"""SQLite files of rosbag2, in the order in which messages were written, also of a recorder that was killed.

A killed recorder may leave a journal (``-wal``, ``-journal``) beside the file. Reading it may need to write
there, which the folder of a recording need not allow: then a copy is read.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from gr00t_ros.data.bags_packed import room_for
from gr00t_ros.data.bags_storage import Definition, Stored, Survey, apart
from gr00t_ros.errors import DatasetError

SUFFIX = ".db3"
_JOURNALS = ("-wal", "-journal", "-shm")


class SqliteFile:
    """One SQLite file. ``notes`` tells what was found damaged, once it was read over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []

    def survey(self) -> Survey:
        """What the file holds. The messages themselves are not read."""
        low, high, back, grouped, whole = 2**63, 0, False, True, True
        counts: dict[int, int] = {}
        newest: dict[int, int] = {}
        with self._open() as database:
            topics = self._topics(database)
            try:
                for topic, time in database.execute("SELECT topic_id, timestamp FROM messages ORDER BY id"):
                    counts[topic] = counts.get(topic, 0) + 1
                    back = back or apart(high, time)
                    grouped = grouped and not apart(newest.get(topic, 0), time)
                    low, high, newest[topic] = min(low, time), max(high, time), time
            except sqlite3.DatabaseError as error:
                whole = False
                self._damaged(sum(counts.values()), error)
            definitions = self._definitions(database)
        return Survey(
            dict(topics.values()),
            {name: counts.get(number, 0) for number, (name, _) in topics.items()},
            low if counts else 0,
            high,
            definitions,
            whole,
            by_topic=back and grouped,
        )

    def stored(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Stored]:
        """The messages of ``topics`` (None: all) as they were written, from ``start_ns`` until before
        ``stop_ns``."""
        return self._select("id", topics, start_ns, stop_ns)

    def by_time(self, topics: Collection[str] | None = None) -> Iterator[Stored]:
        """The same in the order of receive times."""
        return self._select("timestamp", topics, None, None)

    def _select(
        self, order: str, topics: Collection[str] | None, start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Stored]:
        with self._open() as database:
            known = self._topics(database)
            chosen = [n for n, (name, _) in known.items() if topics is None or name in topics]
            places = ",".join("?" * len(chosen))
            # In the order of writing no index is needed, and the one on timestamps would mean to sort.
            table = "messages" if order == "timestamp" else "messages NOT INDEXED"
            query = (
                f"SELECT topic_id, timestamp, data FROM {table} WHERE topic_id IN ({places}) "
                f"AND timestamp >= ? AND timestamp < ? ORDER BY {order}"
            )
            first = -(2**63) if start_ns is None else start_ns
            last = 2**63 - 1 if stop_ns is None else stop_ns
            count = 0
            try:
                for topic, time, data in database.execute(query, (*chosen, first, last)):
                    count += 1
                    yield Stored(*known[topic], time, memoryview(data))
            except sqlite3.DatabaseError as error:
                self._damaged(count, error)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.ExitStack() as stack:
            try:
                database = self._connect(self.path)
            except sqlite3.DatabaseError:
                if not self._journals():
                    raise DatasetError(f"{self.path}: this is not an SQLite bag, or it is damaged") from None
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gr00t_bag_")))
                room_for(folder, self.path.stat().st_size)
                for file in (self.path, *self._journals()):
                    shutil.copy2(file, folder / file.name)
                try:
                    database = self._connect(folder / self.path.name, "rw")
                except sqlite3.DatabaseError as error:
                    raise DatasetError(f"{self.path}: not an SQLite bag, or damaged ({error})") from None
            stack.enter_context(contextlib.closing(database))
            yield database

    def _connect(self, path: Path, mode: str = "ro") -> sqlite3.Connection:
        # Without a journal nothing needs to be locked or written, so a bag on a read-only disk opens.
        options = f"mode={mode}" if self._journals() else "immutable=1"
        database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?{options}", uri=True)
        try:
            # With this SQLite opens a file that is shorter than its header says, too: one that was cut off.
            database.execute("PRAGMA writable_schema=ON")
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            if not {"topics", "messages"} <= tables:
                raise sqlite3.DatabaseError("no tables of a bag")
            database.execute("SELECT 1 FROM messages LIMIT 1").fetchall()
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _journals(self) -> list[Path]:
        files = [self.path.with_name(self.path.name + end) for end in _JOURNALS]
        return [file for file in files if file.exists()]

    def _topics(self, database: sqlite3.Connection) -> dict[int, tuple[str, str]]:
        rows = database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        for _, name, _, encoding in rows:
            if encoding not in ("cdr", ""):
                raise DatasetError(f"{self.path}: {name} is encoded as {encoding!r}, expected cdr (ROS 2)")
        return {number: (name, kind) for number, name, kind, _ in rows}

    def _definitions(self, database: sqlite3.Connection) -> dict[str, Definition]:
        """Recorders write them from ROS 2 Iron on."""
        try:
            rows = database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ).fetchall()
        except sqlite3.DatabaseError:
            return {}
        return {kind: Definition(encoding, text) for kind, encoding, text in rows if text}

    def _damaged(self, count: int, error: sqlite3.DatabaseError) -> None:
        if not self.notes:  # the survey looks at all messages, and comes first
            self.notes.append(f"is damaged after {count} messages ({error})")
