# SPDX-License-Identifier: Apache-2.0
"""bench/training.py: every row of its table is there, with and without loading data."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from gr00t_model import Gr00tN1d6
from gr00t_ros.training.network import build_network
from support_training import base, recording

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import training as bench


def test_a_row_for_each_way_of_loading(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
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
        "--precision",
        "bf16",
        "--json",
        str(report),
    ]
    made: list[weakref.ref[Gr00tN1d6]] = []

    def build(*arguments: Any, **more: Any) -> Gr00tN1d6:
        assert [model() for model in made] == [None] * len(made), "a network of a row before is in memory"
        model = build_network(*arguments, **more)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(bench, "build_network", build)
    # What would come at some time or other is to come when it is needed.
    gc.disable()
    request.addfinalizer(gc.enable)
    given = ["--preset", str(base()), "--dataset", str(recording()), "--robot", "so101", *options]
    assert bench.main(given) == 0
    found = json.loads(report.read_text())
    assert [row["name"] for row in found["rows"]] == ["no loading", "0 workers", "1 workers"]
    assert all(row["samples_per_second"] > 0 for row in found["rows"])
    assert len(made) == 3
    assert found["options"]["batch_size"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line[:14].rstrip() for line in lines[2:5]] == ["no loading", "0 workers", "1 workers"]
    assert lines[-1].startswith("counted before activations:")


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--preset", "/no/such/base", "--dataset", str(recording()), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("bench: checkpoint /no/such/base: there is no such directory")
