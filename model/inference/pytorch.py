# SPDX-License-Identifier: Apache-2.0
"""The deployed form run by PyTorch: the engine that every machine has.

On the CPU layers run as they are written. On CUDA a chunk is one recorded graph per shape; a prompt's text is
padded to one of a few lengths, so that a new instruction finds its graph ready. A shape that has none yet
runs layer by layer, and its graph is recorded between two chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gr00t_model.errors import BackendError, ConfigError, EmbodimentError
from gr00t_model.inference.compiling import compile_layers, many_versions, plain_layers, written
from gr00t_model.inference.deployed import Context, Deployed
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.layout import TEXT_BUCKETS, Layout, lay_out, text_bucket
from gr00t_model.inference.program import CudaGraphs, Program, Record, Sample, Shape
from gr00t_model.network import inputs as checks
from gr00t_model.pixels import pixels_to_float

COMPILE = ("auto", "on", "off")
# Graphs kept at once; each holds buffers, and a robot needs one for each length of text.
MAX_PROGRAMS = 24
# Text lengths that are recorded before the first chunk; longer instructions are when they come.
PREPARED_TEXT_TOKENS = 128
# Runs that decide whether compiled layers pay.
_TRIAL_RUNS = 20
# Compiled layers cost minutes at the first start; this much of a chunk's time they have to save.
_WORTH = 0.97
# Compiled layers round differently. Anything below this is not rounding.
_COMPILED_COSINE = 0.999


class PyTorchEngine:
    """See the module. `Engine` describes what it offers.

    Args:
        form: the network laid out for one embodiment and number of steps. With `compile` its layers are
            changed in place, so two engines of one form must not differ in that.
        compile: "on", "off", or "auto": on CUDA, whichever `prepare` measures to be faster; off on a CPU,
            where compiling takes a compiler and gains little.
        record: how a chunk is recorded; None records CUDA graphs on CUDA and nothing on a CPU.
        graphs: False turns recording off.
    """

    backend = "pytorch"

    def __init__(
        self,
        form: Deployed,
        *,
        compile: str = "auto",
        graphs: bool = True,
        record: Record | None = None,
    ) -> None:
        if compile not in COMPILE:
            raise ConfigError(f"compile is {compile!r}; expected one of {', '.join(COMPILE)}")
        self.form = form
        self.device = self.form.device
        self.precision = str(self.form.dtype).removeprefix("torch.")
        on_cuda = self.device.type == "cuda"
        self.compile = "off" if compile == "auto" and not on_cuda else compile
        self.image_sizes: tuple[tuple[int, int], ...] | None = None
        self.notes: list[str] = []
        self._record = record if record is not None else CudaGraphs(self.device) if on_cuda else None
        if not graphs:
            self._record = None
        self._programs: dict[Shape, Program] = {}
        self._wanted: Shape | None = None
        self._may_record = self._record is not None
        self._layout: tuple[Tensor, Tensor, Layout] | None = None
        if self.compile == "on":
            compile_layers(self.form)

    # ---- a chunk ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def run(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None = None
    ) -> np.ndarray:
        """See `Engine.run`."""
        return self._guarded(lambda: self._run(*self._check(inputs, noise, guidance), guidance))

    def _run(
        self, checked: dict[str, Any], start: Tensor, shape: Shape | None, guidance: Guidance | None
    ) -> np.ndarray:
        program = None if shape is None else self._ready(shape)
        if program is None:
            with written() if self._record is not None else nullcontext():
                return self._layer_by_layer(checked, start, guidance).numpy()
        return program.run(_sample(checked, start, guidance)).numpy()

    def _ready(self, shape: Shape) -> Program | None:
        """The recording for this shape, or for one with more room for text, which changes nothing but the
        time; None where there is neither. What was not there is recorded when there is time."""
        if shape not in self._programs and self._may_record:
            self._wanted = shape
        roomier = (replace(shape, text_tokens=n) for n in TEXT_BUCKETS if n >= shape.text_tokens)
        found = next((one for one in roomier if one in self._programs), None)
        if found is None:
            return None
        self._programs[found] = self._programs.pop(found)  # last, as the one used last
        return self._programs[found]

    def _check(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None
    ) -> tuple[dict[str, Any], Tensor, Shape | None]:
        """Checked inputs, the noise to start from, and the shape under which the chunk would be recorded."""
        config = self.form.config
        checked = checks.check(inputs, config, raw_pixels=True)
        others = checked["embodiment_id"] != self.form.embodiment_id
        if bool(others.any()):
            raise EmbodimentError(
                f"embodiment id {int(checked['embodiment_id'][others][0])} was given to an engine made for "
                f"{self.form.embodiment_id}"
            )
        given = None if noise is None else torch.from_numpy(noise)
        on_cpu = {"state": checked["state"].to(self.form.dtype)}
        start = checks.starting_noise(given, None, on_cpu, self.form)
        if guidance is not None:
            guidance.check(tuple(start.shape), self.form.num_steps)
        return checked, start, self._shape(checked, start, guidance is not None)

    def _shape(self, checked: Mapping[str, Any], start: Tensor, guided: bool) -> Shape | None:
        """None where nothing is recorded: on a CPU, for a batch, for text that no bucket holds."""
        ids, images = checked["input_ids"], checked["pixel_values"]
        raw = all(image.dtype == torch.uint8 for image in images)
        tokens = text_bucket(int((ids != self.form.config.image_token_id).sum()))
        if self._record is None or len(ids) != 1 or tokens is None or not raw:
            return None
        sizes = tuple((int(image.shape[2]), int(image.shape[3])) for image in images)
        return Shape(sizes, tokens, checked["state"].shape[1], start.shape[1], guided)

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            if self.device.type != "cuda":
                return work()
            with torch.cuda.device(self.device):  # whatever thread this is
                return work()
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"device {self.device} has too little memory for an inference; free memory there, or choose "
                "another device or precision bfloat16"
            ) from error

    # ---- layer by layer --------------------------------------------------------------------------

    def _layer_by_layer(
        self,
        checked: Mapping[str, Any],
        start: Tensor,
        guidance: Guidance | None,
        done: Callable[[str], None] = lambda stage: None,
    ) -> Tensor:
        """Without a recording. `done` is told when a stage has been started."""
        images = [self._pixels(image) for image in checked["pixel_values"]]
        layout = self._lay_out(checked["input_ids"], checked["attention_mask"])
        state = checked["state"].to(self.device, self.form.dtype)
        noise = start.to(self.device)
        along = (
            ()
            if guidance is None
            else tuple(torch.from_numpy(part).to(noise) for part in (guidance.prefix, guidance.weight))
        )
        done("upload")
        context: Context = self.form.backbone(images, layout)
        done("backbone")
        actions = self.form.head(context, state, noise, *along)
        done("action")
        result = actions.float().cpu()
        done("download")
        return result

    def _pixels(self, image: Tensor) -> Tensor:
        moved = image.to(self.device, non_blocking=True)
        return (pixels_to_float(moved) if moved.dtype == torch.uint8 else moved).to(self.form.dtype)

    def _lay_out(self, ids: Tensor, mask: Tensor) -> Layout:
        """The layout of these prompts on the device; that of the last ones is kept."""
        last = self._layout
        if last is None or not torch.equal(last[0], ids) or not torch.equal(last[1], mask):
            layout = lay_out(ids, mask, self.form.config.image_token_id).to(self.device)
            last = self._layout = ids.clone(), mask.clone(), layout
        return last[2]

    # ---- before and between chunks ---------------------------------------------------------------

    @torch.inference_mode()
    def prepare(self, inputs: Mapping[str, Any], *, guided: bool = False) -> None:
        """See `Engine.prepare`: tables, and on CUDA the graphs of these images for every usual length of
        instruction; with compile "auto" also the choice between plain and compiled layers."""
        self._guarded(lambda: self._prepare(inputs, guided))

    def _prepare(self, inputs: Mapping[str, Any], guided: bool) -> None:
        checked, start, shape = self._check(inputs, None, None)
        if shape is None:
            with many_versions():
                self._layer_by_layer(checked, start, None)
            return
        try:
            if self.compile == "auto":
                self._choose_layers(checked, start, shape)
            for tokens in _prepared_lengths(shape.text_tokens):
                for joins in (False, True) if guided else (False,):
                    self._add_program(replace(shape, text_tokens=tokens, guided=joins))
        except Exception as error:  # without recordings a chunk is slower, and as right
            self._do_without_recordings(error)
            self._layer_by_layer(checked, start, None)

    def catch_up(self) -> None:
        """See `Engine.catch_up`."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            with torch.inference_mode():
                try:
                    with written():  # compiling takes longer than a robot should wait between two chunks
                        self._guarded(lambda: self._add_program(wanted))
                except Exception as error:
                    self._do_without_recordings(error)
                    raise

    def _do_without_recordings(self, error: Exception) -> None:
        """What is recorded stays in use; nothing is recorded any more."""
        self.notes.append(f"chunks are computed layer by layer where no graph is recorded: {_brief(error)}")
        self._may_record = False

    def _add_program(self, shape: Shape) -> Program:
        if shape not in self._programs:
            assert self._record is not None
            with many_versions():
                self._programs[shape] = Program(self.form, shape, self._record)
            while len(self._programs) > MAX_PROGRAMS:
                del self._programs[next(iter(self._programs))]  # longest unused
        return self._programs[shape]

    def _choose_layers(self, checked: Mapping[str, Any], start: Tensor, shape: Shape) -> None:
        """Plain or compiled layers, by measuring both on the same inputs. Whatever goes wrong with the
        compiler leaves the plain ones."""
        plain = self._add_program(shape)
        expected, plain_s = self._try(plain, checked, start)
        self._programs.clear()
        try:
            compile_layers(self.form)
            found, compiled_s = self._try(self._add_program(shape), checked, start)
            moved = expected - start, found - start
            cosine = float(torch.cosine_similarity(*(part.flatten().double() for part in moved), dim=0))
            if not cosine >= _COMPILED_COSINE:
                raise BackendError(f"compiled layers give other actions (cosine {cosine:.5f})")
        except Exception as error:  # a compiler has many ways to fail, and none of them matters here
            self.notes.append(f"layers are not compiled: {_brief(error)}")
            compiled_s = float("inf")
        else:
            self.notes.append(
                f"layers {'are' if compiled_s < _WORTH * plain_s else 'are not'} compiled: a chunk takes "
                f"{compiled_s * 1e3:.2f} ms with, {plain_s * 1e3:.2f} ms without"
            )
        if compiled_s < _WORTH * plain_s:
            self.compile = "on"
            return
        self.compile = "off"
        plain_layers(self.form)
        self._programs = {shape: plain}

    def _try(self, program: Program, checked: Mapping[str, Any], start: Tensor) -> tuple[Tensor, float]:
        """Actions and the median time of a chunk [s]."""
        times = []
        for _ in range(_TRIAL_RUNS):
            begun = perf_counter()
            actions = program.run(_sample(checked, start, None))
            times.append(perf_counter() - begun)
        return actions, median(times)

    # ---- for benchmarks --------------------------------------------------------------------------

    @torch.inference_mode()
    def stages(
        self, inputs: Mapping[str, Any], noise: np.ndarray | None, guidance: Guidance | None = None
    ) -> dict[str, float]:
        """Seconds of upload, backbone, action and download in one chunk; the device is waited for between
        them, so their sum is more than a chunk takes."""
        checked, start, shape = self._check(inputs, noise, guidance)
        program = None if shape is None else self._programs.get(shape)
        if program is not None:
            return dict(self._guarded(partial(program.stages, _sample(checked, start, guidance))))
        times: dict[str, float] = {}
        begun = [perf_counter()]

        def done(stage: str) -> None:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            begun.append(perf_counter())
            times[stage] = begun[-1] - begun[-2]

        self._layer_by_layer(checked, start, guidance, done)
        return times


def _prepared_lengths(least: int) -> list[int]:
    """From the present text's bucket on: the usual ones, and the longest, into which every other fits until
    its own is recorded."""
    usual = max(PREPARED_TEXT_TOKENS, least)
    return [n for n in TEXT_BUCKETS if least <= n <= usual or n == TEXT_BUCKETS[-1]]


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _sample(checked: Mapping[str, Any], start: Tensor, guidance: Guidance | None) -> Sample:
    prompt = checked["input_ids"], checked["attention_mask"]
    return Sample(*prompt, checked["pixel_values"], checked["state"], start, guidance)
