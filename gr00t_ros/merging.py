# SPDX-License-Identifier: Apache-2.0
"""What is followed while a newer chunk takes over from an older one.

Every chunk on the timeline is a :class:`Piece`. It rules from ``begin_ns`` on; until ``until_ns`` the target
goes over from what would have been followed without it, with weights w = s*s*s*(10 - 15*s + 6*s*s), s running
from 0 to 1. Position, velocity and acceleration of the target are therefore continuous, and its position is
always a mean of the two plans. What would have been followed without it may itself be such a hand-over: a
third chunk inside the window begins at the target as it is.

What a piece hands over to is its chunk (``replace``, which takes no time, and ``blend``) or the mean of the
newest chunks (``ensemble``): temporal ensembling after Zhao et al. (2023, "Learning Fine-Grained Bimanual
Manipulation with Low-Cost Hardware", section IV-B), with weights exp(-decay * i), i counting in steps of the
plan how much newer a chunk's observation is than the oldest one's. With a positive decay the oldest counts
most, as there. A chunk's share goes back to 0 before it ends, as smoothly as a hand-over, so that no chunk's
end is a jump.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk
from gr00t_ros.interpolation import Curve
from gr00t_ros.turning import brought_back

Values = NDArray[np.float64]
Times = NDArray[np.int64]

# The smallest share that an ensemble gives: weights stay finite whatever the decay, and the newest chunk is
# there to take over when the older ones have ended.
LEAST_WEIGHT = 1e-9

# Which groups and joints a chunk's columns are: two chunks can be mixed only where it is the same.
Layout = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Member:
    """An older chunk in an ensemble, and its weight before it fades."""

    chunk: Chunk
    curve: Curve
    weight: float


@dataclass(frozen=True)
class Piece:
    """One chunk's part of the timeline, from ``begin_ns`` on; the hand-over to it is over at ``until_ns``.

    It ends at ``end_ns``: with its chunk, or with the hand-over where the chunk is shorter than that.
    ``members`` are the older chunks of its ensemble, oldest first, ``weight`` is its own chunk's; before a
    member's end its weight goes to 0 over ``fade_ns``. Where nothing takes over, it is slowed down from
    ``ending_ns`` before its end on.
    """

    chunk: Chunk
    curve: Curve
    layout: Layout
    begin_ns: int
    until_ns: int
    end_ns: int
    members: tuple[Member, ...] = ()
    weight: float = 1.0
    fade_ns: int = 0
    ending_ns: int = 0

    def at(self, times: Times, known: dict[Curve, tuple[Values, Values]]) -> tuple[Values, Values]:
        """Positions and velocities [K, D] of what it hands over to. ``known`` holds what curves have given
        for these times: pieces share them."""
        curves = [*(member.curve for member in self.members), self.curve]
        for curve in curves:
            if curve not in known:
                known[curve] = curve.at(times)
        if not self.members:
            return known[self.curve]
        # mean = sum(w*p) / sum(w); its derivative is sum(w*v + w'*(p - mean)) / sum(w).
        positions, velocities = (
            np.stack(side) for side in zip(*[known[curve] for curve in curves], strict=True)
        )
        weights, changes = np.full(positions.shape[:2], self.weight), np.zeros(positions.shape[:2])
        # None outlasts the newest chunk, whose last step is where this plan ends.
        ends = np.array([min(member.chunk.end_ns, self.chunk.end_ns) for member in self.members])
        share, change = smooth_step((ends[:, None] - times) / self.fade_ns)
        weight = np.array([[member.weight] for member in self.members])
        weights[:-1], changes[:-1] = weight * share, weight * change * (-1e9 / self.fade_ns)
        total = weights.sum(axis=0)
        weights, changes = (weights / total)[..., None], (changes / total)[..., None]
        mean = (weights * positions).sum(axis=0)
        return mean, (weights * velocities + changes * (positions - mean)).sum(axis=0)


def ensemble(
    chunk: Chunk, before: Piece, begin_ns: int, decay: float, limit: int
) -> tuple[tuple[Member, ...], float]:
    """The members that join ``chunk`` from ``begin_ns`` on, and its own weight: those of ``before`` that have
    not ended by then, ``limit`` at most, the newest."""
    older = [(member.chunk, member.curve) for member in before.members] + [(before.chunk, before.curve)]
    older = [(old, curve) for old, curve in older if old.end_ns > begin_ns][-limit:]
    stamps = [old.t_obs_ns for old, _ in older] + [chunk.t_obs_ns]
    exponents = [-decay * (stamp - min(stamps)) / chunk.step_ns for stamp in stamps]
    weights = [max(math.exp(x - max(exponents)), LEAST_WEIGHT) for x in exponents]
    members = tuple(Member(old, curve, weight) for (old, curve), weight in zip(older, weights, strict=False))
    return members, weights[-1]


def follow(pieces: Sequence[Piece], rules: int, times: Times) -> tuple[Values, Values]:
    """Positions and velocities [K, D] at ``times``, at all of which ``pieces[rules]`` is the last that has
    begun."""
    # Nothing before a piece counts once all of these times are past its hand-over, or where it has none.
    first, earliest = rules, int(times[0])
    while first > 0 and pieces[first].until_ns > max(earliest, pieces[first].begin_ns):
        first -= 1
    known: dict[Curve, tuple[Values, Values]] = {}
    position, velocity = pieces[first].at(times, known)
    for piece in pieces[first + 1 : rules + 1]:
        window_ns = piece.until_ns - piece.begin_ns
        weight, change = smooth_step((times - piece.begin_ns) / window_ns)
        weight, change = weight[:, None], change[:, None] * (1e9 / window_ns)
        new_position, new_velocity = piece.at(times, known)
        apart = new_position - position
        velocity = velocity + weight * (new_velocity - velocity) + change * apart
        position = position + weight * apart
    for columns in pieces[rules].curve.rotations:
        newest = known[pieces[rules].curve]
        position[:, columns], velocity[:, columns] = brought_back(
            position[:, columns], velocity[:, columns], (newest[0][:, columns], newest[1][:, columns])
        )
    return position, velocity


def smooth_step(s: Values) -> tuple[Values, Values]:
    """0 to 1 while s goes from 0 to 1, and its derivative; both first derivatives are 0 at both ends."""
    s = np.minimum(np.maximum(s, 0.0), 1.0)
    rest = s * (1.0 - s)
    return s * s * s * (10.0 + s * (6.0 * s - 15.0)), 30.0 * rest * rest
