# SPDX-License-Identifier: Apache-2.0
"""The ways to compute a chunk that `inference.py` compares, all on one copy of the weights.

Weights are random unless a checkpoint is given, and inputs are random: nothing is downloaded, and a machine
without OpenCV or a tokenizer can run it. `inference.py` makes `gr00t_model` importable before this is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gr00t_model.checkpoint import load_model
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.inference.budget import Workload
from gr00t_model.inference.deployed import Deployed, deploy
from gr00t_model.inference.pytorch import PyTorchEngine
from gr00t_model.network import Gr00tN1d6
from gr00t_model.network import inputs as checks
from gr00t_model.network.eagle import Features
from gr00t_model.network.initial import is_embodiment, stream
from gr00t_model.pixels import pixels_to_float

EMBODIMENT, EMBODIMENT_TAG = 10, "new_embodiment"
"""What a robot of one's own has."""
IMAGE_SIZE = 252
"""Pixels of each side, what the processor makes of a camera image."""
PRESETS = {"tiny": "tiny", "small": "small", "full": "released"}
STAGES = ("upload", "backbone", "action", "download")


# ---- the network and what goes in ----------------------------------------------------------------


def random_network(preset: str, dtype: torch.dtype, device: torch.device) -> Gr00tN1d6:
    """A network of the preset's sizes, its weights drawn where they lie and in the type they have.

    The scales are those of `initial_value(..., exercised=True)`, so that signals keep their size and actions
    depend on every input; biases and norms are disturbed as well, as training would.
    """
    config: Gr00tN1d6Config = getattr(Gr00tN1d6Config, PRESETS[preset])()
    network = Gr00tN1d6.on_meta(config).to(dtype).to_empty(device=device).requires_grad_(False).eval()
    for name, parameter in network.named_parameters():
        generator = stream(0, name, str(device))
        fan_in = parameter.shape[-2] if is_embodiment(name) else parameter.shape[-1]
        parameter.normal_(std=0.02 if is_small(name, parameter) else fan_in**-0.5, generator=generator)
        if parameter.ndim == 1 and name.endswith("weight"):
            parameter.add_(1.0)  # a norm's
    return network


def is_small(name: str, parameter: Tensor) -> bool:
    """Whether a tensor starts as 0.02 * normal: tables and everything that is added."""
    tables = ("embed_tokens.weight", "lm_head.weight", "action_head.position_embedding.weight")
    return parameter.ndim == 1 or name.endswith((*tables, "mask_token", "probe", "bias", ".b"))


def stored_network(checkpoint: Path, dtype: torch.dtype, device: torch.device) -> Gr00tN1d6:
    return load_model(checkpoint, device=device, dtype=dtype).requires_grad_(False).eval()


def make_inputs(config: Gr00tN1d6Config, cameras: int) -> dict[str, Any]:
    """What ``Gr00tProcessor.encode(..., pixels="uint8")`` gives, from random words, images and joints."""
    generator = torch.Generator().manual_seed(0)
    text = Workload.typical(config, cameras).text_tokens
    image = torch.full(((IMAGE_SIZE // config.image_multiple) ** 2,), config.image_token_id)
    words = torch.randint(1000, 100_000, (text,), generator=generator)
    between = text // (cameras + 2)
    parts = list(words.split([between] * (cameras + 1) + [text - between * (cameras + 1)]))
    ids = torch.cat([part for pair in zip(parts, [image] * cameras, strict=False) for part in pair])
    ids = torch.cat([ids, *parts[cameras:]])[None]
    shape = (1, 3, IMAGE_SIZE, IMAGE_SIZE)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": [
            torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(cameras)
        ],
        "state": torch.randn(1, 1, config.max_state_dim, generator=generator),
        "embodiment_id": torch.tensor([EMBODIMENT]),
    }


def make_noise(config: Gr00tN1d6Config, horizon: int) -> np.ndarray:
    """float32 [1, horizon, D]: the first steps of the same noise at any horizon."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, config.action_horizon, config.max_action_dim)
    return torch.randn(shape, generator=generator)[:, :horizon].contiguous().numpy()


def weight_bytes(module: nn.Module) -> int:
    """Memory of a module's parameters, views of one storage counted once."""
    storages = [parameter.untyped_storage() for parameter in module.parameters()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


# ---- the modes -----------------------------------------------------------------------------------


class Mode(Protocol):
    """One way to compute a chunk from inputs on the CPU."""

    def prepare(self, inputs: Mapping[str, Any], noise: np.ndarray) -> None:
        """All that is slow and happens once for these shapes."""
        ...

    def run(self, inputs: Mapping[str, Any], noise: np.ndarray) -> np.ndarray:
        """Normalised actions, float32 [1, H, D]."""
        ...

    def stages(self, inputs: Mapping[str, Any], noise: np.ndarray) -> dict[str, float]:
        """Seconds of each stage of one chunk, the device synchronised between them; empty where a mode
        cannot tell them apart."""
        ...

    def held_bytes(self) -> int:
        """Of weights."""
        ...

    def remarks(self) -> dict[str, Any]:
        """What is to know about its times once it has run. Raises when it is not what its name says."""
        ...


class NetworkMode:
    """The readable form, as `Gr00tN1d6.get_action` computes it; with `compiled` a mode of torch.compile,
    vision and language are compiled as one and the velocity as another."""

    def __init__(self, network: Gr00tN1d6, compiled: str | None = None) -> None:
        self.network = network
        self.eagle: Callable[..., Tensor] = network.backbone.model
        self.velocity: Callable[..., Tensor] | None = None
        if compiled is not None:
            options: dict[str, Any] = {"dynamic": False, "mode": compiled}
            self.eagle = torch.compile(network.backbone.model, **options)
            self.velocity = torch.compile(network.action_head.velocity, **options)

    def prepare(self, inputs: Mapping[str, Any], noise: np.ndarray) -> None:
        self.run(inputs, noise)

    def run(self, inputs: Mapping[str, Any], noise: np.ndarray) -> np.ndarray:
        return self._chunk(inputs, noise, lambda stage: None)

    def stages(self, inputs: Mapping[str, Any], noise: np.ndarray) -> dict[str, float]:
        times, last = {}, [perf_counter()]

        def done(stage: str) -> None:
            if self.network.device.type == "cuda":
                torch.cuda.synchronize()
            last.append(perf_counter())
            times[stage] = last[-1] - last[-2]

        self._chunk(inputs, noise, done)
        return times

    @torch.no_grad()
    def _chunk(self, inputs: Mapping[str, Any], noise: np.ndarray, done: Callable[[str], None]) -> np.ndarray:
        network, head = self.network, self.network.action_head
        images = [pixels_to_float(image.to(network.device)) for image in inputs["pixel_values"]]
        prepared = checks.prepare({**inputs, "pixel_values": images}, network, training=False)
        start = checks.starting_noise(torch.from_numpy(noise), None, prepared, network)
        ids, mask = prepared["input_ids"], prepared["attention_mask"]
        done("upload")
        values = self.eagle(ids, mask, prepared["pixel_values"])
        # Fresh tensors: a compiled form may write its next result over this one.
        values = values.clone() if self.velocity is not None else values
        features = Features(values, ids == network.config.image_token_id, mask == 1)
        done("backbone")
        with self._compiled_velocity():
            actions = head.denoise(
                features,
                prepared["state"],
                prepared["embodiment_id"],
                start,
                network.config.num_inference_timesteps,
            )
        done("action")
        result = actions.float().cpu().numpy()
        done("download")
        return result

    @contextmanager
    def _compiled_velocity(self) -> Iterator[None]:
        if self.velocity is None:
            yield
            return
        head = self.network.action_head
        head.velocity = self.velocity  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            del head.velocity  # the method shows again

    def held_bytes(self) -> int:
        return weight_bytes(self.network)

    def remarks(self) -> dict[str, Any]:
        """The readable form makes the position table anew each chunk, on the CPU as the reference does."""
        embeddings = self.network.backbone.model.vision_model.vision_model.embeddings
        side = IMAGE_SIZE // embeddings.patch_size
        begun = perf_counter()
        embeddings.positions(side, side).cpu()
        return {"position_table_ms": 1e3 * (perf_counter() - begun)}


class EngineMode:
    """One of the engines that the policy uses."""

    def __init__(self, engine: Any, held: int, horizon: int, recorded: bool = False) -> None:
        """`held`: bytes of weights; `horizon`: the checkpoint's; `recorded`: it is to run from graphs."""
        self.engine, self._held, self._horizon, self._recorded = engine, held, horizon, recorded

    def prepare(self, inputs: Mapping[str, Any], noise: np.ndarray) -> None:
        self.engine.prepare(inputs)
        if noise.shape[1] < self._horizon:  # recorded once it has been asked for
            self.run(inputs, noise)
            self.engine.catch_up()

    def run(self, inputs: Mapping[str, Any], noise: np.ndarray) -> np.ndarray:
        result: np.ndarray = self.engine.run(inputs, noise)
        return result

    def stages(self, inputs: Mapping[str, Any], noise: np.ndarray) -> dict[str, float]:
        times: dict[str, float] = self.engine.stages(inputs, noise) if hasattr(self.engine, "stages") else {}
        return times

    def held_bytes(self) -> int:
        return self._held

    def remarks(self) -> dict[str, Any]:
        recordings = len(self.engine._programs)
        if self._recorded and not recordings:
            raise RuntimeError(f"no graph was recorded: {'; '.join(self.engine.notes)}")
        compiled = getattr(self.engine, "compile", None)
        return {"recordings": recordings, "layers_compiled": compiled == "on", "notes": self.engine.notes}


class Modes:
    """Makes the modes of one network, by name."""

    def __init__(
        self, network: Gr00tN1d6, network_compile: str, engine: Path | None, checkpoint: Path | None
    ) -> None:
        self.network, self._network_compile = network, network_compile
        self._engine, self._checkpoint = engine, checkpoint
        self._form: Deployed | None = None

    def make(self, name: str) -> Mode:
        """Raises whatever stands in the way."""
        if name == "network":
            return NetworkMode(self.network)
        if name == "network-compiled":
            return NetworkMode(self.network, self._network_compile)
        if name == "tensorrt":
            return self._tensorrt()
        options: dict[str, dict[str, Any]] = {
            "deployed": {"compile": "auto"},
            "deployed-eager": {"compile": "off", "graphs": False},
            "deployed-graph": {"compile": "off"},
            "deployed-compiled": {"compile": "on"},
        }
        return self._deployed(options[name])

    def _deployed(self, options: Mapping[str, Any]) -> Mode:
        if self._form is None:
            self._form = deploy(self.network, EMBODIMENT)
        form = self._form
        # Several engines at once, which no robot has: each gets modules of its own around the same weights.
        shared = {id(p): p for module in (form, self.network) for p in module.parameters()}
        engine = PyTorchEngine(copy.deepcopy(form, shared), **options)
        recorded = form.device.type == "cuda" and options.get("graphs", True)
        return EngineMode(engine, form.memory(), self.network.config.action_horizon, recorded)

    def _tensorrt(self) -> Mode:
        if self._engine is None:
            raise RuntimeError("no engine was given: --engine DIR, made by build_engine")
        from gr00t_model.inference.trt.engine import TensorRTEngine

        engine = TensorRTEngine(
            self._engine, self._checkpoint, EMBODIMENT_TAG, EMBODIMENT, None, device=self.network.device
        )
        held = sum(file.stat().st_size for file in self._engine.glob("*.engine"))
        return EngineMode(engine, held, self.network.config.action_horizon)


# ---- how right they are --------------------------------------------------------------------------


def reference(network: Gr00tN1d6, inputs: Mapping[str, Any], noise: np.ndarray) -> np.ndarray:
    """The readable form's actions in float32, whatever type its weights have."""
    with in_float32(network):
        return NetworkMode(network).run(inputs, noise)


@contextmanager
def in_float32(network: Gr00tN1d6) -> Iterator[None]:
    """Let the network compute in float32. Its layers are widened one at a time, while each computes, so that
    no second copy of the weights is needed; its own tensors come back in the end."""
    eagle, head = network.backbone.model, network.action_head
    vision, language = eagle.vision_model.vision_model, eagle.language_model.model
    layers = [*vision.encoder.layers, *language.layers, *head.model.transformer_blocks]
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    unused = ("lm_head", "vision_model.head")
    rest = [
        parameter
        for name, parameter in network.named_parameters()
        if id(parameter) not in inside and not any(part in name for part in unused)
    ]
    kept: dict[int, list[tuple[nn.Parameter, Tensor]]] = {}

    def widen(owner: object, parameters: Sequence[nn.Parameter]) -> None:
        kept[id(owner)] = [(parameter, parameter.data) for parameter in parameters]
        for parameter in parameters:
            parameter.data = parameter.data.float()

    def restore(owner: object) -> None:
        for parameter, data in kept.pop(id(owner), ()):
            parameter.data = data

    hooks = []
    try:
        for layer in layers:
            hooks.append(layer.register_forward_pre_hook(lambda own, _: widen(own, list(own.parameters()))))
            hooks.append(layer.register_forward_hook(lambda own, *_: restore(own)))
        widen(network, rest)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for owner in [*layers, network]:
            restore(owner)


def likeness(actions: np.ndarray, expected: np.ndarray, noise: np.ndarray) -> float:
    """Cosine of what two results add to the noise, over as many steps as the shorter one has."""
    steps = min(actions.shape[1], expected.shape[1])
    moved = [(part[:, :steps] - noise[:, :steps]).astype(np.float64).ravel() for part in (actions, expected)]
    return float(moved[0] @ moved[1] / (np.linalg.norm(moved[0]) * np.linalg.norm(moved[1])))
