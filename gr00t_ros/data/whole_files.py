# SPDX-License-Identifier: Apache-2.0
"""Folders that exist under their name only when they are whole.

Whatever a conversion writes lies in ``NAME.partial`` until its last byte is on the disk, and is then renamed.
A process that is killed, a disk that fills up or a lost power supply leaves a ``.partial``, which the next
run removes, and never something that looks finished.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from gr00t_ros.errors import DatasetError

SUFFIX = ".partial"
LOCK = "lock"
# What the system says when there is no room.
_FULL = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file has reached the largest size that is allowed",
}
_MIB = 1 << 20


def partial_path(path: Path) -> Path:
    """Where ``path`` is written until it is whole."""
    return path.with_name(path.name + SUFFIX)


class WholeFolder:
    """Makes the folder ``path``: its contents are written below ``partial``, ``commit`` gives it its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = partial_path(path)
        if path.exists():
            raise DatasetError(f"{path} exists already; name another folder, or remove it")
        with storing(path):
            remove(self.partial)
            self.partial.mkdir(parents=True)

    def commit(self) -> None:
        """Brings everything to the disk, then renames. Raises DatasetError; the folder is then not there."""
        with storing(self.path):
            sync_tree(self.partial)
            # rename would replace an empty folder that someone else made in the meantime.
            if self.path.exists():
                raise DatasetError(f"{self.path} was made by someone else while it was written")
            self.partial.rename(self.path)
            _sync(self.path.parent)

    def discard(self) -> None:
        """Removes what was written."""
        shutil.rmtree(self.partial, ignore_errors=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes ``folder`` and keeps other processes from working in it. Raises DatasetError where one does."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"{folder}: another process works there; wait for it, or name another"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that it holds; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Waits until all files and folders below ``folder``, and itself, are on the disk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` into a file that is whole or as it was; numbers that JSON does not have (NaN) are
    refused with ValueError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{SUFFIX}")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def write_json_lines(path: Path, values: Iterator[Any] | list[Any]) -> None:
    """Writes one value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value, allow_nan=False) + "\n" for value in values)


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object. Raises DatasetError that says that ``what`` was expected there."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}), expected {what}") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected {what}, found {type(value).__name__}")
    return value


@contextmanager
def storing(path: Path, needed: int = 0) -> Iterator[None]:
    """Turns what goes wrong while writing below ``path`` into a DatasetError.

    Args:
        needed: bytes that are to be written at least, for the message about a full disk; 0 where unknown.
    """
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        if error.errno in _FULL:
            raise DatasetError(_full(path, _FULL[error.errno], needed)) from error
        raise DatasetError(f"{path}: cannot be written ({error})") from error


def refuse_without_room(path: Path, needed: int) -> None:
    """Raises DatasetError when fewer than ``needed`` bytes are free where ``path`` is to be."""
    if needed > free_space(path):
        raise DatasetError(
            f"{path}: {_mib(needed)} are needed there, {_mib(free_space(path))} are free; make room, or "
            "choose another place"
        )


def _full(path: Path, what: str, needed: int) -> str:
    wanted = f", at least {_mib(needed)} were needed" if needed else ""
    written = _mib(size_of(partial_path(path)) or size_of(path))
    return (
        f"{path}: {what} after {written}; {_mib(free_space(path))} are free{wanted}. Nothing "
        "half-written was kept: make room, or choose another place, and run the command again"
    )


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is none."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(place, name).stat().st_size
            except OSError:
                continue  # just removed
    return total


def free_space(path: Path) -> int:
    """Bytes that may still be written where ``path`` is, or will be."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
