# SPDX-License-Identifier: Apache-2.0
"""A chunk's steps as a curve in time: position, and the velocity that is its derivative.

``linear`` joins the steps by straight lines; the velocity jumps at every step. ``cubic`` and ``quintic`` are
Hermite polynomials with the same velocity, and for ``quintic`` the same acceleration, on both sides of every
step. The velocities at the steps are fourth-order differences, limited as by Huynh (1993, "Accurate monotone
cubic interpolation", SIAM J. Numer. Anal. 30): the curve stays between two neighbouring steps, except where
the steps around them bend smoothly to one side; there it may pass the outer one as the parabola through them
does, by at most a fifth of the second difference. (A strictly monotone curve would stand still at every
turning step, and its jerk there is many times that of the motion.) Where the joint's limits are given, a
curve never leaves them as long as the steps do not, turns included: the Bezier points of every piece lie
inside.

The curve begins and ends with the velocity that its steps imply, because most chunks are joined, and left for
the next one, while the robot moves. From the last step on it stands: bringing the robot to rest there inside
its limits is ``motion``'s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.robot_types import CUBIC, INTERPOLATIONS, LINEAR, QUINTIC
from gr00t_ros.turning import rolled, unrolled

Values = NDArray[np.float64]

# A step's velocity, in units of the smaller of the two slopes beside it, up to which a cubic (3) and a
# quintic (2.5) stay between the steps.
SLOPE_RATIO = 2.5
# Huynh's allowance for a smooth turn: up to 1.5 times the velocity that the parabola through the steps has.
TURN_RATIO = 1.5
# How far the Bezier points may lie beyond the two steps of a smooth turn, in units of the second difference
# common to both. The parabola's own top is at 1/8; what TURN_RATIO admits needs no more than this.
TURN_ROOM = 0.3

_EXPONENTS = np.arange(6.0)


class Curve:
    """``values`` [T, D] (any unit), step i due at ``start_ns + i * step_ns``. Immutable.

    ``low`` and ``high`` [D] are limits that the curve keeps where the steps keep them. ``rotations`` are the
    columns that are quaternions, each next to the one before; how they run is ``turning``'s. The polynomials
    are made when they are first asked for: of a flood of chunks most are never followed. Two threads that ask
    at once make the same.
    """

    __slots__ = ("_last", "_make", "_powers", "_rates", "_start_ns", "_step_ns", "_values", "rotations")

    def __init__(
        self,
        values: Values,
        start_ns: int,
        step_ns: int,
        interpolation: str = CUBIC,
        low: Values | float = -np.inf,
        high: Values | float = np.inf,
        rotations: tuple[slice, ...] = (),
    ) -> None:
        self.rotations, self._values = rotations, values
        self._start_ns, self._step_ns = start_ns, step_ns
        self._rates = _EXPONENTS[1:] * (1e9 / step_ns)
        self._last = len(values) - 1
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation is {interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}"
            )
        self._make: Callable[[], Values] = lambda: _powers(self._unrolled(), interpolation, low, high)
        self._powers: Values | None = None  # [T, N, D]

    def at(self, times_ns: NDArray[np.int64]) -> tuple[Values, Values]:
        """Positions and velocities per second [K, D] at K times; from the last step on, that step at rest.
        The curve begins with the first step: an earlier time counts as that."""
        places = np.minimum(np.maximum((times_ns - self._start_ns) / self._step_ns, 0.0), self._last)
        before = places.astype(np.intp)
        powers = self._powers
        if powers is None:
            powers = self._powers = np.ascontiguousarray(self._make().transpose(1, 0, 2))
        order = powers.shape[1]
        basis = np.zeros((len(places), 2, order))
        basis[:, 0] = (places - before)[:, None] ** _EXPONENTS[:order]
        basis[:, 1, 1:] = basis[:, 0, :-1] * self._rates[: order - 1]
        both = basis @ powers.take(before, axis=0)
        position, velocity = both[:, 0], both[:, 1]
        for columns in self.rotations:
            along, part = slice(columns.start, columns.start + 3), powers[:, 0]
            steps, following = part[before, along], part[np.minimum(before + 1, self._last), along]
            position[:, columns], velocity[:, columns] = rolled(
                self._values[before, columns],
                steps,
                following - steps,
                position[:, along],
                velocity[:, along],
                places - before,
                1e9 / self._step_ns,
            )
        return position, velocity

    def _unrolled(self) -> Values:
        """The steps, with rotations as turns that add up."""
        if not self.rotations:
            return self._values
        values = self._values.copy()
        for columns in self.rotations:
            values[:, columns] = unrolled(values[:, columns])
        return values


def _powers(values: Values, interpolation: str, low: Values | float, high: Values | float) -> Values:
    """Coefficients [N, T, D] of the powers of u in 0..1 from each step to the next; the last step stays."""
    order = {LINEAR: 2, CUBIC: 4, QUINTIC: 6}[interpolation]
    powers = np.zeros((order, *values.shape))
    powers[0] = values
    if len(values) == 1:
        return powers
    rise = np.diff(values, axis=0)
    if interpolation == LINEAR:
        powers[1, :-1] = rise
        return powers
    bend = _common_bend(rise)
    room = np.maximum(np.minimum(values - low, high - values), 0.0)
    slope = _slopes(values, rise, bend)
    # A velocity that leads out of the limits within its share of the step is not taken.
    slope = np.copysign(np.minimum(np.abs(slope), SLOPE_RATIO * room), slope)
    m0, m1 = slope[:-1], slope[1:]
    powers[1, :-1] = m0
    if interpolation == CUBIC:
        powers[2, :-1] = 3.0 * rise - 2.0 * m0 - m1
        powers[3, :-1] = m0 + m1 - 2.0 * rise
        return powers
    curvature = _curvatures(values, slope, bend, low, high)
    a0, a1 = curvature[:-1], curvature[1:]
    powers[2, :-1] = 0.5 * a0
    powers[3, :-1] = 10.0 * rise - 6.0 * m0 - 4.0 * m1 - 1.5 * a0 + 0.5 * a1
    powers[4, :-1] = -15.0 * rise + 8.0 * m0 + 7.0 * m1 + 1.5 * a0 - a1
    powers[5, :-1] = 6.0 * rise - 3.0 * (m0 + m1) - 0.5 * a0 + 0.5 * a1
    return powers


def _common_bend(rise: Values) -> Values:
    """The second difference [T-1, D] that the steps at both ends of a piece have in common, 0 where they bend
    to different sides."""
    bend = np.diff(rise, axis=0)
    if not len(bend):
        return np.zeros_like(rise)
    return _minmod(np.concatenate([bend[:1], bend]), np.concatenate([bend, bend[-1:]]))


def _slopes(values: Values, rise: Values, bend: Values) -> Values:
    """Velocities [T, D] per step: accurate where the motion is smooth, limited where it is not."""
    slope = np.zeros_like(values)
    slope[0], slope[-1] = rise[0] - 0.5 * bend[0], rise[-1] + 0.5 * bend[-1]
    if len(values) == 2:
        return slope
    slope[1:-1] = 0.5 * (values[2:] - values[:-2])
    slope[2:-2] = (values[:-4] - 8.0 * values[1:-3] + 8.0 * values[3:-1] - values[4:]) / 12.0
    turn = _minmod(rise[:-1] + 0.5 * bend[:-1], rise[1:] - 0.5 * bend[1:])
    least = _minmod(rise[:-1], rise[1:])
    most = np.maximum(SLOPE_RATIO * np.abs(least), TURN_RATIO * np.abs(turn))
    slope[1:-1] = _minmod(slope[1:-1], np.copysign(most, turn))
    return slope


def _curvatures(
    values: Values, slope: Values, bend: Values, low: Values | float, high: Values | float
) -> Values:
    """Accelerations [T, D] per step squared, limited so that every Bezier point of a quintic stays where
    ``_slopes`` leaves the curve."""
    curvature = np.zeros_like(values)
    if len(values) > 2:
        curvature[1:-1] = values[2:] - 2.0 * values[1:-1] + values[:-2]
        curvature[2:-2] = (
            -values[:-4] + 16.0 * values[1:-3] - 30.0 * values[2:-2] + 16.0 * values[3:-1] - values[4:]
        ) / 12.0
        curvature[0], curvature[-1] = curvature[1], curvature[-2]
    begin, end = values[:-1], values[1:]
    lower, upper = np.minimum(begin, end), np.maximum(begin, end)
    turn = TURN_ROOM * np.abs(bend)
    # Limits that the steps themselves break bound nothing here: that is the safety filter's.
    lower = np.maximum(lower - turn, np.minimum(low, lower))
    upper = np.minimum(upper + turn, np.maximum(high, upper))
    # The third Bezier point is begin + 0.4 slope + curvature / 20, the fourth end - 0.4 slope + curvature
    # / 20.
    least, most = np.full_like(values, -np.inf), np.full_like(values, np.inf)
    leave, arrive = begin + 0.4 * slope[:-1], end - 0.4 * slope[1:]
    least[:-1], most[:-1] = 20.0 * (lower - leave), 20.0 * (upper - leave)
    least[1:] = np.maximum(least[1:], 20.0 * (lower - arrive))
    most[1:] = np.minimum(most[1:], 20.0 * (upper - arrive))
    return np.minimum(np.maximum(curvature, np.minimum(least, 0.0)), np.maximum(most, 0.0))


def _minmod(a: Values, b: Values) -> Values:
    """The one nearer to 0, and 0 where the signs differ."""
    return np.where(a * b > 0.0, np.copysign(np.minimum(np.abs(a), np.abs(b)), a), 0.0)
