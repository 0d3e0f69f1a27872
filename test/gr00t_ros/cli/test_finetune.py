# SPDX-License-Identifier: Apache-2.0
"""The command: what it leaves, what it says, and that nothing is lost however it ends.

Ctrl-C and kill -9 are real, sent to a child of this process that has everything imported already.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gr00t_model import Gr00tPolicy
from gr00t_ros.cli.finetune import main
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training import deploying, saving, trainer
from support_robots import shipped
from support_training import base, read_json, recording, trained

torch.set_num_threads(1)
FORK = multiprocessing.get_context("fork")
# Far more than any wait here takes.
PATIENCE_S = 120.0


def arguments(output: Path, *more: str, steps: int = 4) -> list[str]:
    return [
        "--dataset", str(recording()), "--base", str(base()), "--robot", "so101", "--output", str(output),
        "--steps", str(steps), "--batch-size", "2", "--save-every", "2", "--log-every", "1", "--workers", "0",
        "--report-to", "none", "--device", "cpu", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    assert main(arguments(output, "--eval-episodes", "1")) == 0
    return output


def test_the_policy_loads_what_is_written(finished: Path) -> None:
    policy = Gr00tPolicy(finished, "new_embodiment", device="cpu")
    robot = RobotConfig.from_file(finished / "robot.yaml")
    assert robot == shipped("so101")
    modality = policy.processor.modality(robot.embodiment_tag)
    robot.check_against(modality, policy.state_widths, policy.action_widths, policy.config.action_horizon)
    observation = {
        "video": {key: np.zeros((1, 1, 48, 64, 3), np.uint8) for key in ("front", "wrist")},
        "state": {"arm": np.zeros((1, 1, 5), np.float32), "gripper": np.zeros((1, 1, 1), np.float32)},
        "language": {"annotation.human.task_description": [["task 0"]]},
    }
    actions, _ = policy.get_action(observation)
    assert {key: value.shape for key, value in actions.items()} == {"arm": (1, 16, 5), "gripper": (1, 16, 1)}
    assert all(np.isfinite(value).all() for value in actions.values())


def test_where_it_comes_from_is_written_down(finished: Path) -> None:
    found = read_json(finished / "provenance.json")
    (dataset,) = found["datasets"]
    assert dataset["path"] == str(recording().resolve())
    assert dataset["held_out_episodes"] == [1]
    assert len(dataset["sha256"]) == len(found["base"]["sha256"]) == 64
    assert found["command"][:2] == ["finetune", "--dataset"]
    assert found["options"]["seed"] == 0
    assert found["versions"]["torch"] == torch.__version__
    assert found["steps"] == 4
    assert read_json(finished / "checkpoint-2/provenance.json")["steps"] == 2
    assert "git" not in json.dumps(found["versions"])


def test_weights_are_as_trained_and_small_in_deployment(finished: Path) -> None:
    from safetensors.torch import load_file

    deployed = load_file(finished / "model.safetensors")
    assert {tensor.dtype for tensor in deployed.values()} == {torch.bfloat16}
    for name, tensor in trained(finished / "checkpoint-4").items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor.bfloat16(), deployed[name])


def test_what_it_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path / "run", steps=2)) == 0
    out, err = capfd.readouterr()
    assert out.startswith(f"wrote {tmp_path / 'run'}: 2 steps, loss ")
    assert f"  evaluate --checkpoint {tmp_path / 'run'} --dataset {recording()}" in out
    assert "new_embodiment: cameras front, wrist; states arm, gripper; 16 steps of arm absolute" in err
    assert "step 2/2: loss" in err


def test_the_plan_is_told_and_nothing_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--lora", "backbone", "--lora-rank", "4", "--plan"]
    assert main(arguments(tmp_path / "run", *options)) == 0
    out = capsys.readouterr().out
    assert "before activations" in out
    assert "batch: 2 = 1 processes x 1 parts x 2" in out
    assert "GB a checkpoint, 2 kept and one in passing" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--dataset", "/no/such/set"],
            "/no/such/set does not exist; expected the folder of a LeRobot dataset",
        ),
        (["--base", "/no/such/base"], "checkpoint /no/such/base: there is no such directory"),
        (["--robot", "so999"], "robot 'so999' is neither a YAML file nor one of the shipped robots"),
        (["--optimizer", "adamw_8bit"], "--optimizer adamw_8bit: its kernels run on NVIDIA GPUs only"),
        (["--resume"], "run.json is missing: there is no run to go on with; leave --resume out"),
        (["--batch-size", "3", "--accumulate", "2"], "choose --batch-size as a multiple of 2"),
        (["--color-jitter", "-1", "0", "0", "0"], "brightness is -1.0, expected a number from 0"),
        (["--seed", "-1"], "--seed is -1, expected 0 to 2147483647"),
        (["--skip-episodes", "1", "9"], "has no episode 9; it has 0 to 2"),
        (["--tune-top-llm-layers", "9"], "tune_top_llm_layers is 9; expected 0 to select_layer 3"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(arguments(tmp_path / "run", *given)) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("finetune: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in lines[0]


def test_a_folder_with_another_run_is_left_alone(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(arguments(finished)) == 1
    assert (
        "holds another run already; --resume goes on with it; choose another folder" in capfd.readouterr().err
    )
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_an_option_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments(tmp_path / "run", "--magic"))
    assert error.value.code == 2


class Child:
    """The command in a process of its own."""

    def __init__(self, log: Path, given: list[str], prepare: Callable[[], None] = lambda: None) -> None:
        self._log = log
        log.touch()
        self._process = FORK.Process(target=self._run, args=(given, prepare))
        self._process.start()

    def _run(self, given: list[str], prepare: Callable[[], None]) -> None:
        os.setpgrp()
        with self._log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        prepare()
        os._exit(main(given))

    def wait_for(self, there: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not there():
            assert self._process.is_alive(), self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.01)

    def send(self, number: int) -> None:
        """To it and its workers, as a terminal and a cluster do."""
        os.killpg(self._process.pid or 0, number)

    def end(self) -> int:
        self._process.join(PATIENCE_S)
        assert self._process.exitcode is not None, self.log
        return self._process.exitcode

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_a_checkpoint_to_go_on_from(tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "run"
    child = Child(
        tmp_path / "log", arguments(output, "--save-every", "1", "--workers", "1", "--keep", "1", steps=1000)
    )
    child.wait_for(lambda: saving.checkpoint_steps(output))
    child.send(number)
    assert child.end() == 130, child.log
    step = saving.checkpoint_steps(output)[-1]
    where = output / f"checkpoint-{step}"
    assert (
        f"finetune: interrupted at step {step}; {where} is kept, and the same command with --resume"
        in child.log
    )
    assert saving.damage(where) == ""


def test_ended_before_the_first_step(tmp_path: Path) -> None:
    """By a cluster that wants its machine back, say."""
    output = tmp_path / "run"
    child = Child(tmp_path / "log", arguments(output, steps=1000))
    child.wait_for((output / "run.json").exists)
    child.send(signal.SIGTERM)
    assert child.end() == 130, child.log
    assert re.search(
        r"finetune: interrupted.*(with --resume goes on|the same command begins anew)", child.log
    )


def test_killed_while_it_saves(tmp_path: Path, finished: Path) -> None:
    """At three places, one after the other; each time the run goes on from the last whole checkpoint, and it
    ends with the very weights of a run that was never disturbed."""
    output = tmp_path / "run"
    given = arguments(output, "--eval-episodes", "1")

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half_a_file(self: object, model: object, directory: Path, step: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "model.safetensors").write_bytes(b"half a file")
        die()

    def while_weights_are_written() -> None:
        deploying.Deployment.write = half_a_file  # type: ignore[method-assign]

    def before_the_name_is_given() -> None:
        saving.publish = die

    def before_the_oldest_is_removed() -> None:
        trainer.saving.prune = die

    def killed(prepare: Callable[[], None], *more: str) -> list[int]:
        child = Child(tmp_path / "log", [*given, *more], prepare)
        assert child.end() == -signal.SIGKILL, child.log
        return saving.checkpoint_steps(output)

    assert killed(while_weights_are_written) == []
    assert killed(before_the_name_is_given) == []
    assert killed(before_the_oldest_is_removed) == [2]
    assert killed(while_weights_are_written, "--resume") == [2]
    assert (output / saving.PARTIAL).is_dir()
    assert not (output / "config.json").exists()
    assert main([*given, "--resume"]) == 0
    assert not (output / saving.PARTIAL).exists()
    one, two = trained(finished / "checkpoint-4"), trained(output / "checkpoint-4")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (output / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
