# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the published format: config.json and safetensors, in one file or in shards with an index.

Everything that loads or saves a network comes through here. Reading is strict and streams: all headers are
compared with the network before the first weight is read, so nothing half-loads, and memory never holds the
weights twice. Only JSON and safetensors are read; a checkpoint cannot bring code. (The processor's three
JSON files lie in the same directory and are read and written by `processing`.)
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gr00t_model.checkpoint_writing import save_model, save_tensors, write_random_checkpoint
from gr00t_model.config import MODEL_TYPE, Gr00tN1d6Config
from gr00t_model.errors import BackendError, CheckpointError, EmbodimentError
from gr00t_model.network import Gr00tN1d6
from gr00t_model.network.embodiment import INITIAL_SCALE
from gr00t_model.tensor_files import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    Entry,
    read_header,
    read_tensor,
)

__all__ = [
    "check_files",
    "load_model",
    "locate_weights",
    "read_config",
    "resolve",
    "save_model",
    "save_tensors",
    "untrained_embodiment",
    "write_random_checkpoint",
]

# Parts of the published checkpoint that no action depends on: the language head, and the vision tower's
# pooling head; 0.65 GB in bfloat16.
NOT_FOR_ACTIONS = ("backbone.model.language_model.lm_head.", "backbone.model.vision_model.vision_model.head.")

# Where each tensor of a checkpoint lies.
Entries = dict[str, tuple[Path, Entry]]

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.ckpt")
# org/name, optionally @revision: what the hub calls a repository.
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
# What is fetched from the hub: no code, no pickles.
# The YAML files describe the robots that it was trained for.
_HUB_FILES = ["*.json", "*.txt", "*.safetensors", "robot*.yaml"]
# A checkpoint lies at the top; folders hold intermediate ones (checkpoint-1000/...), as large as it.
_NOT_HUB_FILES = ["*/*"]
# Problems named in one message; the rest are counted.
_SHOWN = 4
# Transformers' own keys of a config.json, of which the code hooks in particular must have no effect; those
# that begin with an underscore are its own too.
_NOT_FIELDS = (
    "model_type",
    "architectures",
    "auto_map",
    "transformers_version",
    "torch_dtype",
    "dtype",
    # This network has one attention, whatever was used in training.
    "attn_implementation",
)


# ---- finding and checking ------------------------------------------------------------------------


def resolve(directory_or_hub_id: str | os.PathLike[str]) -> Path:
    """The checkpoint's directory: the one given, or a hub repository's ("org/name" or "org/name@revision")
    after download or from the local cache.

    Raises:
        CheckpointError: there is no such directory, and it is no hub id or the hub cannot be reached.
    """
    given = os.fspath(directory_or_hub_id)
    if not given.strip():  # Path would take it for the current directory
        raise CheckpointError("the checkpoint's name is empty; give a directory or a hub id (org/name)")
    try:
        path = Path(given).expanduser()
        if path.is_dir():
            return path
        is_file = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # no such user's home, no permission, a null byte
        raise CheckpointError(f"checkpoint {given!r} cannot be looked up: {error}") from error
    if is_file:
        raise CheckpointError(f"checkpoint {given} is a file; give the directory that holds {CONFIG_FILE}")
    match = _HUB_ID.fullmatch(given)
    if match is None:
        raise CheckpointError(f"checkpoint {given}: there is no such directory")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                match["repo"],
                revision=match["revision"],
                allow_patterns=_HUB_FILES,
                ignore_patterns=_NOT_HUB_FILES,
            )
        )
    except Exception as error:  # the client's own and its HTTP library's types, which change between versions
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"checkpoint {given}: there is no such directory, and the Hugging Face repository of that name "
            f"could not be fetched ({reason}). On a machine that is offline, give a directory"
        ) from error


def read_config(directory: Path) -> Gr00tN1d6Config:
    """The network's configuration.

    Raises:
        CheckpointError: config.json is missing, is not JSON, is of another model, or holds an impossible
            value.
    """
    path = directory / CONFIG_FILE
    content = _read_json(path)
    model_type = content.get("model_type")
    if model_type != MODEL_TYPE:
        raise CheckpointError(f"{path}: model_type is {model_type!r}; expected {MODEL_TYPE!r} (GR00T N1.6)")
    try:
        return Gr00tN1d6Config(
            **{
                name: value
                for name, value in content.items()
                if name not in _NOT_FIELDS and not name.startswith("_")
            }
        )
    except Exception as error:  # ours, and whatever transformers raises about the fields it knows
        raise CheckpointError(f"{path}: {error}") from error


def check_files(directory: str | os.PathLike[str]) -> list[str]:
    """All that is wrong with a checkpoint directory's configuration and weight files, one sentence each;
    empty when it would load. Reads headers only."""
    try:
        path = resolve(directory)
        config = read_config(path)
        return _compare(_entries(path), Gr00tN1d6.on_meta(config).shapes())
    except CheckpointError as error:
        return [str(error)]


# ---- reading -------------------------------------------------------------------------------------


def locate_weights(directory: Path) -> tuple[Gr00tN1d6, Entries]:
    """The network on the meta device, and where each of its tensors lies: all headers are compared with it,
    no weight is read.

    Raises:
        CheckpointError: a file or tensor is missing, superfluous, misshaped, damaged or truncated; the
            message names it.
    """
    model = Gr00tN1d6.on_meta(read_config(directory))
    entries = _entries(directory)
    problems = _compare(entries, model.shapes())
    if problems:
        more = f"; and {len(problems) - _SHOWN} more problems" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"checkpoint {directory}: {'; '.join(problems[:_SHOWN])}{more}")
    return model, entries


def load_model(
    directory_or_hub_id: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    without: tuple[str, ...] = (),
) -> Gr00tN1d6:
    """The network of a checkpoint, in eval mode.

    dtype None keeps the stored types; peak memory is then the weights and one tensor more. Tensors whose
    names start with one of `without` stay on the meta device: the rest works without them.

    Raises:
        CheckpointError: a file or tensor is missing, superfluous, misshaped, damaged, truncated or
            unreadable; the message names it.
        BackendError: the device's memory is too small; the message names it and the size.
    """
    directory = resolve(directory_or_hub_id)
    model, entries = locate_weights(directory)
    by_file: dict[Path, list[Entry]] = {}
    for name, (file, entry) in entries.items():
        if not name.startswith(without):
            by_file.setdefault(file, []).append(entry)
    try:
        for file, wanted in by_file.items():
            with file.open("rb") as opened:
                for entry in sorted(wanted, key=lambda e: e.start):
                    put_tensor(model, entry.name, read_tensor(opened, entry).to(device, dtype or entry.dtype))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        read = [entry for wanted in by_file.values() for entry in wanted]
        size = sum(math.prod(entry.shape) * (dtype or entry.dtype).itemsize for entry in read)
        raise BackendError(
            f"checkpoint {directory} takes {size / 1e9:.1f} GB, more than is free on device {device}; free "
            "memory there, or choose another device or precision bfloat16"
        ) from error
    tensors = (*model.named_parameters(), *model.named_buffers())
    left = [name for name, tensor in tensors if tensor.is_meta and not name.startswith(without)]
    assert not left, left
    return model.eval()


def out_of_memory(error: Exception) -> bool:
    """torch has a type for a full GPU, and only words for a full CPU or a GPU too full to be begun with."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(words in str(error) for words in ("out of memory", "can't allocate memory"))


def put_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace one parameter (a meta one, mostly) by these values, keeping whether it is trained."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    requires_grad = module.get_parameter(leaf).requires_grad
    module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=requires_grad))


def _entries(directory: Path) -> Entries:
    """Where each tensor of the checkpoint lies.

    Raises:
        CheckpointError: weights are missing or damaged, or index and shards disagree.
    """
    index = directory / INDEX_FILE
    if not index.exists():
        single = directory / SINGLE_FILE
        if not single.exists():
            raise CheckpointError(_no_weights(directory))
        return {name: (single, entry) for name, entry in read_header(single).items()}
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map from tensor names to files")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {shard!r}; expected a .safetensors file in the same directory"
            )
    absent = [shard for shard in shards if not (directory / shard).exists()]
    if absent:
        raise CheckpointError(
            f"{index} names {', '.join(absent)}, which is missing in {directory}; copy it there"
        )
    found = {
        name: (directory / shard, entry)
        for shard in shards
        for name, entry in read_header(directory / shard).items()
    }
    for name, shard in weight_map.items():
        if name not in found or found[name][0].name != shard:
            raise CheckpointError(f"{index} places {name} in {shard}, which does not hold it")
    return found


def _no_weights(directory: Path) -> str:
    pickles = [name for name in _PICKLES if (directory / name).exists()]
    if pickles:
        return (
            f"{directory} holds its weights as {pickles[0]}, a pickle, which can run code and is not read; "
            "convert it to safetensors"
        )
    return f"{directory} holds no weights: neither {SINGLE_FILE} nor {INDEX_FILE}"


def _compare(entries: Entries, expected: dict[str, tuple[int, ...]]) -> list[str]:
    """How the tensors found differ from those the network has."""
    missing = [
        f"tensor {name} {list(shape)} is missing" for name, shape in expected.items() if name not in entries
    ]
    misshaped = [
        f"tensor {name} in {file.name} has shape {list(entry.shape)}; config.json asks for "
        f"{list(expected[name])}"
        for name, (file, entry) in entries.items()
        if name in expected and entry.shape != expected[name]
    ]
    extra = [
        f"tensor {name} in {file.name} is not part of the network that config.json describes"
        for name, (file, _) in entries.items()
        if name not in expected
    ]
    return missing + misshaped + extra


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a checkpoint: it has no {path.name}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the latter for thousands of nested brackets
        raise CheckpointError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}; expected a JSON object")
    return content


# ---- what the weights say ------------------------------------------------------------------------


def untrained_embodiment(model: Gr00tN1d6, embodiment_id: int) -> bool:
    """Whether this embodiment's own weights still are as they were initialised: biases zero, weights 0.02 *
    normal.

    Every embodiment has a slot in every checkpoint; training fills only those it saw data of. Actions from
    an untrained slot are noise.

    Raises:
        EmbodimentError: the id is outside the checkpoint's.
    """
    count = model.config.max_num_embodiments
    if not 0 <= embodiment_id < count:
        raise EmbodimentError(f"embodiment id {embodiment_id} is outside this checkpoint's 0..{count - 1}")
    head = model.action_head
    squares, elements = 0.0, 0
    for part in (head.state_encoder, head.action_encoder, head.action_decoder):
        for name, parameter in part.named_parameters():
            values = parameter.detach()[embodiment_id].float()
            if name.endswith(".b") and bool(values.any()):
                return False
            if name.endswith(".W"):
                squares += float(values.square().sum())
                elements += values.numel()
    # The sampling error of the scale is below 1 % even in the smallest preset.
    return abs(math.sqrt(squares / elements) / INITIAL_SCALE - 1) < 0.05
