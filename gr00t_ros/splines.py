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


class Brakes:
    """How joints come to rest ``end_s`` after now.

    ``low``, ``high`` and ``acceleration`` are limits [D]; ``times_s`` [K], the first 0, are the points at
    which a plan is followed, ``spacing_s`` the distance of points where a joint must brake unevenly.
    """

    def __init__(
        self,
        low: Values,
        high: Values,
        acceleration: Values,
        spacing_s: float,
        times_s: Values,
        end_s: float,
    ) -> None:
        self._low, self._high, self._acceleration = low, high, acceleration
        self._least, self._most = low - 1e-9, high + 1e-9
        self._spacing_s, self._end_s = spacing_s, end_s
        self._times_s, self._all_times_s = times_s, np.append(times_s, end_s)
        self._left_s = float(end_s - times_s[-1])
        # How fast a joint may be at a point to come to rest in time from there.
        self._fastest = self._fastest_at(times_s, end_s)
        self._zeros = np.zeros(len(low))

    def tail(self, positions: Values, velocities: Values) -> tuple[Values, Values, Values]:
        """The way [K, D] at ``times_s`` with what follows until it is at rest: positions, velocities, times.

        A joint brakes evenly from the last point on, or from the last one from which its acceleration limit
        lets it: not before the second, because the way to that is what is executed until the next trajectory
        comes. One that is still too fast there brakes harder than its limit: that the trajectory is at rest
        at ``end_s`` wins. Where a position limit is nearer than an even braking needs, the joint brakes as
        hard as it may; it stands at the limit at the latest.
        """
        rest = positions[-1] + velocities[-1] * (self._left_s / 2.0)
        if (
            np.count_nonzero(np.abs(velocities[2:]) > self._fastest[2:])
            or np.count_nonzero(rest < self._least)
            or np.count_nonzero(rest > self._most)
        ):
            return self._uneven(positions, velocities, self._times_s, self._end_s, self._fastest)
        count = len(self._times_s)
        way, speed = np.empty((count + 1, len(rest))), np.empty((count + 1, len(rest)))
        way[:count], way[count], speed[:count], speed[count] = positions, rest, velocities, self._zeros
        return way, speed, self._all_times_s

    def stop(self, position: Values, velocity: Values, within_s: float) -> tuple[Values, Values, Values]:
        """The same for joints that brake from now on, to be at rest ``within_s``."""
        now = np.zeros(1)
        fastest = self._fastest_at(now, within_s)
        return self._uneven(position[None], velocity[None], now, within_s, fastest)

    def _fastest_at(self, times_s: Values, end_s: float) -> Values:
        return self._acceleration * (end_s - times_s)[:, None] * (1.0 + 1e-9)

    def _uneven(
        self, positions: Values, velocities: Values, times_s: Values, end_s: float, fastest: Values
    ) -> tuple[Values, Values, Values]:
        first = min(1, len(times_s) - 1)
        # Point of each joint at which it begins to brake: the last one before it is too fast for that.
        late = np.concatenate(
            [np.abs(velocities[first + 1 :]) > fastest[first + 1 :], np.ones((1, len(self._low)), bool)]
        )
        begin = first + late.argmax(axis=0)
        column = np.arange(len(self._low))
        p, v, since = positions[begin, column], velocities[begin, column], times_s[begin]
        rest = p + v * (end_s - since) / 2.0
        even = (rest >= self._least) & (rest <= self._most)
        left = end_s - float(times_s[-1])
        more = 1 if even.all() else max(1, int(np.ceil(left / self._spacing_s - 1e-6)))
        times = np.append(times_s, times_s[-1] + left * np.arange(1, more + 1) / more)
        way, speed = np.empty((len(times), len(p))), np.empty((len(times), len(p)))
        way[: len(times_s)], speed[: len(times_s)] = positions, velocities
        for k in range(first + 1, len(times)):
            over = times[k] - since
            lost = v * over / (end_s - since)
            at, moving = p + (v - lost / 2.0) * over, v - lost
            if more > 1:
                span, before = times[k] - times[k - 1], speed[k - 1]
                slower = np.copysign(np.maximum(np.abs(before) - self._acceleration * span, 0.0), before)
                hard = way[k - 1] + (before + slower) * (span / 2.0)
                at, moving = np.where(even, at, hard), np.where(even, moving, slower)
            if k < len(times_s):
                at = np.where(begin < k, at, positions[k])
                moving = np.where(begin < k, moving, velocities[k])
            way[k] = np.minimum(np.maximum(at, self._low), self._high)
            speed[k] = np.where(way[k] == at, moving, 0.0)
        speed[-1] = 0.0
        return way, speed, times
