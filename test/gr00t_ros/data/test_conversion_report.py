# SPDX-License-Identifier: Apache-2.0
"""The report tells what was left out and why, how old frames were, and what is odd."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gr00t_ros.data.contact_sheet import write_contact_sheet
from gr00t_ros.data.conversion_report import read_report
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.timing import EDGES_MS, Timing
from gr00t_ros.errors import DatasetError
from support_datasets import write_dataset
from support_writing import write_episodes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("reported"), (24, 37, 18))


def test_the_report_sums_up_the_episodes(dataset: Path) -> None:
    report = read_report(dataset)
    assert [episode.length for episode in report.episodes] == [24, 37, 18]
    assert report.rows == 79
    assert report.drops == {"stale": 3}
    assert report.timing is not None
    assert report.timing.rows == 79
    assert report.timing.mean_ms == 7.0
    text = "\n".join(report.lines())
    assert "3 episodes, 79 rows, 4.0 s at 20 Hz; the shortest has 18 rows, the longest 37" in text
    assert "3 rows left out (3.7%)" in text
    assert "3  stale" in text
    assert "7.0 to 7.0 ms" in text
    assert "<= 10 ms      79 ####" in text
    assert "2 x task 2" not in text
    assert "3 x task 2" in text


def test_what_is_odd_is_called_out(dataset: Path) -> None:
    """The test data of neighbouring episodes lie one apart, which is no jump; every step is the same."""
    assert [f.kind for f in read_report(dataset).findings] == []


def test_a_dataset_of_others_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"conversion\.json: cannot be read"):
        read_report(write_dataset(tmp_path / "other"))


def test_timing_counts_every_row_once_and_adds_up() -> None:
    stamps = np.arange(200, dtype=np.int64) * 50_000_000
    ages = np.random.default_rng(0).integers(-20_000_000, 2_000_000_000, 200)
    whole = Timing.of(stamps, stamps - ages)
    parts = [Timing.of(stamps[part], (stamps - ages)[part]) for part in (slice(0, 30), slice(30, 200))]
    total = Timing.total(parts)
    assert total.counts == whole.counts
    assert total.rows == sum(whole.counts) == 200
    assert len(whole.counts) == len(EDGES_MS) + 1
    assert total.mean_ms == pytest.approx(whole.mean_ms)
    assert (total.min_ms, total.max_ms) == (whole.min_ms, whole.max_ms)
    assert Timing.from_json(whole.to_json()) == whole
    assert whole.counts[0] == (ages <= 0).sum()
    assert whole.counts[-1] == (ages > 1e9).sum()


def test_the_contact_sheet_has_a_strip_for_each_episode_and_camera(dataset: Path, tmp_path: Path) -> None:
    opened = LeRobotDataset(dataset)
    full = cv2.imread(str(write_contact_sheet(opened, tmp_path / "full.png")))
    one = cv2.imread(str(write_contact_sheet(opened, tmp_path / "one.png", episodes=1, frames=3)))
    assert full.shape[0] == 3 * one.shape[0]
    # The wrist camera's frames have no blue: the strips show what the cameras saw.
    wrist = one[one.shape[0] // 2 + 30 : one.shape[0] - 40, 20:100]
    assert wrist[:, :, 0].mean() < 20 < wrist[:, :, 2].mean()


def test_a_dataset_without_cameras_has_no_contact_sheet(tmp_path: Path) -> None:
    opened = LeRobotDataset(write_dataset(tmp_path / "a"))
    opened.video_keys = ()
    with pytest.raises(DatasetError, match="no cameras"):
        write_contact_sheet(opened, tmp_path / "sheet.png")
