# SPDX-License-Identifier: Apache-2.0
"""Two TensorRT engines as one: pixels and a prompt in, a chunk out.

Of the checkpoint only what the engines leave to the caller is read here: the embeddings of the words in use.
Inputs go up in one copy, the backbone writes its features where the action engine reads them, and one copy
brings the actions down. For each length of text the whole of it is one CUDA graph, recorded in `prepare` or
between two chunks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gr00t_model.checkpoint import read_config, resolve
from gr00t_model.errors import BackendError, EmbodimentError, ObservationError
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.layout import TEXT_BUCKETS
from gr00t_model.inference.program import CudaGraphs, Record
from gr00t_model.inference.trt.adapter import find_tensorrt
from gr00t_model.inference.trt.fingerprint import checkpoint_sha256
from gr00t_model.inference.trt.manifest import (
    ACTION,
    BACKBONE,
    EmbodimentId,
    Manifest,
    TensorRTId,
    check,
)
from gr00t_model.inference.trt.program import Parts, Program
from gr00t_model.inference.trt.prompt import group_images
from gr00t_model.inference.trt.running import MEMORY_ALIGNMENT
from gr00t_model.inference.trt.verdict import Machine, this_machine
from gr00t_model.inference.trt.words import WordEmbeddings
from gr00t_model.network import inputs as checks

# Hashes of the checkpoint's files from earlier starts, beside the engines.
FINGERPRINTS = "fingerprints.json"
# Text lengths that are recorded before the first chunk; longer instructions are when they come.
PREPARED_TEXT_TOKENS = 128
_NAMES = {"bf16": "bfloat16", "fp32": "float32"}


class TensorRTEngine:
    """See the module. `Engine` describes what it offers; batch 1 only.

    Args:
        directory: what ``build_engine`` wrote.
        checkpoint: the checkpoint that the robot is to run; the engines must have been built from it.
        tag: the embodiment's tag.
        embodiment_id: its number in the checkpoint.
        num_steps: denoising steps; None means the checkpoint's number.
        device: a CUDA device.
        flavour: tensorrt, tensorrt_rtx, or "auto" for the one that the engines were built with.
        record: how a chunk is recorded; None records CUDA graphs on CUDA and nothing elsewhere.
        graphs: False turns recording off.
        machine: what the manifest is compared with; None asks CUDA.

    Raises:
        BackendError: TensorRT is missing, or the engines are damaged, incomplete, or were built from another
            checkpoint, for another embodiment, GPU or TensorRT; all reasons are named.
        CheckpointError: the checkpoint is missing, incomplete or damaged.
    """

    backend = "tensorrt"

    def __init__(
        self,
        directory: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str],
        tag: str,
        embodiment_id: int,
        num_steps: int | None = None,
        *,
        device: torch.device | str = "cuda",
        flavour: str = "auto",
        record: Record | None = None,
        graphs: bool = True,
        machine: Machine | None = None,
    ) -> None:
        self.directory, self.checkpoint = Path(directory), resolve(checkpoint)
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.config = read_config(self.checkpoint)
        self.embodiment_id = embodiment_id
        self.num_steps = self.config.num_inference_timesteps if num_steps is None else num_steps
        self.manifest = Manifest.read(self.directory)
        library = find_tensorrt(self.manifest.tensorrt.flavour if flavour == "auto" else flavour)
        found = TensorRTId(library.flavour, library.version)
        self.machine = this_machine(found, self.device) if machine is None else machine
        reasons = check(
            self.directory,
            checkpoint_sha256=checkpoint_sha256(self.checkpoint, cache=self.directory / FINGERPRINTS),
            embodiment=EmbodimentId(tag, embodiment_id),
            num_steps=self.num_steps,
            tensorrt=found,
            gpu=self.machine.as_gpu,
        )
        if reasons:
            raise BackendError(f"{self.directory}: {'; '.join(reasons)}")
        self.precision = precision_of(self.manifest)
        self._words = WordEmbeddings(self.checkpoint)
        self.untrained = self._words.untrained(embodiment_id)
        self._backbone, self._action = (
            library.load(self.directory / name, self.device) for name in (BACKBONE, ACTION)
        )
        on_cuda = self.device.type == "cuda"
        self._record = record if record is not None else CudaGraphs(self.device) if on_cuda else None
        if not graphs:
            self._record = None
        # The engines run one after the other: they share the room for intermediate results.
        size = max(self._backbone.memory_bytes, self._action.memory_bytes, 1)
        room = torch.empty(size + MEMORY_ALIGNMENT, dtype=torch.uint8, device=self.device)
        self._memory = room[-room.data_ptr() % MEMORY_ALIGNMENT :][:size]
        self._programs: dict[int, Program] = {}
        self._wanted: int | None = None
        self.notes: list[str] = []
        """what `prepare` did, in words fit for a log"""

    @property
    def text_tokens(self) -> int:
        """The most text tokens that a prompt may have."""
        return self.manifest.shapes.text[2]

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """See `Engine.image_sizes`: those it was built for."""
        return tuple((height, width) for n, height, width in self.manifest.shapes.images for _ in range(n))

    @property
    def lengths(self) -> list[int]:
        """The lengths to which text is padded."""
        smallest, _, largest = self.manifest.shapes.text
        return [n for n in TEXT_BUCKETS if smallest <= n < largest] + [largest]

    # ---- a chunk ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def run(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None = None
    ) -> np.ndarray:
        """See `Engine.run`."""
        return self._guarded(lambda: self._run(inputs, noise, guidance))

    def _run(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None
    ) -> np.ndarray:
        checked, start, length = self._check(inputs, noise, guidance)
        program = self._programs.get(length)
        if program is None or not program.recorded:
            self._wanted = length
            # Any longer one that is ready will do: padding changes nothing.
            ready = [n for n, kept in self._programs.items() if n > length and kept.recorded]
            program = self._programs[min(ready)] if ready else self._add_program(length, None)
        return program.run(checked, start, guidance).numpy()

    def _check(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None
    ) -> tuple[dict[str, Any], Tensor, int]:
        """Checked inputs, the noise to start from, the length that text is padded to."""
        checked = checks.check(inputs, self.config, raw_pixels=True)
        ids = checked["input_ids"]
        if len(ids) != 1:
            raise ObservationError(f"a TensorRT engine takes one observation at a time, not {len(ids)}")
        given = int(checked["embodiment_id"][0])
        if given != self.embodiment_id:
            raise EmbodimentError(
                f"embodiment id {given} was given to an engine made for {self.embodiment_id}"
            )
        images = checked["pixel_values"]
        if any(image.dtype != torch.uint8 for image in images):
            raise ObservationError("pixel_values are not uint8; encode with pixels='uint8'")
        group_images([tuple(image.shape[-2:]) for image in images], self.manifest.shapes.images)
        tokens = int((ids != self.config.image_token_id).sum())
        length = next((n for n in self.lengths if n >= tokens), None)
        if length is None:
            raise ObservationError(
                f"the prompt has {tokens} text tokens and this engine takes {self.text_tokens}; use a "
                "shorter instruction, or build the engine again for more"
            )
        shape = (1, self.manifest.horizon, self.config.max_action_dim)
        start = torch.randn(shape) if noise is None else torch.from_numpy(noise).float()
        if tuple(start.shape) != shape:
            raise ObservationError(
                f"noise has shape {list(start.shape)}; this engine was built for {list(shape)}"
            )
        if guidance is not None:
            guidance.check(shape, self.num_steps)
        return checked, start, length

    def _guarded(self, work: Any) -> Any:
        try:
            if self.device.type == "cuda":
                with torch.cuda.device(self.device):
                    return work()
            return work()
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"device {self.device} has too little memory for an inference; free memory there"
            ) from error

    # ---- before and between chunks ---------------------------------------------------------------

    @torch.inference_mode()
    def prepare(self, inputs: Mapping[str, Any], *, guided: bool = False) -> None:
        """See `Engine.prepare`: a graph for every usual length of instruction. The shapes of the images are
        the engine's own."""
        self._guarded(lambda: self._prepare(inputs))

    def _prepare(self, inputs: Mapping[str, Any]) -> None:
        _, _, needed = self._check(inputs, None, None)
        for length in self.lengths:
            # The longest takes every other text until its own is recorded.
            if needed <= length <= max(PREPARED_TEXT_TOKENS, needed) or length == self.lengths[-1]:
                self._add_recorded(length)

    def catch_up(self) -> None:
        """See `Engine.catch_up`."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            with torch.inference_mode():
                self._guarded(lambda: self._add_recorded(wanted))

    def _add_recorded(self, length: int) -> None:
        """Record a length. Where that fails the engines run without, slower and as right."""
        if self._record is not None:
            try:
                self._add_program(length, self._record)
                return
            except Exception as error:
                text = str(error).strip().partition("\n")[0]
                self.notes.append(f"chunks are not recorded: {type(error).__name__}: {text}")
                self._record = None
        self._add_program(length, None)

    def _add_program(self, length: int, record: Record | None) -> Program:
        """The program of a length: the one that is there, unless it lacks a recording."""
        kept = self._programs.get(length)
        if kept is None or (record is not None and not kept.recorded):
            kept = self._programs[length] = Program(self._parts(), length, record)
        return kept

    def _parts(self) -> Parts:
        return Parts(
            self._backbone, self._action, self._memory, self.manifest, self.config, self._words, self.device
        )

    # ---- for benchmarks --------------------------------------------------------------------------

    @torch.inference_mode()
    def stages(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None = None
    ) -> dict[str, float]:
        """Seconds of upload, backbone, action and download in one chunk; the device is waited for between
        them, so their sum is more than a chunk takes."""

        def measure() -> dict[str, float]:
            checked, start, length = self._check(inputs, noise, guidance)
            return self._add_program(length, None).stages(checked, start, guidance)

        return self._guarded(measure)


def precision_of(manifest: Manifest) -> str:
    """What most of the arithmetic is done in, as `Engine.precision` names it."""
    used = list(manifest.precision.groups.values())
    found = [kind for kind in ("nvfp4", "fp8", "int8", "fp32") if any(own.startswith(kind) for own in used)]
    return _NAMES.get(found[0], found[0]) if found else "bfloat16"
