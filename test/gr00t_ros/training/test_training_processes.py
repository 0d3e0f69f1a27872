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
from gr00t_model.checkpoint import load_model
from gr00t_ros.training import memory
from gr00t_ros.training.network import cast, configure
from gr00t_ros.training.options import Options
from gr00t_ros.training.saving import total_bytes
from support_training import base, recording, trained

torch.set_num_threads(1)
WORKER = Path(training_worker.__file__)
HAS_DEEPSPEED = find_spec("deepspeed") is not None
needs_deepspeed = pytest.mark.skipif(not HAS_DEEPSPEED, reason="DeepSpeed is not installed")
# A norm that the gradients are cut to, so small that AdamW's epsilon of 1e-8 is of the size of an element.
# Its steps, which do not depend on the gradients' size otherwise, then do.
CLIP = 1e-5
# Gradients are of order 0.01; float32 leaves 1e-9 of rounding in sums of such.
CLEAR_GRADIENT = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the runs ``one`` and ``two`` (processes) and, where DeepSpeed is installed, ``two_bf16`` and
    ``zero``; ``two_resumed`` and ``zero_resumed`` are their second steps, done once more."""
    folder = tmp_path_factory.mktemp("processes")
    given = {"datasets": [str(recording())], "base": str(base(dropout=0.0)), "learning_rate": 1e-3}
    training_worker.train(folder, "one", clip=CLIP, **given)
    parts = {"clip": CLIP, "accumulate": 2, **given}
    runs = [{"name": "two", **parts}, {"name": "two_resumed", "resumes": "two", **parts}]
    if HAS_DEEPSPEED:
        parts |= {"precision": "bf16"}
        zero = {"deepspeed": "zero2", **parts}
        runs += [{"name": "two_bf16", **parts}, {"name": "zero", **zero}]
        runs += [{"name": "zero_resumed", "resumes": "zero", **zero}]
    search = [str(WORKER.parent), *filter(None, sys.path)]
    # On a port of its own choice.
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, str(WORKER), str(folder), *map(json.dumps, runs)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
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
    """How far they went in two steps, within float32's tolerance.

    An element whose gradient is nothing but rounding, as that of a key's bias, is left out, by the gradients
    of the run that it is compared with.
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
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-5)
    check_weights(folder, "two", "one")
    # Each process drew its own part of the batch, and only the first wrote.
    assert two["processes"] == 2
    assert two["mask_sums"][0] != two["mask_sums"][1]
    assert sum(two["mask_sums"]) == sum(one["mask_sums"])
    assert two["writers"] == [True, False]


@needs_deepspeed
def test_zero_2_is_as_one(folder: Path) -> None:
    """Or as the two without it, which are as one; in mixed precision, whose rules it must not touch."""
    two, zero = report(folder, "two_bf16"), report(folder, "zero")
    assert zero["optimizer"] == "DeepSpeedOptimizerWrapper"
    assert zero["types"] == two["types"]
    assert zero["types"]["trained"] == ["torch.float32"]
    assert "torch.bfloat16" in zero["types"]["frozen"]
    assert zero["losses"] == pytest.approx(two["losses"], rel=1e-5)
    assert zero["eval_losses"] == pytest.approx(two["eval_losses"], rel=1e-5)
    # Of the gradients before they are clipped: neither summed over the processes nor divided twice.
    assert zero["norms"] == pytest.approx(two["norms"], rel=1e-4)
    check_weights(folder, "zero", "two_bf16")


@pytest.mark.parametrize("name", ["two", pytest.param("zero", marks=needs_deepspeed)])
def test_going_on_from_a_checkpoint_gives_the_same_bits(folder: Path, name: str) -> None:
    once, again = report(folder, name), report(folder, f"{name}_resumed")
    assert again["losses"] == once["losses"]
    assert again["norms"] == once["norms"][1:]
    weights, others = (trained(folder / run / "run/checkpoint-2") for run in (name, f"{name}_resumed"))
    assert weights.keys() == others.keys()
    assert all(torch.equal(others[key], weights[key]) for key in weights)
    begun = trained(folder / name / "run/checkpoint-1")
    assert not all(torch.equal(begun[key], weights[key]) for key in weights)


@needs_deepspeed
def test_what_deepspeed_writes_is_counted(folder: Path) -> None:
    """By memory.checkpoint_bytes, by which a disk is held to be large enough."""
    checkpoint = folder / "zero/run/checkpoint-2"
    model = load_model(checkpoint)
    configure(model, Options(datasets=("d",), base="b", output=checkpoint))
    cast(model, bf16=True)
    counted = memory.checkpoint_bytes(model, deployed_bytes=2, deepspeed=True)
    assert total_bytes([checkpoint]) == pytest.approx(counted, rel=0.03)
