# SPDX-License-Identifier: Apache-2.0
"""How much memory a run takes before the first activation: counted, parameter by parameter, without weights.

What comes on top are the activations, which grow with the batch that is computed at a time
(``--batch-size`` / processes / ``--accumulate``) and shrink with ``--gradient-checkpointing``, and what CUDA
and the allocator keep for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

# Bytes of an optimizer's two moments, a parameter: float32, or 8 bits.
ADAMW_BYTES = 8
ADAMW_8BIT_BYTES = 2
# bitsandbytes scales 8-bit states by blocks of this many, with a float32 for each moment of a block, ...
_BLOCK = 256
# ... and leaves tensors with fewer elements than this in float32.
_SMALLEST_8BIT = 4096


@dataclass(frozen=True)
class Memory:
    """Of one process, bytes. ``optimizer`` and ``gradients`` are this process's share."""

    trained_tensors: int
    trained_parameters: int
    parameters: int
    trained_weights: int
    frozen_weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.trained_weights + self.frozen_weights + self.gradients + self.optimizer


def count(model: nn.Module, *, optimizer: str = "adamw", shared_among: int = 1) -> Memory:
    """What training this network takes; it may lie on the meta device.

    Args:
        optimizer: ``adamw`` or ``adamw_8bit``.
        shared_among: processes among which gradients and optimizer states are shared out (ZeRO-2).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    states = sum(_states(parameter, optimizer, id(parameter) in tables) for parameter in trained)
    return Memory(
        trained_tensors=len(trained),
        trained_parameters=sum(parameter.numel() for parameter in trained),
        parameters=sum(parameter.numel() for parameter in (*trained, *frozen)),
        trained_weights=_bytes(trained),
        frozen_weights=_bytes(frozen),
        gradients=_bytes(trained) // shared_among,
        optimizer=states // shared_among,
    )


def checkpoint_bytes(model: nn.Module, *, deployed_bytes: int, optimizer: str = "adamw") -> int:
    """Of one checkpoint folder: what is deployed, what is trained, and the optimizer's states.

    Args:
        deployed_bytes: of a number in the deployed weights, 2 or 4.
    """
    memory = count(model, optimizer=optimizer)
    adapters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    return (memory.parameters - adapters) * deployed_bytes + memory.trained_weights + memory.optimizer


def trained_line(memory: Memory) -> str:
    """How much of the network is trained."""
    return (
        f"trained: {memory.trained_tensors} tensors, {_count(memory.trained_parameters)} of "
        f"{_count(memory.parameters)} parameters"
    )


def lines(memory: Memory, *, optimizer: str, processes: int, shared: bool) -> Iterator[str]:
    """A table for people."""
    yield trained_line(memory)
    share = f", 1/{processes} of them" if shared and processes > 1 else ""
    yield f"  {'trained weights':<28}{_gb(memory.trained_weights)}"
    yield f"  {'frozen weights':<28}{_gb(memory.frozen_weights)}"
    yield f"  {'gradients' + share:<28}{_gb(memory.gradients)}"
    yield f"  {f'optimizer ({optimizer})' + share:<28}{_gb(memory.optimizer)}"
    yield f"  {'before activations':<28}{_gb(memory.total)}"


def _states(parameter: torch.Tensor, optimizer: str, is_table: bool) -> int:
    elements = parameter.numel()
    if optimizer == "adamw" or is_table or elements < _SMALLEST_8BIT:
        return ADAMW_BYTES * elements
    return ADAMW_8BIT_BYTES * elements + 8 * -(-elements // _BLOCK)


def _bytes(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _gb(size: int) -> str:
    return f"{size / 1e9:8.2f} GB"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e8 else f"{number / 1e6:.1f} M"
