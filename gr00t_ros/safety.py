# SPDX-License-Identifier: Apache-2.0
"""The last thing before a controller: every command passes ``SafetyFilter.apply``, or it is not sent.

The executor owns one filter and calls it for every group in every period. The filter clips what exceeds a
limit of the robot YAML and says so; what it cannot make safe it refuses with UnsafeCommand. It is a pure
function of its arguments (apart from counters), so the executor can also run it ahead of time, and it knows
neither ROS nor time.

In order: the target is brought inside the position limits, then near the measured position
(``max_tracking_error``); the way to it is bounded by the velocity limit and, where the caller gives the
previous velocity, by the acceleration limit, never so fast that the joint could not stop before its position
limit. Position limits win over all others, velocity limits over the tracking error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_ros.errors import UnsafeCommand
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JointLimits

Values = NDArray[np.float64]

# No single period may move a joint further than this many seconds at its velocity limit, however long the
# period took: a stalled process must not catch up in one jump.
MAX_PERIOD = 0.2
# A period shorter than this (s) is no period: nothing moves, and no speed is computed from it.
MIN_PERIOD = 1e-6
# Changes smaller than this (rad, m) are rounding, not clipping.
CLIP_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Filtered:
    """A command that may be sent: ``values`` [D] positions and ``velocities`` [D] at which they are reached,
    SI.

    ``clipped`` names each joint that could not have what was asked, with the limit: ``elbow_flex
    (velocity)``.
    """

    values: Values
    velocities: Values
    clipped: tuple[str, ...] = ()


class _GroupLimits:
    """The limits of some joints as arrays [D]."""

    def __init__(self, limits: Sequence[JointLimits]) -> None:
        self.low = np.array([limit.min for limit in limits])
        self.high = np.array([limit.max for limit in limits])
        self.velocity = np.array([limit.velocity for limit in limits])
        self.acceleration = np.array([np.inf if x.acceleration is None else x.acceleration for x in limits])
        self.tracking = np.array([limit.max_tracking_error for limit in limits])


class SafetyFilter:
    """Limits of one robot, applied. ``counters`` holds, per kind of limit, how many joint values were
    clipped, and under ``refused`` how many commands were refused. Not thread-safe: one owner, the executor's
    loop."""

    def __init__(self, robot: RobotConfig) -> None:
        self._limits = dict(robot.limits)
        self._groups: dict[tuple[str, ...], _GroupLimits] = {}
        self.counters = dict.fromkeys(("position", "tracking", "velocity", "acceleration", "refused"), 0)

    def apply(
        self,
        names: Sequence[str],
        target: ArrayLike,
        previous_command: ArrayLike | None,
        measured: ArrayLike,
        dt: float,
        *,
        previous_velocity: ArrayLike | None = None,
        target_velocity: ArrayLike | None = None,
    ) -> Filtered:
        """The command for joints ``names`` that comes nearest to ``target`` [D] within all limits.

        ``previous_command`` [D] is what was commanded ``dt`` seconds ago; None means the first command, which
        starts from ``measured`` [D], the joints' measured positions. ``previous_velocity`` [D], the
        ``velocities`` of the previous result, turns acceleration limits on; ``target_velocity`` [D] says how
        the target moves, so that a moving target is followed without lag. Raises UnsafeCommand, without any
        result, for non-finite values, unknown joints, wrong lengths, and a first command for a joint that
        stands outside its limits.
        """
        try:
            return self._apply(
                tuple(names), target, previous_command, measured, dt, previous_velocity, target_velocity
            )
        except UnsafeCommand:
            self.counters["refused"] += 1
            raise

    def _apply(
        self,
        names: tuple[str, ...],
        target: ArrayLike,
        previous_command: ArrayLike | None,
        measured: ArrayLike,
        dt: float,
        previous_velocity: ArrayLike | None,
        target_velocity: ArrayLike | None,
    ) -> Filtered:
        limits = self._limits_of(names)
        wanted = _finite(names, target, "target")
        position = _finite(names, measured, "measured position")
        if previous_command is None:
            previous = self._first(names, position, limits)
        else:
            previous = _clip(_finite(names, previous_command, "previous command"), limits.low, limits.high)
        if not (math.isfinite(dt) and dt >= 0.0):
            raise UnsafeCommand(f"period is {dt} s, expected a finite time of at least 0")
        dt = min(float(dt), MAX_PERIOD)

        inside = _clip(wanted, limits.low, limits.high)
        near = _clip(inside, position - limits.tracking, position + limits.tracking)
        near = _clip(near, limits.low, limits.high)  # the measured joint itself may stand outside
        if dt < MIN_PERIOD:
            return Filtered(previous, np.zeros(len(names)), self._noted(names, position=(inside, wanted)))
        reach = limits.velocity * dt
        slow = result = _clip(near, previous - reach, previous + reach)
        if previous_velocity is not None:
            before = _finite(names, previous_velocity, "previous velocity")
            moving = np.zeros(len(names))
            if target_velocity is not None:
                moving = _finite(names, target_velocity, "target velocity")
                # A target that was moved stands still where it was moved to.
                moving[np.abs(near - wanted) > CLIP_TOLERANCE] = 0.0
                moving = _clip(moving, -limits.velocity, limits.velocity)
            result = _within_acceleration(near, previous, before, moving, limits, dt)
            result = _clip(result, limits.low, limits.high)  # only rounding is left to remove
        clipped: tuple[str, ...] = ()
        if np.abs(result - wanted).max(initial=0.0) > CLIP_TOLERANCE:
            clipped = self._noted(
                names,
                position=(inside, wanted),
                tracking=(near, inside),
                velocity=(slow, near),
                acceleration=(result, slow),
            )
        return Filtered(result, (result - previous) / dt, clipped)

    def _first(self, names: tuple[str, ...], measured: Values, limits: _GroupLimits) -> Values:
        """Where the first command starts. A joint just outside its limits is led back in; one that is further
        out than a command may ever be from it cannot be: somebody has to look."""
        start = _clip(measured, limits.low, limits.high)
        for i in np.flatnonzero(np.abs(start - measured) > limits.tracking):
            raise UnsafeCommand(
                f"{names[i]} stands at {measured[i]:.3f}, outside its limits {limits.low[i]:g} to "
                f"{limits.high[i]:g}: move it inside by hand, or correct the limits in the robot YAML"
            )
        return start

    def _limits_of(self, names: tuple[str, ...]) -> _GroupLimits:
        group = self._groups.get(names)
        if group is None:
            for name in names:
                if name not in self._limits:
                    raise UnsafeCommand(
                        f"joint {name!r} has no limits in the robot YAML: it is not commanded"
                    )
            group = self._groups[names] = _GroupLimits([self._limits[name] for name in names])
        return group

    def _noted(self, names: tuple[str, ...], **stages: tuple[Values, Values]) -> tuple[str, ...]:
        """Count and name what each kind of limit changed, from what came out of it and what went in."""
        clipped: list[str] = []
        for kind, (got, asked) in stages.items():
            changed = np.flatnonzero(np.abs(got - asked) > CLIP_TOLERANCE)
            self.counters[kind] += len(changed)
            clipped.extend(f"{names[i]} ({kind})" for i in changed)
        return tuple(clipped)


def _within_acceleration(
    target: Values,
    previous: Values,
    velocity: Values,
    target_velocity: Values,
    limits: _GroupLimits,
    dt: float,
) -> Values:
    """The position after ``dt`` on the way to ``target``, with bounded change of velocity and room to brake.

    Relative to the moving target the joint may approach at ``stopping_speed`` of the distance left, so that
    it arrives without overshoot; the same bound towards the position limits holds absolutely. Both are
    recursively feasible: braking at the acceleration limit always keeps them (v*dt + v*v/2a <= d gives the
    same for the next period).
    """
    a = limits.acceleration
    error = target - (previous + target_velocity * dt)
    wish = target_velocity + np.copysign(_stopping_speed(np.abs(error), a, dt), error)
    wish = _clip(wish, velocity - a * dt, velocity + a * dt)
    down = np.minimum(limits.velocity, _stopping_speed(previous - limits.low, a, dt))
    up = np.minimum(limits.velocity, _stopping_speed(limits.high - previous, a, dt))
    return previous + _clip(wish, -down, up) * dt


def _stopping_speed(distance: Values, acceleration: Values, dt: float) -> Values:
    """The highest speed v for one period dt after which braking still ends within ``distance``: v*dt + v*v/2a
    = d."""
    return 2.0 * distance / (np.sqrt(dt * dt + 2.0 * distance / acceleration) + dt)


def _clip(values: Values, low: Values, high: Values) -> Values:
    """As np.clip, in a third of its time for arrays of a few joints; ``high`` wins."""
    return np.minimum(np.maximum(values, low), high)


def _finite(names: tuple[str, ...], values: ArrayLike, what: str) -> Values:
    """As a new float64 array [D], or UnsafeCommand."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UnsafeCommand(f"{what} is {values!r}, expected {len(names)} numbers") from error
    if array.shape != (len(names),):
        raise UnsafeCommand(
            f"{what} has shape {array.shape}, expected one value for each of {', '.join(names)}"
        )
    if not all(map(math.isfinite, array.tolist())):
        wrong = int(np.flatnonzero(~np.isfinite(array))[0])
        raise UnsafeCommand(f"{what} of {names[wrong]} is {array[wrong]}, expected a finite number")
    return array
