# SPDX-License-Identifier: Apache-2.0
"""Which files a recording consists of, also where its recorder was killed before it could say so.

metadata.yaml gives the order of the files and what is to be expected in them. It is written last, so a
recording that broke off has none, or one that is older than its files. What the files themselves hold is
always asked of them.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from gr00t_ros.data import bags_mcap, bags_sqlite
from gr00t_ros.data.bags_packed import ZSTD_SUFFIXES, decompress_file, room_for
from gr00t_ros.data.bags_storage import Storage
from gr00t_ros.errors import DatasetError

METADATA = "metadata.yaml"
_STORAGES: Mapping[str, Any] = {
    bags_mcap.SUFFIX: bags_mcap.McapFile,
    bags_sqlite.SUFFIX: bags_sqlite.SqliteFile,
}
_KINDS = "a rosbag2 folder, or a file *.mcap or *.db3"


@dataclass(frozen=True)
class BagFiles:
    """The storage files of one recording, in order. ``message_count`` is metadata.yaml's, 0 without;
    ``notes`` tells what is wrong."""

    paths: tuple[Path, ...]
    message_count: int
    notes: tuple[str, ...]


def is_bag(path: Path) -> bool:
    """Whether there is a recording at ``path``, whole or not."""
    if path.is_file():
        return _storage_suffix(path) is not None
    return path.is_dir() and ((path / METADATA).is_file() or bool(_storage_files(path)))


def find_files(path: Path) -> BagFiles:
    """The files of the recording at ``path``. Raises DatasetError where there is none."""
    if not path.exists():
        raise DatasetError(f"{path} does not exist; expected {_KINDS}")
    if path.is_file():
        if _storage_suffix(path) is None:
            raise DatasetError(f"{path} is not a recording; expected {_KINDS}")
        return BagFiles((path,), 0, ())
    found = {file.name: file for file in _storage_files(path)}
    names, count, notes = _metadata(path, found)
    missing = [name for name in names if name not in found]
    if missing:
        notes.append(f"{', '.join(missing)} missing, which {METADATA} names")
    unnamed = [name for name in found if name not in names]
    if names and unnamed:
        notes.append(f"{', '.join(unnamed)} not in {METADATA}, taken too")
    chosen = [found[name] for name in (*(n for n in names if n in found), *unnamed)]
    if not chosen:
        if notes and (path / METADATA).is_file():
            raise DatasetError(f"{path}: cannot be read as a rosbag2: {'; '.join(notes)}")
        raise DatasetError(f"{path}: no recording; expected {_KINDS}")
    kinds = {_storage_suffix(file) for file in chosen}
    if len(kinds) > 1:
        raise DatasetError(f"{path}: holds {' and '.join(sorted(map(str, kinds)))} files, expected one kind")
    return BagFiles(tuple(chosen), count, tuple(notes))


def unpacked(files: BagFiles, stack: contextlib.ExitStack) -> Iterator[Storage]:
    """Readers of the files. What is compressed as a whole is unpacked, into a folder that ``stack``
    removes."""
    packed = [file for file in files.paths if file.suffix in ZSTD_SUFFIXES]
    folder = Path()
    if packed:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gr00t_bag_")))
        room_for(folder, sum(file.stat().st_size for file in packed))
    for file in files.paths:
        suffix = _storage_suffix(file)
        if file in packed:
            target = folder / file.stem
            whole = decompress_file(file, target)
            storage: Storage = _STORAGES[suffix or ""](target)
            if not whole:
                storage.notes.append("is cut off (zstd)")
        else:
            storage = _STORAGES[suffix or ""](file)
        yield storage


def _metadata(path: Path, found: Mapping[str, Path]) -> tuple[list[str], int, list[str]]:
    """Names of the files in order, the number of messages, and notes, from metadata.yaml."""
    try:
        text = (path / METADATA).read_text(encoding="utf-8")
    except FileNotFoundError:
        return [], 0, [f"no {METADATA}"]
    except (OSError, UnicodeDecodeError) as error:
        return [], 0, [f"{METADATA} cannot be read ({error})"]
    try:
        info = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        info = info["rosbag2_bagfile_information"]
        names = [PurePath(name).name for name in info["relative_file_paths"]]
        # Recorders before Foxy's last named a file without the end that compression gave it.
        names = [next((n for n in (name, f"{name}.zstd") if n in found), name) for name in names]
        return names, int(info["message_count"]), []
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return [], 0, [f"{METADATA} is damaged"]


def _storage_files(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.is_file() and _storage_suffix(file)]
    return sorted(
        files, key=lambda file: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", file.name)]
    )


def _storage_suffix(file: Path) -> str | None:
    suffix = Path(file.stem).suffix if file.suffix in ZSTD_SUFFIXES else file.suffix
    return suffix if suffix in _STORAGES else None
