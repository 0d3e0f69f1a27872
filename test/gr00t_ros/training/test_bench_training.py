# SPDX-License-Identifier: Apache-2.0
"""bench/training.py: every row of its table is there, with and without loading data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support_training import base, recording

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import training as bench


def test_a_row_for_each_way_of_loading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "figures.json"
    options = [
        "--batch",
        "2",
        "--steps",
        "1",
        "--workers",
        "0",
        "1",
        "--device",
        "cpu",
        "--json",
        str(report),
    ]
    given = ["--preset", str(base()), "--dataset", str(recording()), "--robot", "so101", *options]
    assert bench.main(given) == 0
    found = json.loads(report.read_text())
    assert [row["name"] for row in found["rows"]] == ["no loading", "0 workers", "1 workers"]
    assert all(row["samples_per_second"] > 0 for row in found["rows"])
    assert found["options"]["batch_size"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line[:14].rstrip() for line in lines[2:5]] == ["no loading", "0 workers", "1 workers"]
    assert lines[-1].startswith("counted before activations:")


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--preset", "/no/such/base", "--dataset", str(recording()), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("bench: checkpoint /no/such/base: there is no such directory")
