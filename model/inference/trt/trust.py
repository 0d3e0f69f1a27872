# SPDX-License-Identifier: Apache-2.0
"""Whether an engine is trusted on this machine: compared once with the float32 network, the verdict kept.

The policy asks before it uses an engine, and ``benchmark --verify`` asks again. The float32 network is read
from the checkpoint layer by layer, so the comparison fits beside the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike

from gr00t_model.errors import BackendError
from gr00t_model.inference.engine import Engine
from gr00t_model.inference.observations import ObservationSet, size_before, synthetic
from gr00t_model.inference.streamed import StreamedNetwork
from gr00t_model.inference.trt.manifest import Manifest
from gr00t_model.inference.trt.verdict import VERDICT_FILE, JointError, Machine, Measures, Verdict
from gr00t_model.inference.verification import MIN_COSINE, Comparison, compare, reference
from gr00t_model.processing import Gr00tProcessor

# Observations that come with an engine, to verify it wherever it is used.
OBSERVATIONS_FILE = "observations.safetensors"
# Where no recording was given.
SYNTHETIC_OBSERVATIONS = 8

Tell = Callable[[str], None]


class BuiltEngine(Engine, Protocol):
    """An engine that was built from a checkpoint beforehand: ``TensorRTEngine``."""

    directory: Path
    """of the engine's files"""
    checkpoint: Path
    num_steps: int
    manifest: Manifest
    machine: Machine
    """this one"""


def ensure_verified(
    engine: BuiltEngine,
    processor: Gr00tProcessor,
    tag: str,
    limits: Mapping[str, ArrayLike] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    tell: Tell = lambda text: None,
) -> str:
    """Take the verdict on this engine and machine, or reach one now, which takes minutes.

    limits, names: as ``verification.compare`` takes them. A verdict that was reached with other limits is
    reached again.

    Returns:
        what the trust rests on, in words.

    Raises:
        BackendError: the engine did not pass, now or when it was verified here; the message says in what.
        CheckpointError: the checkpoint cannot be read.
    """
    verdict = stored_verdict(engine, limits, tell)
    if verdict is None:
        verdict = verify(engine, processor, tag, limits, names, tell)
    failures = verdict.failures()
    if failures:
        raise BackendError(f"{engine.directory}: {'; '.join(failures)}")
    return f"verified here on {verdict.measures.observations} observations"


def stored_verdict(
    engine: BuiltEngine, limits: Mapping[str, ArrayLike] | None, tell: Tell = lambda text: None
) -> Verdict | None:
    """The verdict that lies beside the engine, when it is about this engine on this machine and was reached
    with these limits; whether it passed or not."""
    try:
        verdict = Verdict.read(engine.directory)
    except BackendError as error:
        tell(f"no verdict to use: {error}")
        return None
    foreign = verdict.misfits(engine.manifest.digest, engine.machine)
    if verdict.measures.limits != _plain(limits):
        foreign.append("the verdict was reached with other limits")
    if foreign:
        tell(f"no verdict to use: {'; '.join(foreign)}")
        return None
    return verdict


def verify(
    engine: BuiltEngine,
    processor: Gr00tProcessor,
    tag: str,
    limits: Mapping[str, ArrayLike] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    tell: Tell = lambda text: None,
    observations: ObservationSet | None = None,
) -> Verdict:
    """Compare the engine with the float32 network and keep the verdict beside it.

    observations: None takes those that came with the engine, or makes synthetic ones where none did, with
        images of the sizes that the engine was built for.

    A verdict that cannot be written is told, and is as good for this run.

    Raises:
        CheckpointError, BackendError: the checkpoint cannot be read, or memory is too small for one layer of
            it beside the engine. What the engine itself does wrong is the verdict's to say.
        Gr00tError: the checkpoint's weights are damaged.
    """
    comparison = measure(engine, processor, tag, limits, names, tell, observations)
    tell(f"{engine.directory}: {comparison}")
    for remark in comparison.remarks:
        tell(remark)
    verdict = Verdict(
        engine.machine,
        engine.manifest.digest,
        _measures(comparison, limits),
        comparison.passed,
        comparison.reasons,
    )
    try:
        verdict.write(engine.directory)
    except BackendError as error:
        tell(f"the verdict is not kept: {error}; the engine will be verified again at the next start")
        # An older one could say otherwise; on a full disk it can be removed all the same.
        with contextlib.suppress(OSError):
            (engine.directory / VERDICT_FILE).unlink()
    return verdict


def measure(
    engine: BuiltEngine,
    processor: Gr00tProcessor,
    tag: str,
    limits: Mapping[str, ArrayLike] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    tell: Tell = lambda text: None,
    observations: ObservationSet | None = None,
) -> Comparison:
    """As `verify`, without keeping anything."""
    with StreamedNetwork(engine.checkpoint, engine.device) as network:
        given = _observations(engine, network, processor, tag) if observations is None else observations
        given.check_fit(processor, tag, network.config)
        tell(
            f"verifying {engine.directory} on {len(given)} observations ({given.source}) against the float32 "
            "network, whose layers are read one by one; this takes minutes, once"
        )
        references = reference(network, given, engine.num_steps, progress=_Narrator(tell))
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()
    return compare(
        lambda observation: engine.run(observation.inputs, observation.noise),
        references,
        given,
        processor,
        tag,
        limits,
        names=names,
    )


def _observations(
    engine: BuiltEngine, network: StreamedNetwork, processor: Gr00tProcessor, tag: str
) -> ObservationSet:
    path = engine.directory / OBSERVATIONS_FILE
    if path.exists():
        return ObservationSet.load(path)
    # The manifest counts the images of every frame.
    frames = len(processor.modality(tag)["video"].delta_indices)
    sizes = [
        size_before(processor, (height, width))
        for number, height, width in engine.manifest.shapes.images
        for _ in range(number // frames)
    ]
    return synthetic(processor, tag, network.config, SYNTHETIC_OBSERVATIONS, seed=0, image_sizes=sizes)


def _measures(comparison: Comparison, limits: Mapping[str, ArrayLike] | None) -> Measures:
    return Measures(
        observations=comparison.observations,
        cosine={key: measure.cosine for key, measure in comparison.keys.items()},
        cosine_limit=MIN_COSINE,
        worst_joints={
            key: JointError(measure.worst.joint, measure.worst.error, measure.worst.limit)
            for key, measure in comparison.keys.items()
        },
        limits=_plain(limits),
    )


def _plain(limits: Mapping[str, ArrayLike] | None) -> dict[str, tuple[float, ...]]:
    return {key: tuple(map(float, np.ravel(value))) for key, value in (limits or {}).items()}


class _Narrator:
    """Turns the progress of a streamed pass into a line every few seconds, with the time that is left."""

    PERIOD_S = 10.0

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._begun = self._told = perf_counter()

    def __call__(self, done: int, layers: int, bytes_read: int) -> None:
        now = perf_counter()
        if now - self._told >= self.PERIOD_S:
            self._told = now
            left = (now - self._begun) / done * (layers - done)
            self._tell(
                f"float32 network: layer {done} of {layers}, {bytes_read / 1e9:.1f} GB, {left:.0f} s left"
            )
