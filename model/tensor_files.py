# SPDX-License-Identifier: Apache-2.0
"""Safetensors files read and written one tensor at a time, with every kind of damage named.

`checkpoint.py` and `inference/streamed.py` use it. The format is a length, a JSON header and raw bytes;
reading it here rather than through a memory map keeps a load at one copy of the weights in memory, and a file
that changes on disk later cannot change, or crash, a running robot.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from gr00t_model.errors import CheckpointError

# Names of the published layout.
CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# What the format's own reader accepts at most; a larger length means the file is something else.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Spec:
    """A tensor to write."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Entry(Spec):
    """A tensor in a file; its bytes begin at `start`."""

    start: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file, by name. Reads the header only, and compares it with the file's
    size.

    Raises:
        CheckpointError: the file is absent, is not a safetensors file, or is shorter or longer than its
            header says.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path} is not a safetensors file, or was cut inside its header ({size} bytes)"
                )
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise CheckpointError(f"{path} is not a safetensors file: its header is not an object")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the latter for thousands of nested brackets
        raise CheckpointError(f"{path} is not a safetensors file: its header is not JSON") from error
    header.pop("__metadata__", None)
    data = 8 + length
    entries = {name: _entry(path, name, item, data) for name, item in header.items()}
    end = data
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.nbytes)):
        if entry.start != end:
            raise CheckpointError(
                f"{path} is damaged: {entry.name} should begin at byte {end}, its header says {entry.start}"
            )
        end += entry.nbytes
        if end > size:
            raise CheckpointError(
                f"{path} is truncated: it has {size} bytes, and {entry.name} ends at byte {end}. Copy or "
                "download the file again"
            )
    if size > end:
        raise CheckpointError(
            f"{path} is {size - end} bytes longer than its header says; copy or download it again"
        )
    return entries


def _entry(path: Path, name: str, item: object, data: int) -> Entry:
    """One header item, checked."""
    try:
        assert isinstance(item, dict)
        dtype, shape, (start, end) = item["dtype"], tuple(item["shape"]), item["data_offsets"]
        assert isinstance(dtype, str)
        assert all(isinstance(n, int) and n >= 0 for n in (*shape, start, end))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged: its header entry for {name} cannot be understood"
        ) from error
    if dtype not in DTYPES:
        raise CheckpointError(f"{path}: {name} has type {dtype}; expected one of {', '.join(DTYPES)}")
    entry = Entry(name, DTYPES[dtype], shape, data + start)
    if entry.nbytes != end - start:
        raise CheckpointError(
            f"{path} is damaged: {name} should take {entry.nbytes} bytes, its header says {end - start}"
        )
    return entry


def read_tensor(file: BinaryIO, entry: Entry) -> Tensor:
    """One tensor, in memory of its own.

    Raises:
        CheckpointError: the file ends too early.
    """
    return _read(file, entry, entry.start, entry.nbytes).view(entry.shape)


def read_rows(file: BinaryIO, entry: Entry, rows: Sequence[int]) -> Tensor:
    """Only these rows (indices of the first dimension) of a tensor: [len(rows), ...], in the order given.

    Raises:
        CheckpointError: the file ends too early.
    """
    assert all(0 <= row < entry.shape[0] for row in rows), (entry.name, entry.shape, rows)
    size = entry.nbytes // entry.shape[0]
    parts = [_read(file, entry, entry.start + row * size, size) for row in rows]
    return torch.cat(parts).view(len(rows), *entry.shape[1:])


def _read(file: BinaryIO, entry: Entry, start: int, nbytes: int) -> Tensor:
    """Values of a tensor from byte `start` of the file, flat."""
    raw = torch.empty(nbytes, dtype=torch.uint8)
    file.seek(start)
    view = memoryview(raw.numpy())
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise CheckpointError(f"{file.name} ended inside {entry.name}; copy or download it again")
        view = view[count:]
    return raw.view(entry.dtype)


def write_tensors(path: Path, specs: Sequence[Spec], value: Callable[[Spec], Tensor]) -> None:
    """A safetensors file of these tensors in this order; `value` is asked for each when its turn comes.

    Raises:
        CheckpointError: the file cannot be written (no space, no permission).
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        header[spec.name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format keeps data aligned to eight bytes
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for spec in specs:
                tensor = value(spec).detach().to("cpu", spec.dtype).contiguous()
                if tuple(tensor.shape) != spec.shape:
                    raise ValueError(
                        f"{spec.name} has shape {list(tensor.shape)}; {list(spec.shape)} was announced"
                    )
                file.write(tensor.view(-1).view(torch.uint8).numpy())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror}") from error
