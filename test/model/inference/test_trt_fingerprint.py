# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of checkpoints: they follow the content, and nothing old is remembered."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gr00t_model.errors import BackendError, CheckpointError
from gr00t_model.inference.trt import fingerprint
from gr00t_model.inference.trt.fingerprint import CACHE_FILE, checkpoint_sha256

SHA = "ab" * 32


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    age(directory)
    return directory


def age(directory: Path) -> None:
    """Files that changed long ago."""
    for path in directory.iterdir():
        os.utime(path, ns=(10**18, 10**18))


def test_a_fingerprint_follows_content_and_not_place(checkpoint, tmp_path):
    first = checkpoint_sha256(checkpoint)
    assert checkpoint_sha256(shutil.copytree(checkpoint, tmp_path / "copy")) == first
    for name in ("config.json", "model.safetensors"):
        before = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(before + b" ")
        assert checkpoint_sha256(checkpoint) != first
        (checkpoint / name).write_bytes(before)
    (checkpoint / "README.md").write_text("no part of the network")
    assert checkpoint_sha256(checkpoint) == first


def test_shards_are_those_of_the_index(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "model-1.safetensors")
    (checkpoint / "model-2.safetensors").write_bytes(b"more")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    done: list[int] = []
    first = checkpoint_sha256(checkpoint, progress=done.append)
    assert sum(done) == sum(path.stat().st_size for path in checkpoint.iterdir())
    (checkpoint / "adapter.safetensors").write_bytes(b"of another program")
    assert checkpoint_sha256(checkpoint) == first
    (checkpoint / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-2\.safetensors"):
        checkpoint_sha256(checkpoint)
    (checkpoint / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no weight_map"):
        checkpoint_sha256(checkpoint)


def test_what_was_hashed_is_remembered_until_size_or_time_changes(checkpoint, tmp_path):
    cache = tmp_path / "engine" / CACHE_FILE
    read: list[int] = []

    def again() -> tuple[str, int]:
        read.clear()
        return checkpoint_sha256(checkpoint, cache=cache, progress=read.append), sum(read)

    first, count = again()
    assert count == 9
    assert again() == (first, 0)
    weights = checkpoint / "model.safetensors"
    os.utime(weights, ns=(10**18, 10**18 + 1))
    assert again() == (first, 7)
    weights.write_bytes(b"weight5")
    second, count = again()
    assert second != first
    assert count == 7
    assert again() == (second, 7)  # changed a moment ago: not remembered yet
    for damage in (b"", b"[]", b'{"format_version": 1, "files": {"a": {"sha256": 3}}}', b"\xff"):
        cache.write_bytes(damage)
        assert again()[0] == second


def test_a_cache_that_cannot_be_written_is_no_failure(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    assert checkpoint_sha256(checkpoint, cache=tmp_path / "file" / CACHE_FILE) == checkpoint_sha256(
        checkpoint
    )


def test_a_file_that_changes_while_it_is_read(checkpoint, monkeypatch):
    def slowly(path: Path, progress: Any) -> str:
        path.write_bytes(path.read_bytes() + b"+")
        return SHA

    monkeypatch.setattr(fingerprint, "sha256_of", slowly)
    with pytest.raises(BackendError, match="changed while it was read"):
        checkpoint_sha256(checkpoint)
