# SPDX-License-Identifier: Apache-2.0
"""What the layers of the deployed form share: frozen linear layers from merged weights, and attention."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def frozen(tensor: Tensor) -> nn.Parameter:
    """A parameter that is never trained."""
    return nn.Parameter(tensor, requires_grad=False)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around these very tensors, weight [out, in]."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = frozen(weight)
    layer.bias = None if bias is None else frozen(bias)
    return layer


@torch.no_grad()
def merge(layers: Sequence[nn.Linear]) -> nn.Linear:
    """Linear layers of one input as one, outputs in the order given.

    The layers become views of the merged one, so weights are held once and both forms stay usable.
    """
    weight = _merge_tensors([layer.weight for layer in layers])
    biased = layers[0].bias is not None
    return linear(weight, _merge_tensors([layer.bias for layer in layers]) if biased else None)


def _merge_tensors(parts: Sequence[Tensor]) -> Tensor:
    whole = torch.cat([part.data for part in parts])
    for part, view in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        part.data = view
    return whole


def share(layer: nn.Linear) -> nn.Linear:
    """A frozen linear layer on the tensors of a trainable one."""
    return linear(layer.weight.data, None if layer.bias is None else layer.bias.data)


class Norm(nn.Module):
    """LayerNorm on the tensors of another."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = frozen(norm.weight.data), frozen(norm.bias.data), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * d] to [B, heads, T, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[B, heads, T, d] to [B, T, heads * d]."""
    return x.transpose(1, 2).flatten(2)


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Memory of these tensors, views of one storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
