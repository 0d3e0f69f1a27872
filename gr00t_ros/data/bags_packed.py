# SPDX-License-Identifier: Apache-2.0
"""zstd and lz4 as rosbag2 uses them, also of data whose end is missing."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

from gr00t_ros.errors import DatasetError
from gr00t_ros.zstd import ZSTANDARD, zstd_library

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SUFFIXES = (".zstd", ".zst")
_PIECE = 4 * 1024 * 1024
_DAMAGED: tuple[type[Exception], ...] = (EOFError, ValueError, RuntimeError, MemoryError)


def decompressed(data: memoryview, compression: str, size: int) -> memoryview:
    """The contents of ``data``, at most ``size`` bytes, whatever it claims to hold; of data that is cut off,
    what can be had.

    Raises:
        DatasetError: unknown compression, or the data is damaged.
    """
    try:
        if compression == "zstd":
            return memoryview(_zstd_up_to(bytes(data), size))
        if compression == "lz4":
            lz4 = importlib.import_module("lz4.frame")
            return memoryview(lz4.LZ4FrameDecompressor().decompress(data, max_length=size))
    except ImportError as error:
        raise DatasetError(f"{compression} needs a Python package that is not installed ({error})") from None
    except _DAMAGED + _zstd_errors() as error:
        raise DatasetError(f"{compression} data is damaged: {error}") from error
    raise DatasetError(f"compression {compression!r} is not known, expected zstd or lz4")


def decompress_file(source: Path, target: Path) -> bool:
    """Unpacks a zstd file as far as it goes; whether its end was there."""
    unpacker: Any = _zstd()
    with source.open("rb") as packed, target.open("wb") as unpacked:
        while piece := packed.read(_PIECE):
            try:
                while piece:
                    unpacked.write(unpacker.decompress(piece))
                    piece = unpacker.unused_data if unpacker.eof else b""
                    if piece:  # files that were appended to have several frames
                        unpacker = _zstd()
            except _DAMAGED + _zstd_errors():
                return False
    return bool(unpacker.eof)


def room_for(path: Path, needed: int) -> None:
    """Raises DatasetError where a folder has less than ``needed`` bytes free."""
    free = shutil.disk_usage(path).free
    if free < needed:
        raise DatasetError(
            f"{path}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB or more are needed to unpack a "
            "compressed bag; set TMPDIR to a larger disk"
        )


def _zstd_up_to(data: bytes, size: int) -> bytes:
    zstd = zstd_library()
    if zstd.__name__ == ZSTANDARD:
        unpacked: bytes = zstd.ZstdDecompressor().stream_reader(data).read(size)
    else:
        unpacked = zstd.ZstdDecompressor().decompress(data, max_length=size)
    return unpacked


def _zstd() -> Any:
    """A streaming decompressor: ``decompress``, ``eof``, ``unused_data``."""
    zstd = zstd_library()
    found = zstd.ZstdDecompressor()
    return found.decompressobj() if zstd.__name__ == ZSTANDARD else found


def _zstd_errors() -> tuple[type[Exception], ...]:
    try:
        return (zstd_library().ZstdError,)
    except ImportError:
        return ()
