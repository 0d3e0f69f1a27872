# SPDX-License-Identifier: Apache-2.0
"""Parameter names, shapes and training flags are the published checkpoint's, at every preset's sizes."""

import hashlib
import json
from collections.abc import Callable

import pytest
import torch

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.network import Gr00tN1d6
from support_network import FULL_FOLDER, TRIMMED_FOLDER, needs_full_set

SUMMARY = json.loads((TRIMMED_FOLDER / "n1d6_state_dict_summary.json").read_text())


@pytest.fixture(scope="module")
def released() -> Gr00tN1d6:
    return Gr00tN1d6.on_meta(Gr00tN1d6Config.released())


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def trained(model: Gr00tN1d6) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@needs_full_set
def test_every_name_and_shape_one_by_one(released: Gr00tN1d6) -> None:
    listed = json.loads((FULL_FOLDER / "n1d6_state_dict.json").read_text())["tensors"]
    assert {name: list(shape) for name, shape in released.shapes().items()} == {
        name: tensor["shape"] for name, tensor in listed.items()
    }
    assert trained(released) == {
        name for name, tensor in listed.items() if tensor["trainable_with_default_flags"]
    }


def test_names_shapes_and_totals(released: Gr00tN1d6) -> None:
    shapes = released.shapes()
    assert len(shapes) == SUMMARY["tensors"] == 1106
    assert sum(parameter.numel() for parameter in released.parameters()) == SUMMARY["parameters"]
    found = digest([f"{name} {list(shape)}" for name, shape in shapes.items()])
    assert found == SUMMARY["names_and_shapes_sha256"]


def test_default_trainable_set(released: Gr00tN1d6) -> None:
    names = trained(released)
    assert len(names) == SUMMARY["trainable_tensors"] == 517
    assert digest(list(names)) == SUMMARY["trainable_names_sha256"]
    elements = sum(parameter.numel() for parameter in released.parameters() if parameter.requires_grad)
    assert round(elements / 1e9, 2) == 1.62


def test_default_types_of_training(released: Gr00tN1d6) -> None:
    """Frozen parameters bfloat16, trained ones float32, as the reference builds the network."""
    model = Gr00tN1d6.on_meta(Gr00tN1d6Config.released())
    model.cast_for_training()
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert set(types.values()) == {torch.bfloat16, torch.float32}
    in_float32 = [name for name, dtype in types.items() if dtype == torch.float32]
    assert digest(in_float32) == SUMMARY["float32_names_sha256"]


def test_older_sizes_change_only_what_touches_state_and_action(released: Gr00tN1d6) -> None:
    newer, older = released.shapes(), Gr00tN1d6.on_meta(Gr00tN1d6Config.seed()).shapes()
    changed = {name: shape for name, shape in older.items() if shape != newer[name]}
    assert older.keys() == newer.keys()
    assert changed == {
        "action_head.state_encoder.layer1.W": (32, 29, 1024),
        "action_head.action_encoder.W1.W": (32, 29, 1536),
        "action_head.action_decoder.layer2.W": (32, 1024, 29),
        "action_head.action_decoder.layer2.b": (32, 29),
    }


def test_mask_token_exists_only_with_state_dropout() -> None:
    name = "action_head.mask_token"
    assert name not in Gr00tN1d6.on_meta(Gr00tN1d6Config.tiny()).shapes()
    with_dropout = Gr00tN1d6.on_meta(Gr00tN1d6Config.tiny(state_dropout_prob=0.2))
    assert with_dropout.shapes()[name] == (1, 1, 32)


def test_nothing_is_left_unsaved(released: Gr00tN1d6) -> None:
    """No buffer holds anything: what a checkpoint stores is all there is."""
    assert list(released.named_buffers()) == []


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [(Gr00tN1d6Config.tiny, 1e6, 11e6), (Gr00tN1d6Config.small, 90e6, 110e6)],
    ids=["tiny", "small"],
)
def test_small_presets_keep_names_and_vocabulary(
    preset: Callable[[], Gr00tN1d6Config], low: float, high: float, released: Gr00tN1d6
) -> None:
    model = Gr00tN1d6.on_meta(preset())
    assert low < sum(parameter.numel() for parameter in model.parameters()) < high
    assert set(model.shapes()) < set(released.shapes())
    assert model.shapes()["backbone.model.language_model.model.embed_tokens.weight"][0] == 151680
    assert model.config.image_token_id == 151669
