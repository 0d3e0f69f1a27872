# SPDX-License-Identifier: Apache-2.0
"""Calling the network: horizons and steps, the plain transformer, and inputs that are refused by name."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import EmbodimentError, Gr00tError, ObservationError
from gr00t_model.network import Gr00tN1d6
from gr00t_model.network.eagle import Features
from support_network import tiny_inputs

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> Gr00tN1d6:
    torch.manual_seed(0)
    return Gr00tN1d6(Gr00tN1d6Config.tiny()).eval()


@pytest.fixture
def inputs(model: Gr00tN1d6) -> dict[str, Any]:
    return tiny_inputs(model.config)


def noise_like(horizon: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, horizon, 128, generator=torch.Generator().manual_seed(5))


def test_actions_have_the_configured_shape(model: Gr00tN1d6, inputs: dict[str, Any]) -> None:
    found = model.get_action(inputs)
    assert found["action_pred"].shape == (1, 50, 128)
    assert found["action_pred"].isfinite().all()
    assert found["backbone_features"].shape == (*inputs["input_ids"].shape, 32)
    assert not found["action_pred"].requires_grad


@pytest.mark.parametrize("horizon", [1, 16, 50])
def test_shorter_horizons(model: Gr00tN1d6, inputs: dict[str, Any], horizon: int) -> None:
    assert model.get_action(inputs, horizon=horizon)["action_pred"].shape == (1, horizon, 128)
    assert model.get_action(inputs, noise_like(horizon))["action_pred"].shape == (1, horizon, 128)


def test_number_of_steps(model: Gr00tN1d6, inputs: dict[str, Any]) -> None:
    noise = noise_like(50)
    default = model.get_action(inputs, noise)["action_pred"]
    assert torch.equal(model.get_action(inputs, noise, num_steps=4)["action_pred"], default)
    assert not torch.equal(model.get_action(inputs, noise, num_steps=1)["action_pred"], default)


def test_same_noise_same_actions_and_seed_same_noise(model: Gr00tN1d6, inputs: dict[str, Any]) -> None:
    noise = noise_like(50)
    assert torch.equal(
        model.get_action(inputs, noise)["action_pred"], model.get_action(inputs, noise)["action_pred"]
    )
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(model.get_action(inputs)["action_pred"])
    assert torch.equal(*drawn)


def test_several_state_steps_give_as_many_tokens(model: Gr00tN1d6, inputs: dict[str, Any]) -> None:
    inputs["state"] = inputs["state"].expand(1, 3, -1)
    assert model.get_action(inputs)["action_pred"].shape == (1, 50, 128)


def test_images_of_one_size_may_go_together_or_alone(model: Gr00tN1d6) -> None:
    """Grouping by size is bookkeeping: order and values stay."""
    tower = model.backbone.model.vision_model
    images = [torch.rand(1, 3, *size) for size in ((28, 56), (28, 28), (28, 56), (56, 28))]
    together, alone = tower(images), [tower([image])[0] for image in images]
    assert [feature.shape for feature in together] == [feature.shape for feature in alone]
    for left, right in zip(together, alone, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def test_text_and_image_blocks_alternate(model: Gr00tN1d6) -> None:
    is_image = torch.tensor([[False, False, True, True, False]])
    valid = torch.tensor([[False, True, True, True, True]])
    context = Features(torch.zeros(1, 5, 32), is_image, valid)
    transformer = model.action_head.model
    text, image = [False, True, False, False, True], [False, False, True, True, False]
    for block, expected in {0: text, 2: image, 4: text, 6: image}.items():
        mask = transformer.context_mask(block, context)
        assert mask is not None
        assert mask[0].tolist() == expected


def test_plain_transformer_sees_everything_with_no_mask() -> None:
    torch.manual_seed(0)
    model = Gr00tN1d6(Gr00tN1d6Config.tiny(use_alternate_vl_dit=False)).eval()
    inputs = tiny_inputs(model.config)
    names = set(Gr00tN1d6.on_meta(Gr00tN1d6Config.tiny()).shapes())
    assert set(model.shapes()) == names
    actions = model.get_action(inputs, noise_like(50))["action_pred"]
    assert actions.isfinite().all()
    features = model.backbone(inputs["input_ids"], inputs["attention_mask"], inputs["pixel_values"])
    assert model.action_head.model.context_mask(0, features) is None


def test_switches_leave_parts_out() -> None:
    model = Gr00tN1d6(Gr00tN1d6Config.tiny(use_vlln=False, add_pos_embed=False))
    names = set(model.shapes())
    assert not any("vlln" in name or name.startswith("action_head.position_embedding") for name in names)
    assert model.get_action(tiny_inputs(model.config))["action_pred"].isfinite().all()


def test_construction_follows_the_torch_seed() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return Gr00tN1d6(Gr00tN1d6Config.tiny()).action_head.state_encoder.layer1.W

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"state": None}, ObservationError, "lack state"),
        ({"state": torch.zeros(1, 1, 29)}, ObservationError, r"state has shape \[1, 1, 29\].*\[1, T, 128\]"),
        ({"state": torch.zeros(2, 1, 128)}, ObservationError, r"state has shape \[2, 1, 128\]"),
        ({"input_ids": torch.zeros(1, 7)}, ObservationError, "input_ids has type torch.float32"),
        ({"input_ids": torch.full((1, 7), 5)}, ObservationError, "sample 0 of the batch has no image token"),
        ({"input_ids": torch.full((1, 7), 200000)}, ObservationError, "token outside 0..151679"),
        ({"input_ids": torch.full((1, 7), 151669)}, ObservationError, "hold 7 image tokens.*give 1:"),
        ({"attention_mask": torch.ones(1, 3).long()}, ObservationError, r"attention_mask has shape \[1, 3\]"),
        ({"attention_mask": torch.zeros(1, 7).long()}, ObservationError, "has no image token"),
        ({"embodiment_id": torch.tensor([32])}, EmbodimentError, r"id 32 is outside this checkpoint's 0..31"),
        ({"embodiment_id": torch.tensor([-1])}, EmbodimentError, "id -1"),
        ({"embodiment_id": torch.tensor([1, 2])}, ObservationError, r"embodiment_id has shape \[2\]"),
        ({"pixel_values": []}, ObservationError, "hold 1 image tokens.*give 0:"),
        ({"pixel_values": [torch.zeros(1, 3, 30, 28)]}, ObservationError, "multiples of 28"),
        (
            {"pixel_values": [torch.zeros(3, 28, 28)]},
            ObservationError,
            r"pixel_values\[0\] has shape \[3, 28, 28\]",
        ),
        ({"pixel_values": [torch.zeros(1, 3, 28, 28).byte()]}, ObservationError, "type torch.uint8"),
    ],
)
def test_wrong_inputs_are_named(
    model: Gr00tN1d6, inputs: dict[str, Any], change: dict[str, Any], kind: type[Gr00tError], message: str
) -> None:
    wrong = {name: value for name, value in {**inputs, **change}.items() if value is not None}
    with pytest.raises(kind, match=message):
        model.get_action(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 51}, "horizon of 51 steps.*1 to 50"),
        ({"horizon": 0}, "horizon of 0 steps"),
        ({"noise": torch.zeros(1, 51, 128)}, "horizon of 51 steps"),
        ({"noise": torch.zeros(1, 50, 29)}, r"noise has shape \[1, 50, 29\]; expected \[1, 50, 128\]"),
        (
            {"noise": torch.zeros(1, 50, 128), "horizon": 16},
            r"noise has shape \[1, 50, 128\]; expected \[1, 16",
        ),
        ({"num_steps": 0}, "0 denoising steps"),
        ({"num_steps": 2.5}, r"2\.5 denoising steps"),
        ({"num_steps": "4"}, "'4' denoising steps"),
    ],
)
def test_wrong_arguments_are_named(
    model: Gr00tN1d6, inputs: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ObservationError, match=message):
        model.get_action(inputs, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": torch.zeros(1, 50, 29)}, r"action has shape \[1, 50, 29\]"),
        ({"action_mask": torch.zeros(1, 50, 29)}, r"action_mask has shape \[1, 50, 29\]"),
        ({"action": torch.zeros(1, 51, 128)}, "horizon of 51"),
    ],
)
def test_wrong_training_inputs_are_named(
    model: Gr00tN1d6, inputs: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ObservationError, match=message):
        model({**inputs, **change})
    with pytest.raises(ObservationError, match=r"time has shape \[2\]; expected \[1\]"):
        model(inputs, time=torch.zeros(2))
