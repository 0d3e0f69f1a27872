# SPDX-License-Identifier: Apache-2.0
"""Merged shards are what one conversion would have made, and nothing is decoded on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gr00t_ros.data.conversion_report import read_report
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.merging_datasets import merge
from gr00t_ros.data.video_writing import VideoOptions
from gr00t_ros.errors import DatasetError
from support_datasets import write_dataset
from support_published_format import complaints
from support_writing import write_episodes

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"
LENGTHS = (24, 37, 18, 21, 30)


def assert_same(found: Path, wanted: Path) -> None:
    """Every value and every decoded pixel."""
    for name in ("info", "stats", "relative_stats", "modality", "conversion"):
        texts = [(path / f"meta/{name}.json").read_text() for path in (found, wanted)]
        assert json.loads(texts[0]) == json.loads(texts[1]), name
    left, right = LeRobotDataset(found), LeRobotDataset(wanted)
    assert left.tasks == right.tasks
    assert left.episodes == right.episodes or left.version == "v3.0"
    for number in right.episodes:
        a, b = left.episode(number), right.episode(number)
        assert a.instructions == b.instructions
        assert set(a.columns) == set(b.columns)
        for column, values in b.columns.items():
            np.testing.assert_array_equal(a.columns[column], values)
        for key in right.video_keys:
            for one, other in zip(a.frames(key), b.frames(key), strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        fmt: write_episodes(tmp_path_factory.mktemp("whole"), LENGTHS, fmt, conversion={"command": "c"})
        for fmt in ("v2.1", "v3.0")
    }


def test_rows_that_belong_to_no_episode_are_counted_in_the_whole(tmp_path: Path) -> None:
    parts = [
        write_episodes(tmp_path / name, (3, 4), first=1, left_out={"too short": count, "label failure": 2})
        for name, count in (("one", 5), ("two", 6))
    ]
    report = read_report(merge(parts, tmp_path / "merged"))
    assert report.drops == {"stale": 6, "too short": 11, "label failure": 4}
    assert "21 rows left out (60.0%):" in report.lines()


def test_videos_that_are_links_are_taken_as_files(tmp_path: Path) -> None:
    """As they lie in the cache of a hub."""
    part = write_episodes(tmp_path / "part", (3,))
    for video in part.rglob("*.mp4"):
        video.rename(tmp_path / f"{video.parent.name}.blob")
        video.symlink_to(
            Path(*[".."] * (len(video.relative_to(tmp_path).parts) - 1), f"{video.parent.name}.blob")
        )
    merged = merge([part], tmp_path / "merged")
    videos = list(merged.rglob("*.mp4"))
    assert videos
    assert not any(video.is_symlink() for video in videos)
    assert len(list(LeRobotDataset(merged).episode(0).frames(LeRobotDataset(merged).video_keys[0]))) == 3


@pytest.mark.parametrize("fmt", ["v2.1", "v3.0"])
def test_merged_shards_equal_one_conversion(whole: dict[str, Path], tmp_path: Path, fmt: str) -> None:
    shards = [
        write_episodes(tmp_path / str(first), LENGTHS[first:end], fmt, first, conversion={"command": "c"})
        for first, end in ((0, 2), (2, 3), (3, 5))
    ]
    merged = merge(shards, tmp_path / "merged")
    assert_same(merged, whole[fmt])
    assert complaints(merged) == []


@pytest.mark.parametrize(("fmt", "other"), [("v2.1", "v3.0"), ("v3.0", "v2.1")])
def test_one_dataset_can_change_its_format(
    whole: dict[str, Path], tmp_path: Path, fmt: str, other: str
) -> None:
    made = merge([whole[fmt]], tmp_path / "other", fmt=other)
    assert_same(made, whole[other])
    assert complaints(made) == []


def test_provenance_that_differs_is_kept_for_each(tmp_path: Path) -> None:
    parts = [
        write_episodes(tmp_path / name, (20,), conversion={"command": name}) for name in ("monday", "tuesday")
    ]
    merged = merge(parts, tmp_path / "merged")
    record = json.loads((merged / "meta/conversion.json").read_text())
    assert [part["command"] for part in record["merged"]] == ["monday", "tuesday"]
    assert record["report"]["episodes"] == 2


def test_datasets_that_differ_are_refused_with_what_differs(tmp_path: Path) -> None:
    first = write_episodes(tmp_path / "first", (20,))
    small = write_episodes(tmp_path / "small", (20,), options=VideoOptions(size=32))
    with pytest.raises(DatasetError, match=r"small.* cannot be joined to .*first.*observation.images.front"):
        merge([first, small], tmp_path / "merged")
    other = write_dataset(tmp_path / "other", names=("a", "b", "c", "d", "e", "f"), fps=30)
    with pytest.raises(DatasetError, match=r"observation.state: .*fps: 30, not 20"):
        merge([first, other], tmp_path / "merged")
    with pytest.raises(DatasetError, match="no datasets"):
        merge([], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_frames_of_other_settings_are_not_joined_into_one_file(tmp_path: Path) -> None:
    parts = [
        write_episodes(tmp_path / str(crf), (20,), options=VideoOptions(codec=codec, crf=crf))
        for codec, crf in (("h264", 10), ("av1", 30))
    ]
    with pytest.raises(DatasetError, match="one file holds one kind"):
        merge(parts, tmp_path / "merged", fmt="v3.0")
    assert not (tmp_path / "merged").exists()


def test_a_damaged_video_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    made = write_episodes(tmp_path / "first", (20,), "v3.0")
    video = next(made.glob("videos/observation.images.wrist/*/*.mp4"))
    video.write_bytes(video.read_bytes()[:500])
    with pytest.raises(
        DatasetError, match=r"observation.images.wrist/chunk-000/file-000.mp4: cannot be read"
    ):
        merge([made], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "merged.partial").exists()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not here")
@pytest.mark.parametrize(("name", "fmt"), [("gr1_pick_and_place", "v3.0"), ("so101_lerobot_v3", "v2.1")])
def test_recordings_of_others_can_be_taken_over(tmp_path: Path, name: str, fmt: str) -> None:
    """B-frames, AV1, annotations in two columns, missing statistics: the samples in the other format."""
    sample = LeRobotDataset(SAMPLES / name)
    made = LeRobotDataset(merge([SAMPLES / name], tmp_path / name, fmt=fmt))
    assert (len(made), made.tasks, made.warnings) == (len(sample), sample.tasks, [])
    found, wanted = made.episode(len(sample) - 1), sample.episode(len(sample) - 1)
    np.testing.assert_array_equal(found.state, wanted.state)
    assert found.instructions == wanted.instructions
    key = sample.video_keys[0]
    for one, other in zip(found.frames(key, 0, 30), wanted.frames(key, 0, 30), strict=True):
        np.testing.assert_array_equal(one, other)
