# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (Hu et al., 2021, by peft) on the language model and on the diffusion transformer.

Adapters are put into the network in place, so that it stays a ``Gr00tN1d6`` to everything else; a deployable
checkpoint gets their sum with the weights, under the weights' own names, and knows nothing of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gr00t_model import Gr00tN1d6
from gr00t_ros.training.options import LoraOptions, TrainingError

_LOG = logging.getLogger(__name__)

# The linear layers of each part, by the ends of their names: all of attention and of the feed-forwards, which
# is what later work than the first found best (Dettmers et al., 2023).
_TARGETS = {
    "backbone": r"backbone\.model\.language_model\.model\.layers\.\d+\."
    r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)",
    "dit": r"action_head\.model\.transformer_blocks\.\d+\."
    r"(attn1\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))",
}
# What is no longer trained as a whole once adapters are: see network/trainable.py.
FROZEN_BY: dict[str, dict[str, Any]] = {
    "backbone": {"tune_llm": False, "tune_top_llm_layers": 0},
    "dit": {"tune_diffusion_model": False},
}
_ADAPTER = "default"
# Between the name of a module and that of its own weights, where an adapter was put around it.
_BASE = ".base_layer."


def add_adapters(model: Gr00tN1d6, options: LoraOptions) -> None:
    """Put adapters into the parts named, trained and in the weights' place on the device; they start as no
    change at all. Freezes nothing: see :data:`FROZEN_BY`.

    Raises:
        TrainingError: peft is not installed.
    """
    if not options.parts:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise TrainingError("LoRA needs peft; install it with: pip install 'gr00t_ros[train]'") from error
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules="|".join(f"(?:{_TARGETS[part]})" for part in options.parts),
    )
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    inject_adapter_in_model(config, model, adapter_name=_ADAPTER, low_cpu_mem_usage=on_meta)
    # peft freezes all but its own; what else is trained was decided before.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_adapter(name) or trained[_own_name(name)])


def deployed_value(model: Gr00tN1d6) -> Callable[[str], Tensor]:
    """The tensor that a checkpoint has under a name, adapters added: computed when asked for, so that memory
    holds one at a time."""
    state = model.state_dict()
    tensors = {_own_name(name): tensor for name, tensor in state.items() if not _is_adapter(name)}
    layers = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if _ADAPTER in getattr(module, "lora_A", {})
    }

    @torch.no_grad()
    def value(name: str) -> Tensor:
        layer = layers.get(name)
        if layer is None:
            return tensors[name]
        change = layer.get_delta_weight(_ADAPTER)
        return tensors[name].float() + change.float()

    return value


def adapted(model: nn.Module) -> int:
    """How many layers have an adapter."""
    return sum(1 for module in model.modules() if _ADAPTER in getattr(module, "lora_A", {}))


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _own_name(name: str) -> str:
    return name.replace(_BASE, ".")
