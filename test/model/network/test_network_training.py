# SPDX-License-Identifier: Apache-2.0
"""What is trained, and with which loss: flags, modes, types, time sampling, dropout and noise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gr00t_model.errors import ConfigError, ObservationError
from gr00t_model.network import Gr00tN1d6
from support_network import small_config, tiny_inputs

torch.set_num_threads(1)


def model_of(**changes: Any) -> Gr00tN1d6:
    torch.manual_seed(0)
    return Gr00tN1d6(small_config(**changes))


def trained_parts(model: Gr00tN1d6) -> set[str]:
    """Top-level parts with at least one trained parameter; layers of the language model one by one."""
    eagle, head = model.backbone.model, model.action_head
    parts = {
        "vision": eagle.vision_model,
        "mlp1": eagle.mlp1,
        "embeddings": eagle.language_model.model.embed_tokens,
        "norm": eagle.language_model.model.norm,
        **{f"layer{i}": layer for i, layer in enumerate(eagle.language_model.model.layers)},
        "transformer": head.model,
        "vlln": head.vlln,
        "state_encoder": head.state_encoder,
        "action_encoder": head.action_encoder,
        "action_decoder": head.action_decoder,
        "positions": head.position_embedding,
    }
    return {name for name, part in parts.items() if any(p.requires_grad for p in part.parameters())}


PROJECTORS = {"state_encoder", "action_encoder", "action_decoder", "positions"}
NOTHING = {
    "tune_visual": False,
    "tune_llm": False,
    "tune_top_llm_layers": 0,
    "tune_projector": False,
    "tune_diffusion_model": False,
    "tune_vlln": False,
}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, set()),
        ({"tune_visual": True}, {"vision", "mlp1"}),
        ({"tune_llm": True}, {"embeddings", "norm", "layer0", "layer1", "layer2"}),
        ({"tune_top_llm_layers": 2}, {"layer1", "layer2"}),
        ({"tune_projector": True}, PROJECTORS),
        ({"tune_diffusion_model": True}, {"transformer"}),
        ({"tune_vlln": True}, {"vlln"}),
    ],
)
def test_each_flag_trains_its_part(flags: dict[str, Any], expected: set[str]) -> None:
    model = model_of(**NOTHING)
    model.set_trainable(**flags)
    assert trained_parts(model) == expected
    model.set_trainable(**NOTHING)
    assert trained_parts(model) == set()


def test_flags_are_remembered_and_checked() -> None:
    model = model_of()
    model.set_trainable(tune_visual=True)
    assert model.config.tune_visual
    with pytest.raises(ConfigError, match="tune_visula"):
        model.set_trainable(tune_visula=True)
    with pytest.raises(ConfigError, match=r"tune_top_llm_layers is 4.*0 to select_layer 3"):
        model.set_trainable(tune_top_llm_layers=4)


def test_frozen_parts_stay_in_eval_mode() -> None:
    model = model_of(tune_diffusion_model=False).train()
    head, eagle = model.action_head, model.backbone.model
    assert model.training
    assert head.action_decoder.training
    assert eagle.language_model.model.layers[-1].training
    frozen = [head.model, eagle.vision_model, eagle.mlp1, eagle.language_model.model.layers[0]]
    assert [module.training for part in frozen for module in part.modules() if module.training] == []
    model.eval()
    assert not any(module.training for module in model.modules())


def test_frozen_transformer_has_no_dropout_and_a_trained_one_has() -> None:
    for trained, deterministic in ((False, True), (True, False)):
        model = model_of(tune_diffusion_model=trained).train()
        inputs = tiny_inputs(model.config)
        noise, time = torch.randn_like(inputs["action"]), torch.tensor([0.3])
        losses = {float(model(inputs, noise, time)["loss"].detach()) for _ in range(3)}
        assert (len(losses) == 1) == deterministic


def test_training_step_under_autocast_with_mixed_types() -> None:
    model = model_of().train()
    model.cast_for_training()
    assert model.backbone.model.mlp1[1].weight.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(tiny_inputs(model.config, batch=2))["loss"]
    loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.grad is not None:
            assert parameter.dtype == torch.float32
            assert parameter.grad.isfinite().all(), name


def test_gradient_checkpointing_changes_nothing() -> None:
    model = model_of(tune_visual=True, tune_llm=True)
    inputs = tiny_inputs(model.config)
    noise, time = torch.randn_like(inputs["action"]), torch.tensor([0.7])
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            # transformers renames the switch in version 6
            enable: Any = getattr(
                model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
            )
            enable({"use_reentrant": False})
            assert model.backbone.model.language_model.model.layers[0].gradient_checkpointing
            assert model.action_head.model.transformer_blocks[0].gradient_checkpointing
        model.train()
        model.zero_grad()
        torch.manual_seed(1)  # of the dropout, whose masks are drawn again as they were
        model(inputs, noise, time)["loss"].backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "layers", "stack"),
    [
        # The encoders in front of the transformer are trained, and gradients reach them through it.
        ({"tune_projector": True}, 4, lambda model: model.action_head.model.transformer_blocks),
        ({"tune_visual": True}, 3, lambda model: model.backbone.model.language_model.model.layers),
    ],
)
def test_gradient_checkpointing_reaches_frozen_layers(
    flags: dict[str, Any], layers: int, stack: Callable[[Gr00tN1d6], Any]
) -> None:
    """Of a frozen layer that gradients pass through nothing is kept but what enters it; and its dropout stays
    off."""
    model = model_of(**{**NOTHING, **flags})
    inputs = tiny_inputs(model.config)
    noise, time = torch.randn_like(inputs["action"]), torch.tensor([0.7])
    inside: list[Any] = []
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.extend([tensor] if inside else [])
        return tensor

    for layer in stack(model):
        layer.register_forward_pre_hook(lambda *_: inside.append(True))
        layer.register_forward_hook(lambda *_: inside.clear())
    saved, losses = [], []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses.append(model(inputs, noise, time)["loss"])
        saved.append(len(kept))
    assert len(stack(model)) == layers
    assert saved[0] > 15 * layers
    assert saved[1] <= 3 * layers
    assert losses[0] == losses[1]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    plain, again = (torch.autograd.grad(loss, trained, allow_unused=True) for loss in losses)
    assert any(gradient is not None for gradient in plain)
    torch.testing.assert_close(again, plain)


@pytest.mark.parametrize("arguments", [(), (None,), ({"use_reentrant": True},)])
@pytest.mark.parametrize("switch", ["gradient_checkpointing_enable", "activation_checkpointing_enable"])
def test_gradient_checkpointing_trains_above_frozen_layers(switch: str, arguments: tuple[Any, ...]) -> None:
    """With the flags as published, where everything below the top language layers is frozen."""
    model = model_of()
    assert not model.backbone.model.language_model.model.embed_tokens.weight.requires_grad
    # The second is the switch's name from transformers 5 on.
    getattr(model, switch, model.gradient_checkpointing_enable)(*arguments)
    model.train()
    model(tiny_inputs(model.config))["loss"].backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(".language_model.model.layers.2." in name for name in trained)
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained


def test_time_is_one_minus_beta() -> None:
    """E[1 - Beta(1.5, 1)] = 0.4, its variance 1.5/(2.5^2 * 3.5); nothing reaches noise_s or beyond."""
    torch.manual_seed(0)
    time = model_of().action_head.sample_time(100_000, torch.device("cpu"))
    assert time.dtype == torch.float32
    assert float(time.min()) >= 0
    assert float(time.max()) < 0.999
    assert float(time.mean()) == pytest.approx(0.4 * 0.999, abs=0.005)
    assert float(time.var()) == pytest.approx(1.5 / (2.5**2 * 3.5) * 0.999**2, abs=0.002)


def test_only_masked_entries_enter_the_loss() -> None:
    model = model_of().eval()
    inputs = tiny_inputs(model.config)
    inputs["action_mask"][:, 3:] = 0
    inputs["action_mask"][:, :, 7:] = 0
    noise, time = torch.randn_like(inputs["action"]), torch.tensor([0.25])
    results = model(inputs, noise, time)
    counted = results["action_loss"][:, :3, :7]
    assert float(results["loss"].detach()) == pytest.approx(float(counted.detach().mean()), rel=1e-5)
    assert float(results["action_loss"].detach().sum()) == pytest.approx(
        float(counted.detach().sum()), rel=1e-5
    )
    inputs["action_mask"].zero_()
    assert float(model(inputs, noise, time)["loss"].detach()) == 0


def test_drawn_noise_and_time_follow_the_torch_seed() -> None:
    model = model_of().eval()
    inputs = tiny_inputs(model.config)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(model(inputs)["loss"].detach()))
    assert losses[0] == losses[1] != losses[2]


def test_state_dropout_belongs_to_the_loss_and_not_to_inference() -> None:
    """With probability 1 the state has no effect on the loss, in eval mode too, but keeps it on actions."""
    model = model_of(state_dropout_prob=1.0).eval()
    for parameter in model.action_head.state_encoder.parameters():
        torch.nn.init.normal_(parameter)
    here = tiny_inputs(model.config)
    there = {**here, "state": here["state"] + 1}
    noise, time = torch.randn_like(here["action"]), torch.tensor([0.5])
    assert torch.equal(model(here, noise, time)["loss"], model(there, noise, time)["loss"])
    actions = [model.get_action(inputs, noise)["action_pred"] for inputs in (here, there)]
    assert not torch.equal(*actions)


def test_state_dropout_is_drawn_per_sample() -> None:
    torch.manual_seed(0)
    head = model_of(state_dropout_prob=0.25).action_head
    tokens = torch.ones(4000, 1, 32)
    disturbed = head.disturb_state(tokens)
    replaced = (disturbed == head.mask_token).all(dim=(1, 2))
    kept = (disturbed == 1).all(dim=(1, 2))
    assert bool((replaced ^ kept).all())
    assert float(replaced.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_state_noise_only_while_training() -> None:
    head = model_of(state_additive_noise_scale=0.5).action_head
    tokens = torch.zeros(2000, 1, 32)
    assert torch.equal(head.eval().disturb_state(tokens), tokens)
    assert float(head.train().disturb_state(tokens).std()) == pytest.approx(0.5, rel=0.02)


def test_a_few_steps_of_training_reduce_the_loss() -> None:
    model = model_of().train()
    inputs = tiny_inputs(model.config)
    noise, time = torch.randn_like(inputs["action"]), torch.tensor([0.5])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = model(inputs, noise, time)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_draws_of_noise_share_a_pass_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two draws for two samples: the loss of all four, from the features of two."""
    model = model_of().eval()
    inputs = tiny_inputs(model.config, batch=2)
    shape = (4, *inputs["action"].shape[1:])
    noise, time = torch.randn(shape, generator=torch.Generator().manual_seed(1)), torch.rand(4)
    apart = [model(inputs, noise[part], time[part])["action_loss"] for part in (slice(0, 2), slice(2, 4))]
    passes = []
    backbone = type(model.backbone).forward
    monkeypatch.setattr(
        type(model.backbone), "forward", lambda self, *given: passes.append(1) or backbone(self, *given)
    )
    together = model(inputs, noise, time)
    torch.testing.assert_close(together["action_loss"], torch.cat(apart))
    assert len(passes) == 1
    masked = together["action_loss"].sum() / together["action_mask"].sum()
    torch.testing.assert_close(together["loss"], masked)
    with pytest.raises(ObservationError, match=r"noise has shape \[3, .*; expected \[2, "):
        model(inputs, noise[:3], time[:3])
    with pytest.raises(ObservationError, match=r"time has shape \[2\]; expected \[4\]"):
        model(inputs, noise, time[:2])
