# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's files against the robot YAML: what the policy would refuse fails here, before any weight."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import support_checkpoints as checkpoints
from gr00t_ros.checking_checkpoint import check_checkpoint
from gr00t_ros.cli.random_checkpoint import write
from gr00t_ros.findings import Level, worst
from gr00t_ros.robot import RobotConfig
from support_robots import REPOSITORY

TEXT = (REPOSITORY / "config" / "robots" / "so101.yaml").read_text(encoding="utf-8")
VALUES = yaml.safe_load(TEXT)["/**"]["ros__parameters"]["robot"]


def robot(change: Callable[[dict[str, Any]], Any] = lambda values: None) -> RobotConfig:
    values = copy.deepcopy(VALUES)
    change(values)
    return RobotConfig.from_mapping(values)


def test_a_checkpoint_that_fits_without_reading_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    from gr00t_model import checkpoint

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(checkpoint, "read_tensor", refuse)
    findings, modality = check_checkpoint(robot(), checkpoints.tiny_checkpoint())
    assert [f.level for f in findings] == [Level.OK] * 3, findings
    assert "state 5+1, action 5+1, 16 steps = 0.8 s" in findings[1].found
    assert modality is not None
    assert modality["video"].modality_keys == ("front", "wrist")


@pytest.mark.parametrize(("rep", "compared"), [("ABSOLUTE", 12), ("RELATIVE", 12), ("DELTA", 6)])
def test_only_ranges_of_positions_are_held_against_limits(tmp_path: Path, rep: str, compared: int) -> None:
    path = tmp_path / "checkpoint"
    write(robot(), path, relative=rep == "RELATIVE")
    file = path / "processor_config.json"
    file.write_text(file.read_text().replace('"ABSOLUTE"', f'"{rep}"'))
    findings, _ = check_checkpoint(robot(), path)
    assert worst(findings) == Level.OK, findings
    assert findings[-1].found == f"{compared} trained ranges fit"


@pytest.mark.parametrize(
    ("checkpoint", "found"),
    [
        (lambda: Path("/nowhere/at/all"), "/nowhere/at/all"),
        (checkpoints.foreign_checkpoint, "model_type is 'bert'"),
        (checkpoints.truncated_checkpoint, "model.safetensors"),
        (checkpoints.checkpoint_without_statistics, "no statistics"),
        (checkpoints.checkpoint_with_short_network, "delta_indices have 16 steps, its horizon only 10"),
    ],
)
def test_a_checkpoint_that_would_not_load(checkpoint: Callable[[], Path], found: str) -> None:
    findings, _ = check_checkpoint(robot(), checkpoint())
    assert any(f.level == Level.FAIL and found in f.found for f in findings), findings


def tag(values: dict[str, Any]) -> None:
    values["embodiment_tag"] = "gr1"


def narrow(values: dict[str, Any]) -> None:
    values["state"]["arm"]["joints"].pop()


def degrees(values: dict[str, Any]) -> None:
    values["units"] = {"elbow_flex": {"scale": 0.017453292519943295}}


def ticks(values: dict[str, Any]) -> None:
    values["units"] = {"elbow_flex": {"scale": 100.0}}


def tight(values: dict[str, Any]) -> None:
    values["limits"]["elbow_flex"].update({"min": -1.0, "max": 1.0})


def elsewhere(values: dict[str, Any]) -> None:
    values["limits"]["elbow_flex"].update({"min": 1.7, "max": 3.0})


@pytest.mark.parametrize(
    ("change", "level", "found"),
    [
        (tag, Level.FAIL, "embodiment 'gr1' is not in this checkpoint"),
        (narrow, Level.FAIL, "state.arm: found 4 columns"),
        (ticks, Level.FAIL, "elbow_flex was trained from"),
        (elsewhere, Level.FAIL, "elbow_flex was trained from"),
        (tight, Level.WARN, "elbow_flex was trained from"),
        (degrees, Level.OK, "trained ranges fit"),  # a small range inside the limits can be meant
    ],
)
def test_a_robot_that_does_not_fit(change: Callable[[dict[str, Any]], Any], level: Level, found: str) -> None:
    findings, _ = check_checkpoint(robot(change), checkpoints.tiny_checkpoint())
    assert worst(findings) == level, findings
    assert any(f.level == level and found in f.found for f in findings), findings
    assert all(f.remedy for f in findings if f.level)
