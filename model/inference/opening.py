# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to an engine that may be used: the policy's way to its network.

``auto`` takes a TensorRT engine that was built for this very checkpoint and machine and has been compared
with the float32 network here, else PyTorch on CUDA, else PyTorch on the CPU. An engine that is there and not
used is told about, with the reason; an engine that was asked for by name is used or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from numpy.typing import ArrayLike

from gr00t_model.checkpoint import NOT_FOR_ACTIONS, load_model, untrained_embodiment
from gr00t_model.errors import BackendError
from gr00t_model.inference.backend import BackendChoice, check_names, choose_pytorch, find_device
from gr00t_model.inference.deployed import deploy
from gr00t_model.inference.engine import Engine
from gr00t_model.inference.pytorch import PyTorchEngine
from gr00t_model.processing import Gr00tProcessor

# Where an engine is looked for when none is named: beside the checkpoint's files.
ENGINE_FOLDER = "tensorrt"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to open, and how. ``Gr00tPolicy`` describes the names."""

    directory: Path
    processor: Gr00tProcessor
    tag: str
    num_steps: int
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    engine: Path | None = None
    compile: str = "auto"
    limits: Mapping[str, ArrayLike] | None = None
    """largest error of an engine by action key and column, dataset units"""
    names: Mapping[str, Sequence[str]] | None = None
    """of the columns, for messages"""
    tell: Tell = lambda text: None
    """takes lines about work that is long"""
    try_out: Callable[[Engine], object] = lambda engine: None
    """prepares an engine and runs it once; an engine that fails in it is not used"""

    @property
    def embodiment_id(self) -> int:
        """The row of the per-embodiment weights."""
        return self.processor.embodiment_id(self.tag)

    @property
    def engine_directory(self) -> Path | None:
        """The engine that is to be tried, or None where there is none."""
        if self.engine is not None:
            return self.engine
        beside = self.directory / ENGINE_FOLDER
        return beside if beside.is_dir() else None


@dataclass(frozen=True)
class Opened:
    """An engine ready for use."""

    engine: Engine
    choice: BackendChoice
    untrained: bool
    """whether the embodiment's own weights are still at their initial values"""


def open_engine(request: Request) -> Opened:
    """The best engine that the request allows.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete or damaged.
        EmbodimentError: the checkpoint has no such embodiment.
        BackendError: what was asked for by name is not available here, or memory is too small.
    """
    check_names(request.backend, request.precision)
    refused = ""
    if request.backend != "pytorch" and (request.backend == "tensorrt" or _worth_trying(request)):
        try:
            return _open_tensorrt(request)
        except Exception as error:  # a broken TensorRT must not keep a robot from its fallback
            text = str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"
            if request.backend == "tensorrt":
                raise error if isinstance(error, BackendError) else BackendError(text) from error
            refused = text
    opened = _open_pytorch(request)
    return replace(opened, choice=replace(opened.choice, refused=refused)) if refused else opened


def _worth_trying(request: Request) -> bool:
    """Whether ``auto`` has an engine to try. One that is named is tried, so that its refusal is told; the
    checkpoint's own is passed over where device or precision rule it out."""
    if request.engine is not None:
        return True
    cpu = request.device == "cpu" or (request.device == "auto" and not torch.cuda.is_available())
    return request.engine_directory is not None and request.precision != "float32" and not cpu


def _open_pytorch(request: Request) -> Opened:
    choice = choose_pytorch(request.device, request.precision)
    model = load_model(
        request.directory, device=str(choice.device), dtype=choice.dtype, without=NOT_FOR_ACTIONS
    )
    untrained = untrained_embodiment(model, request.embodiment_id)
    form = deploy(model, request.embodiment_id, request.num_steps)
    return Opened(PyTorchEngine(form, compile=request.compile), choice, untrained)


def _open_tensorrt(request: Request) -> Opened:
    from gr00t_model.inference.trt.engine import TensorRTEngine
    from gr00t_model.inference.trt.trust import ensure_verified

    directory = request.engine_directory
    if directory is None:
        raise BackendError(
            f"backend tensorrt was asked for, but no engine is named and {request.directory / ENGINE_FOLDER} "
            "does not exist; make one with build_engine"
        )
    device, reason = find_device(request.device)
    if device.type != "cuda":
        raise BackendError(f"TensorRT needs a CUDA device ({reason})")
    engine = TensorRTEngine(
        directory, request.directory, request.tag, request.embodiment_id, request.num_steps, device=device
    )
    if request.precision not in ("auto", engine.precision):
        raise BackendError(
            f"{directory} was built in {engine.precision}, and precision {request.precision} was asked for; "
            f"build another with build_engine, or use precision auto or {engine.precision}"
        )
    said = ensure_verified(
        engine, request.processor, request.tag, request.limits, request.names, request.tell
    )
    request.try_out(engine)
    return Opened(
        engine,
        BackendChoice("tensorrt", device, engine.precision, f"{directory}, {said}"),
        engine.untrained,
    )
