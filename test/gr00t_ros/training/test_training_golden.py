# SPDX-License-Identifier: Apache-2.0
"""Loss and gradients of the reference, through the path that training takes: collate, the trainer's step, its
loss; in float32, and under the rules of mixed precision."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from gr00t_model.network import Gr00tN1d6
from gr00t_model.network.eagle import Features
from gr00t_ros.training.collate import collate
from gr00t_ros.training.network import cast, use_autocast
from gr00t_ros.training.trainer import Finetuner
from support_network import SOURCES, TOLERANCE, Golden, full, needs_full_set, worst

torch.set_num_threads(1)


class GoldenTrainer(Finetuner):
    """One step on the golden batch, with its noise and times; keeps its gradients, which are not clipped."""

    def __init__(self, model: Gr00tN1d6, golden: Golden, folder: Path, batches: list[dict[str, Any]]) -> None:
        self.golden = golden
        self.gradients: dict[str, Tensor] = {}
        self.results: list[Mapping[str, Tensor]] = []
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=1,
            per_device_train_batch_size=2 // len(batches),
            gradient_accumulation_steps=len(batches),
            learning_rate=0.0,
            max_grad_norm=0.0,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
        )
        super().__init__(
            model,
            arguments,
            loader=lambda start: batches,  # type: ignore[arg-type, return-value]
            evaluation=None,
            deployment=None,  # type: ignore[arg-type]
            keep=1,
            callbacks=[_Keeper(self.gradients)],
        )

    def _drawn(self, batch: dict[str, Any], numbers: range) -> dict[str, Any]:
        outputs, rows = self.golden.outputs, list(numbers)
        return {"noise": outputs["train.noise"][rows], "time": outputs["train.t"][rows]}

    def compute_loss(self, *given: Any, **more: Any) -> Any:
        loss, results = super().compute_loss(*given, **{**more, "return_outputs": True})
        self.results.append(results)
        assert loss.dtype == torch.float32
        return loss

    @property
    def loss(self) -> float:
        return float(self.state.log_history[0]["loss"])


class _Keeper(TrainerCallback):
    def __init__(self, kept: dict[str, Tensor]) -> None:
        self._kept = kept

    def on_pre_optimizer_step(self, *given: Any, model: nn.Module, **more: Any) -> None:
        self._kept.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def samples(golden: Golden) -> list[dict[str, Any]]:
    """The golden batch as two samples, without padding, as a data loader makes them."""
    inputs = golden.inputs
    images = iter(inputs["pixel_values"])
    found = []
    for number in range(len(inputs["state"])):
        real = inputs["attention_mask"][number].bool()
        rest = {name: inputs[name][number : number + 1] for name in ("state", "action", "action_mask")}
        found.append(
            {
                "input_ids": inputs["input_ids"][number : number + 1, real],
                "attention_mask": inputs["attention_mask"][number : number + 1, real],
                "pixel_values": [next(images), next(images)],
                "embodiment_id": inputs["embodiment_id"][number : number + 1],
                **rest,
            }
        )
    return found


def collated(golden: Golden, parts: int) -> list[dict[str, Any]]:
    both = samples(golden)
    batches = [collate(both)] if parts == 1 else [collate([sample]) for sample in both]
    for batch in batches:
        # The golden network's vocabulary is too small for the real padding token.
        batch["input_ids"][batch["attention_mask"] == 0] = 0
    return batches


def network(golden: Golden) -> Gr00tN1d6:
    """All of it trained, as the golden gradients are; without dropout, which the recording has off."""
    cfg = {**golden.meta["model_config"]["diffusion_model_cfg"], "dropout": 0.0}
    model = golden.model(diffusion_model_cfg=cfg)
    model.requires_grad_(True)
    return model


def distances(found: Mapping[str, Tensor], golden: Golden) -> dict[str, float]:
    """Of each gradient from the reference's, relative to its size."""
    expected = json.loads((golden.folder / "gradients.json").read_text())["param_grad_norm"]
    far = {}
    for name, gradient in found.items():
        # A key's bias has no gradient; 1e-8 of rounding is left, while all others have 0.018 and more.
        scale = max(expected[name], 0.01)
        far[name] = abs(float(gradient.norm()) - expected[name]) / scale
        if name in golden.gradients:
            far[name] = max(far[name], float((gradient - golden.gradients[name]).norm()) / scale)
    return far


@needs_full_set
@pytest.mark.parametrize("parts", [1, 2], ids=["one_batch", "accumulated"])
def test_loss_and_gradients(tmp_path: Path, parts: int) -> None:
    """Also when the batch is worked off in two parts, whose masks have different numbers of ones."""
    golden = full()
    counts = golden.inputs["action_mask"].sum(dim=(1, 2))
    assert counts[0] != counts[1]
    trainer = GoldenTrainer(network(golden), golden, tmp_path, collated(golden, parts))
    trainer.train()
    assert trainer.loss == pytest.approx(float(golden.outputs["train.loss"]), abs=TOLERANCE)
    assert len(trainer.gradients) > 200
    far = distances(trainer.gradients, golden)
    assert {name: distance for name, distance in far.items() if distance >= 1e-3} == {}


@needs_full_set
def test_mixed_precision(tmp_path: Path) -> None:
    """Frozen backbone weights bfloat16, trained ones float32, bfloat16 autocast, the loss in float32; and the
    numbers still the reference's to within bfloat16's rounding."""
    golden = full()
    model = network(golden)
    model.set_trainable(tune_top_llm_layers=2, tune_llm=False, tune_visual=False)
    cast(model, bf16=True)
    for name, parameter in model.named_parameters():
        wanted = torch.float32 if parameter.requires_grad or "action_head" in name else torch.bfloat16
        assert parameter.dtype == wanted, name
    seen: list[tuple[bool, torch.dtype, torch.dtype]] = []

    def look(module: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), given.dtype))

    model.action_head.model.proj_out_2.register_forward_hook(look)
    use_autocast(model, "cpu")
    trainer = GoldenTrainer(model, golden, tmp_path, collated(golden, 1))
    trainer.train()
    assert seen == [(True, torch.bfloat16, torch.bfloat16)]
    assert trainer.results[0]["action_loss"].dtype == torch.float32
    assert trainer.loss == pytest.approx(float(golden.outputs["train.loss"]), rel=0.02)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(trainer.gradients) == trained
    for name, gradient in trainer.gradients.items():
        assert gradient.dtype == torch.float32
        exact = golden.gradients.get(name)
        if exact is not None and float(exact.norm()) > 0.01:
            assert float(torch.nn.functional.cosine_similarity(gradient.flatten(), exact.flatten(), 0)) > 0.98


@pytest.mark.parametrize("source", SOURCES)
def test_from_the_transformer_to_the_loss_and_back(source: Callable[[], Golden], tmp_path: Path) -> None:
    """What of it the trimmed golden data carries: the transformer's recorded output, the decoder's gradients.

    Everything in front of the decoder gives its recorded output, so that weights that were trimmed away take
    no part.
    """
    golden = source()
    model = network(golden)
    model.requires_grad_(False)
    model.action_head.action_decoder.requires_grad_(True)
    _replay_front(model, golden)
    batch = {name: golden.inputs[name] for name in ("state", "action", "action_mask", "embodiment_id")}
    trainer = GoldenTrainer(model, golden, tmp_path, [{**batch, "pixel_values": []}])
    trainer.train()
    assert trainer.loss == pytest.approx(float(golden.outputs["train.loss"]), abs=TOLERANCE)
    decoder = {name for name in golden.gradients if ".action_decoder." in name}
    assert set(trainer.gradients) == decoder
    for name in decoder:
        expected = golden.gradients[name]
        assert worst(trainer.gradients[name][golden.rows(name)], expected) < 1e-3 * float(
            expected.abs().max()
        )


def _replay_front(model: Gr00tN1d6, golden: Golden) -> None:
    outputs = golden.outputs

    class Recorded(nn.Module):
        def forward(self, *given: Any) -> Tensor:
            return outputs["train.dit.model_output"]

    def features(prepared: Mapping[str, Any]) -> Features:
        return Features(
            outputs["backbone_features"], outputs["image_mask"], outputs["backbone_attention_mask"]
        )

    model.action_head.model = Recorded()
    model._features = features  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _skip_image_checks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where images and ids take no part they are not looked at either."""
    if "source" in request.fixturenames:
        monkeypatch.setattr("gr00t_model.network.inputs.prepare", lambda inputs, model, training: inputs)
        monkeypatch.setattr("gr00t_ros.training.trainer.check", lambda inputs, *_, **__: inputs)
