# SPDX-License-Identifier: Apache-2.0
"""Both TensorRT engines with all the tensors they read and write, for one length of text: a whole chunk that
can be recorded as one CUDA graph, because no address ever changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import BackendError
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.program import Record
from gr00t_model.inference.staging import Staging
from gr00t_model.inference.trt.manifest import Manifest
from gr00t_model.inference.trt.prompt import group_images, prompt_for
from gr00t_model.inference.trt.running import LoadedEngine
from gr00t_model.inference.trt.words import WordEmbeddings
from gr00t_model.pixels import pixels_to_float


@dataclass(frozen=True)
class Parts:
    """What every program is made from."""

    backbone: LoadedEngine
    action: LoadedEngine
    memory: Tensor
    manifest: Manifest
    config: Gr00tN1d6Config
    words: WordEmbeddings
    device: torch.device


class Program:
    """Both engines with all their tensors, for one length of text."""

    def __init__(self, parts: Parts, length: int, record: Record | None) -> None:
        self._parts, self._length = parts, length
        self.recorded = record is not None
        device, shapes = parts.device, parts.manifest.shapes
        multiple = parts.config.image_multiple
        images = sum(n * (height // multiple) * (width // multiple) for n, height, width in shapes.images)
        takes, acts = parts.backbone.inputs, parts.action.inputs
        self._inputs = Staging(
            {f"pixels_{k}": ((n, 3, h, w), torch.uint8) for k, (n, h, w) in enumerate(shapes.images)}
            | {name: (acts[name].shape, acts[name].dtype) for name in ("state", "noise", "prefix", "weight")},
            device,
        )
        width = takes["text_embeddings"].shape[2]
        kind = takes["text_embeddings"].dtype
        self._prompt = Staging(
            {
                "text_embeddings": ((1, length, width), kind),
                "order": ((length + images,), torch.int32),
                "text_index": ((length,), torch.int32),
                "image_index": ((images,), torch.int32),
                "text_mask": ((1, length), torch.bool),
            },
            device,
        )
        self._output = Staging({"actions": (parts.action.outputs["actions"].shape, torch.float32)}, device)
        prompt = self._prompt.device
        self._pixels = {
            f"pixels_{k}": torch.zeros(n, 3, h, w, dtype=takes[f"pixels_{k}"].dtype, device=device)
            for k, (n, h, w) in enumerate(shapes.images)
        }
        features = {
            "text_features": torch.zeros(1, length, width, dtype=kind, device=device),
            "image_features": torch.zeros(1, images, width, dtype=kind, device=device),
        }
        self._see = parts.backbone.context(parts.memory)
        self._act = parts.action.context(parts.memory)
        words = {name: prompt[name] for name in ("text_embeddings", "order", "text_index", "image_index")}
        self._see.bind({**self._pixels, **words, **features})
        given = {name: self._inputs.device[name] for name in ("state", "noise", "prefix", "weight")}
        self._act.bind(
            {**features, **given, "text_mask": prompt["text_mask"], "actions": self._output.device["actions"]}
        )
        self._prompt_ids: Tensor | None = None
        self._none_given = {
            "prefix": torch.zeros(self._inputs.host["prefix"].shape),
            "weight": torch.ones(self._inputs.host["weight"].shape),
        }
        self._sizes: list[tuple[int, int]] = []
        self._own_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._own_stream is not None:  # the buffers were cleared on another
            self._own_stream.wait_stream(torch.cuda.current_stream(device))
            if record is not None and not all(c.recordable(self._own_stream) for c in (self._see, self._act)):
                raise BackendError("TensorRT says that these engines cannot be recorded in a CUDA graph")
        self._replay = self._body if record is None else record(self._body)

    # ---- what is recorded ------------------------------------------------------------------------

    def _body(self) -> None:
        self._run_backbone()
        self._run_action()

    def _run_backbone(self) -> None:
        for name, target in self._pixels.items():
            target.copy_(pixels_to_float(self._inputs.device[name]))
        self._see.execute(self._current())

    def _run_action(self) -> None:
        self._act.execute(self._current())

    def _current(self) -> Any:
        return _NO_STREAM if self._own_stream is None else torch.cuda.current_stream(self._parts.device)

    # ---- use -------------------------------------------------------------------------------------

    def run(self, checked: Mapping[str, Any], start: Tensor, guidance: Guidance | None) -> Tensor:
        """One chunk, float32 [1, H, D] on the CPU."""
        with self._on_own_stream():
            self._upload(checked, start, guidance)
            self._replay()
            return self._download()

    def stages(
        self, checked: Mapping[str, Any], start: Tensor, guidance: Guidance | None
    ) -> dict[str, float]:
        """Seconds of the stages of one chunk, without the graph."""
        times = {}
        with self._on_own_stream():
            for name, part in (
                ("upload", lambda: self._upload(checked, start, guidance)),
                ("backbone", self._run_backbone),
                ("action", self._run_action),
                ("download", self._download),
            ):
                begun = perf_counter()
                part()
                self._synchronize()
                times[name] = perf_counter() - begun
        return times

    def _upload(self, checked: Mapping[str, Any], start: Tensor, guidance: Guidance | None) -> None:
        images: Sequence[Tensor] = checked["pixel_values"]
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        if (
            self._prompt_ids is None
            or sizes != self._sizes
            or not torch.equal(self._prompt_ids, checked["input_ids"])
        ):
            self._set_prompt(checked["input_ids"], checked["attention_mask"], sizes)
        for k, members in enumerate(group_images(sizes, self._parts.manifest.shapes.images)):
            for slot, index in enumerate(members):
                self._inputs.host[f"pixels_{k}"][slot].copy_(images[index][0])
        plan = self._none_given
        if guidance is not None:
            plan = {
                "prefix": torch.from_numpy(guidance.prefix),
                "weight": torch.from_numpy(guidance.weight),
            }
        self._inputs.fill({"state": checked["state"], "noise": start, **plan})
        self._inputs.upload()

    def _set_prompt(self, ids: Tensor, mask: Tensor, sizes: list[tuple[int, int]]) -> None:
        self._prompt_ids = None  # until all of the new one is there
        parts = self._parts
        prompt = prompt_for(
            ids,
            mask,
            parts.config.image_token_id,
            sizes,
            parts.manifest.shapes.images,
            parts.config.image_multiple,
            self._length,
        )
        self._prompt.fill(
            {
                "text_embeddings": parts.words.rows(prompt.text_ids[0])[None],
                "order": prompt.order,
                "text_index": prompt.text_index,
                "image_index": prompt.image_index,
                "text_mask": prompt.text_mask,
            }
        )
        self._prompt.upload()
        self._synchronize()  # the host buffer may be filled again
        self._prompt_ids, self._sizes = ids.clone(), sizes

    def _download(self) -> Tensor:
        self._output.download()
        self._synchronize()
        return self._output.host["actions"].clone()

    def _on_own_stream(self) -> Any:
        return torch.cuda.stream(self._own_stream)  # None is the current one

    def _synchronize(self) -> None:
        if self._parts.device.type == "cuda":
            torch.cuda.current_stream(self._parts.device).synchronize()


class _NoStream:
    """What stands for a CUDA stream where there is none."""

    cuda_stream = 0


_NO_STREAM = _NoStream()
