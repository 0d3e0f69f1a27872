# SPDX-License-Identifier: Apache-2.0
"""For tests of the network: golden numbers of a tiny GR00T N1.6, and small networks and inputs.

The full golden set is used where it lies beside the checkout, the trimmed one of test/data always.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.network import Gr00tN1d6

_ROOT = Path(__file__).resolve().parents[2]
TRIMMED_FOLDER = _ROOT / "test" / "data" / "reference"
FULL_FOLDER = _ROOT.parent / "shared" / "reference"

# What float32 results may differ by: the reference itself is reproducible to about 1e-6.
TOLERANCE = 1e-4

needs_full_set = pytest.mark.skipif(
    not FULL_FOLDER.is_dir(), reason=f"needs the untrimmed golden data, {FULL_FOLDER}"
)


@dataclass(frozen=True)
class Golden:
    """One set of golden files."""

    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text())

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.folder / "weights.safetensors")

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """As the network takes them; images that were trimmed away are None."""
        stored = load_file(self.folder / "inputs.safetensors")
        images = [stored.pop(f"pixel_values.{i}", None) for i in range(len(self.meta["image_sizes_hw"]))]
        return {**stored, "pixel_values": images}

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "outputs.safetensors")

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        return load_file(self.folder / "gradients.safetensors")

    def rows(self, name: str) -> list[int] | slice:
        """The leading indices of the tensor `name` that are stored."""
        return self.meta.get("rows", {}).get(name, slice(None))

    def config(self, **changes: Any) -> Gr00tN1d6Config:
        values = {**self.meta["model_config"], "eagle_config": self.meta["eagle_config"], **changes}
        return Gr00tN1d6Config(**values)

    def model(self, **changes: Any) -> Gr00tN1d6:
        """The network with the stored weights, in eval mode; weights that were trimmed away are NaN."""
        model = Gr00tN1d6(self.config(**changes))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.fill_(float("nan"))
                if name in self.weights:
                    parameter[self.rows(name)] = self.weights[name]
        return model.eval()


def trimmed() -> Golden:
    return Golden(TRIMMED_FOLDER / "tiny")


def full() -> Golden:
    return Golden(FULL_FOLDER / "tiny")


SOURCES = [
    pytest.param(trimmed, id="trimmed"),
    pytest.param(full, id="full", marks=needs_full_set),
]


@dataclass
class Recorder:
    """What modules took and gave, call by call."""

    taken: dict[str, list[Any]] = field(default_factory=dict)
    given: dict[str, list[Any]] = field(default_factory=dict)

    def watch(self, module: nn.Module, name: str) -> None:
        def hook(_: nn.Module, taken: Any, given: Any) -> None:
            self.taken.setdefault(name, []).append(taken)
            self.given.setdefault(name, []).append(given)

        module.register_forward_hook(hook)

    def clear(self) -> None:
        self.taken.clear()
        self.given.clear()


def worst(found: Tensor, expected: Tensor) -> float:
    """The largest absolute difference; shapes must agree, and NaN counts as infinitely far."""
    assert found.shape == expected.shape, f"{list(found.shape)} instead of {list(expected.shape)}"
    difference = (found.detach().double() - expected.double()).abs()
    return float(torch.nan_to_num(difference, nan=float("inf")).max())


def small_config(**changes: Any) -> Gr00tN1d6Config:
    """The tiny preset without its large tables, for tests that have no use for the real vocabulary."""
    eagle = json.loads(json.dumps(Gr00tN1d6Config.tiny().eagle()))
    eagle["image_token_index"] = 999
    eagle["text_config"]["vocab_size"] = 1000
    values = {"eagle_config": eagle, "max_num_embodiments": 6, "action_horizon": 6, **changes}
    return Gr00tN1d6Config.tiny(**values)


def tiny_inputs(config: Gr00tN1d6Config, *, batch: int = 1, size: int = 28, seed: int = 0) -> dict[str, Any]:
    """Inputs of the right shapes with one square image a sample, for tests that need no golden numbers."""
    generator = torch.Generator().manual_seed(seed)
    image_tokens = (size // config.image_multiple) ** 2
    ids = torch.randint(0, 1000, (batch, image_tokens + 6), generator=generator)
    ids[:, 3 : 3 + image_tokens] = config.image_token_id
    shape = (batch, config.action_horizon, config.max_action_dim)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": [torch.rand(1, 3, size, size, generator=generator) * 2 - 1 for _ in range(batch)],
        "state": torch.randn(batch, 1, config.max_state_dim, generator=generator),
        "embodiment_id": torch.arange(batch) % config.max_num_embodiments,
        "action": torch.randn(shape, generator=generator),
        "action_mask": torch.ones(shape),
    }


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite a JSON file after `change` has had its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Rewrite a safetensors file, by the format's own library, after `change` has had its content."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
