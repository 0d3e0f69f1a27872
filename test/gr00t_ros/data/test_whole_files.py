# SPDX-License-Identifier: Apache-2.0
"""A full disk and a killed process leave nothing that looks whole."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gr00t_ros.data import whole_files
from gr00t_ros.data.assembling import assemble
from gr00t_ros.data.lerobot_writing import read_staged
from gr00t_ros.data.whole_files import WholeFolder, partial_path, storing
from gr00t_ros.errors import DatasetError
from support_writing import LAYOUT, stage

# Writes episodes until it is killed; a line for each row.
WRITER = """
import sys
from pathlib import Path
from gr00t_ros.data.assembling import assemble
from gr00t_ros.data.lerobot_writing import EpisodeWriter
from support_writing import LAYOUT, OPTIONS, row
root = Path(sys.argv[1])
for number in range(1000):
    with EpisodeWriter(root / f"episode_{number}", LAYOUT, OPTIONS) as writer:
        for k in range(20):
            writer.add(row(0, k))
            print(number, k, flush=True)
        writer.finish()
    assemble([root / f"episode_{number}"], root / f"dataset_{number}", LAYOUT, ("v2.1", "v3.0")[number % 2])
    print("assembled", number, flush=True)
"""


def child(root: Path) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parents[2] / "support"), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("rows", [3, 19, 33, 47, 61])
def test_a_killed_process_leaves_only_whole_and_partial_folders(tmp_path: Path, rows: int) -> None:
    process = child(tmp_path)
    assert process.stdout is not None
    try:
        for _ in range(rows):
            assert process.stdout.readline(), "the writer ended by itself"
        time.sleep(rows % 7 / 1000)  # anywhere in what comes next
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    for path in tmp_path.iterdir():
        if path.suffix == ".partial":
            continue
        if path.name.startswith("episode"):
            assert read_staged(path).table().num_rows == read_staged(path).length == 20
        else:
            assert (path / "meta/conversion.json").is_file()
            assert pq.read_table(next(path.glob("data/*/*.parquet"))).num_rows == 20
    # What is left over is in nobody's way.
    left = sorted(path for path in tmp_path.iterdir() if path.suffix == ".partial")
    for path in left:
        if path.name.startswith("episode"):
            assert stage(path.with_suffix(""), 0, 3).length == 3
    assert not any(path.exists() for path in left if path.name.startswith("episode"))


@pytest.mark.parametrize("limit", [60, 3_000, 9_000])
def test_a_full_disk_is_told_and_nothing_half_written_stays(tmp_path: Path, limit: int) -> None:
    """The largest size of a file stands for the disk: video, then the table do not fit any more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(DatasetError) as raised:
            stage(tmp_path / "episode", 0, 150)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "largest size that is allowed" in str(raised.value)
    assert "are free" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_for_the_dataset_is_told_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = stage(tmp_path / "episode", 0, 20).path
    monkeypatch.setattr(whole_files, "free_space", lambda path: 100)
    with pytest.raises(DatasetError, match=r"dataset: 0\.\d MiB are needed there, 0\.0 MiB are free"):
        assemble([staged], tmp_path / "dataset", LAYOUT, "v3.0")
    assert [path.name for path in tmp_path.iterdir()] == ["episode"]


@pytest.mark.parametrize("place", ["pyarrow.parquet.write_table", "os.fsync", "pathlib.Path.write_text"])
def test_a_disk_that_fills_up_while_assembling_leaves_the_episodes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    staged = stage(tmp_path / "episode", 0, 20).path

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(DatasetError, match=r"dataset: no space left after .* MiB are free"):
            assemble([staged], tmp_path / "dataset", LAYOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["episode"]
    assert read_staged(staged).length == 20
    assert assemble([staged], tmp_path / "dataset", LAYOUT).is_dir()


def test_a_folder_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    folder = WholeFolder(tmp_path / "a/b")
    (folder.partial / "file").write_text("x")
    assert folder.partial == partial_path(tmp_path / "a/b") == tmp_path / "a/b.partial"
    assert not folder.path.exists()
    folder.commit()
    assert (tmp_path / "a/b/file").read_text() == "x"
    assert not folder.partial.exists()


def test_a_folder_that_someone_else_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    folder = WholeFolder(tmp_path / "a")
    (tmp_path / "a").mkdir()
    with pytest.raises(DatasetError, match="made by someone else"):
        folder.commit()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file/a: cannot be written"):
        WholeFolder(tmp_path / "file/a")
    with pytest.raises(DatasetError, match="the disk quota is used up"), storing(tmp_path):
        raise OSError(errno.EDQUOT, "quota")
