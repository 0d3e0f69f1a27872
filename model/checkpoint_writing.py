# SPDX-License-Identifier: Apache-2.0
"""Writing checkpoints: a trained network's, or a random one of any size; nothing unfinished is ever left in
place.

The public functions are also names of `checkpoint`, which is where to import them from.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import CheckpointError, EmbodimentError
from gr00t_model.network import Gr00tN1d6
from gr00t_model.network.initial import initial_value, is_embodiment
from gr00t_model.tensor_files import CONFIG_FILE, INDEX_FILE, SINGLE_FILE, Spec, write_tensors

# The size at which the published checkpoint is cut into shards.
MAX_SHARD_BYTES = 5_000_000_000


def save_model(
    model: Gr00tN1d6, directory: str | os.PathLike[str], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> Path:
    """Write config.json and the weights, in the types they have. Other files in the directory stay.

    A new directory appears whole or not at all; an existing one is never mistaken for a checkpoint while it
    is neither the old nor the new one.

    Raises:
        CheckpointError: it cannot be written.
    """
    tensors = model.state_dict()
    specs = [Spec(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    return _write(model.config, specs, lambda spec: tensors[spec.name], Path(directory), max_shard_bytes)


def save_tensors(
    config: Gr00tN1d6Config,
    value: Callable[[str], Tensor],
    directory: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """As `save_model`, of tensors that are made when their turn comes: memory needs the largest one only.

    `value` is asked for every tensor of a network of this configuration, by name; all are written as `dtype`.

    Raises:
        CheckpointError: it cannot be written.
    """
    specs = [Spec(name, dtype, shape) for name, shape in Gr00tN1d6.on_meta(config).shapes().items()]
    return _write(config, specs, lambda spec: value(spec.name), Path(directory), max_shard_bytes)


def write_random_checkpoint(
    config: Gr00tN1d6Config,
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    untrained: Sequence[int] = (),
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: bool = True,
) -> Path:
    """A whole checkpoint with random weights, written tensor by tensor: memory needs the largest tensor,
    not the model.

    The same config, seed and dtype give the same bytes. Actions are finite and depend on images, prompt and
    state. Embodiments named in `untrained` are left at the initial values that `untrained_embodiment`
    recognises.

    Raises:
        CheckpointError: it cannot be written.
        EmbodimentError: `untrained` names an embodiment the configuration has no room for.
    """
    unknown = [embodiment for embodiment in untrained if not 0 <= embodiment < config.max_num_embodiments]
    if unknown:
        raise EmbodimentError(f"embodiment id {unknown[0]} is outside 0..{config.max_num_embodiments - 1}")
    specs = [Spec(name, dtype, shape) for name, shape in Gr00tN1d6.on_meta(config).shapes().items()]
    with tqdm(
        total=sum(spec.nbytes for spec in specs),
        unit="B",
        unit_scale=True,
        disable=not progress,
        desc="random checkpoint",
    ) as bar:

        def value(spec: Spec) -> Tensor:
            tensor = initial_value(spec.name, spec.shape, seed, exercised=True)
            if untrained and is_embodiment(spec.name):
                tensor[list(untrained)] = initial_value(spec.name, spec.shape, seed)[list(untrained)]
            bar.update(spec.nbytes)
            return tensor

        return _write(config, specs, value, Path(directory), max_shard_bytes)


def _write(
    config: Gr00tN1d6Config,
    specs: Sequence[Spec],
    value: Callable[[Spec], Tensor],
    directory: Path,
    max_shard_bytes: int,
) -> Path:
    """Write beside the target, then move into place."""
    directory = directory.expanduser().absolute()
    total = sum(spec.nbytes for spec in specs)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        free = shutil.disk_usage(directory.parent).free
        if free < total:
            raise CheckpointError(
                f"{directory} needs {total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there"
            )
        partial = directory.parent / f".{directory.name}.{os.getpid()}.partial"
        partial.mkdir()
        try:
            _write_files(config, specs, value, partial, max_shard_bytes, total)
            _publish(partial, directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be written: {error.strerror}") from error
    return directory


def _write_files(
    config: Gr00tN1d6Config,
    specs: Sequence[Spec],
    value: Callable[[Spec], Tensor],
    directory: Path,
    max_shard_bytes: int,
    total: int,
) -> None:
    shards = _shards(specs, max_shard_bytes)
    if len(shards) == 1:
        write_tensors(directory / SINGLE_FILE, shards[0], value)
    else:
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
            write_tensors(directory / name, shard, value)
            weight_map |= {spec.name: name for spec in shard}
        _write_json(directory / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    _write_json(directory / CONFIG_FILE, config.to_file())


def _shards(specs: Sequence[Spec], max_bytes: int) -> list[list[Spec]]:
    """Tensors in order, as many to a file as fit; one larger than the limit has a file to itself."""
    shards: list[list[Spec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.nbytes
    return shards


def _publish(partial: Path, directory: Path) -> None:
    """Move a finished checkpoint into place. An existing one loses config.json first and gains it last, so
    that a mixture of old and new files is never taken for a checkpoint."""
    if not directory.exists():
        partial.rename(directory)
        return
    (directory / CONFIG_FILE).unlink(missing_ok=True)
    for old in (*directory.glob("model*.safetensors"), directory / INDEX_FILE):
        old.unlink(missing_ok=True)
    for file in sorted(partial.iterdir(), key=lambda file: file.name == CONFIG_FILE):
        file.replace(directory / file.name)


def _sweep(directory: Path) -> None:
    """Remove what a killed process left unfinished beside the directory."""
    for left in directory.parent.glob(f".{directory.name}.*.partial"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists()):
            shutil.rmtree(left, ignore_errors=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
