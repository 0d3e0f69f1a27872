# SPDX-License-Identifier: Apache-2.0
"""The network of a run: where its weights come from, what of it is trained, and in which number types.

The rules are the reference's (``gr00t_model/network/trainable.py``); this module applies them to a base
checkpoint or a preset and to what the options change.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gr00t_model import Gr00tN1d6, Gr00tN1d6Config, Gr00tProcessor
from gr00t_model.checkpoint import NOT_FOR_ACTIONS, load_model, read_config, resolve
from gr00t_model.network.initial import initial_value, is_embodiment, is_table, stream
from gr00t_model.network.trainable import FLAGS
from gr00t_model.presets import SMALL_IMAGE_TOKEN_ID
from gr00t_model.processing.processor import STATISTICS_FILE
from gr00t_model.processing.small_tokenizer import small_tokenizer
from gr00t_model.processing.tokenizer import FileTokenizer, QwenTokenizer, load_tokenizer
from gr00t_ros.training.lora import FROZEN_BY, adapted, add_adapters
from gr00t_ros.training.options import PRESETS, Options
from gr00t_ros.training.pointing import HEAD, PointingHead

# `--from-scratch`: nothing is frozen.
EVERYTHING: Mapping[str, Any] = {
    "tune_visual": True,
    "tune_llm": True,
    "tune_projector": True,
    "tune_diffusion_model": True,
    "tune_vlln": True,
}

# Vision's table of places, by the end of its name.
VISION_PLACES = "embeddings.position_embedding.weight"

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class Base:
    """What a run starts from. Without ``directory`` it is a preset with random weights.

    ``statistics`` are the base's, of all its embodiments, as ``statistics.json`` has them.
    """

    name: str
    config: Gr00tN1d6Config
    directory: Path | None = None
    processor: Gr00tProcessor | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokenizer_files(self) -> list[Path]:
        """The checkpoint's own tokenizer, where it brings one."""
        found = [] if self.directory is None else [self.directory / name for name in _TOKENIZER_FILES]
        return [path for path in found if path.is_file()]

    def tokenizer(self) -> QwenTokenizer | None:
        """It, read, or the preset's own; None where the installed one is used."""
        if self.directory is None and self.config.image_token_id == SMALL_IMAGE_TOKEN_ID:
            return small_tokenizer()
        return load_tokenizer(self.directory) if self.tokenizer_files else None

    def write_tokenizer(self, directory: Path) -> None:
        """Put it into a checkpoint; nothing where the installed one is used."""
        for source in self.tokenizer_files:
            shutil.copyfile(source, directory / source.name)
        own = None if self.tokenizer_files else self.tokenizer()
        if isinstance(own, FileTokenizer):
            own.save(directory)


def open_base(name: str) -> Base:
    """A preset, or a checkpoint with its processor; weights are read later, by :func:`build_network`.

    Raises:
        CheckpointError, ConfigError: there is no such checkpoint, or it is damaged.
    """
    if name in PRESETS:
        return Base(name, getattr(Gr00tN1d6Config, name)())
    directory = resolve(name)
    processor = Gr00tProcessor.from_pretrained(directory)
    statistics = json.loads((directory / STATISTICS_FILE).read_text(encoding="utf-8"))
    return Base(name, read_config(directory), directory, processor, statistics)


def build_network(base: Base, options: Options, *, bf16: bool, embodiments: Sequence[int] = ()) -> Gr00tN1d6:
    """The network with its starting weights on the CPU, ready to be trained: frozen, adapted and cast.

    A preset has random weights of the seed. With ``from_scratch`` a checkpoint gives only its vision and
    language, and the action head starts anew. ``embodiments`` are the numbers of those that are trained.

    Raises:
        CheckpointError: the base's weights are missing or damaged.
        ConfigError: an option that the network refuses.
    """
    if base.directory is None:
        torch.manual_seed(options.seed)
        model = Gr00tN1d6(copy.deepcopy(base.config))
        _enliven_tables(model, options.seed)
        _enliven(model.action_head, options.seed, embodiments)
    else:
        model = load_model(base.directory)
        if options.from_scratch:
            _start_anew(model.action_head, options.seed)
            _enliven(model.action_head, options.seed, embodiments)
    configure(model, options)
    cast(model, bf16=bf16)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def outline(base: Base, options: Options, *, bf16: bool) -> Gr00tN1d6:
    """The same network without memory for its weights, to be counted."""
    model = Gr00tN1d6.on_meta(copy.deepcopy(base.config))
    configure(model, options)
    cast(model, bf16=bf16)
    return model


def configure(model: Gr00tN1d6, options: Options) -> None:
    """Set what is trained and the regularisers, as the base has them and the options change them; adapters
    come in here as well.

    The configuration keeps the base's own switches. It is what gets deployed, and a run that starts from it
    would else train no more than this one: after LoRA next to nothing.
    """
    if options.state_dropout is not None:
        _set_state_dropout(model, options.state_dropout, options.seed)
    if options.state_noise is not None:
        model.config.state_additive_noise_scale = options.state_noise
    if options.dropout is not None:
        _set_dropout(model, options.dropout)
    flags: dict[str, Any] = dict(EVERYTHING) if options.from_scratch else {}
    for part in options.lora.parts:
        flags.update(FROZEN_BY[part])
    own = {name: getattr(model.config, name) for name in FLAGS}
    model.set_trainable(**{**flags, **options.tune})
    for name, value in own.items():
        setattr(model.config, name, value)
    # They take no part in the loss, so they would wait for gradients that never come.
    for name, parameter in model.named_parameters():
        if name.startswith(NOT_FOR_ACTIONS):
            parameter.requires_grad_(False)
    if options.pointing:
        setattr(model, HEAD, PointingHead(model.config.backbone_embedding_dim, options.seed))
    add_adapters(model, options.lora)


def trained_parts(model: Gr00tN1d6) -> list[str]:
    """What is trained, in words: those parts of the network in which something is, adapters apart."""
    eagle, head = model.backbone.model, model.action_head
    language = eagle.language_model.model
    own = [layer for layer in language.layers if _trained(layer)]
    parts = {
        "vision tower": _trained(eagle.vision_model),
        "vision projector": _trained(eagle.mlp1),
        "embeddings": _trained(language.embed_tokens),
        f"{len(own)} of {len(language.layers)} language layers": bool(own),
        "diffusion transformer": _trained(head.model),
        "its encoders and decoder": _trained(head.action_decoder),
        "the norm in front of it": _trained(head.vlln),
        f"adapters of {adapted(model)} layers": bool(adapted(model)),
    }
    return [name for name, trained in parts.items() if trained]


def _trained(module: nn.Module) -> bool:
    return any(p.requires_grad for name, p in module.named_parameters() if "lora_" not in name)


def cast(model: Gr00tN1d6, *, bf16: bool) -> None:
    """The reference's types of mixed-precision training, or float32 throughout.

    A frozen diffusion transformer is kept in bfloat16 too: autocast rounds its weights to that in front of
    every product, so that float32 would only take more memory (a test compares the losses).
    """
    if not bf16:
        model.to(torch.float32)
        return
    model.cast_for_training()
    for name, parameter in model.action_head.model.named_parameters():
        if not parameter.requires_grad and "lora_" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)


def use_autocast(model: nn.Module, device_type: str) -> None:
    """From here on the network computes under bfloat16 autocast, whoever calls it.

    Here and not in the trainer's own switch: that one behaves differently with DeepSpeed, which would turn
    every parameter into bfloat16.
    """
    forward = model.forward

    @functools.wraps(forward)
    def under_autocast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, torch.bfloat16):
            return forward(*args, **kwargs)

    model.forward = under_autocast


def _set_state_dropout(model: Gr00tN1d6, probability: float, seed: int) -> None:
    """The mask token exists exactly where the state is dropped at times."""
    head, name = model.action_head, "mask_token"
    model.config.state_dropout_prob = probability
    if probability == 0.0:
        if hasattr(head, name):
            delattr(head, name)
    elif not hasattr(head, name):
        shape = (1, 1, model.config.input_embedding_dim)
        token = initial_value(f"action_head.{name}", shape, seed)
        head.mask_token = nn.Parameter(token.to(next(head.parameters()).device))


def _set_dropout(model: Gr00tN1d6, probability: float) -> None:
    model.config.diffusion_model_cfg = {**model.config.diffusion_model_cfg, "dropout": probability}
    for module in model.action_head.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def _start_anew(head: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.copy_(initial_value(f"action_head.{name}", parameter.shape, seed))


def _enliven_tables(model: Gr00tN1d6, seed: int) -> None:
    """Let words and places be told apart from the first step: their tables begin at the size of what they are
    added to or stand beside. At the reference's 0.02 * normal, meant for a trained network behind them, a
    random one would have to find them first. Neighbouring places in a picture begin alike, so that what is
    learned of one holds for the next."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(VISION_PLACES):
                lively = sines(*parameter.shape)
            elif is_table(name):
                lively = torch.randn(parameter.shape, generator=stream(seed, name))
            else:
                continue
            parameter.copy_(lively.to(parameter.dtype))


def sines(places: int, width: int) -> torch.Tensor:
    """float32 [places, width] for a square grid of places, row by row: sine and cosine of column and row at
    wavelengths from 2 pi to 20,000 pi, of mean square 1 (Vaswani et al., 2017; in two dimensions as in He et
    al., 2022). Columns beyond a multiple of 4 are zero."""
    quarter = width // 4
    frequencies = 1e-4 ** (torch.arange(quarter) / max(quarter, 1))
    numbers = torch.arange(places)
    side = math.isqrt(places)
    angles = [place[:, None] * frequencies for place in (numbers % side, numbers // side)]
    waves = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)
    return torch.nn.functional.pad(math.sqrt(2.0) * waves, (0, width - 4 * quarter))


def _enliven(head: nn.Module, seed: int, embodiments: Sequence[int]) -> None:
    """Give the embodiments that are trained from random weights a start at which signals keep their size.

    The reference starts these layers at 0.02 * normal, for a trained transformer behind them. A random one
    drowns so faint a state and so faint an action: a tiny network then takes about ten times as many steps
    to the same loss. The others stay as they are, by which they are known as untrained.
    """
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            full = f"action_head.{name}"
            if is_embodiment(full):
                lively = initial_value(full, parameter.shape, seed, exercised=True)
                parameter[list(embodiments)] = lively[list(embodiments)].to(parameter.dtype)
