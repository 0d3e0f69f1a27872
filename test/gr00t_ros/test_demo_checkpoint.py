# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint and which task the demo takes: the shipped one, a person's own, or random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from gr00t_ros import demo_checkpoint, share
from gr00t_ros.demo_checkpoint import RANDOM_WEIGHTS_NOTICE, SHIPPED, with_checkpoint
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.system import PRESSING_ERROR, demo_programs


@pytest.fixture(params=[False, True], ids=["nothing shipped", "shipped"])
def shipped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """The folder of the shipped checkpoint, where there is one."""
    folder, real = tmp_path / SHIPPED, share.config_file
    monkeypatch.setattr(share, "config_file", lambda name: folder if name == SHIPPED else real(name))
    if not request.param:
        return None
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A checkpoint of random weights from a run before, in the demo's folder."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_without_a_checkpoint_the_shipped_one_does_its_task(
    shipped: Path | None, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = with_checkpoint({"output": str(made.parent)})
    if shipped:
        assert (found["task"], found["checkpoint"], found["note"]) == ("reach", str(shipped), "")
    else:
        assert (found["task"], found["checkpoint"]) == ("none", str(made))
        assert found["note"] == RANDOM_WEIGHTS_NOTICE
    assert (RANDOM_WEIGHTS_NOTICE in capsys.readouterr().out) == (shipped is None)


def test_one_s_own_checkpoint_does_what_it_is_told_to(shipped: Path | None) -> None:
    assert with_checkpoint({"checkpoint": "own"})["task"] == "none"
    for task in ("reach", "none"):
        found = with_checkpoint({"checkpoint": "own", "task": task})
        assert (found["task"], found["checkpoint"], found["note"]) == (task, "own", "")


def test_random_weights_are_to_be_had_beside_the_shipped_ones(shipped: Path | None, made: Path) -> None:
    found = with_checkpoint({"output": str(made.parent), "task": "none"})
    assert (found["task"], found["checkpoint"]) == ("none", str(made))


def test_random_weights_that_cannot_be_made_end_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_checkpoint, "find_executable", lambda name: Path("/bin/false"))
    with pytest.raises(Gr00tRosError, match="the demo's checkpoint could not be made by: /bin/false"):
        with_checkpoint({"output": str(tmp_path), "task": "none"})


def test_the_task_reaches_simulator_and_monitor() -> None:
    for task, robot in (("reach", "so101_reach"), ("none", "so101"), ("auto", "so101")):
        programs = {one.name: one for one in demo_programs({"checkpoint": "own", "task": task})}
        simulator, monitor = programs["so101_sim"], programs["demo_monitor"]
        assert simulator.parameter_files[-1].stem == monitor.parameter_files[-1].stem == robot
        for program in (simulator, monitor):
            assert program.parameters.get("task", "") == ("reach" if task == "reach" else "")
        assert monitor.parameters.get("max_tracking_error") == (PRESSING_ERROR if task == "reach" else None)
    with pytest.raises(Gr00tRosError, match="task is 'juggle', expected auto, reach or none"):
        demo_programs({"checkpoint": "own", "task": "juggle"})
