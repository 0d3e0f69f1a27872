# SPDX-License-Identifier: Apache-2.0
"""A run that is gone on with gives what it would have given without the interruption, bit for bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gr00t_ros.share import robot_file
from gr00t_ros.training import saving
from gr00t_ros.training.options import Options, TrainingError
from gr00t_ros.training.running import Outcome, Run
from support_training import base, options, read_json, recording, run, trained

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, Outcome]:
    """Six steps in one go; two checkpoints are left, of step 3 and of step 6."""
    chosen = options(tmp_path_factory.mktemp("whole") / "run", accumulate=2, eval_episodes=1)
    return chosen, run(chosen)


def copy_of_step_3(whole: tuple[Options, Outcome], folder: Path) -> Options:
    """The run as it was after three steps."""
    chosen = whole[0]
    shutil.copytree(chosen.output, folder)
    shutil.rmtree(folder / "checkpoint-6")
    return options(folder, accumulate=2, eval_episodes=1)


def same(left: Path, right: Path) -> bool:
    one, two = trained(left), trained(right)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_three_steps_and_three_more_are_six(whole: tuple[Options, Outcome], tmp_path: Path) -> None:
    chosen, outcome = whole
    again = copy_of_step_3(whole, tmp_path / "again")
    resumed = run(again, resume="")
    assert resumed.finished
    assert resumed.losses == outcome.losses
    assert resumed.eval_losses == outcome.eval_losses
    assert same(again.output / "checkpoint-6", chosen.output / "checkpoint-6")
    for name in ("optimizer.pt", "scheduler.pt"):
        left, right = (
            torch.load(output / "checkpoint-6" / name, weights_only=True)
            for output in (again.output, chosen.output)
        )
        torch.testing.assert_close(left, right, rtol=0, atol=0)
    # And so are the files that are deployed.
    assert (again.output / "model.safetensors").read_bytes() == (
        chosen.output / "model.safetensors"
    ).read_bytes()


def test_the_order_is_kept_with_another_number_of_workers(
    whole: tuple[Options, Outcome], tmp_path: Path
) -> None:
    again = copy_of_step_3(whole, tmp_path / "again")
    resumed = run(options(again.output, accumulate=2, eval_episodes=1, workers=2), resume="checkpoint-3")
    assert resumed.losses == whole[1].losses


def test_another_run_is_not_gone_on_with(whole: tuple[Options, Outcome]) -> None:
    chosen = options(whole[0].output, accumulate=2, eval_episodes=1, learning_rate=2e-3)
    with pytest.raises(TrainingError, match=r"learning_rate was 0\.001 and is 0\.002"):
        run(chosen, resume="")
    with pytest.raises(TrainingError, match="holds another run already; --resume goes on with it"):
        run(whole[0])


def test_a_finished_run_has_nothing_to_go_on_with(whole: tuple[Options, Outcome], tmp_path: Path) -> None:
    """It is finished once more: the first time may have been killed right before."""
    again = tmp_path / "again"
    shutil.copytree(whole[0].output, again)
    (again / "config.json").unlink()
    outcome = run(options(again, accumulate=2, eval_episodes=1), resume="")
    assert outcome == whole[1]
    assert same(again / "checkpoint-6", whole[0].output / "checkpoint-6")
    assert (again / "config.json").exists()


def test_how_often_is_of_this_start_and_later_checkpoints_are_set_aside(
    whole: tuple[Options, Outcome], tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(whole[0].output, again)
    chosen = options(again, accumulate=2, eval_episodes=1, save_every=1, eval_every=2, log_every=2, keep=9)
    outcome = run(chosen, resume="checkpoint-3")
    assert saving.checkpoint_steps(again) == [3, 4, 5, 6]
    assert (again / "checkpoint-6.aside").is_dir()
    assert sorted(outcome.eval_losses) == [3, 4, 6]
    assert sorted(outcome.losses) == [1, 2, 3, 4, 6]


def test_a_run_is_known_by_what_is_in_its_files(whole: tuple[Options, Outcome], tmp_path: Path) -> None:
    again = copy_of_step_3(whole, tmp_path / "again")
    for name, source in (("data", recording()), ("base", base())):
        shutil.copytree(source, tmp_path / name)
    yaml = tmp_path / "robot.yaml"
    shutil.copyfile(robot_file("so101"), yaml)
    moved = replace(
        again, datasets=(f"{tmp_path}/data/",), base=str(tmp_path / "base"), robot=str(yaml), precision="fp32"
    )
    with pytest.raises(TrainingError, match=r"in .*: precision was 'fp32' and is 'bf16'; repeat"):
        run(replace(moved, precision="bf16"), resume="")
    with pytest.raises(TrainingError, match=r"dataset 1: skipped_episodes was \[\] and is \[2\]; repeat"):
        run(replace(moved, skip_episodes=("2",)), resume="")
    text = yaml.read_text()
    yaml.write_text(text.replace("default: ", "default: quickly "))
    assert yaml.read_text() != text
    with pytest.raises(TrainingError, match="dataset 1: robot description's contents is another; repeat"):
        run(moved, resume="")
    yaml.write_text(text)
    assert run(moved, resume="").losses == whole[1].losses


def test_so_is_a_configuration_for_deepspeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gr00t_ros.training.processes.find_spec", lambda name: object())
    file = tmp_path / "zero.json"
    chosen = options(tmp_path / "run")
    known = replace(Run.prepare(chosen), options=replace(chosen, deepspeed=str(file)))
    found = []
    for stage in (1, 2):
        file.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        found.append(known._identity(("data",), "base"))
    assert [one.pop("deepspeed") for one in found] == [
        {"zero_optimization": {"stage": 1}},
        {"zero_optimization": {"stage": 2}},
    ]
    assert found[0] == found[1]


def test_state_of_the_run_is_what_the_library_knows(whole: tuple[Options, Outcome]) -> None:
    state = read_json(whole[0].output / "checkpoint-3" / "trainer_state.json")
    assert state["global_step"] == 3
    assert state["max_steps"] == 6
