# SPDX-License-Identifier: Apache-2.0
"""MCAP files from their first byte on, so that one whose end is missing reads as far as it goes.

https://mcap.dev/spec: a file is a sequence of records; messages lie in it directly or in chunks, which may be
compressed. What comes after the data (index, statistics, footer) is there only when the recorder ended
well; it is used where it is there, and nothing depends on it. Messages come in the order in which they were
written, as views of a chunk's memory: they are not copied.
"""

from __future__ import annotations

import heapq
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from gr00t_ros.data.bags_packed import decompressed
from gr00t_ros.data.bags_storage import Definition, Stored, Survey, apart
from gr00t_ros.errors import DatasetError

MAGIC = b"\x89MCAP0\r\n"
SUFFIX = ".mcap"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _STATISTICS, _DATA_END = 3, 4, 5, 6, 8, 11, 15
_FOOTER = 2
_FOOTER_SIZE = 1 + 8 + 20 + len(MAGIC)
_RECORD = Struct("<BQ")  # opcode, length
_MESSAGE_HEAD = Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK_HEAD = Struct("<QQQI")  # first and last log time, uncompressed size, CRC
_SHORT, _INT, _LONG = Struct("<H"), Struct("<I"), Struct("<Q")
# A record of another kind than a message or a chunk is small: what claims to be longer is damage.
_MAX_OTHER = 256 * 1024 * 1024
# What a chunk may unpack to; recorders close them at a few megabytes, or behind the message that fills them.
_MAX_CHUNK = 1 << 32


class McapFile:
    """One MCAP file. ``notes`` tells what was found damaged, once it was read over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._channels: dict[int, tuple[str, str]] = {}  # id -> topic, type
        self._schemas: dict[int, tuple[str, Definition]] = {}  # id -> type, definition
        self._chunks: dict[int, frozenset[int]] = {}  # offset of a chunk -> ids of its channels

    def survey(self) -> Survey:
        """What the file holds: from its end where that is whole, else by reading all of it."""
        with self._open() as file:
            return self._summary(file) or self._scan(file)

    def stored(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Stored]:
        """The messages of ``topics`` (None: all) as they were written, from ``start_ns`` until before
        ``stop_ns``."""
        first = -1 if start_ns is None else start_ns
        last = 2**63 if stop_ns is None else stop_ns
        with self._open() as file:
            wanted = None if topics is None else frozenset(topics)
            for begin, records in self._pieces(file, wanted, first, last):
                yield from self._messages(begin, records, wanted, first, last)

    def by_time(self, topics: Collection[str] | None = None) -> Iterator[Stored]:
        """The same in the order of receive times, for a file that holds one topic after another, in chunks or
        without. The memory that it takes is that of the chunks that overlap in time."""
        with self._open() as file:
            spans = sorted(self._spans(file))
            held: list[tuple[int, int, Stored]] = []
            count = 0
            wanted = None if topics is None else frozenset(topics)
            for first, offset, length, chunked in spans:
                while held and held[0][0] < first:
                    yield heapq.heappop(held)[2]
                file.seek(offset)
                data = file.read(length)
                records = self._chunk(data, offset) if chunked else memoryview(data)
                for stored in self._messages(offset, records, wanted, -1, 2**63):
                    heapq.heappush(held, (stored.receive_ns, count, stored))
                    count += 1
            while held:
                yield heapq.heappop(held)[2]

    # ---- the file's parts ---------------------------------------------------------------------

    def _open(self) -> BinaryIO:
        file = self.path.open("rb")
        if file.read(len(MAGIC)) != MAGIC:
            file.close()
            raise DatasetError(f"{self.path}: this is not an MCAP file; it does not begin like one")
        return file

    def _walk(self, file: BinaryIO) -> Iterator[tuple[int, int, int]]:
        """(opcode, offset of the content, its length) of each record of the data; a length is that which is
        there. The file may be moved meanwhile."""
        size = os.fstat(file.fileno()).st_size
        at = len(MAGIC)
        while at < size:
            file.seek(at)
            head = file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                break
            opcode, length = _RECORD.unpack(head)
            begin = at + _RECORD.size
            if opcode in (_DATA_END, _FOOTER):
                return
            # Opcode 0 is none of the format's: what a disk shows of a file whose last bytes never came.
            if opcode == 0 or opcode > 0x7F or (opcode not in (_MESSAGE, _CHUNK) and length > _MAX_OTHER):
                self._note(f"is damaged from byte {at} on; what comes before it is used")
                return
            at = begin + length
            yield opcode, begin, min(length, size - begin)
        self._note(f"breaks off after {size} bytes")

    def _pieces(
        self, file: BinaryIO, wanted: frozenset[str] | None, first: int, last: int
    ) -> Iterator[tuple[int, memoryview]]:
        """Runs of records: chunks without those that hold nothing that is wanted, and records between."""
        for opcode, begin, length in self._walk(file):
            if opcode == _CHUNK:
                channels = self._chunks.get(begin - _RECORD.size)
                if wanted is not None and channels is not None and not self._any(channels, wanted):
                    continue
                file.seek(begin)
                if first > 0 or last < 2**63:
                    low, high, _, _ = _CHUNK_HEAD.unpack(_padded(file.read(_CHUNK_HEAD.size)))
                    if low >= last or (high < first and high > 0):
                        continue
                    file.seek(begin)
                yield begin, self._chunk(file.read(length), begin)
            elif opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                file.seek(begin - _RECORD.size)
                yield begin, memoryview(file.read(_RECORD.size + length))

    def _any(self, channels: frozenset[int], wanted: frozenset[str]) -> bool:
        return any(self._channels[c][0] in wanted for c in channels if c in self._channels)

    def _chunk(self, content: bytes, offset: int) -> memoryview:
        """The records of a chunk; of one that is cut off those that are there, none of a damaged one."""
        if len(content) < _CHUNK_HEAD.size + 4:
            return memoryview(b"")
        _, _, size, crc = _CHUNK_HEAD.unpack_from(content)
        at = _CHUNK_HEAD.size
        (name_size,) = _INT.unpack_from(content, at)
        begin = at + 4 + name_size + _LONG.size
        if begin > len(content):
            return memoryview(b"")
        compression = content[at + 4 : at + 4 + name_size].decode("ascii", "replace")
        (packed,) = _LONG.unpack_from(content, begin - _LONG.size)
        data = memoryview(content)[begin : begin + packed]
        if not compression:
            whole = len(data) == packed
        else:
            try:
                data, whole = decompressed(data, compression, min(size, _MAX_CHUNK)), len(data) == packed
            except DatasetError as error:
                self._note(f"has a chunk at byte {offset} that cannot be used ({error})")
                return memoryview(b"")
        if whole and crc and zlib.crc32(data) != crc:
            self._note(f"has a damaged chunk at byte {offset}, which is left out (its checksum is wrong)")
            return memoryview(b"")
        return data

    def _messages(
        self, offset: int, records: memoryview, wanted: frozenset[str] | None, first: int, last: int
    ) -> Iterator[Stored]:
        """The messages among ``records``; schemas and channels are remembered."""
        at, size = 0, len(records)
        unpack_record, unpack_head = _RECORD.unpack_from, _MESSAGE_HEAD.unpack_from
        while at + _RECORD.size <= size:
            opcode, length = unpack_record(records, at)
            begin = at + _RECORD.size
            at = begin + length
            if at > size:
                return  # the file ends here
            if opcode == _MESSAGE:
                channel, _, time, _ = unpack_head(records, begin)
                known = self._channels.get(channel)
                if known is None:
                    self._note(f"has messages of an unknown channel {channel} at byte {offset}")
                elif (wanted is None or known[0] in wanted) and first <= time < last:
                    yield Stored(known[0], known[1], time, records[begin + _MESSAGE_HEAD.size : at])
            elif opcode == _SCHEMA:
                self._read_schema(records[begin:at])
            elif opcode == _CHANNEL:
                self._read_channel(records[begin:at])

    def _read_schema(self, content: memoryview) -> None:
        (number,) = _SHORT.unpack_from(content)
        name, at = _text(content, 2)
        encoding, at = _text(content, at)
        text, _ = _text(content, at)
        self._schemas[number] = (name, Definition(encoding, text))

    def _read_channel(self, content: memoryview) -> None:
        number, schema = Struct("<HH").unpack_from(content)
        topic, at = _text(content, 4)
        encoding, _ = _text(content, at)
        if encoding not in ("cdr", ""):
            raise DatasetError(f"{self.path}: {topic} is encoded as {encoding!r}, expected cdr (ROS 2)")
        self._channels[number] = (topic, self._schemas.get(schema, ("", None))[0])

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    # ---- what the file holds ------------------------------------------------------------------

    def _definitions(self) -> dict[str, Definition]:
        return {name: definition for name, definition in self._schemas.values() if definition.text}

    def _topics(self) -> dict[str, str]:
        return dict(self._channels.values())

    def _summary(self, file: BinaryIO) -> Survey | None:
        """From the part behind the data; None where there is none, or not all of it."""
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) + _FOOTER_SIZE:
            return None
        file.seek(size - _FOOTER_SIZE)
        footer = file.read(_FOOTER_SIZE)
        if footer[-len(MAGIC) :] != MAGIC or footer[0] != _FOOTER:
            return None
        (start,) = _LONG.unpack_from(footer, _RECORD.size)
        if not len(MAGIC) <= start < size:
            return None
        file.seek(start)
        content = memoryview(file.read(size - _FOOTER_SIZE - start))
        statistics: memoryview | None = None
        spans = []
        at = 0
        while at + _RECORD.size <= len(content):
            opcode, length = _RECORD.unpack_from(content, at)
            begin, at = at + _RECORD.size, at + _RECORD.size + length
            if opcode == _SCHEMA:
                self._read_schema(content[begin:at])
            elif opcode == _CHANNEL:
                self._read_channel(content[begin:at])
            elif opcode == _STATISTICS:
                statistics = content[begin:at]
            elif opcode == _CHUNK_INDEX:
                first, last, offset, _, ids = Struct("<QQQQI").unpack_from(content, begin)
                entries = range(begin + 36, begin + 36 + ids, 10)
                self._chunks[offset] = frozenset(_SHORT.unpack_from(content, place)[0] for place in entries)
                spans.append((offset, first, last))
        if statistics is None or not self._channels or not self._schemas:
            return None
        _, _, _, _, _, chunks, start_ns, end_ns, used = Struct("<QHIIIIQQI").unpack_from(statistics)
        counts: Counter[str] = Counter()
        for place in range(46, 46 + used, 10):
            channel, count = Struct("<HQ").unpack_from(statistics, place)
            counts[self._channels.get(channel, ("", ""))[0]] += count
        if chunks != len(spans):
            return None
        loose = not spans and any(counts.values())  # no index says in which order they are
        if loose or not _ascending((first, last) for _, first, last in sorted(spans)):
            return self._scan(file)
        return Survey(self._topics(), dict(counts), start_ns, end_ns, self._definitions(), True)

    def _scan(self, file: BinaryIO) -> Survey:
        """By reading everything. What is damaged goes into ``notes``."""
        counts: Counter[str] = Counter()
        newest: dict[str, int] = {}
        low, high, back, grouped = 2**63, 0, False, True
        for begin, records in self._pieces(file, None, -1, 2**63):
            for stored in self._messages(begin, records, None, -1, 2**63):
                counts[stored.topic] += 1
                time = stored.receive_ns
                back = back or apart(high, time)
                grouped = grouped and not apart(newest.get(stored.topic, 0), time)
                low, high, newest[stored.topic] = min(low, time), max(high, time), time
        return Survey(
            self._topics(),
            {topic: counts[topic] for topic in self._topics()},
            low if counts else 0,
            high,
            self._definitions(),
            not self.notes,
            by_topic=back and grouped,
        )

    def _spans(self, file: BinaryIO) -> Iterator[tuple[int, int, int, bool]]:
        """(first time, offset, length, whether it is a chunk) of the content of every chunk, and of every
        message between them as a record."""
        for opcode, begin, length in self._walk(file):
            file.seek(begin)
            if opcode == _CHUNK:
                first, _, _, _ = _CHUNK_HEAD.unpack(_padded(file.read(_CHUNK_HEAD.size)))
                yield first, begin, length, True
            elif opcode == _MESSAGE and length >= _MESSAGE_HEAD.size:
                _, _, time, _ = _MESSAGE_HEAD.unpack(file.read(_MESSAGE_HEAD.size).ljust(_MESSAGE_HEAD.size))
                yield time, begin - _RECORD.size, _RECORD.size + length, False


def _ascending(spans: Iterator[tuple[int, int]]) -> bool:
    """Whether no chunk goes back behind the ones before it."""
    newest = 0
    for first, last in spans:
        if apart(newest, first):
            return False
        newest = max(newest, last)
    return True


def _text(content: memoryview, at: int) -> tuple[str, int]:
    (size,) = _INT.unpack_from(content, at)
    return bytes(content[at + 4 : at + 4 + size]).decode("utf-8", "replace"), at + 4 + size


def _padded(head: bytes) -> bytes:
    return head.ljust(_CHUNK_HEAD.size, b"\0")
