# SPDX-License-Identifier: Apache-2.0
"""Where a fine-tuned checkpoint comes from: ``provenance.json`` beside its weights, with data, command and
versions.

Enough to make it again, and to tell two of them apart, without any version control.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gr00t_model.tensor_files import CONFIG_FILE, INDEX_FILE

PROVENANCE_FILE = "provenance.json"
_PACKAGES = (
    "gr00t_ros",
    "torch",
    "transformers",
    "diffusers",
    "accelerate",
    "peft",
    "deepspeed",
    "numpy",
    "opencv-python-headless",
    "av",
)
_PIECE = 1 << 22


def dataset_hash(path: Path) -> str:
    """SHA-256 over the names and contents of a dataset's meta and parquet files.

    Not of the videos: they are a hundred times larger, and belong to the rows by number.
    """
    files = {*(path / "meta").rglob("*"), *(path / "data").rglob("*.parquet")}
    return _hash_of(path, (file for file in files if file.is_file()))


def checkpoint_hash(directory: Path) -> str:
    """SHA-256 over the names and contents of a checkpoint's configuration and weights."""
    names = (CONFIG_FILE, INDEX_FILE, "processor_config.json", "statistics.json", "embodiment_id.json")
    files = [*(directory / name for name in names), *directory.glob("model*.safetensors")]
    return _hash_of(directory, (file for file in files if file.is_file()))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages whose code decides the numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(
    *,
    datasets: Sequence[Mapping[str, Any]],
    base: str,
    base_hash: str,
    command: Sequence[str],
    options: dict[str, Any],
    processes: int,
    device: str,
) -> dict[str, Any]:
    """What does not change in the course of a run; the number of steps is added to each checkpoint.

    Args:
        datasets: what identifies each.
    """
    return {
        "datasets": [dict(entry) for entry in datasets],
        "base": {"name": base, "sha256": base_hash},
        "command": list(command),
        "options": options,
        "processes": processes,
        "device": device,
        "versions": versions(),
    }


def _hash_of(root: Path, files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in sorted(files):
        one = hashlib.sha256()
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                one.update(piece)
        total.update(f"{file.relative_to(root).as_posix()}\0{one.hexdigest()}\n".encode())
    return total.hexdigest()
