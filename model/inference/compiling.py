# SPDX-License-Identifier: Apache-2.0
"""torch.compile, layer by layer: what one layer costs to compile serves all layers of its kind.

The three kinds of layer are nearly all of the network, so compiling the whole would take many times longer
for little more. Code is kept on disk by torch, so a second start compiles nothing.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from gr00t_model.inference.deployed import Deployed

# Versions of one layer's code, at most: by text length, with and without mask, for self and cross attention.
_VERSIONS = 64


_compiled: dict[Any, Any] = {}


def _compile(kind: Any) -> Any:
    """The compiled `forward` of a kind of layer."""
    if kind not in _compiled:
        _compiled[kind] = torch.compile(kind.forward, dynamic=False)
    return _compiled[kind]


def _layers(form: Deployed) -> Iterator[nn.Module]:
    yield from form.vision.layers
    yield from form.language.layers
    yield from form.head.blocks


def compile_layers(form: Deployed) -> None:
    """Have the layers run compiled; the code is made at their first run with each shape."""
    for layer in _layers(form):
        layer.forward = partial(_compile(type(layer)), layer)  # type: ignore[method-assign]


def plain_layers(form: Deployed) -> None:
    """Have the layers run as they are written."""
    for layer in _layers(form):
        layer.__dict__.pop("forward", None)


def written() -> contextlib.AbstractContextManager[None]:
    """Have layers run as they are written, though they are compiled: for shapes for which nobody may wait
    until they are."""
    if not hasattr(torch.compiler, "set_stance"):  # torch before 2.6
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]


def many_versions() -> contextlib.AbstractContextManager[None]:
    """Let torch keep a version of a layer for each shape; by default it gives up after eight, in silence."""
    from torch._dynamo import config

    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    return config.patch({name: max(_VERSIONS, getattr(config, name))})  # type: ignore[no-any-return]
