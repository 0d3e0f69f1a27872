# SPDX-License-Identifier: Apache-2.0
"""Which layers compute in 8 or 4 bits, and with which scales, found on recorded observations.

modelopt measures the largest activations and weights of a copy of the deployed form (the weights are shared)
and imitates the 8-bit arithmetic; NVFP4 is imitated in nvfp4.py with the same measurements, because
modelopt's needs CUDA. Everything is quantised first; where the error is too large, groups of
layers go back to the form's own type one after another, the one that does most harm first, and of the last
one only as many layers as it takes. What remains is a `Recipe`: `qdq.py` writes it into the exported graph.

Norms, softmax, embeddings, the patch embedding, the Euler sum and the last layer of the action decoder are
never quantised.
"""

import copy
import logging
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gr00t_model.errors import BackendError
from gr00t_model.inference.deployed import Deployed
from gr00t_model.inference.layout import lay_out
from gr00t_model.inference.observations import EncodedObservation
from gr00t_model.inference.trt import nvfp4
from gr00t_model.pixels import pixels_to_float

PRECISIONS = ("bf16", "fp8", "int8", "nvfp4")
CALIBRATED = ("fp8", "int8", "nvfp4")
"""Those that need recorded observations."""
# Compute capabilities: FP8 tensor cores came with Ada (8.9), NVFP4 with Blackwell (10.0); Orin is 8.7.
SMALLEST_TARGET = {"fp8": 89, "nvfp4": 100, "int8": 72, "bf16": 80}
MAX_ERROR = 1e-3
"""1 - cosine of (action - noise): the limit that verification applies per action key."""
# More observations make the search longer, hardly better.
SEARCH_OBSERVATIONS = 4

_LAYERS = {
    "vision_qkv": r"vision\.layers\.\d+\.qkv",
    "vision_out": r"vision\.layers\.\d+\.out",
    "vision_mlp": r"vision\.layers\.\d+\.fc[12]",
    "projector": r"vision\.project[12]",
    "language_attention": r"language\.layers\.\d+\.(qkv|out)",
    "language_mlp": r"language\.layers\.\d+\.(gate_up|down)",
    "action_feed_forward": r"head\.blocks\.\d+\.fc[12]",
    "action_encoders": r"head\.(state[12]|encode[12]|decode1)",
    "action_context": r"head\.(text|image)_context\.project",
}
_ACTION_ATTENTION = re.compile(r"head\.blocks\.(\d+)\.(project|out)")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LayerScale:
    """The largest values that a quantised layer has to represent."""

    activation: float
    weight: Tensor
    """float32, [] for all of it or (int8) [out] for each output"""


@dataclass
class Recipe:
    """What is quantised and how."""

    precision: str
    """fp8, int8 or nvfp4"""
    layers: dict[str, LayerScale]
    """by the layer's name in the deployed form; those that are not here keep their type"""
    groups: dict[str, str]
    """group of layers: its precision, or e.g. "fp8 (12 of 54 layers bf16)" """
    error: float = math.nan
    """1 - cosine of (action - noise) against the form as it was, with this recipe"""
    errors: dict[str, float] = field(default_factory=dict)
    """the same with one group alone quantised; empty where all together were good enough"""


def groups_of(form: Deployed) -> dict[str, list[str]]:
    """The layers that may be quantised, by group."""
    found: dict[str, list[str]] = {}
    for name, module in form.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        match = _ACTION_ATTENTION.fullmatch(name)
        if match is not None:
            group = "action_self_attention" if form.head.own[int(match[1])] else "action_cross_attention"
        else:
            group = next((g for g, pattern in _LAYERS.items() if re.fullmatch(pattern, name)), "")
        if group:
            found.setdefault(group, []).append(name)
    return found


def _groups_that_fit(form: Deployed, precision: str) -> dict[str, list[str]]:
    """The layers that this precision can compute, by group; none is empty."""
    if precision != "nvfp4":
        return groups_of(form)
    fitting = {
        group: [name for name in names if form.get_submodule(name).in_features % nvfp4.BLOCK == 0]
        for group, names in groups_of(form).items()
    }
    return {group: names for group, names in fitting.items() if names}


def check_target(precision: str, capability: int | None) -> None:
    """Refuse a precision that a GPU of this compute capability (89 for 8.9) does not compute in.

    Raises:
        BackendError: with what to use instead.
    """
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    if capability is not None and capability < SMALLEST_TARGET[precision]:
        smallest = SMALLEST_TARGET[precision]
        usable = [
            p for p in ("fp8", "int8") if precision in ("fp8", "nvfp4") and SMALLEST_TARGET[p] <= capability
        ]
        instead = usable[0] if usable else "a newer GPU"
        raise BackendError(
            f"precision {precision} needs compute capability {smallest // 10}.{smallest % 10} or later, the "
            f"target has {capability // 10}.{capability % 10}; use {instead}"
        )


def quantize(
    form: Deployed,
    precision: str,
    observations: Sequence[EncodedObservation],
    *,
    valid: tuple[int, int] | None = None,
    max_error: float = MAX_ERROR,
    progress: Progress = lambda text: None,
) -> Recipe:
    """A recipe for this form, which is not changed.

    Cost: two inferences for each observation, and where all layers together miss `max_error`, on
    `SEARCH_OBSERVATIONS` of them one for each group, one for each group that goes back, and about one for
    each layer of the last of those.

    Args:
        form: in the type that is not quantised, on any device; a GPU makes this quick.
        precision: fp8, int8 or nvfp4. Layers whose input does not divide into nvfp4's blocks keep their type.
        observations: what to calibrate on; recorded ones, for made-up ones have other activations.
        valid: real steps and valid dimensions of a chunk, the only ones that errors are taken over; None for
            all.
        max_error: the most 1 - cosine of (action - noise), over all observations.

    Raises:
        BackendError: no such precision, no observations, or modelopt is not installed.
    """
    if precision not in CALIBRATED:
        raise BackendError(
            f"precision {precision!r} is not quantised by calibration; expected {', '.join(CALIBRATED)}"
        )
    if not observations:
        raise BackendError(
            f"precision {precision} needs observations to calibrate on; give some, or use bf16"
        )
    progress(f"calibrating {precision} on {len(observations)} observations")
    with torch.inference_mode(), _Quiet():
        chunks = [_prepared(form, observation) for observation in observations]
        exact = [_moved(form, chunk, valid) for chunk in chunks]
        groups = _groups_that_fit(form, precision)
        clone = _imitation(form, precision, groups, chunks)
    search = _Search(clone, chunks[:SEARCH_OBSERVATIONS], exact[:SEARCH_OBSERVATIONS], valid)
    chosen = {name for names in groups.values() for name in names}
    whole = search.error(chosen)
    progress(f"all layers {precision}: 1 - cosine {whole:.2e}, allowed {max_error:.0e}")
    errors: dict[str, float] = {}
    if not whole <= max_error:
        chosen, errors = _turn_back(search, groups, max_error, progress)
    final = _Search(clone, chunks, exact, valid).error(chosen)
    every = groups_of(form)
    progress(f"{len(chosen)} of {sum(map(len, every.values()))} layers {precision}: 1 - cosine {final:.2e}")
    return Recipe(
        precision,
        {name: _scale(clone.get_submodule(name)) for name in sorted(chosen)},
        {group: _describe(names, chosen, precision) for group, names in every.items()},
        final,
        errors,
    )


def _turn_back(
    search: "_Search", groups: Mapping[str, list[str]], max_error: float, progress: Progress
) -> tuple[set[str], dict[str, float]]:
    """The layers to quantise, and the error of each group alone."""
    errors = {}
    for number, (group, names) in enumerate(groups.items(), 1):
        errors[group] = search.error(set(names))
        progress(f"group {number} of {len(groups)}, {group}: 1 - cosine {errors[group]:.2e}")
    chosen = {name for names in groups.values() for name in names}
    # What is not a number is the worst.
    for group in sorted(errors, key=lambda g: -math.inf if math.isnan(errors[g]) else -errors[g]):
        chosen -= set(groups[group])
        error = search.error(chosen) if chosen else 0.0
        progress(f"without {group}: 1 - cosine {error:.2e}")
        if error <= max_error:
            return chosen | _those_that_fit(search, groups[group], chosen, max_error, progress), errors
    return set(), errors


def _those_that_fit(
    search: "_Search", names: Sequence[str], chosen: set[str], max_error: float, progress: Progress
) -> set[str]:
    """Of the group that went back last, the layers that can stay after all, the least harmful first."""
    alone = {name: search.error({name}) for name in names}
    progress(f"{len(names)} layers measured one by one")
    order = sorted(names, key=lambda n: math.inf if math.isnan(alone[n]) else alone[n])
    low, high = 0, len(order)  # the first `low` fit; all of them did not
    while high - low > 1:
        middle = (low + high) // 2
        fits = search.error(chosen | set(order[:middle])) <= max_error
        low, high = (middle, high) if fits else (low, middle)
    return set(order[:low])


class _Search:
    """Errors of the imitation with some of its layers quantised."""

    def __init__(
        self,
        clone: Deployed,
        chunks: Sequence["_Chunk"],
        exact: Sequence[Tensor],
        valid: tuple[int, int] | None,
    ) -> None:
        self._clone, self._chunks, self._exact, self._valid = clone, chunks, exact, valid

    def error(self, names: set[str]) -> float:
        """1 - cosine of (action - noise), over all observations together, with these layers quantised."""
        for name, module in self._clone.named_modules():
            if hasattr(module, "input_quantizer"):
                for quantizer in (module.input_quantizer, module.weight_quantizer):
                    quantizer.enable() if name in names else quantizer.disable()
        with torch.inference_mode():
            found = torch.cat([_moved(self._clone, chunk, self._valid) for chunk in self._chunks])
        expected = torch.cat(list(self._exact))
        return 1 - float(found @ expected / (found.norm() * expected.norm()))


@dataclass(frozen=True)
class _Chunk:
    """An observation as the form takes it."""

    arguments: tuple[Any, ...]
    noise: Tensor


def _prepared(form: Deployed, observation: EncodedObservation) -> _Chunk:
    inputs, device = observation.inputs, form.device
    images = [pixels_to_float(image.to(device)).to(form.dtype) for image in inputs["pixel_values"]]
    layout = lay_out(inputs["input_ids"], inputs["attention_mask"], form.config.image_token_id).to(device)
    noise = torch.from_numpy(observation.noise).to(device)
    return _Chunk((images, layout, inputs["state"].to(device, form.dtype), noise), noise)


def _moved(form: Deployed, chunk: _Chunk, valid: tuple[int, int] | None) -> Tensor:
    """(action - noise) of one chunk, flat, float64 on the CPU."""
    moved = form(*chunk.arguments) - chunk.noise
    if valid is not None:
        moved = moved[:, : valid[0], : valid[1]]
    return moved.flatten().double().cpu()


def _imitation(
    form: Deployed, precision: str, groups: Mapping[str, list[str]], chunks: Sequence[_Chunk]
) -> Deployed:
    """A calibrated copy that computes as the engine will; weights are the form's own."""
    try:
        import modelopt.torch.quantization as mtq
    except ImportError as error:
        raise BackendError(
            f"precision {precision} needs modelopt: `pip install --no-deps nvidia-modelopt` and "
            f"requirements/modelopt.txt ({error})"
        ) from error
    kept = {id(tensor): tensor for tensor in (*form.parameters(), *form.buffers())}
    clone: Deployed = copy.deepcopy(form, dict(kept))
    # What is measured for FP8 is what NVFP4's global scales come from.
    bits: Any = 8 if precision == "int8" else (4, 3)
    outputs = 0 if precision == "int8" else None  # the axis of a weight that has a scale for each of its rows
    kinds = {"weight": {"num_bits": bits, "axis": outputs}, "input": {"num_bits": bits, "axis": None}}
    patterns: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    names = [name for group in groups.values() for name in group]
    for name in names:
        for kind, settings in kinds.items():
            patterns.append({"quantizer_name": f"{name}.{kind}_quantizer", "cfg": settings})

    def run(module: nn.Module) -> None:
        for chunk in chunks:
            module(*chunk.arguments)

    mtq.quantize(clone, {"quant_cfg": patterns, "algorithm": "max"}, run)
    for layer in map(clone.get_submodule, names if precision == "nvfp4" else ()):
        layer.input_quantizer = nvfp4.Imitation(layer.input_quantizer.amax)
        layer.weight_quantizer = nvfp4.Imitation(layer.weight_quantizer.amax)
    return clone


def _scale(layer: nn.Module) -> LayerScale:
    """What was measured at a layer of the imitation."""
    weight = layer.weight_quantizer.amax.detach().float().cpu()
    return LayerScale(
        float(layer.input_quantizer.amax), weight.reshape(()) if weight.numel() == 1 else weight.flatten()
    )


def _describe(names: Sequence[str], chosen: set[str], precision: str) -> str:
    back = sum(name not in chosen for name in names)
    if back == len(names):
        return "bf16"
    return precision if not back else f"{precision} ({back} of {len(names)} layers bf16)"


class _Quiet(warnings.catch_warnings):
    """Without modelopt's remarks on other packages' versions."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("modelopt").setLevel(logging.ERROR)
        return entered
