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
from support_activations import kept_bytes

DOCS = Path(__file__).parents[3] / "docs/how-to/out_of_memory.md"
FROZEN_DIT = {"tune": {"tune_diffusion_model": False}}
LORA_BOTH = {"lora": LoraOptions(parts=("backbone", "dit"))}
LORA_BACKBONE = {"lora": LoraOptions(parts=("backbone",))}
EIGHT_BIT = {"optimizer": "adamw_8bit"}


@pytest.fixture(scope="module")
def released() -> Base:
    return open_base("released")


def counted(released: Base, *, shared_among: int | None = None, **changes: Any) -> memory.Memory:
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


@pytest.mark.parametrize(
    ("changes", "gigabytes"),
    [
        ({}, 0.28),
        ({"gradient_checkpointing": True}, 0.04),
        # Gradients pass through the frozen transformer, to the encoders in front of it.
        (FROZEN_DIT, 0.20),
        ({**FROZEN_DIT, "gradient_checkpointing": True}, 0.04),
    ],
)
def test_activations_a_sample(released: Base, changes: dict[str, Any], gigabytes: float) -> None:
    options = Options(datasets=("d",), base="released", output=Path("out"), **changes)
    model = outline(released, options, bf16=True)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    one, two = kept_bytes(model, 1, 2)
    assert (two - one) / 1e9 == pytest.approx(gigabytes, abs=0.0051)
    assert f"{gigabytes:.2f} GB" in DOCS.read_text(encoding="utf-8")


def test_sharing_among_gpus(released: Base) -> None:
    alone, shared = counted(released), counted(released, shared_among=4)
    assert shared.gradients == alone.gradients // 4
    assert shared.optimizer == alone.optimizer // 4
    assert shared.trained_weights == alone.trained_weights
    # ZeRO steps on float32 weights of its own, though the network's are float32 as well.
    assert alone.copies == 0
    assert shared.copies == alone.trained_parameters
    assert shared.total == shared.trained_weights + shared.frozen_weights + 16 * alone.trained_parameters // 4
    texts = {
        f"{gigabytes / 1e9:.1f} GB"
        for gigabytes in (alone.total, 16 * alone.trained_parameters, shared.total)
    }
    pages = (DOCS.parent / "several_gpus.md").read_text(encoding="utf-8")
    assert all(text in pages for text in texts), texts
    shown = list(memory.lines(shared, optimizer="adamw", processes=4))
    assert shown[-2].split() == ["ZeRO's", "weights,", "1/4", "of", "them", "1.62", "GB"]


def test_a_checkpoint_holds_deployed_and_trained_weights_and_the_optimizer(released: Base) -> None:
    options = Options(datasets=("d",), base="released", output=Path("out"))
    model, found = outline(released, options, bf16=True), counted(released)
    size = memory.checkpoint_bytes(model, deployed_bytes=2)
    assert size == 2 * 3_286_608_832 + 12 * found.trained_parameters
    # DeepSpeed writes the whole network once more, and its own float32 weights.
    shared = memory.checkpoint_bytes(model, deployed_bytes=2, deepspeed=True)
    assert shared - size == found.trained_weights + found.frozen_weights + 4 * found.trained_parameters
    assert f"{shared / 1e9:.1f} GB" in DOCS.read_text(encoding="utf-8")


def test_the_table(released: Base) -> None:
    shown = list(memory.lines(counted(released), optimizer="adamw", processes=1))
    assert shown[0] == "trained: 517 tensors, 1.62 G of 3.29 G parameters"
    assert shown[-1].split() == ["before", "activations", "29.25", "GB"]
