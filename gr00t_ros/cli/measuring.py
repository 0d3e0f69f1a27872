# SPDX-License-Identifier: Apache-2.0
"""What ``benchmark`` measures: chunks as the policy node computes them, and engines against the float32
network."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gr00t_model import Gr00tPolicy
from gr00t_model.inference import budget, devices
from gr00t_model.inference.backend import find_device
from gr00t_model.inference.engine import Engine
from gr00t_model.inference.observations import ObservationSet, synthetic
from gr00t_model.inference.opening import Request
from gr00t_model.inference.streamed import StreamedNetwork
from gr00t_model.inference.verification import MIN_COSINE, Comparison, compare, reference
from gr00t_model.noise import chunk_noise
from gr00t_ros.cli.subjects import Subject

# Chunks before the counted ones.
WARM_UP = 3
# Chunks whose stages are timed one by one.
STAGED = 20
SYNTHETIC_OBSERVATIONS = 8
PARTS = ("processing", "inference", "decoding")

Tell = Callable[[str], None]


class MeasuredPolicy(Gr00tPolicy):
    """The policy that the node uses, with its engine in reach."""

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        return self._engine


# ---- time ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Of one part of a chunk's time, milliseconds."""

    median_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Of these times."""
        return cls(1e3 * float(np.median(seconds)), 1e3 * float(np.percentile(seconds, 99)))


@dataclass(frozen=True)
class Timings:
    """Of ``repeats`` chunks, one after another, on synthetic camera images."""

    repeats: int
    parts: Mapping[str, Spread]
    """processing, inference, decoding and total"""
    stages: Mapping[str, float]
    """median milliseconds of the engine's stages, each waited for, so that their sum is more than a chunk"""
    floor_ms: float | None
    """the least time in which the device's memory delivers the weights; None where it is not known"""
    floor_device: str | None
    images: tuple[tuple[int, int], ...]
    """height and width of the images as the network sees them"""
    text_tokens: int

    @property
    def floor_share(self) -> float | None:
        """Floor over what inference took; 1 is the floor."""
        return None if self.floor_ms is None else self.floor_ms / self.parts["inference"].median_ms


def observation(policy: Gr00tPolicy, instruction: str, size: tuple[int, int]) -> dict[str, Any]:
    """An observation in the policy's form: noise for pictures, joints at rest."""
    rng = np.random.default_rng(0)
    frames, language = len(policy.modality["video"].delta_indices), policy.modality["language"]
    return {
        "video": {
            key: rng.integers(0, 256, (1, frames, *size, 3), np.uint8)
            for key in policy.modality["video"].modality_keys
        },
        "state": policy.processor.neutral_state(policy.embodiment_tag),
        "language": {key: [[instruction] * len(language.delta_indices)] for key in language.modality_keys},
    }


def measure(policy: MeasuredPolicy, instruction: str, size: tuple[int, int], repeats: int) -> Timings:
    """Time chunks as the node computes them: the same calls, and the engine's catching up between two.

    Raises:
        Gr00tError: an observation cannot be processed, or the actions cannot be decoded.
    """
    given = observation(policy, instruction, size)
    inputs = policy.processor.encode(given, policy.embodiment_tag, pixels="uint8")
    times: dict[str, list[float]] = {name: [] for name in PARTS}
    for number in tqdm(range(-WARM_UP, repeats), "chunks", leave=False, disable=not sys.stderr.isatty()):
        _, info = policy.get_action(given, t_obs_ns=number + WARM_UP)
        policy.catch_up()
        if number >= 0:
            for name in PARTS:
                times[name].append(info["timing"][f"{name}_s"])
    totals = [sum(parts) for parts in zip(*times.values(), strict=True)]
    images = tuple((int(image.shape[-2]), int(image.shape[-1])) for image in inputs["pixel_values"])
    tokens = int((inputs["input_ids"] != policy.processor.image_token_id).sum())
    floor, device = _floor(policy, images, tokens, int(inputs["state"].shape[1]))
    return Timings(
        repeats,
        {name: Spread.of(own) for name, own in {**times, "total": totals}.items()},
        _stages(policy, inputs, min(repeats, STAGED)),
        floor,
        device,
        images,
        tokens,
    )


def _stages(policy: MeasuredPolicy, inputs: Mapping[str, Any], repeats: int) -> dict[str, float]:
    measured = getattr(policy.engine, "stages", None)
    if measured is None:
        return {}
    noise = chunk_noise(0, 0, policy.config.action_horizon, policy.config.max_action_dim)
    found = [measured(inputs, noise) for _ in range(1 + repeats)][1:]
    return {name: 1e3 * float(np.median([one[name] for one in found])) for name in found[0]}


def _floor(
    policy: Gr00tPolicy, images: tuple[tuple[int, int], ...], tokens: int, state_tokens: int
) -> tuple[float | None, str | None]:
    device = policy.choice.device
    if device.type != "cuda":
        return None, None
    properties = torch.cuda.get_device_properties(device)
    known = devices.recognise(properties.name, properties.total_memory)
    if known is None:
        return None, None
    work = budget.Workload(images, tokens, policy.config.action_horizon, policy.num_steps, state_tokens)
    return budget.floor_ms(
        policy.config, work, known.bandwidth, precision=policy.choice.precision
    ), known.name


# ---- memory --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes in use at one moment."""

    process: int | None
    """resident, of this process"""
    process_peak: int | None
    device: int | None
    """of the CUDA device, by all programs; TensorRT's own is in no other count"""

    @classmethod
    def now(cls, device: torch.device) -> Memory:
        """On this machine."""
        used = None
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            used = total - free
        return cls(_status("VmRSS"), _status("VmHWM"), used)


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


# ---- accuracy ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeyResult:
    """One action key against the float32 network."""

    key: str
    cosine: float
    joint: str
    """the one that is furthest off, measured against its limit"""
    error: float
    limit: float


@dataclass(frozen=True)
class Verification:
    """An engine against the float32 network."""

    backend: str
    precision: str
    source: str
    """where the observations are from"""
    observations: int
    passed: bool
    keys: tuple[KeyResult, ...]
    reasons: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    min_cosine: float = MIN_COSINE

    def to_mapping(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)

    def table(self) -> list[str]:
        """Lines for people."""
        lines = [
            f"{self.backend} in {self.precision} against the float32 network, {self.observations} "
            f"observations ({self.source})",
            f"  {'key':<20}{'cosine':>10}{'expected':>10}  {'worst joint':<24}{'error':>10}{'limit':>10}",
        ]
        for own in self.keys:
            worst = f"{own.joint:<24}{own.error:>10.3g}{own.limit:>10.3g}"
            lines.append(f"  {own.key:<20}{own.cosine:>10.6f}{self.min_cosine:>10g}  {worst}")
        lines += [f"  note: {remark}" for remark in self.remarks]
        lines.append("  passed" if self.passed else f"  FAILED: {'; '.join(self.reasons)}")
        return lines


def verify_pytorch(policy: MeasuredPolicy, subject: Subject, given: ObservationSet | None) -> Verification:
    """The policy's own engine; nothing is kept.

    Raises:
        CheckpointError, BackendError: the checkpoint cannot be read, or memory is too small for one layer.
    """
    engine = policy.engine
    with StreamedNetwork(policy.directory, engine.device) as network:
        observations = given or synthetic(
            subject.processor, subject.tag, policy.config, SYNTHETIC_OBSERVATIONS
        )
        with tqdm(desc="float32 network, layers", leave=False, disable=not sys.stderr.isatty()) as bar:

            def progress(done: int, layers: int, _: int) -> None:
                bar.total = layers
                bar.update(done - bar.n)

            references = reference(network, observations, policy.num_steps, progress=progress)
    accuracy = subject.accuracy
    found = compare(
        lambda one: engine.run(one.inputs, one.noise),
        references,
        observations,
        subject.processor,
        subject.tag,
        accuracy["limits"],
        names=accuracy["names"],
    )
    return _of_comparison(found, engine, observations.source)


def _of_comparison(found: Comparison, engine: Engine, source: str) -> Verification:
    keys = tuple(
        KeyResult(key, own.cosine, own.worst.joint, own.worst.error, own.worst.limit)
        for key, own in found.keys.items()
    )
    return Verification(
        engine.backend,
        engine.precision,
        source,
        found.observations,
        found.passed,
        keys,
        found.reasons,
        found.remarks,
    )


def verify_tensorrt(
    request: Request, subject: Subject, given: ObservationSet | None, tell: Tell
) -> Verification | None:
    """The engine that the policy would try, whatever an earlier verdict says; the new one is kept beside it.

    None where there is no engine to try, or where it cannot be opened and another backend may take its place:
    opening the policy then says why.

    Raises:
        BackendError: backend tensorrt was asked for, and the engine cannot be opened.
    """
    directory = request.engine_directory
    named = request.backend == "tensorrt" or request.engine is not None
    if request.backend == "pytorch" or directory is None or not (named or request.precision != "float32"):
        return None
    if find_device(request.device)[0].type != "cuda":
        return None
    try:
        return _verified_now(request, directory, subject, given, tell)
    except Exception:
        if request.backend == "tensorrt":
            raise
        return None
    finally:
        # The policy loads it again; two do not fit beside each other everywhere.
        gc.collect()
        torch.cuda.empty_cache()


def _verified_now(
    request: Request, directory: Path, subject: Subject, given: ObservationSet | None, tell: Tell
) -> Verification:
    from gr00t_model.inference.trt.engine import TensorRTEngine
    from gr00t_model.inference.trt.trust import OBSERVATIONS_FILE, verify

    device, _ = find_device(request.device)
    engine = TensorRTEngine(
        directory, request.directory, request.tag, request.embodiment_id, request.num_steps, device=device
    )
    verdict = verify(
        engine, request.processor, request.tag, **subject.accuracy, tell=tell, observations=given
    )
    measures = verdict.measures
    keys = tuple(
        KeyResult(key, measures.cosine[key], worst.joint, worst.error, worst.limit)
        for key, worst in measures.worst_joints.items()
    )
    beside = (directory / OBSERVATIONS_FILE).exists()
    source = given.source if given else "those kept beside the engine" if beside else "synthetic"
    failures = tuple(verdict.failures())
    return Verification(
        engine.backend, engine.precision, source, measures.observations, not failures, keys, failures
    )
