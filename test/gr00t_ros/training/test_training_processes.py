# SPDX-License-Identifier: Apache-2.0
"""Two processes compute what one computes: with DistributedDataParallel, and with DeepSpeed's ZeRO-2.

One pair of processes, started by torchrun, does both; the run to compare with is done here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import training_worker
from support_training import base, recording, trained

torch.set_num_threads(1)
WORKER = Path(training_worker.__file__)
HAS_DEEPSPEED = find_spec("deepspeed") is not None
# Gradients are of order 0.01; float32 leaves 1e-9 of rounding in sums of such.
CLEAR_GRADIENT = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the runs ``one`` and ``two`` (processes) and, where DeepSpeed is installed, ``two_bf16`` and
    ``zero``."""
    folder = tmp_path_factory.mktemp("processes")
    given = {"datasets": [str(recording())], "base": str(base(dropout=0.0)), "learning_rate": 1e-3}
    training_worker.train(folder, "one", **given)
    runs = [{"name": "two", **given}]
    if HAS_DEEPSPEED:
        runs.append({"name": "two_bf16", "precision": "bf16", **given})
        runs.append({"name": "zero", "precision": "bf16", "deepspeed": "zero2", **given})
    search = [str(WORKER.parent), *filter(None, sys.path)]
    # On a port of its own choice.
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, str(WORKER), str(folder), *map(json.dumps, runs)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def report(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name / "report.json").read_text())


def gradients(folder: Path, name: str) -> dict[str, Tensor]:
    return torch.load(folder / name / "gradients.pt", weights_only=True)


def close(found: Tensor, expected: Tensor, name: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")


def check_weights(folder: Path, name: str, expected: str) -> None:
    """After the second step, within float32's tolerance.

    AdamW's first steps are as long for small gradients as for large ones. So an element whose gradient is
    nothing but rounding, as that of a key's bias, moves by the learning rate one way or the other; such are
    left out, by the gradients of the run that it is compared with.
    """
    one, two = (trained(folder / run / "run/checkpoint-2") for run in (expected, name))
    of_one = gradients(folder, expected)
    assert one.keys() == two.keys() == of_one.keys()
    compared = 0
    for parameter in one:
        clear = of_one[parameter].abs() > CLEAR_GRADIENT
        compared += int(clear.sum())
        close(two[parameter][clear], one[parameter][clear], parameter)
    # Of the embodiments' weights one slice in 32 has a gradient.
    assert compared > 0.1 * sum(tensor.numel() for tensor in one.values())


def test_two_processes_are_as_one(folder: Path) -> None:
    """Their samples have different numbers of real actions, so a mean of means would not do."""
    one, two = report(folder, "one"), report(folder, "two")
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["eval_losses"] == pytest.approx(one["eval_losses"], rel=1e-5)
    assert len(two["eval_losses"]) == 2
    expected, found = gradients(folder, "one"), gradients(folder, "two")
    assert expected.keys() == found.keys()
    for name in expected:
        close(found[name], expected[name], name)
    check_weights(folder, "two", "one")
    # Each process drew its own part of the batch, and only the first wrote.
    assert two["processes"] == 2
    assert two["mask_sums"][0] != two["mask_sums"][1]
    assert sum(two["mask_sums"]) == sum(one["mask_sums"])
    assert two["writers"] == [True, False]


@pytest.mark.skipif(not HAS_DEEPSPEED, reason="DeepSpeed is not installed")
def test_zero_2_is_as_one(folder: Path) -> None:
    """Or as the two without it, which are as one; in mixed precision, whose rules it must not touch."""
    two, zero = report(folder, "two_bf16"), report(folder, "zero")
    assert zero["optimizer"] == "DeepSpeedOptimizerWrapper"
    assert zero["types"] == two["types"]
    assert zero["types"]["trained"] == ["torch.float32"]
    assert "torch.bfloat16" in zero["types"]["frozen"]
    assert zero["losses"] == pytest.approx(two["losses"], rel=1e-5)
    assert zero["eval_losses"] == pytest.approx(two["eval_losses"], rel=1e-5)
    check_weights(folder, "zero", "two_bf16")
