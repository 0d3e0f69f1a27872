# SPDX-License-Identifier: Apache-2.0
"""What a network keeps for its backward pass, counted without memory or arithmetic: on tensors that have
shapes and types only."""

from __future__ import annotations

import gc
import weakref
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gr00t_model import Gr00tN1d6
from gr00t_model.network import inputs as checks
from gr00t_ros.training.network import use_autocast

# Two cameras, as the released processor leaves their pictures, and a task of usual length.
CAMERAS, EDGE, WORDS = 2, 252, 40


class Kept:
    """Stands in the graph for a tensor, and goes with it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(model: Gr00tN1d6, *batches: int) -> list[int]:
    """Of activations, weights apart, after a forward pass under bfloat16 autocast, for so many samples each.

    ``model`` lies on the meta device; it is left with fake weights.
    """
    with FakeTensorMode():
        _without_values(model)
        model.train()
        use_autocast(model, "cpu")
        return [_kept(model, batch) for batch in batches]


def _kept(model: Gr00tN1d6, batch: int) -> int:
    given = _inputs(model, batch)
    live: weakref.WeakSet[Kept] = weakref.WeakSet()

    def keep(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        live.add(kept)
        return kept

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor)
    # Of its values there is nothing to be checked.
    with patch.object(checks, "check", lambda given, *_, **__: given), hooks:
        loss = model(given, torch.zeros_like(given["action"]), torch.zeros(batch))["loss"]
    assert loss.requires_grad  # and so holds the graph until here
    gc.collect()
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages = (kept.tensor.untyped_storage() for kept in live)
    sizes = {storage._cdata: storage.nbytes() for storage in storages}
    del loss
    return sum(size for key, size in sizes.items() if key not in weights)


def _without_values(model: nn.Module) -> None:
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype)
                module._parameters[name] = nn.Parameter(new, requires_grad=old.requires_grad)


def _inputs(model: Gr00tN1d6, batch: int) -> dict[str, Any]:
    config = model.config
    length = CAMERAS * (EDGE // config.image_multiple) ** 2 + WORDS
    actions = (batch, config.action_horizon, config.max_action_dim)
    return {
        "input_ids": torch.zeros(batch, length, dtype=torch.long),
        "attention_mask": torch.ones(batch, length, dtype=torch.long),
        "pixel_values": [torch.zeros(1, 3, EDGE, EDGE) for _ in range(CAMERAS * batch)],
        "state": torch.zeros(batch, 1, config.max_state_dim),
        "embodiment_id": torch.zeros(batch, dtype=torch.long),
        "action": torch.zeros(actions),
        "action_mask": torch.ones(actions),
    }
