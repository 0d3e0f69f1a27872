# SPDX-License-Identifier: Apache-2.0
"""The limits of some joints as arrays, and how far a motion may go inside them: the arithmetic of ``safety``.

Two kinds of step. ``step_within`` is for a position that is sent once a period and stands: its velocity is
the way of one period. ``lead`` is for the points of a trajectory, between which a controller runs a cubic:
there a point has a velocity of its own, and every limit is kept by the curve, not only by its points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.robot_types import JointLimits

Values = NDArray[np.float64]

# Changes smaller than this (rad, m) are rounding, not clipping; the same share of a limit is.
TOLERANCE = 1e-9


class GroupLimits:
    """The limits of some joints as arrays [D]; what a joint does not have is infinite."""

    def __init__(self, limits: Sequence[JointLimits]) -> None:
        self.low = np.array([limit.min for limit in limits])
        self.high = np.array([limit.max for limit in limits])
        self.velocity = np.array([limit.velocity for limit in limits])
        self.acceleration = np.array([np.inf if x.acceleration is None else x.acceleration for x in limits])
        self.jerk = np.array([np.inf if x.jerk is None else x.jerk for x in limits])
        self.tracking = np.array([limit.max_tracking_error for limit in limits])
        self._jerk = np.minimum(self.jerk, 1e12)  # a number to count with
        # Periods that speed and acceleration may take to settle where a jerk limit lets neither jump.
        self._patience = np.where(np.isfinite(self.jerk), 3.0, 1.0)
        self.has_jerk = bool(np.isfinite(self.jerk).any())
        # What ``keeps`` compares with, rounding allowed.
        self._low, self._high = self.low - TOLERANCE, self.high + TOLERANCE
        self._velocity = self.velocity * (1.0 + TOLERANCE)
        self._acceleration = self.acceleration * (1.0 + 1e-6) + 1e-6
        self.brake = 0.5 / self.acceleration
        columns = (
            self.low,
            self.high,
            self._velocity,
            self.acceleration,
            self.brake,
            self.jerk,
            self.tracking,
        )
        self._plain = list(zip(*(column.tolist() for column in columns), strict=True))

    def keeps(
        self,
        positions: Values,
        velocities: Values,
        spacing_s: float,
        period_s: float,
        acceleration: Values,
        measured: Values,
    ) -> bool:
        """Whether cubics through points [K, D] ``spacing_s`` apart keep all limits, and each joint could stop
        before its position limit after every one. The first point is where the joints are, at
        ``acceleration`` [D], which the jerk limit lets change for ``period_s``."""
        after, speed = positions[1:], velocities[1:]
        before = velocities[:-1]
        rise = (after - positions[:-1]) / spacing_s
        # Accelerations at both ends of each cubic, times the spacing; between them it changes evenly.
        begin = 6.0 * rise - 4.0 * before - 2.0 * speed
        end = 2.0 * before + 4.0 * speed - 6.0 * rise
        if np.count_nonzero(np.maximum(np.abs(begin), np.abs(end)) > self._acceleration * spacing_s):
            return False
        fastest = np.maximum(np.abs(speed), np.abs(1.5 * rise - 0.25 * (before + speed)))
        if np.count_nonzero(fastest > self._velocity):
            return False
        # Where it would stand after the point, and the Bezier point before it.
        reach = after + speed * (np.abs(speed) * self.brake + 0.5 * spacing_s)
        back = after - speed * (spacing_s / 3.0)
        if np.count_nonzero(np.maximum(reach, back) > self._high):
            return False
        if np.count_nonzero(np.minimum(reach, back) < self._low):
            return False
        if np.count_nonzero(np.abs(after - measured) > self.tracking):
            return False
        if not self.has_jerk:
            return True
        # A step of the acceleration where the cubic begins, and its change along it: half for each.
        most = 0.5 * self.jerk * (1.0 + 1e-6) + 1e-6
        sudden = np.abs(begin[0] / spacing_s - acceleration) > most * period_s
        return not (sudden.any() or (np.abs(end - begin) > most * spacing_s * spacing_s).any())

    def passes(
        self,
        target: Values,
        target_velocity: Values,
        previous: Values,
        velocity: Values,
        acceleration: Values,
        measured: Values,
        dt: float,
    ) -> bool:
        """Whether a position [D] may be sent as it is, ``dt`` after ``previous`` was, which was reached at
        ``velocity`` and ``acceleration``, and towards a target that moves on at ``target_velocity``. Joint by
        joint in plain numbers, which for a few joints is faster than arrays; what is not finite does not
        pass."""
        for x, w, p, v, a, m, limits in zip(
            target.tolist(),
            target_velocity.tolist(),
            previous.tolist(),
            velocity.tolist(),
            acceleration.tolist(),
            measured.tolist(),
            self._plain,
            strict=True,
        ):
            low, high, fastest, most, brake, jerk, tracking = limits
            step = (x - p) / dt
            rest = x + step * (abs(step) * brake + dt)
            if not (
                low <= x <= high
                and low <= rest <= high
                and abs(x - m) <= tracking
                and abs(step) <= fastest
                and abs(step - v) <= most * dt + TOLERANCE
                and abs(step - w) <= most * dt + TOLERANCE
                and abs((step - v) / dt - a) <= jerk * dt + TOLERANCE
                and abs(step - w) <= jerk * dt * dt + TOLERANCE  # it can go on like the target
            ):
                return False
        return True

    def lead(
        self,
        start: Values,
        speed: Values,
        acceleration: Values,
        values: Values,
        velocities: Values,
        spacing_s: float,
        period_s: float,
    ) -> tuple[Values, Values, NDArray[np.bool_]]:
        """Points [K, D] ``spacing_s`` apart, the first at ``start``, that come as near to ``values`` and
        ``velocities`` [K, D] (inside the position limits) as all limits let them; and which of them are there
        exactly.

        A joint goes there at once where the cubic keeps the limits. Otherwise it moves with one acceleration
        from point to point, relative to the moving target never faster than it could stop within what is
        left, so that it arrives without overshoot; and never so fast that it could not stop before its
        position limit.
        """
        h, a = spacing_s, self.acceleration
        points, speeds = np.empty_like(values), np.empty_like(values)
        there = np.ones(values.shape, bool)
        points[0], speeds[0] = start, speed
        p, v, change = start, speed, self._jerk * period_s
        for k in range(1, len(values)):
            q, w = values[k], velocities[k]
            rise = (q - p) / h
            begin, end = 6.0 * rise - 4.0 * v - 2.0 * w, 2.0 * v + 4.0 * w - 6.0 * rise
            reach = q + w * (np.abs(w) * self.brake + 0.5 * h)
            exact = np.maximum(np.abs(begin), np.abs(end)) <= self._acceleration * h
            exact &= np.maximum(np.abs(w), np.abs(1.5 * rise - 0.25 * (v + w))) <= self._velocity
            exact &= (np.maximum(reach, q - w * (h / 3.0)) <= self._high) & (
                np.minimum(reach, q - w * (h / 3.0)) >= self._low
            )
            left = q - w * h - p - (v - w) * (0.5 * h)
            wish = w + np.copysign(self._approach(np.abs(left), h), left)
            if self.has_jerk:
                exact &= np.abs(begin / h - acceleration) <= 0.5 * change
                exact &= np.abs(end - begin) <= 0.5 * self.jerk * h * h
                wish = v + self._gain(wish - v, acceleration, change, h) * h
            wish = clip(wish, v - a * h, v + a * h)
            wish = clip(wish, -self.velocity, self.velocity)
            down = stopping_speed(np.maximum(p + v * (0.5 * h) - self.low, 0.0), a, 0.5 * h)
            up = stopping_speed(np.maximum(self.high - p - v * (0.5 * h), 0.0), a, 0.5 * h)
            wish = clip(wish, -down, up)
            led = clip(p + (v + wish) * (0.5 * h), self.low, self.high)
            if self.has_jerk:
                acceleration = np.where(exact, end / h, (wish - v) / h)
                change = self._jerk * h
            p, v = np.where(exact, q, led), np.where(exact, w, wish)
            points[k], speeds[k], there[k] = p, v, exact
        return points, speeds, there

    def step_within(
        self,
        target: Values,
        previous: Values,
        velocity: Values,
        target_velocity: Values,
        dt: float,
        acceleration: Values | None = None,
    ) -> Values:
        """The position after ``dt`` on the way to ``target``, with bounded change of velocity and room to
        brake; with ``acceleration``, that of the period before, also of acceleration.

        Relative to the moving target the joint may approach at ``stopping_speed`` of the distance left, so
        that it arrives without overshoot; the same bound towards the position limits holds absolutely. Both
        are recursively feasible: braking at the acceleration limit always keeps them (v*dt + v*v/2a <= d
        gives the same for the next period).
        """
        a = self.acceleration
        error = target - (previous + target_velocity * dt)
        wish = target_velocity + np.copysign(self._approach(np.abs(error), dt), error)
        if self.has_jerk and acceleration is not None:
            wish = velocity + self._gain(wish - velocity, acceleration, self._jerk * dt, dt) * dt
        wish = clip(wish, velocity - a * dt, velocity + a * dt)
        down = np.minimum(self.velocity, stopping_speed(previous - self.low, a, dt))
        up = np.minimum(self.velocity, stopping_speed(self.high - previous, a, dt))
        return previous + clip(wish, -down, up) * dt

    def _gain(self, missing: Values, acceleration: Values, change: Values, dt: float) -> Values:
        """The acceleration for ``dt`` towards a speed from which ``missing`` is away: one that can be back at
        0 when that is reached, and no further than ``change`` from ``acceleration``."""
        most = np.minimum(
            np.abs(missing) / (self._patience * dt), 0.8 * np.sqrt(2.0 * self._jerk * np.abs(missing))
        )
        return clip(np.copysign(most, missing), acceleration - change, acceleration + change)

    def _approach(self, distance: Values, dt: float) -> Values:
        """The highest speed towards a place ``distance`` away at which one may still arrive without
        overshoot."""
        speed = stopping_speed(distance, self.acceleration, dt)
        if not self.has_jerk:
            return speed
        # Braking that sets in and ends at the jerk limit takes v * sqrt(v / j); half of that to spare.
        slow = distance / (self._patience**2 * dt)
        return np.minimum(speed, np.minimum(slow, np.cbrt(self._jerk * (distance / 1.5) ** 2)))


def stopping_speed(distance: Values, acceleration: Values, dt: float) -> Values:
    """The highest speed v for one period dt after which braking still ends within ``distance``: v*dt + v*v/2a
    = d."""
    return 2.0 * distance / (np.sqrt(dt * dt + 2.0 * distance / acceleration) + dt)


def clip(values: Values, low: Values, high: Values) -> Values:
    """As np.clip, in a third of its time for arrays of a few joints; ``high`` wins."""
    return np.minimum(np.maximum(values, low), high)
