# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines of the tiny SO-101 checkpoint that run on the CPU, in a TensorRT that is not there.

``Shelf.write`` writes a directory as ``build_engine`` does. ``shelf_for`` makes `open_engine` take the CPU
for a CUDA device where it is about TensorRT; what it falls back to is the real PyTorch engine on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gr00t_model.checkpoint import load_model
from gr00t_model.inference import opening
from gr00t_model.inference.deployed import Deployed, deploy
from gr00t_model.inference.trt import engine as engines
from gr00t_model.inference.trt import manifest as manifests
from gr00t_model.inference.trt.export import action_inputs, backbone_inputs, shapes_of
from gr00t_model.inference.trt.fingerprint import checkpoint_sha256
from gr00t_model.inference.trt.verdict import Machine
from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.engine_limits import engine_limits, joint_names
from support_checkpoints import tiny_checkpoint
from support_deployed import module_functions
from support_fake_tensorrt import FakeTensorRT
from support_robots import shipped

ROBOT = shipped("so101")
TAG = ROBOT.embodiment_tag
SIZES = [(252, 252)] * 2
TEXT_TOKENS = 64
MACHINE = Machine("A GPU", "8.9", "570.1", "tensorrt", "10.3.0")
# Names of the axes of an input that follow the text's length.
_TEXT_AXIS = {"text_embeddings": 1, "text_index": 0, "text_mask": 1, "text_features": 1}


@dataclass
class Shelf:
    """A machine with TensorRT, and what was told while opening."""

    fake: FakeTensorRT
    checkpoint: Path
    processor: Gr00tProcessor
    form: Deployed
    machine: Machine = MACHINE
    told: list[str] = field(default_factory=list)
    opened: int = 0
    """how many engines were opened"""

    @property
    def runs(self) -> int:
        """Chunks that the engines computed."""
        return sum(name == "action" for name, _ in self.fake.runs)

    def write(self, folder: Path, sizes: Sequence[tuple[int, int]] = tuple(SIZES), **changes: Any) -> Path:
        """Plans for images of these sizes and a manifest, ``changes`` being the manifest's."""
        folder.mkdir(parents=True, exist_ok=True)
        shapes = shapes_of(self.form.config, sizes, text_tokens=TEXT_TOKENS)
        width = self.form.embed_tokens.shape[1]
        outputs = {
            "backbone": {
                "text_features": (torch.float32, (1, "T", width)),
                "image_features": (torch.float32, (1, shapes.images, width)),
            },
            "action": {"actions": (torch.float32, (1, shapes.horizon, self.form.config.max_action_dim))},
        }
        for name, make in (("backbone", backbone_inputs), ("action", action_inputs)):
            low, high = (_flat(make(self.form, shapes, count)) for count in (1, TEXT_TOKENS))
            inputs = {
                key: (value.dtype, _axes(key, value), tuple(value.shape), tuple(high[key].shape))
                for key, value in low.items()
            }
            self.fake.write_plan(folder / f"{name}.engine", inputs, outputs[name])
        values = {
            "checkpoint": manifests.CheckpointId("so101_tiny", checkpoint_sha256(self.checkpoint)),
            "embodiment": manifests.EmbodimentId(TAG, self.processor.embodiment_id(TAG)),
            "num_steps": self.form.num_steps,
            "horizon": shapes.horizon,
            "precision": manifests.Precision("auto", {"all": "bf16"}),
            "tensorrt": manifests.TensorRTId("tensorrt", "10.3.0"),
            "driver": "570.1",
            "gpu": manifests.Gpu("A GPU", "8.9"),
            "shapes": manifests.Shapes(shapes.groups, (1, 32, TEXT_TOKENS)),
            "files": manifests.engine_files(folder),
        }
        manifests.Manifest(**{**values, **changes}).write(folder)
        return folder

    def spoil(self, change: Callable[[Tensor], Tensor]) -> None:
        """From now on the engines' actions float32 [1, H, D], normalised, are what ``change`` makes."""
        sound = self.fake.functions["action"]
        self.fake.functions["action"] = lambda **given: {"actions": change(sound(**given)["actions"].clone())}

    def request(self, engine: Path | None, **changes: Any) -> opening.Request:
        """As the policy node makes it for the SO-101."""
        request = opening.Request(
            self.checkpoint,
            self.processor,
            TAG,
            self.form.num_steps,
            engine=engine,
            limits=engine_limits(ROBOT),
            names=joint_names(ROBOT),
            tell=self.told.append,
        )
        return replace(request, **changes)

    def normalised(self, key: str, column: int, change: float) -> float:
        """A difference in a joint's dataset unit, normalised."""
        start = self.columns(key).start + column
        rows = np.zeros((1, self.form.config.action_horizon, self.form.config.max_action_dim), np.float32)
        ends = []
        for value in (-0.5, 0.5):
            rows[..., start] = value
            decoded = self.processor.decode(rows, self.processor.neutral_state(TAG), TAG)
            ends.append(float(decoded[key][0, 0, column]))
        return change / (ends[1] - ends[0])

    def columns(self, key: str) -> slice:
        """Where an action key lies in the network's rows."""
        start = 0
        for name, width in self.processor.action_widths(TAG).items():
            if name == key:
                return slice(start, start + width)
            start += width
        raise KeyError(key)


def shelf_for(monkeypatch: Any) -> Shelf:
    """A machine with a TensorRT and no engine yet, until the test ends."""
    checkpoint, processor, form = _network()
    functions: Mapping[str, Any] = module_functions(
        form, shapes_of(form.config, SIZES, text_tokens=TEXT_TOKENS)
    )
    shelf = Shelf(FakeTensorRT("10.3.0", "tensorrt", functions), checkpoint, processor, form)
    shelf.fake.install(monkeypatch)
    real = engines.TensorRTEngine

    def on_cpu(*arguments: Any, **options: Any) -> Any:
        shelf.opened += 1
        return real(*arguments, **{**options, "device": "cpu", "machine": shelf.machine})

    monkeypatch.setattr(engines, "TensorRTEngine", on_cpu)
    monkeypatch.setattr(opening, "find_device", lambda name: (torch.device("cuda", 0), "CUDA device A GPU"))
    return shelf


@functools.cache
def _network() -> tuple[Path, Gr00tProcessor, Deployed]:
    checkpoint = tiny_checkpoint()
    processor = Gr00tProcessor.from_pretrained(checkpoint)
    network = load_model(checkpoint, dtype=torch.float32).eval()
    return checkpoint, processor, deploy(network, processor.embodiment_id(TAG))


def _flat(made: dict[str, Any]) -> dict[str, Tensor]:
    pixels = {f"pixels_{k}": group for k, group in enumerate(made.pop("pixels", ()))}
    return {**pixels, **made}


def _axes(name: str, value: Tensor) -> list[int | str]:
    shape: list[int | str] = list(value.shape)
    if name in _TEXT_AXIS:
        shape[_TEXT_AXIS[name]] = "T"
    if name == "order":
        shape[0] = "L"
    return shape
