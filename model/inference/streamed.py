# SPDX-License-Identifier: Apache-2.0
"""The readable network with its large layers read from the checkpoint while it runs, one at a time.

An engine is trusted only after a comparison with the float32 network, and on a robot's computer both do not
fit into memory together. Here only what is small stays: embeddings of the words in use, one embodiment's
weights, norms, projector, position tables. Every vision layer, language layer and transformer block is read
when its turn comes and dropped after it, so memory holds one of them. The numbers are those of
``load_model(dtype=float32)``: it is the same network, and nothing is computed in another way.

What it costs is reading: the vision and language layers once a call, the transformer's blocks once a
denoising step, 11 GB a call for a released checkpoint stored in bfloat16, whatever the batch. So observations
are given in batches (``verification.reference`` does that).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from gr00t_model.checkpoint import (
    NOT_FOR_ACTIONS,
    Entries,
    locate_weights,
    out_of_memory,
    put_tensor,
    resolve,
)
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import BackendError, CheckpointError
from gr00t_model.network.embodiment import EmbodimentLinear
from gr00t_model.network.inputs import step_count
from gr00t_model.pixels import pixels_to_float
from gr00t_model.tensor_files import read_rows, read_tensor

# Called after every layer with: layers done, layers of the whole call, bytes read so far in this call.
Progress = Callable[[int, int, int], None]

_EMBEDDINGS = "backbone.model.language_model.model.embed_tokens"


class StreamedNetwork:
    """A checkpoint's network that holds one large layer at a time. One call at a time: it is not for threads.

    A call may be interrupted at any point (Ctrl-C, or an exception of ``progress``): what it had read is
    dropped, and the next call is unharmed.

    Args:
        directory: a checkpoint in the published format, or a hub id where the machine is online.
        device: where to compute.
        dtype: what to compute in, whatever the stored types.

    Raises:
        CheckpointError: as ``load_model``; every header is compared with the network first.
        BackendError: not even the small part fits into the device's memory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.directory = resolve(directory)
        model, entries = locate_weights(self.directory)
        self._model = model.to(dtype).requires_grad_(False).eval()
        self._weights = _Weights(entries, torch.device(device), dtype)
        # What to put back in place of weights that are dropped.
        self._meta = dict(self._model.named_parameters())
        self._loaded: set[str] = set()
        self._held: dict[str, tuple[int, ...]] = {}
        self._progress: Callable[[], None] = lambda: None
        layers = {
            name: module
            for name, module in self._model.named_modules()
            if type(module).__name__ in self._model._no_split_modules
        }
        for name, layer in layers.items():
            self._stream_layer(name, layer)
        self._stream_embeddings(self._model.get_submodule(_EMBEDDINGS))
        robots = {name: m for name, m in self._model.named_modules() if isinstance(m, EmbodimentLinear)}
        for name, linear in robots.items():
            self._stream_embodiment(name, linear)
        streamed = (*(f"{name}." for name in (*layers, *robots, _EMBEDDINGS)), *NOT_FOR_ACTIONS)
        with self._named_errors():
            self._load([name for name in self._meta if not name.startswith(streamed)])
        self._loaded.clear()  # these stay

    @property
    def config(self) -> Gr00tN1d6Config:
        """The network's configuration."""
        return self._model.config

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._weights.device

    def layer_count(self, inputs: Mapping[str, Any], num_steps: int | None = None) -> int:
        """How many layers a call with these inputs reads: the total that ``progress`` is told."""
        sizes = {tuple(image.shape[-2:]) for image in inputs["pixel_values"]}
        eagle, steps = self._model.backbone.model, step_count(num_steps, self.config)
        vision = len(eagle.vision_model.vision_model.encoder.layers)
        blocks = len(self._model.action_head.model.transformer_blocks)
        return len(sizes) * vision + len(eagle.language_model.model.layers) + steps * blocks

    def get_action(
        self,
        inputs: Mapping[str, Any],
        noise: Tensor | None = None,
        *,
        num_steps: int | None = None,
        horizon: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """As ``Gr00tN1d6.get_action``; ``pixel_values`` may be uint8, as ``Gr00tProcessor.encode`` gives.

        Raises:
            ObservationError, EmbodimentError: an input is missing, misshaped or out of range.
            CheckpointError: a file cannot be read, or has changed since it was opened.
            BackendError: the device's memory does not suffice.
        """
        self._weights.begin()
        if "pixel_values" in inputs:
            inputs = {**inputs, "pixel_values": [self._pixels(image) for image in inputs["pixel_values"]]}
        if progress is not None and "pixel_values" in inputs:
            self._progress = _counter(progress, self.layer_count(inputs, num_steps), self._weights)
        try:
            with self._named_errors(), _exact_products():
                return self._model.get_action(inputs, noise, num_steps=num_steps, horizon=horizon)
        finally:
            self._progress = lambda: None
            self._drop(list(self._loaded))
            self._held.clear()

    def close(self) -> None:
        """Close the checkpoint's files; the network cannot be used any more."""
        self._weights.close()

    def __enter__(self) -> StreamedNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is read, and when --

    def _stream_layer(self, name: str, layer: nn.Module) -> None:
        """Read all of it before it runs, drop it afterwards."""
        names = [f"{name}.{leaf}" for leaf, _ in layer.named_parameters()]

        def drop(*_: object) -> None:
            self._drop(names)
            self._progress()

        layer.register_forward_pre_hook(lambda *_: self._load(names))
        layer.register_forward_hook(drop)

    def _stream_embeddings(self, table: nn.Module) -> None:
        """Read the rows of the words that are there, and number the words by these rows."""
        name = f"{_EMBEDDINGS}.weight"

        def load(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            words, numbers = arguments[0].unique(return_inverse=True)
            self._load([name], words.tolist())
            return (numbers,)

        table.register_forward_pre_hook(load)
        table.register_forward_hook(lambda *_: self._drop([name]))

    def _stream_embodiment(self, name: str, linear: nn.Module) -> None:
        """Read the slices of the embodiments that are there; they stay until the call's end."""

        def load(_: nn.Module, arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            robots, numbers = arguments[1].unique(return_inverse=True)
            wanted = tuple(robots.tolist())
            if self._held.get(name) != wanted:
                self._load([f"{name}.W", f"{name}.b"], wanted)
                self._held[name] = wanted
            return arguments[0], numbers

        linear.register_forward_pre_hook(load)

    def _load(self, names: Sequence[str], rows: Sequence[int] | None = None) -> None:
        for name in names:
            put_tensor(self._model, name, self._weights.read(name, rows))
            self._loaded.add(name)

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            put_tensor(self._model, name, self._meta[name])
            self._loaded.discard(name)

    def _pixels(self, image: Tensor) -> Tensor:
        return pixels_to_float(image.to(self.device)) if image.dtype == torch.uint8 else image

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(f"checkpoint {self.directory} cannot be read: {error.strerror}") from error
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise BackendError(
                f"device {self.device} has too little memory to check an engine, although the network's "
                "layers are read one at a time; free memory there, or check fewer observations at a time"
            ) from error


class _Weights:
    """The open files of a checkpoint, read a tensor at a time into the device's memory."""

    def __init__(self, entries: Entries, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.bytes_read = 0
        self._dtype = dtype
        self._entries = entries
        self._stack = ExitStack()
        self._files: dict[Path, BinaryIO] = {}
        try:
            for path in sorted({path for path, _ in entries.values()}):
                self._files[path] = self._stack.enter_context(path.open("rb"))
        except OSError as error:
            self.close()
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        self._seen = {path: _identity(file) for path, file in self._files.items()}

    def begin(self) -> None:
        """Before a call: count from zero, and refuse files that are not what their headers said any more."""
        self.bytes_read = 0
        for path, file in self._files.items():
            if file.closed or _identity(file) != self._seen[path]:
                raise CheckpointError(f"{path} was closed or has changed since it was opened; open it again")

    def read(self, name: str, rows: Sequence[int] | None = None) -> Tensor:
        """A tensor, or these rows of it."""
        path, entry = self._entries[name]
        file = self._files[path]
        values = read_tensor(file, entry) if rows is None else read_rows(file, entry, rows)
        self.bytes_read += values.nbytes
        return values.to(self.device, self._dtype)

    def close(self) -> None:
        self._stack.close()


def _identity(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _counter(progress: Progress, total: int, weights: _Weights) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total, weights.bytes_read)

    return count


@contextmanager
def _exact_products() -> Iterator[None]:
    """float32 products in float32: who allowed TF32 for speed did not mean what speed is checked by."""
    before: Any
    try:
        before, put = torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision
        exact = "highest"
    except RuntimeError:  # the process has used PyTorch's newer switch, beside which the older one is refused
        before, put = torch.backends.cuda.matmul.fp32_precision, _set_newer_switch
        exact = "ieee"
    put(exact)
    try:
        yield
    finally:
        put(before)


def _set_newer_switch(value: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = value
