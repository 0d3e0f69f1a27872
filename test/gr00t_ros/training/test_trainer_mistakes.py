# SPDX-License-Identifier: Apache-2.0
"""What stops a run, before it begins and on its way: a sentence each, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gr00t_ros.errors import DatasetError
from gr00t_ros.training import running, saving
from gr00t_ros.training.options import Options, TrainingError
from gr00t_ros.training.running import Run
from gr00t_ros.training.trainer import Finetuner
from support_training import options, run

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamw_8bit"}, "its kernels run on NVIDIA GPUs only"),
        (
            {"batch_size": 6, "accumulate": 4},
            "a batch of 6 cannot be shared evenly among 1 processes with 4 parts",
        ),
        ({"deepspeed": "nowhere.json"}, "--deepspeed nowhere.json: "),
        ({"report_to": ("paper",)}, "expected tensorboard, wandb or none"),
    ],
)
def test_what_this_machine_cannot_do_is_said_first(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        Run.prepare(options(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="PyTorch finds no GPU here"):
        Run.prepare(options(tmp_path / "run", device="cuda"))


def test_packages_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("running", "optimizers", "processes"):
        monkeypatch.setattr(f"gr00t_ros.training.{module}.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="--report-to wandb: the package is not installed"):
        Run.prepare(options(tmp_path / "run", report_to=("wandb",)))
    with pytest.raises(TrainingError, match="--deepspeed needs DeepSpeed, which is not installed"):
        Run.prepare(options(tmp_path / "run", deepspeed="zero2"))
    with pytest.raises(TrainingError, match="needs bitsandbytes, which is not installed"):
        running.optimizer_name("adamw_8bit", "cuda")


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    with pytest.raises(
        TrainingError, match=r"checkpoints and one in passing take 0\.1 GB .* 0\.0 GB are free"
    ):
        run(options(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps is 0, expected at least 1"),
        ({"keep": 0}, "--keep is 0"),
        ({"workers": -1}, "--workers is -1, expected 0 or more"),
        ({"learning_rate": 0.0}, "learning rate is 0"),
        ({"warmup": 1.5}, "warm-up is 1.5, expected a share"),
        ({"state_dropout": 2.0}, "--state-dropout is 2, expected a probability"),
        ({"state_noise": -1.0}, "state noise is -1"),
        ({"seed": -1}, "--seed is -1, expected 0 to"),
        ({"clip": -1.0}, "--clip is -1, expected 0 or more"),
        ({"weight_decay": float("nan")}, "--weight-decay is nan"),
        ({"learning_rate": float("inf")}, "learning rate is inf"),
        ({"horizon": 0}, "--horizon is 0, expected at least 1"),
    ],
)
def test_options_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Options(datasets=("d",), base="tiny", output=Path("o"), **changes)


def test_a_disk_that_fills_up_costs_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = options(tmp_path / "run", save_every=2)
    save = torch.save

    def full(content: Any, path: Any, *more: Any) -> None:
        if "checkpoint-4" in str(path):
            raise RuntimeError("PytorchStreamWriter failed writing file data: No space left on device")
        save(content, path, *more)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(
            TrainingError, match=r"step 4 cannot be written.*No space left.*those before it are kept"
        ):
            run(chosen)
    assert sorted(path.name for path in chosen.output.iterdir()) == ["checkpoint-2", "run.json"]
    assert run(chosen, resume="").finished


@pytest.mark.parametrize(("place", "meanwhile"), [(Finetuner, "compute_loss"), (saving, "publish")])
def test_a_worker_that_is_killed_while_something_else_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, meanwhile: str
) -> None:
    def interrupted(*given: Any, **more: Any) -> Any:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")  # as its handler does

    monkeypatch.setattr(place, meanwhile, interrupted)
    with pytest.raises(DatasetError, match=r"was ended from outside .*use fewer workers"):
        run(options(tmp_path / "run", steps=1))


def test_memory_that_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Finetuner, "compute_loss", full)
    with pytest.raises(
        TrainingError, match=r"not enough for 2 samples at a time; try --accumulate 4, then --grad"
    ):
        run(options(tmp_path / "run", accumulate=2))
