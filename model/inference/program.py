# SPDX-License-Identifier: Apache-2.0
"""A whole chunk for fixed shapes, recorded once and replayed: on CUDA, one graph launch instead of thousands.

Everything a recorded chunk reads and writes has an address that never changes, so a run is one upload, a
replay and one download. A prompt's index tensors and text embeddings are written only when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from gr00t_model.inference.deployed import Context, Deployed
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.layout import Layout, lay_out
from gr00t_model.inference.staging import Staging
from gr00t_model.pixels import pixels_to_float

Body = Callable[[], object]
Record = Callable[[Body], Body]
"""Takes a function that reads and writes fixed addresses, gives one that does the same again."""

# Runs before a recording: libraries choose their kernels and reserve memory in them.
WARM_UP_RUNS = 3


class CudaGraphs:
    """Records CUDA graphs that share one pool of memory: they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool = torch.cuda.graph_pool_handle()
        # One stream for all: libraries keep a workspace for each, and torch's own for recording belongs to
        # the first device that ever recorded.
        self._stream = torch.cuda.Stream(device)

    def __call__(self, body: Body) -> Body:
        """Run `body` a few times, then record it."""
        with torch.cuda.device(self.device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP_RUNS):
                    body()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads of the process may use CUDA meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                body()
        return graph.replay


@dataclass(frozen=True)
class Shape:
    """What decides the shapes of a chunk's tensors, for one sample."""

    images: tuple[tuple[int, int], ...]
    """height and width of each image, in order [px]"""
    text_tokens: int
    state_tokens: int
    horizon: int
    guided: bool


@dataclass(frozen=True)
class Sample:
    """What one chunk is computed from, on the CPU; shapes as `Gr00tProcessor.encode` gives them for one
    sample."""

    input_ids: Tensor
    attention_mask: Tensor
    images: Sequence[Tensor]
    """uint8"""
    state: Tensor
    noise: Tensor
    """float32 [1, H, D]"""
    guidance: Guidance | None


class Program:
    """One recorded chunk."""

    def __init__(self, form: Deployed, shape: Shape, record: Record) -> None:
        self.shape = shape
        self._form, self._record = form, record
        config, device = form.config, form.device
        multiple = config.image_multiple
        image_tokens = sum(height * width // multiple**2 for height, width in shape.images)
        chunk = (1, shape.horizon, config.max_action_dim)
        fields: dict[str, tuple[Sequence[int], torch.dtype]] = {
            f"image_{i}": ((1, 3, *size), torch.uint8) for i, size in enumerate(shape.images)
        }
        fields["state"] = (1, shape.state_tokens, config.max_state_dim), torch.float32
        fields["noise"] = chunk, torch.float32
        if shape.guided:
            fields["prefix"] = chunk, torch.float32
            fields["weight"] = (form.num_steps, shape.horizon), torch.float32
        text, length = (1, shape.text_tokens), (1, shape.text_tokens + image_tokens)
        self._inputs = Staging(fields, device)
        self._prompt = Staging(
            {
                "text_ids": (text, torch.int64),
                "order": (length, torch.int64),
                "text_index": (text, torch.int64),
                "image_index": ((1, image_tokens), torch.int64),
                "text_mask": (text, torch.bool),
                "valid": (length, torch.bool),
                "seen": (length, torch.bool),
            },
            device,
        )
        self._output = Staging({"actions": (chunk, torch.float32)}, device)
        prompt = self._prompt.device
        self._layout = Layout(**prompt, image_mask=None)
        self._text = torch.zeros((*text, form.embed_tokens.shape[1]), dtype=form.dtype, device=device)
        self._known_prompt: tuple[Tensor, Tensor] | None = None
        # What the recording reads from the form's tables has to outlive them: a longer prompt replaces one.
        self._tables = form.prepare(shape.images, length[1])
        self._replay = record(self._chunk)
        self._halves: tuple[Body, Body] | None = None
        self._between: list[Context] = []

    # ---- what is recorded ------------------------------------------------------------------------

    def _chunk(self) -> None:
        self._act(self._see())

    def _see(self) -> Context:
        images = [
            pixels_to_float(self._inputs.device[f"image_{i}"]).to(self._form.dtype)
            for i in range(len(self.shape.images))
        ]
        return self._form.backbone(images, self._layout, self._text)

    def _act(self, context: Context) -> None:
        given = self._inputs.device
        actions = self._form.head(
            context,
            given["state"].to(self._form.dtype),
            given["noise"],
            given.get("prefix"),
            given.get("weight"),
        )
        self._output.device["actions"].copy_(actions)

    # ---- use -------------------------------------------------------------------------------------

    def run(self, sample: Sample) -> Tensor:
        """One chunk, float32 [1, H, D] on the CPU."""
        self._upload(sample)
        self._replay()
        return self._download()

    def stages(self, sample: Sample) -> dict[str, float]:
        """Seconds that the stages of one chunk take: backbone and action head are recorded apart for this,
        the first time."""
        if self._halves is None:

            def see() -> None:
                self._between[:] = [self._see()]

            first = self._record(see)
            self._halves = first, self._record(lambda: self._act(self._between[0]))
            self._synchronize()
        see_again, act_again = self._halves
        times = {}
        for name, part in (
            ("upload", lambda: self._upload(sample)),
            ("backbone", see_again),
            ("action", act_again),
            ("download", self._download),
        ):
            begun = perf_counter()
            part()
            self._synchronize()
            times[name] = perf_counter() - begun
        return times

    def _upload(self, sample: Sample) -> None:
        known = self._known_prompt
        prompt = sample.input_ids, sample.attention_mask
        if known is None or not all(map(torch.equal, known, prompt)):
            self._set_prompt(*prompt)
        values = {f"image_{i}": image for i, image in enumerate(sample.images)}
        values |= {"state": sample.state, "noise": sample.noise}
        if sample.guidance is not None:
            values["prefix"] = torch.from_numpy(sample.guidance.prefix)
            values["weight"] = torch.from_numpy(sample.guidance.weight)
        self._inputs.fill(values)
        self._inputs.upload()

    def _set_prompt(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        self._known_prompt = None  # until all of the new one is there
        layout = lay_out(input_ids, attention_mask, self._form.config.image_token_id, self.shape.text_tokens)
        for name, field in self._prompt.host.items():
            value = getattr(layout, name)
            if value is None:  # nothing is masked
                field.fill_(True)
            else:
                field.copy_(value)
        self._prompt.upload()
        self._text.copy_(self._form.embed_tokens[self._layout.text_ids])
        self._synchronize()  # the host buffer may be filled again
        self._known_prompt = input_ids.clone(), attention_mask.clone()

    def _download(self) -> Tensor:
        self._output.download()
        self._synchronize()
        return self._output.host["actions"].clone()

    def _synchronize(self) -> None:
        if self._form.device.type == "cuda":
            torch.cuda.synchronize(self._form.device)
