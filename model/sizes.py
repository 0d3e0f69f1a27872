# SPDX-License-Identifier: Apache-2.0
"""The sizes of the three transformers inside GR00T N1.6, typed and checked.

`config.py` reads them out of a checkpoint's nested configuration; the network's modules are built from them.
"""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from gr00t_model.errors import ConfigError

FLOAT_MAX = sys.float_info.max

# Two image patches on a side make one token: the unshuffle factor.
UNSHUFFLE = 2


@dataclass(frozen=True)
class VisionSizes:
    """The SigLIP-2 tower (`eagle_config.vision_config`)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_patches: int
    patch_size: int
    layer_norm_eps: float = 1e-6
    num_channels: int = 3


@dataclass(frozen=True)
class LanguageSizes:
    """The Qwen3 stack before it is cut (`eagle_config.text_config`)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float = 1e-6


@dataclass(frozen=True)
class DitSizes:
    """The diffusion transformer (`diffusion_model_cfg`). Its width is num_attention_heads *
    attention_head_dim."""

    num_layers: int
    num_attention_heads: int
    attention_head_dim: int
    output_dim: int
    dropout: float = 0.0
    final_dropout: bool = True
    interleave_self_attention: bool = True

    @property
    def width(self) -> int:
        """Width of its tokens."""
        return self.num_attention_heads * self.attention_head_dim


_Sizes = TypeVar("_Sizes", VisionSizes, LanguageSizes, DitSizes)


def read_sizes(kind: type[_Sizes], section: Any, where: str) -> _Sizes:
    """The section's fields that `kind` has, as `kind`; each is present, of the right type and positive."""
    require(isinstance(section, Mapping), where, section, "an object")
    values: dict[str, Any] = {}
    for field in fields(kind):
        required = field.default is MISSING
        if not required and field.name not in section:
            continue
        value = section.get(field.name)
        at = f"{where}.{field.name}"
        if field.type is bool:
            require(isinstance(value, bool), at, value, "true or false")
        elif field.type is int:
            require(is_int(value) and value > 0, at, value, "a positive integer")
        else:
            require(is_number(value) and value >= 0, at, value, "a number")
        values[field.name] = value
    return kind(**values)


def is_int(value: Any) -> bool:
    """Whether a JSON value is an integer (true and false are not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    # Compared, not math.isfinite: that raises for integers beyond float64.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FLOAT_MAX


def require(condition: bool, name: str, found: Any, expected: str) -> None:
    """ConfigError about the field `name`, unless the condition holds."""
    if not condition:
        raise ConfigError(f"config field {name} is {found!r}; expected {expected}")
