# SPDX-License-Identifier: Apache-2.0
"""The memory that a run takes before activations, counted on the released network without its weights; the
figures are those of docs/how-to/out_of_memory.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gr00t_ros.training import memory
from gr00t_ros.training.network import Base, open_base, outline
from gr00t_ros.training.options import LoraOptions, Options

DOCS = Path(__file__).parents[3] / "docs/how-to/out_of_memory.md"
FROZEN_DIT = {"tune": {"tune_diffusion_model": False}}
LORA_BOTH = {"lora": LoraOptions(parts=("backbone", "dit"))}
LORA_BACKBONE = {"lora": LoraOptions(parts=("backbone",))}
EIGHT_BIT = {"optimizer": "adamw_8bit"}


@pytest.fixture(scope="module")
def released() -> Base:
    return open_base("released")


def counted(released: Base, *, shared_among: int = 1, **changes: Any) -> memory.Memory:
    options = Options(datasets=("d",), base="released", output=Path("out"), **changes)
    model = outline(released, options, bf16=True)
    return memory.count(model, optimizer=options.optimizer, shared_among=shared_among)


def test_the_default_set(released: Base) -> None:
    found = counted(released)
    assert found.trained_tensors == 517
    assert found.trained_parameters == pytest.approx(1.62e9, abs=0.005e9)
    assert found.parameters == 3_286_608_832
    assert found.trained_weights == found.gradients == 4 * found.trained_parameters
    assert found.optimizer == 8 * found.trained_parameters
    assert found.frozen_weights == 2 * (found.parameters - found.trained_parameters)
    assert found.total / 1e9 == pytest.approx(29.25, abs=0.05)


@pytest.mark.parametrize(
    ("recipe", "gigabytes"),
    [
        ({}, 29.3),
        (EIGHT_BIT, 19.6),
        ({**EIGHT_BIT, **FROZEN_DIT}, 10.8),
        (FROZEN_DIT, 14.0),
        ({**EIGHT_BIT, **LORA_BOTH}, 9.5),
        (LORA_BOTH, 11.5),
        (LORA_BACKBONE, 26.6),
        ({**EIGHT_BIT, **LORA_BACKBONE}, 18.1),
        ({"from_scratch": True}, 48.0),
    ],
)
def test_recipes(released: Base, recipe: dict[str, Any], gigabytes: float) -> None:
    found = counted(released, **recipe)
    assert found.total / 1e9 == pytest.approx(gigabytes, abs=0.051)
    assert f"{gigabytes:.1f} GB" in DOCS.read_text(encoding="utf-8")


def test_sharing_among_gpus(released: Base) -> None:
    alone, shared = counted(released), counted(released, shared_among=4)
    assert shared.gradients == alone.gradients // 4
    assert shared.optimizer == alone.optimizer // 4
    assert shared.trained_weights == alone.trained_weights


def test_a_checkpoint_holds_deployed_and_trained_weights_and_the_optimizer(released: Base) -> None:
    options = Options(datasets=("d",), base="released", output=Path("out"))
    size = memory.checkpoint_bytes(outline(released, options, bf16=True), deployed_bytes=2)
    assert size == 2 * 3_286_608_832 + 12 * counted(released).trained_parameters


def test_the_table(released: Base) -> None:
    shown = list(memory.lines(counted(released), optimizer="adamw", processes=1, shared=False))
    assert shown[0] == "trained: 517 tensors, 1.62 G of 3.29 G parameters"
    assert shown[-1].split() == ["before", "activations", "29.25", "GB"]
