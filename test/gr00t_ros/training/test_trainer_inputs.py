# SPDX-License-Identifier: Apache-2.0
"""What goes into the network and what is said of it: batches are looked at in main memory, once; what is
trained is told, and the base's own switches are deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gr00t_model.checkpoint import read_config
from gr00t_model.errors import EmbodimentError
from gr00t_model.network.trainable import FLAGS
from gr00t_ros.training.options import LoraOptions
from gr00t_ros.training.running import Run
from gr00t_ros.training.trainer import Finetuner
from support_training import base, options, run

torch.set_num_threads(1)


class Looks(TorchDispatchMode):
    """Counts operations for which a host waits until a GPU has computed what they look at."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.counted.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_batch_is_looked_at_before_it_is_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host and GPU work side by side only as long as the host asks for no value in a step's computing."""
    looks, compute, steps = Looks(), Finetuner.compute_loss, []

    def watched(self: Finetuner, *given: Any, **more: Any) -> Any:
        steps.append(self.state.global_step)
        with looks:
            return compute(self, *given, **more)

    monkeypatch.setattr(Finetuner, "compute_loss", watched)
    run(options(tmp_path / "run", steps=1, save_every=1))
    assert steps == [0]
    assert looks.counted == []


def test_a_batch_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Finetuner.get_batch_samples

    def wrong(self: Finetuner, *given: Any, **more: Any) -> Any:
        batches, counted = samples(self, *given, **more)
        batches[0]["embodiment_id"] += 1000
        return batches, counted

    monkeypatch.setattr(Finetuner, "get_batch_samples", wrong)
    with pytest.raises(EmbodimentError, match="is outside this checkpoint's"):
        run(options(tmp_path / "run", steps=1))


def test_what_is_trained_is_said_and_the_base_s_switches_are_deployed(tmp_path: Path) -> None:
    told: list[str] = []
    chosen = options(tmp_path / "run", steps=1, lora=LoraOptions(parts=("backbone", "dit"), rank=4))
    Run.prepare(chosen).execute(tell=told.append)
    (line,) = (line for line in told if line.startswith("trained: "))
    assert "parameters (its encoders and decoder, the norm in front of it, adapters of" in line
    before, after = read_config(base()), read_config(chosen.output)
    assert {name: getattr(after, name) for name in FLAGS} == {name: getattr(before, name) for name in FLAGS}
