# SPDX-License-Identifier: Apache-2.0
"""Where the network of a run comes from, what of it is trained, and in which types."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gr00t_model import Gr00tN1d6
from gr00t_model.checkpoint import load_model, save_model, untrained_embodiment
from gr00t_model.network.trainable import FLAGS
from gr00t_ros.training.lora import adapted, deployed_value
from gr00t_ros.training.network import (
    VISION_PLACES,
    Base,
    build_network,
    cast,
    configure,
    open_base,
    sines,
    trained_parts,
    use_autocast,
)
from gr00t_ros.training.options import LoraOptions, Options, TrainingError
from support_network import small_config, tiny_inputs

torch.set_num_threads(1)


def options(**changes: object) -> Options:
    return Options(datasets=("d",), base="tiny", output=Path("out"), **changes)


def configured(**changes: object) -> Gr00tN1d6:
    torch.manual_seed(0)
    model = Gr00tN1d6(small_config())
    configure(model, options(**changes))
    return model


def trained(model: Gr00tN1d6) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_presets_have_random_weights_of_the_seed() -> None:
    base = Base("small", small_config())
    weights = [build_network(base, options(seed=seed), bf16=False).state_dict() for seed in (1, 1, 2)]
    name = "action_head.action_decoder.layer1.W"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])
    assert open_base("tiny").directory is None


def test_random_weights_of_the_embodiments_that_are_trained_are_lively() -> None:
    """At the reference's 0.02 * normal a random transformer would drown them; the others stay untrained."""
    model = build_network(Base("small", small_config()), options(), bf16=False, embodiments=[2])
    assert not untrained_embodiment(model, 2)
    assert untrained_embodiment(model, 3)


def test_places_that_lie_beside_each_other_begin_alike() -> None:
    base = Base("small", small_config())
    for seed in (0, 1):
        state = build_network(base, options(seed=seed), bf16=False).state_dict()
        (table,) = (value for name, value in state.items() if name.endswith(VISION_PLACES))
        torch.testing.assert_close(table, sines(*table.shape))
    grid = sines(256, 30).reshape(16, 16, 30)  # a width that no quarter fits into
    assert float(grid[..., :28].square().mean()) == pytest.approx(1.0)
    assert not grid[..., 28:].any()
    from_corner = (grid - grid[0, 0]).norm(dim=-1)
    assert (from_corner.flatten()[1:] > from_corner[0, 1] - 1e-6).all(), (
        "nothing is nearer than its neighbour"
    )
    torch.testing.assert_close(from_corner[0, 1], from_corner[1, 0])


def test_a_checkpoint_gives_its_weights_and_from_scratch_all_but_the_head(tmp_path: Path) -> None:
    torch.manual_seed(3)
    stored = Gr00tN1d6(small_config())
    torch.nn.init.normal_(stored.action_head.action_decoder.layer1.b)
    base = Base("here", stored.config, save_model(stored, tmp_path / "base"))
    kept = build_network(base, options(), bf16=False).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in stored.state_dict().items())
    anew = build_network(base, options(from_scratch=True), bf16=False)
    assert not anew.action_head.action_decoder.layer1.b.any()
    name = "backbone.model.mlp1.1.weight"
    assert torch.equal(anew.state_dict()[name], stored.state_dict()[name])


def test_from_scratch_trains_all_that_takes_part_in_the_loss() -> None:
    model = configured(from_scratch=True).train()
    model(tiny_inputs(model.config))["loss"].backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert all(".head." in name or "lm_head" in name for name in without)


def test_flags_and_regularisers() -> None:
    assert not any(
        "action_head.model." in name for name in trained(configured(tune={"tune_diffusion_model": False}))
    )
    model = configured(state_dropout=0.25, state_noise=0.1)
    assert model.config.state_dropout_prob == 0.25
    assert model.config.state_additive_noise_scale == 0.1
    assert model.action_head.mask_token.requires_grad
    assert Gr00tN1d6.on_meta(model.config).shapes() == model.shapes()
    configure(model, options(state_dropout=0.0, dropout=0.125))
    assert not hasattr(model.action_head, "mask_token")
    assert model.config.dit.dropout == 0.125
    found = {m.p for m in model.action_head.model.modules() if isinstance(m, torch.nn.Dropout)}
    assert found == {0.125}


def test_types_of_mixed_precision() -> None:
    model = configured(tune={"tune_diffusion_model": False})
    cast(model, bf16=True)
    for name, parameter in model.named_parameters():
        trained_or_head = parameter.requires_grad or not name.startswith(("backbone", "action_head.model."))
        assert parameter.dtype == (torch.float32 if trained_or_head else torch.bfloat16), name
    cast(model, bf16=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("lora", [(), ("dit",)])
def test_a_frozen_transformer_in_bfloat16_gives_the_very_same_loss(lora: tuple[str, ...]) -> None:
    """Autocast rounds its weights to bfloat16 anyway."""
    losses = []
    for kept_in_float32 in (True, False):
        model = configured(tune={"tune_diffusion_model": False}, lora=LoraOptions(parts=lora)).eval()
        cast(model, bf16=True)
        if kept_in_float32:
            model.action_head.model.float()
        use_autocast(model, "cpu")
        inputs = tiny_inputs(model.config)
        noise, time = torch.ones_like(inputs["action"]), torch.tensor([0.4])
        losses.append(float(model(inputs, noise, time)["loss"].detach()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("parts", "layers"), [(("backbone",), 3 * 7), (("dit",), 4 * 6), (("backbone", "dit"), 45)]
)
def test_adapters_start_as_no_change_and_are_what_is_trained(parts: tuple[str, ...], layers: int) -> None:
    plain, model = configured(), configured(lora=LoraOptions(parts=parts, rank=4))
    assert adapted(model) == layers
    inputs = tiny_inputs(model.config)
    noise, time = torch.ones_like(inputs["action"]), torch.tensor([0.4])
    losses = [float(one.eval()(inputs, noise, time)["loss"].detach()) for one in (plain, model)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    names = trained(model)
    assert sum("lora_" in name for name in names) == 2 * layers
    assert any("action_decoder" in name for name in names)
    if "backbone" in parts:
        assert all("lora_" in name for name in names if name.startswith("backbone."))
    if "dit" in parts:
        assert all("lora_" in name for name in names if name.startswith("action_head.model."))


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": LoraOptions(parts=("backbone", "dit"))},
        {"from_scratch": True},
        {"tune": {"tune_diffusion_model": False, "tune_top_llm_layers": 1}},
    ],
)
def test_what_one_run_trains_does_not_decide_what_the_next_one_does(changes: dict[str, object]) -> None:
    """The configuration is deployed, and is the base of the next run: its switches are the base's."""
    model = configured(**changes)
    assert trained(model) != trained(configured())
    own = small_config()
    assert {name: getattr(model.config, name) for name in FLAGS} == {n: getattr(own, n) for n in FLAGS}


def test_what_is_trained_is_said_in_words() -> None:
    ordinary = ["1 of 3 language layers", "diffusion transformer", "its encoders and decoder"]
    assert trained_parts(configured()) == [*ordinary, "the norm in front of it"]
    adapters = configured(lora=LoraOptions(parts=("backbone", "dit")))
    assert trained_parts(adapters) == [*ordinary[2:], "the norm in front of it", "adapters of 45 layers"]
    everything = trained_parts(configured(from_scratch=True))
    assert everything[:3] == ["vision tower", "vision projector", "embeddings"]
    assert "3 of 3 language layers" in everything


@pytest.mark.parametrize("bf16", [False, True])
def test_deployed_weights_are_base_and_adapter_together(tmp_path: Path, bf16: bool) -> None:
    """The merged checkpoint has the network's own names, and gives what the adapted network gives."""
    model = configured(lora=LoraOptions(parts=("backbone", "dit"), rank=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        elif "action_decoder" in name:  # which starts so small that nothing in front of it matters
            torch.nn.init.normal_(parameter, std=0.2)
    cast(model, bf16=bf16)
    value = deployed_value(model)
    merged = Gr00tN1d6(model.config)
    merged.load_state_dict({name: value(name).float() for name in merged.state_dict()})
    save_model(merged, tmp_path / "merged")
    again = load_model(tmp_path / "merged")
    inputs = tiny_inputs(model.config)
    noise, time = torch.ones_like(inputs["action"]), torch.tensor([0.4])
    adapted_loss = float(model.float().eval()(inputs, noise, time)["loss"].detach())
    merged_loss = float(again(inputs, noise, time)["loss"].detach())
    assert merged_loss == pytest.approx(adapted_loss, rel=1e-4)
    state = model.state_dict()
    without = {name: state.get(name, state.get(_inside(name))).float() for name in merged.state_dict()}
    merged.load_state_dict(without)
    plain_loss = float(merged.eval()(inputs, noise, time)["loss"].detach())
    assert plain_loss != pytest.approx(merged_loss, rel=1e-2)


def _inside(name: str) -> str:
    """The name of a weight below its adapter."""
    return name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")


def test_gradient_checkpointing_reaches_adapters_above_frozen_layers() -> None:
    base = Base("small", small_config())
    chosen = options(lora=LoraOptions(parts=("backbone",), rank=4), gradient_checkpointing=True)
    model = build_network(base, chosen, bf16=False).train()
    model(tiny_inputs(model.config))["loss"].backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trained(model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parts": ("vision",)}, "'vision' is not known, expected backbone or dit"),
        ({"rank": 0}, "rank of 0 adapts nothing"),
        ({"dropout": 1.0}, "no probability below 1"),
    ],
)
def test_lora_options_are_checked(given: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        LoraOptions(**given)
