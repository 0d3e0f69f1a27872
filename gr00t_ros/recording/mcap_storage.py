# SPDX-License-Identifier: Apache-2.0
"""rosbags' MCAP writer, made to lose little: to a killed process at most what was not flushed, to a full disk
only the chunk that did not fit.

rosbags collects messages in chunks of a megabyte and writes through a buffer of Python's. Here every chunk
goes to the operating system whole, chunks can be closed at any time (``flush``), and one that cannot be
written is taken back, so that the file ends behind its last whole chunk and can still be closed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter

from gr00t_ros.recording.names import RECORDING
from gr00t_ros.zstd import ZSTANDARD, zstd_library

# zstd's own default takes thirty times as long for pictures, which their noise keeps from becoming much
# smaller (640x480: 13 ms at level 3, up to 3 ms at -1, at most 0.6 ms at this one). Rendered pictures still
# shrink to a hundredth, joint states to a seventh (an eighth at level 3).
LEVEL = -7
# A chunk is closed when it is larger, as by rosbags.
CHUNK_BYTES = 2**20
# A message record: opcode, length, channel, sequence number, log time, publish time, then the message.
_MESSAGE = struct.Struct("<BQHIQQ")
_OPCODE, _LENGTH_AND_OPCODE = 0x05, 9


def _compressor() -> Callable[[bytes], bytes]:
    """zstd with a checksum, which rosbags leaves out."""
    zstd = zstd_library()
    if zstd.__name__ == ZSTANDARD:
        compressor: Callable[[bytes], bytes] = zstd.ZstdCompressor(level=LEVEL, write_checksum=True).compress
        return compressor
    known = zstd.CompressionParameter
    return partial(zstd.compress, options={known.compression_level: LEVEL, known.checksum_flag: 1})


class _Unbuffered:
    """The part of a binary file that rosbags uses, without a buffer: bytes are written or an OSError is
    raised."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._size = os.fstat(self._file).st_size

    def write(self, data: Any) -> int:
        """All of ``data``."""
        left = memoryview(data).cast("B")
        while left:
            written = os.write(self._file, left)
            self._size += written
            left = left[written:]
        return memoryview(data).nbytes

    def tell(self) -> int:
        """Bytes in the file."""
        return self._size

    def cut(self, size: int) -> None:
        """Forgets everything behind ``size``."""
        os.ftruncate(self._file, size)
        self._size = size

    def close(self) -> None:
        """Closes the file; may be called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class SafeMcapWriter(McapWriter):
    """See the module."""

    path: Path
    chunk: Any
    message_start_time: int
    message_end_time: int

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        """``path`` is the folder; the file in it is called as the folder will be."""
        super().__init__(path, compression)
        self.bio.close()
        name = path.name.removesuffix(RECORDING)
        self.path = self.path.rename(path / f"{name}.mcap")
        self.bio: Any = _Unbuffered(self.path)
        self.compressor: Callable[[bytes], bytes] = _compressor()
        self._begins: list[tuple[int, dict[int, int]]] = []  # of each chunk: where, and messages by channel

    def write(self, connection: Any, timestamp: int, data: bytes | memoryview) -> None:
        """One message. rosbags copies it twice on its way into the chunk, which for pictures takes more time
        than compressing them."""
        self.message_start_time = min(timestamp, self.message_start_time)
        self.message_end_time = max(timestamp, self.message_end_time)
        self.channel_stats[connection.id] += 1
        chunk = self.chunk
        chunk.message_start_time = min(timestamp, chunk.message_start_time)
        chunk.message_end_time = max(timestamp, chunk.message_end_time)
        chunk.msgs[connection.id].append((timestamp, chunk.bio.tell()))
        length = _MESSAGE.size - _LENGTH_AND_OPCODE + len(data)
        chunk.bio.write(_MESSAGE.pack(_OPCODE, length, connection.id, 0, timestamp, timestamp))
        chunk.bio.write(data)
        if chunk.bio.tell() > CHUNK_BYTES:
            self.close_chunk()

    def close_chunk(self) -> None:
        """Writes the pending chunk whole, or nothing of it and raises OSError."""
        begin, chunks, chunk = self.bio.tell(), len(self.chunks), self.chunk
        self._begins.append((begin, {channel: len(messages) for channel, messages in chunk.msgs.items()}))
        try:
            super().close_chunk()
        except OSError:
            del self.chunks[chunks:]
            self._forget_last()
            self.chunk = type(chunk)(2**63 - 1, 0, type(chunk.bio)(), type(chunk.msgs)(list))
            raise

    def take_back(self) -> None:
        """Forgets the last whole chunk."""
        self.chunks.pop()
        self._forget_last()

    def _forget_last(self) -> None:
        begin, counts = self._begins.pop()
        self.bio.cut(begin)
        for channel, count in counts.items():
            self.channel_stats[channel] -= count

    def flush(self) -> None:
        """Hands everything to the operating system."""
        if self.chunk.bio.tell():
            self.close_chunk()

    def close(self, version: int, metadata: str) -> None:
        """Ends the file, or leaves it behind its last whole chunk and raises OSError."""
        self.flush()
        begin = self.bio.tell()
        try:
            super().close(version, metadata)
        except OSError:
            self.bio.cut(begin)
            raise


class McapBag(Writer):
    """A rosbag2 folder with zstd chunks."""

    STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: SafeMcapWriter}  # noqa: RUF012

    min_timestamp: int
    max_timestamp: int

    def __init__(self, path: Path) -> None:
        """``path`` must not exist. Opens at once; raises OSError or rosbags' WriterError."""
        # In versions 4 to 8 of the format quality of service is a text; 9 made it a list, which older readers
        # do not know.
        super().__init__(path, version=8, storage_plugin=StoragePlugin.MCAP)
        self.compression_mode = CompressionMode.STORAGE
        self.open()

    def recount(self) -> None:
        """Counts again what is in the file, after a chunk was taken back."""
        spans = [struct.unpack_from("<QQ", chunk.getbuffer()) for chunk in self.file.chunks]
        self.counts = dict(self.file.channel_stats)
        self.min_timestamp = min((begin for begin, _ in spans), default=self.min_timestamp)
        self.max_timestamp = max((end for _, end in spans), default=self.max_timestamp)
        self.file.message_start_time, self.file.message_end_time = self.min_timestamp, self.max_timestamp

    def close(self) -> None:
        """Ends the bag; where its index has no room any more, without the last chunks.

        Raises OSError when there is no room for anything, or for the metadata.
        """
        while True:
            try:
                super().close()
                return
            except OSError:
                if self.storage is None or not self.file.chunks:
                    raise
                self.file.take_back()
                self.recount()
                if not sum(self.counts.values()):
                    raise

    @property
    def file(self) -> SafeMcapWriter:
        """The open file."""
        assert isinstance(self.storage, SafeMcapWriter)
        return self.storage
