# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint is this? Its weights and configuration as one SHA-256, hashed once and remembered.

Hashing 6.6 GB at every start would cost a robot seconds, so the result is kept beside the engine, by path,
size and time of change. It is trusted only where all three agree; a file replaced by one of the same size
with its old time put back is not noticed.
"""

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gr00t_model.errors import BackendError, CheckpointError
from gr00t_model.tensor_files import CONFIG_FILE, INDEX_FILE, SINGLE_FILE

CACHE_FILE = "fingerprints.json"
_CACHE_FORMAT = 1
_CHUNK = 1 << 22
# A file that changed this recently may change again within the same tick of its clock.
_SETTLED_NS = 2_000_000_000

ReadProgress = Callable[[int], None]
"""Called with the bytes read since the last call, one caller at a time."""


def sha256_of(path: Path, progress: ReadProgress | None = None) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces.

    Raises:
        BackendError: it cannot be read.
    """
    value = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                value.update(view[:count])
                if progress is not None:
                    progress(count)
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error.strerror}") from error
    return value.hexdigest()


def checkpoint_files(directory: Path) -> list[Path]:
    """What a network is made from: config.json, the index where there is one, and the safetensors files.

    Raises:
        CheckpointError: one is missing.
    """
    names = [CONFIG_FILE, SINGLE_FILE]
    index = directory / INDEX_FILE
    if index.exists():
        try:
            shards = set(json.loads(index.read_bytes())["weight_map"].values())
            names = [CONFIG_FILE, INDEX_FILE, *sorted(Path(shard).name for shard in shards)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index} has no weight_map from tensor names to files") from error
    absent = [name for name in names if not (directory / name).is_file()]
    if absent:
        raise CheckpointError(f"{directory} lacks {', '.join(absent)}; copy or download it again")
    return [directory / name for name in names]


def checkpoint_sha256(
    directory: str | os.PathLike[str],
    *,
    cache: Path | None = None,
    threads: int = 4,
    progress: ReadProgress | None = None,
) -> str:
    """A checkpoint's fingerprint: the same for the same files by the same names, wherever they lie.

    Args:
        directory: the checkpoint.
        cache: a file of earlier results, usually ``fingerprints.json`` of the engine's directory; read and
            added to. One that cannot be read or written is passed over.
        threads: files are hashed side by side.
        progress: told of the bytes that are read; none where the cache knows the file.

    Raises:
        CheckpointError: a file is missing.
        BackendError: a file cannot be read, or changes while it is read.
    """
    files = [path.resolve() for path in checkpoint_files(Path(directory))]
    names = [path.name for path in checkpoint_files(Path(directory))]
    known = _read_cache(cache)
    report = _one_at_a_time(progress)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        entries = list(pool.map(lambda path: _hash(path, known, report), files))
    _write_cache(cache, known, dict(zip(map(str, files), entries, strict=True)))
    lines = "".join(
        f"{entry['sha256']}  {name}\n" for name, entry in sorted(zip(names, entries, strict=True), key=_first)
    )
    return hashlib.sha256(lines.encode()).hexdigest()


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _hash(path: Path, known: dict[str, Any], progress: ReadProgress | None) -> dict[str, Any]:
    before = _identity(path)
    entry = known.get(str(path))
    if isinstance(entry, dict) and {**before, "sha256": entry.get("sha256")} == entry:
        return entry
    value = sha256_of(path, progress)
    if _identity(path) != before:
        raise BackendError(f"{path} changed while it was read; try again when it is complete")
    return {**before, "sha256": value}


def _identity(path: Path) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error.strerror}") from error
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _one_at_a_time(progress: ReadProgress | None) -> ReadProgress | None:
    if progress is None:
        return None
    lock = threading.Lock()

    def report(count: int) -> None:
        with lock:
            progress(count)

    return report


def _read_cache(cache: Path | None) -> dict[str, Any]:
    if cache is None:
        return {}
    try:
        content = json.loads(cache.read_bytes())
        entries = content["files"] if content["format_version"] == _CACHE_FORMAT else {}
        return {
            path: entry
            for path, entry in entries.items()
            if len(bytes.fromhex(entry["sha256"])) == hashlib.sha256().digest_size
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _write_cache(cache: Path | None, known: dict[str, Any], entries: dict[str, dict[str, Any]]) -> None:
    """Remember what has settled. A directory that cannot be written costs time at the next start only."""
    if cache is None:
        return
    now = time.time_ns()
    settled = {path: entry for path, entry in entries.items() if entry["mtime_ns"] < now - _SETTLED_NS}
    if all(known.get(path) == entry for path, entry in settled.items()):
        return
    partial = cache.with_name(f".{cache.name}.{os.getpid()}.partial")
    text = json.dumps({"format_version": _CACHE_FORMAT, "files": {**known, **settled}}, indent=2)
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text + "\n")
        partial.replace(cache)
