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

FLOAT32_BYTES = 4
# Bytes of an optimizer's two moments, a parameter: float32, or 8 bits.
ADAMW_BYTES = 8
ADAMW_8BIT_BYTES = 2
# bitsandbytes scales 8-bit states by blocks of this many, with a float32 for each moment of a block, ...
_BLOCK = 256
# ... and leaves tensors with fewer elements than this in float32.
_SMALLEST_8BIT = 4096


@dataclass(frozen=True)
class Memory:
    """Of one process, bytes. ``optimizer``, ``gradients`` and ``copies`` are this process's share; the last
    are the float32 weights that ZeRO steps on, beside the network's own."""

    trained_tensors: int
    trained_parameters: int
    parameters: int
    trained_weights: int
    frozen_weights: int
    gradients: int
    optimizer: int
    copies: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.trained_weights + self.frozen_weights + self.gradients + self.optimizer + self.copies


def count(model: nn.Module, *, optimizer: str = "adamw", shared_among: int | None = None) -> Memory:
    """What training this network takes; it may lie on the meta device.

    Args:
        optimizer: ``adamw`` or ``adamw_8bit``.
        shared_among: processes among which gradients and optimizer states are shared out (ZeRO-2); None for
            a run without DeepSpeed.
    """
    share = shared_among or 1
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    elements = sum(parameter.numel() for parameter in trained)
    states = sum(_states(parameter, optimizer, id(parameter) in tables) for parameter in trained)
    return Memory(
        trained_tensors=len(trained),
        trained_parameters=elements,
        parameters=sum(parameter.numel() for parameter in (*trained, *frozen)),
        trained_weights=_bytes(trained),
        frozen_weights=_bytes(frozen),
        gradients=_bytes(trained) // share,
        optimizer=states // share,
        copies=0 if shared_among is None else FLOAT32_BYTES * elements // share,
    )


def checkpoint_bytes(
    model: nn.Module, *, deployed_bytes: int, optimizer: str = "adamw", deepspeed: bool = False
) -> int:
    """Of one checkpoint folder: what is deployed, what is trained, and the optimizer's states.

    Args:
        deployed_bytes: of a number in the deployed weights, 2 or 4.
        deepspeed: it writes the whole network besides, frozen parts too, and the weights that it steps on.
    """
    memory = count(model, optimizer=optimizer, shared_among=1 if deepspeed else None)
    adapters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    deployed = (memory.parameters - adapters) * deployed_bytes
    network = memory.trained_weights + memory.frozen_weights if deepspeed else 0
    return deployed + memory.trained_weights + memory.optimizer + network + memory.copies


def trained_line(memory: Memory) -> str:
    """How much of the network is trained."""
    return (
        f"trained: {memory.trained_tensors} tensors, {_count(memory.trained_parameters)} of "
        f"{_count(memory.parameters)} parameters"
    )


def lines(memory: Memory, *, optimizer: str, processes: int) -> Iterator[str]:
    """A table for people."""
    yield trained_line(memory)
    share = f", 1/{processes} of them" if memory.copies and processes > 1 else ""
    yield f"  {'trained weights':<28}{_gb(memory.trained_weights)}"
    yield f"  {'frozen weights':<28}{_gb(memory.frozen_weights)}"
    yield f"  {'gradients' + share:<28}{_gb(memory.gradients)}"
    yield f"  {f'optimizer ({optimizer})' + share:<28}{_gb(memory.optimizer)}"
    if memory.copies:
        label = f"ZeRO's weights{share}"
        yield f"  {label:<28}{_gb(memory.copies)}"
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
