# SPDX-License-Identifier: Apache-2.0
"""Action chunks on a time axis: what every group should be at a point in time.

The executor adds each accepted chunk and asks for the target at every period. No ROS types, no wall time, no
limits: those are the safety filter's. Steps that are already past are skipped, simply because nobody asks for
them; between two steps the target runs in a straight line. A newer chunk replaces the older from its start
on, or at once when its start has passed; the change of target that this can mean is bounded by the safety
filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk, ChunkGroup

Values = NDArray[np.float64]

# Steps of a committed plan at most: over twice the 50 steps of the released checkpoint, so more than any
# policy freezes; all 1024 that a chunk may hold would take longer to sample than a period of the executor.
MAX_PLAN_STEPS = 128

#: nothing has been added
EMPTY = "empty"
#: the plan starts later: hold
EARLY = "early"
#: follow ``values``
ACTIVE = "active"
#: the last step has passed: stop and hold
ENDED = "ended"


@dataclass(frozen=True)
class Sample:
    """The plan at one point in time. ``values`` and ``velocities`` are SI (velocities per second), float64
    [D] by group key, and empty unless ``status`` is ``active``: a caller cannot follow a plan that has ended.

    ``step`` is the place in ``chunk``, in steps with a fraction.
    """

    status: str
    values: Mapping[str, Values] = field(default_factory=dict)
    velocities: Mapping[str, Values] = field(default_factory=dict)
    step: float = 0.0
    chunk: Chunk | None = None


@dataclass(frozen=True)
class Plan:
    """The committed plan: step i of every group is due at ``start_ns + i * step_ns``; values float64 [T, D],
    SI."""

    start_ns: int
    step_ns: int
    groups: tuple[ChunkGroup, ...]


class Timeline:
    """At most ``max_chunks`` chunks: the one that is followed and those that start later.

    ``add`` and ``clear`` may run on another thread than ``sample`` and ``plan``: the chunks are an immutable
    tuple that is exchanged in one step.
    """

    def __init__(self, max_chunks: int = 4) -> None:
        if max_chunks < 1:
            raise ValueError(f"max_chunks is {max_chunks}, expected at least 1")
        self._max_chunks = max_chunks
        self._chunks: tuple[Chunk, ...] = ()  # by start; each newer than those before it

    def add(self, chunk: Chunk) -> None:
        """Add an accepted chunk (see ``check_chunk``), newer than all before. It replaces what starts after
        it."""
        chunks = [old for old in self._chunks if old.start_ns < chunk.start_ns] + [chunk]
        # Now is not before the new chunk's observation: a chunk whose successor had started by then is done
        # with.
        while len(chunks) > 1 and chunks[1].start_ns <= chunk.t_obs_ns:
            del chunks[0]
        # Too many that start later: the first of them are due first, the newest knows best.
        del chunks[self._max_chunks - 1 : -1]
        self._chunks = tuple(chunks)

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks = ()

    def sample(self, t_ns: int) -> Sample:
        """Target and velocity at ``t_ns``."""
        return _sample(self._chunks, t_ns)

    def plan(self, t_ns: int) -> Plan | None:
        """What is committed from ``t_ns`` on, on the time grid of the newest chunk; None when nothing is
        left.

        The first step is the last one due at or before ``t_ns`` where the plan covers that, so that the plan
        can be interpolated at ``t_ns`` itself. Where two chunks leave a gap, the plan begins after it. It has
        at most ``MAX_PLAN_STEPS`` steps.
        """
        chunks = self._chunks
        if not chunks or t_ns > chunks[-1].end_ns:
            return None
        newest = chunks[-1]
        first = (t_ns - newest.start_ns) // newest.step_ns
        begin, samples = first, []
        for i in range(first, newest.horizon):
            sample = _sample(chunks, newest.start_ns + i * newest.step_ns)
            if sample.status == ACTIVE:
                samples.append(sample)
            else:  # the newest chunk's own steps are always active, so something is left after the last gap
                begin, samples = i + 1, []
            if len(samples) == MAX_PLAN_STEPS:
                break
        groups = tuple(
            replace(group, values=np.stack([sample.values[group.key] for sample in samples]))
            for group in newest.groups
        )
        return Plan(newest.start_ns + begin * newest.step_ns, newest.step_ns, groups)


def _sample(chunks: tuple[Chunk, ...], t_ns: int) -> Sample:
    if not chunks:
        return Sample(EMPTY)
    chunk = _due(chunks, t_ns)
    if chunk is None:
        return Sample(EARLY)
    if t_ns > chunk.end_ns:
        starts_later = chunks[-1].start_ns > t_ns
        return Sample(EARLY if starts_later else ENDED, step=float(chunk.horizon - 1), chunk=chunk)
    place = (t_ns - chunk.start_ns) / chunk.step_ns
    values, velocities = {}, {}
    for group in chunk.groups:
        values[group.key], velocities[group.key] = _interpolate(group.values, place, chunk.step_ns)
    return Sample(ACTIVE, values, velocities, place, chunk)


def _due(chunks: tuple[Chunk, ...], t_ns: int) -> Chunk | None:
    """The newest chunk that has started."""
    for chunk in reversed(chunks):
        if chunk.start_ns <= t_ns:
            return chunk
    return None


def _interpolate(values: Values, place: float, step_ns: int) -> tuple[Values, Values]:
    """Value and velocity [D] at a place between two steps; on the last step the velocity is zero."""
    before = int(place)
    if before >= len(values) - 1:
        return values[-1].copy(), np.zeros(values.shape[1])
    rise = values[before + 1] - values[before]
    return values[before] + (place - before) * rise, rise * (1e9 / step_ns)
