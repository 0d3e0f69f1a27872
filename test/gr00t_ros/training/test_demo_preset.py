# SPDX-License-Identifier: Apache-2.0
"""A run of the preset demo, from nothing to a checkpoint that the policy loads with its own tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gr00t_model import Gr00tPolicy
from gr00t_model.errors import CheckpointError
from gr00t_model.processing.tokenizer import load_tokenizer
from gr00t_ros.training.options import Options
from support_training import options, run

torch.set_num_threads(1)


def chosen(output: Path) -> Options:
    return options(output, base="demo", from_scratch=True, image_edge=56, steps=2, save_every=1, batch_size=2)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = chosen(tmp_path_factory.mktemp("demo") / "run")
    assert run(made).finished
    return made.output


def test_it_fits_into_ten_megabytes(output: Path) -> None:
    assert (output / "model.safetensors").stat().st_size < 9_000_000
    assert sum(path.stat().st_size for path in output.iterdir() if path.is_file()) < 10_000_000


def test_the_policy_reads_with_the_checkpoints_own_words(output: Path) -> None:
    policy = Gr00tPolicy(output, "new_embodiment", device="cpu")
    assert policy.processor.image_token_id == policy.config.image_token_id == 26
    picture = np.zeros((1, 1, 56, 56, 3), np.uint8)
    observation = {
        "video": {"front": picture, "wrist": picture},
        "state": {"arm": np.zeros((1, 1, 5), np.float32), "gripper": np.zeros((1, 1, 1), np.float32)},
        "language": {"annotation.human.task_description": [["touch the red cube"]]},
    }
    actions, _ = policy.get_action(observation)
    assert actions["arm"].shape == (1, 16, 5)


def test_a_run_that_goes_on_keeps_the_tokenizer(output: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(output, again)
    shutil.rmtree(again / "checkpoint-2")
    assert run(chosen(again), resume="").finished
    for name in ("tokenizer.json", "model.safetensors"):
        assert (again / "checkpoint-2" / name).read_bytes() == (output / name).read_bytes()
    assert load_tokenizer(again).encode("touch") == load_tokenizer(output).encode("touch")


def test_another_tokenizer_is_refused(output: Path, tmp_path: Path) -> None:

    other = tmp_path / "other"
    shutil.copytree(output, other, ignore=shutil.ignore_patterns("checkpoint-*"))
    (other / "tokenizer.json").unlink()  # leaves the installed one, Qwen's
    with pytest.raises(CheckpointError, match=r"image_token_index is 26 .*, prompts have 151669"):
        Gr00tPolicy(other, "new_embodiment", device="cpu")
