# SPDX-License-Identifier: Apache-2.0
"""A trajectory as its controller runs it: cubic Hermite curves between points; and how it comes to rest.

joint_trajectory_controller interpolates points with velocities that way, from where its reference stands when
a trajectory comes in. Between two points the acceleration of a cubic changes evenly, so its bounds are those
at the two ends; a constant acceleration is met exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# A point due sooner than this (s) is as good as past when it arrives.
MIN_DUE_S = 0.001


@dataclass(frozen=True)
class Sent:
    """A trajectory as its controller sees it, from where that stood when it came: times_s [P] from
    ``start_ns``, the first 0; positions and velocities [P, D]; at rest from the last point on."""

    start_ns: int
    times_s: Values
    positions: Values
    velocities: Values
    _spans: Values = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_spans", self.times_s[1:] - self.times_s[:-1])

    @property
    def end_ns(self) -> int:
        """When it comes to rest."""
        return self.start_ns + round(float(self.times_s[-1]) * 1e9)

    def at(self, now_ns: int) -> tuple[Values, Values, Values]:
        """Position, velocity and acceleration [D] at ``now_ns``."""
        at_s = (now_ns - self.start_ns) / 1e9
        place = int(self.times_s.searchsorted(at_s, side="right"))
        if place >= len(self.times_s):
            return self.positions[-1], np.zeros_like(self.positions[-1]), np.zeros_like(self.positions[-1])
        before = max(place - 1, 0)
        span = float(self._spans[before])
        u = max(at_s - float(self.times_s[before]), 0.0) / span
        p0, v0, v1 = self.positions[before], self.velocities[before], self.velocities[before + 1]
        rise = (self.positions[before + 1] - p0) / span
        # rise, v0 and v1 are velocities: the cubic and its derivatives in the Bezier-free form.
        bend, twist = 3.0 * rise - 2.0 * v0 - v1, v0 + v1 - 2.0 * rise
        position = p0 + (u * span) * (v0 + u * (bend + u * twist))
        velocity = v0 + u * (2.0 * bend + (3.0 * u) * twist)
        return position, velocity, (2.0 * bend + (6.0 * u) * twist) / span

    def along(self, times_s: Values) -> tuple[Values, Values]:
        """Positions and velocities [K, D] at ``times_s`` [K] from its start."""
        last = len(self.times_s) - 1
        before = np.clip(self.times_s.searchsorted(times_s, side="right") - 1, 0, last - 1)
        span = self._spans[before][:, None]
        u = np.clip((times_s - self.times_s[before])[:, None] / span, 0.0, 1.0)
        p0, v0, v1 = self.positions[before], self.velocities[before], self.velocities[before + 1]
        rise = (self.positions[before + 1] - p0) / span
        bend, twist = 3.0 * rise - 2.0 * v0 - v1, v0 + v1 - 2.0 * rise
        return p0 + u * span * (v0 + u * (bend + u * twist)), v0 + u * (2.0 * bend + 3.0 * u * twist)

    def ahead(self, now_ns: int, least_s: float) -> tuple[Values, Values, Values]:
        """The points that are still to come: positions, velocities [P, D] and due times [P] from now, the
        last one at rest and not sooner than ``least_s``."""
        due = self.times_s - (now_ns - self.start_ns) / 1e9
        coming = due >= MIN_DUE_S
        positions, velocities, due = self.positions[coming], self.velocities[coming], due[coming]
        if not len(due) or due[-1] < least_s - MIN_DUE_S:
            positions = np.vstack([positions, self.positions[-1:]])
            velocities = np.vstack([velocities, np.zeros_like(self.positions[-1:])])
            due = np.append(due, least_s)
        return positions, velocities, due


@dataclass(frozen=True)
class Brakes:
    """How joints come to rest: limits [D] and the ``spacing_s`` of points where they must brake unevenly."""

    low: Values
    high: Values
    acceleration: Values
    spacing_s: float

    def tail(
        self, positions: Values, velocities: Values, times_s: Values, end_s: float
    ) -> tuple[Values, Values, Values]:
        """A way [K, D] at ``times_s`` [K], the first 0, that is at rest at ``end_s``: positions, velocities
        and times, with points after the last one.

        A joint brakes evenly from the last point on, or from the last one from which its acceleration limit
        lets it: not before the second, because the way to that is what is executed until the next trajectory
        comes. One that is still too fast there brakes harder than its limit: that the trajectory is at rest
        at ``end_s`` wins. Where a position limit is nearer than an even braking needs, the joint brakes as
        hard as it may; it stands at the limit at the latest.
        """
        left = end_s - times_s
        first = min(1, len(times_s) - 1)
        fast = np.abs(velocities) > self.acceleration * left[:, None] * (1.0 + 1e-9)
        rest = positions[-1] + velocities[-1] * (left[-1] / 2.0)
        if not fast[first + 1 :].any() and self._inside(rest).all():
            return (
                np.concatenate([positions, rest[None]]),
                np.concatenate([velocities, np.zeros_like(rest)[None]]),
                np.append(times_s, end_s),
            )
        # Point of each joint at which it begins to brake.
        late = np.concatenate([fast[first + 1 :], np.ones_like(fast[:1])])
        begin = first + late.argmax(axis=0)
        column = np.arange(positions.shape[1])
        p, v, since = positions[begin, column], velocities[begin, column], times_s[begin]
        rest = p + v * (end_s - since) / 2.0
        even = self._inside(rest)
        more = max(1, int(np.ceil(left[-1] / self.spacing_s - 1e-6))) if not even.all() else 1
        times = np.append(times_s, times_s[-1] + left[-1] * np.arange(1, more + 1) / more)
        way, speed = np.empty((len(times), len(p))), np.empty((len(times), len(p)))
        way[: len(times_s)], speed[: len(times_s)] = positions, velocities
        for k in range(first + 1, len(times)):
            braking = begin < k
            over = times[k] - since
            lost = v * over / (end_s - since)
            at, moving = p + (v - lost / 2.0) * over, v - lost
            if not even.all():
                span = times[k] - times[k - 1]
                slower = np.copysign(
                    np.maximum(np.abs(speed[k - 1]) - self.acceleration * span, 0.0), speed[k - 1]
                )
                hard = way[k - 1] + (speed[k - 1] + slower) * (span / 2.0)
                at, moving = np.where(even, at, hard), np.where(even, moving, slower)
            if k < len(times_s):
                at, moving = np.where(braking, at, positions[k]), np.where(braking, moving, velocities[k])
            way[k] = np.minimum(np.maximum(at, self.low), self.high)
            speed[k] = np.where(way[k] == at, moving, 0.0)
        speed[-1] = 0.0
        return way, speed, times

    def _inside(self, positions: Values) -> NDArray[np.bool_]:
        return (positions >= self.low - 1e-9) & (positions <= self.high + 1e-9)
