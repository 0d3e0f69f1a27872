# SPDX-License-Identifier: Apache-2.0
"""The values parameters start from, by name and shape: one table for new models and for random checkpoints.

Each tensor has a random stream of its own, so any of them can be made alone: a checkpoint larger than
memory is written tensor by tensor, and the same seed gives the same weights in any order.
"""

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gr00t_model.network.embodiment import INITIAL_SCALE

_EMBODIMENT = re.compile(r"action_head\.(state_encoder|action_encoder|action_decoder)\.\w+\.[Wb]$")
# Tables and tokens that start as 0.02 * normal: the reference's value, and Qwen3's initializer_range.
_SMALL = re.compile(
    r"(mask_token|probe|embed_tokens\.weight|lm_head\.weight|action_head\.position_embedding\.weight)$"
)
# Of these, what a network that is trained from nothing reads words and places from; vision's table of places
# is with the other weights.
_TABLE = re.compile(r"(embed_tokens|position_embedding)\.weight$")


def stream(seed: int, name: str, device: str = "cpu") -> torch.Generator:
    """The random stream of one tensor."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:7], "little"))


def is_embodiment(name: str) -> bool:
    """Whether the tensor has one slice per embodiment."""
    return _EMBODIMENT.search(name) is not None


def is_table(name: str) -> bool:
    """Whether the tensor is a table of words or of places."""
    return _TABLE.search(name) is not None


def initial_value(name: str, shape: Sequence[int], seed: int, *, exercised: bool = False) -> Tensor:
    """The float32 starting value of the parameter `name`.

    Norms are the identity, biases zero, tables and per-embodiment weights 0.02 * normal as in the
    reference; other weights are normal with variance 1/inputs, so that signals keep their size at any
    width. With `exercised` the per-embodiment layers too have that variance, and small biases: as if
    trained, with actions that depend visibly on every input.
    """
    generator = stream(seed, name)

    def normal(scale: float) -> Tensor:
        return torch.randn(tuple(shape), generator=generator).mul_(scale)

    if is_embodiment(name):
        if name.endswith(".b"):
            return normal(INITIAL_SCALE) if exercised else torch.zeros(tuple(shape))
        return normal(shape[-2] ** -0.5 if exercised else INITIAL_SCALE)
    if _SMALL.search(name):
        return normal(INITIAL_SCALE)
    if name.endswith("bias"):
        return torch.zeros(tuple(shape))
    if len(shape) == 1:
        return torch.ones(tuple(shape))
    return normal(shape[-1] ** -0.5)


def initialise(model: nn.Module) -> None:
    """Give every parameter its starting value, from the global torch seed. Does nothing on the meta
    device."""
    seed = int(torch.randint(2**31, ()).item()) if not any(p.is_meta for p in model.parameters()) else None
    if seed is None:
        return
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial_value(name, parameter.shape, seed))
