# SPDX-License-Identifier: Apache-2.0
"""bench/dataset_loading.py: the dataset that it makes up can be read, and every row of its table is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import dataset_loading


def test_it_measures_the_dataset_that_it_makes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dataset_loading.made_up(tmp_path, episodes=1, rows=66, size=(48, 64))
    monkeypatch.setattr(dataset_loading, "RANDOM_FRAMES", 3)
    report = tmp_path / "figures.json"
    options = ["--workers", "0", "1", "--batch", "4", "--seconds", "0.2", "--json", str(report)]
    assert dataset_loading.main(["--dataset", str(folder), *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "dataset: LeRobot v2.1, 1 episodes, front 64x48 h264, wrist 64x48 h264"
    rows = json.loads(report.read_text())["rows"]
    assert [row["row"] for row in rows] == [
        "decode, an episode from front to back",
        "decode, shards of 64 rows in random order",
        "decode, single frames at random",
        "first image step",
        "encode a decoded sample, augmented",
        "batches of 4, no workers",
        "batches of 4, 1 worker",
    ]
    assert all(row["per_second"] > 0 and row["count"] > 0 for row in rows)
    assert [line[:46].rstrip() for line in printed[2:]] == [row["row"] for row in rows]
