# SPDX-License-Identifier: Apache-2.0
"""A run that is gone on with gives what it would have given without the interruption, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from gr00t_ros.training.options import Options, TrainingError
from gr00t_ros.training.running import Outcome
from support_training import options, read_json, run, trained

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


def test_state_of_the_run_is_what_the_library_knows(whole: tuple[Options, Outcome]) -> None:
    state = read_json(whole[0].output / "checkpoint-3" / "trainer_state.json")
    assert state["global_step"] == 3
    assert state["max_steps"] == 6
