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
from gr00t_ros.robot_types import STOP
from gr00t_ros.safety_limits import TOLERANCE, GroupLimits, clip

Values = NDArray[np.float64]

# The limits that a plan can exceed.
KINDS = ("position", "tracking", "velocity", "acceleration")
# No single period may move a joint further than this many seconds at its velocity limit, however long the
# period took: a stalled process must not catch up in one jump.
MAX_PERIOD = 0.2
# Points of a trajectory that are nearer (rad, m) to the plan count as on it: what a spline takes to round the
# corner of a plan of straight lines is not a violation.
NEAR = 1e-3
# What a joint or a tool does in this time (s) at its velocity limit is how far outside its limits it may
# stand to be led back in: the first command lies inside, and the robot goes there at once.
MAX_OUTSIDE_S = 0.025
# A period shorter than this (s) is no period: nothing moves, and no speed is computed from it.
MIN_PERIOD = 1e-6


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


@dataclass(frozen=True)
class FilteredPath:
    """Points of a trajectory that may be sent: ``values`` and ``velocities`` [K, D], SI, the first where the
    joints are. ``clipped`` as in :class:`Filtered`."""

    values: Values
    velocities: Values
    clipped: tuple[str, ...] = ()


class SafetyFilter:
    """Limits of one robot, applied. ``counters`` holds, per kind of limit, how many joint values were
    clipped, and under ``refused`` how many commands were refused. Not thread-safe: one owner, the executor's
    loop."""

    def __init__(self, robot: RobotConfig) -> None:
        self._limits = dict(robot.limits)
        violations = robot.executor.violations
        # Kinds of limits that a plan may not exceed.
        self._stops = frozenset(kind for kind in KINDS if getattr(violations, kind) == STOP)
        self._groups: dict[tuple[str, ...], GroupLimits] = {}
        self.counters = dict.fromkeys((*KINDS, "refused"), 0)

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
        previous_acceleration: Values | None = None,
    ) -> Filtered:
        """The command for joints ``names`` that comes nearest to ``target`` [D] within all limits.

        ``previous_command`` [D] is what was commanded ``dt`` seconds ago; None means the first command, which
        starts from ``measured`` [D], the joints' measured positions. ``previous_velocity`` [D], the
        ``velocities`` of the previous result, turns acceleration limits on; ``target_velocity`` [D] says how
        the target moves, so that a moving target is followed without lag; ``previous_acceleration`` [D] turns
        jerk limits on. Raises UnsafeCommand, without any
        result, for non-finite values, unknown joints, wrong lengths, and a first command for a joint that
        stands outside its limits.
        """
        try:
            return self._apply(
                tuple(names),
                target,
                previous_command,
                measured,
                dt,
                previous_velocity,
                target_velocity,
                previous_acceleration,
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
        gained: Values | None,
    ) -> Filtered:
        limits = self._limits_of(names)
        wanted = _finite(names, target, "target")
        position = _finite(names, measured, "measured position")
        if previous_command is None:
            previous = self._first(names, position, limits)
        else:
            previous = clip(_finite(names, previous_command, "previous command"), limits.low, limits.high)
        if not (math.isfinite(dt) and dt >= 0.0):
            raise UnsafeCommand(f"period is {dt} s, expected a finite time of at least 0")
        dt = min(float(dt), MAX_PERIOD)

        inside = clip(wanted, limits.low, limits.high)
        near = clip(inside, position - limits.tracking, position + limits.tracking)
        near = clip(near, limits.low, limits.high)  # the measured joint itself may stand outside
        if dt < MIN_PERIOD:
            return Filtered(previous, np.zeros(len(names)), self._noted(names, position=(inside, wanted)))
        reach = limits.velocity * dt
        slow = result = clip(near, previous - reach, previous + reach)
        if previous_velocity is not None:
            before = _finite(names, previous_velocity, "previous velocity")
            moving = np.zeros(len(names))
            if target_velocity is not None:
                moving = _finite(names, target_velocity, "target velocity")
                # A target that was moved stands still where it was moved to.
                moving[np.abs(near - wanted) > TOLERANCE] = 0.0
                moving = clip(moving, -limits.velocity, limits.velocity)
            result = limits.step_within(near, previous, before, moving, dt, gained)
            result = clip(result, limits.low, limits.high)  # only rounding is left to remove
        clipped: tuple[str, ...] = ()
        if np.abs(result - wanted).max(initial=0.0) > TOLERANCE:
            clipped = self._noted(
                names,
                position=(inside, wanted),
                tracking=(near, inside),
                velocity=(slow, near),
                acceleration=(result, slow),
            )
        return Filtered(result, (result - previous) / dt, clipped)

    def follow(
        self,
        names: tuple[str, ...],
        target: Values,
        target_velocity: Values,
        previous: Values | None,
        velocity: Values,
        acceleration: Values,
        measured: Values,
        dt: float,
    ) -> Filtered:
        """As :meth:`apply` with all of it [D]; but a target that keeps the limits is passed on to the letter.
        What would accelerate too much is smoothed, and so is the way back to a plan that was out of reach: it
        must not overshoot."""
        limits = self._limits_of(names)
        if (
            previous is not None
            and MIN_PERIOD <= dt <= MAX_PERIOD
            and limits.passes(target, target_velocity, previous, velocity, acceleration, measured, dt)
        ):
            return Filtered(target, (target - previous) / dt)
        return self.apply(
            names,
            target,
            previous,
            measured,
            dt,
            previous_velocity=velocity,
            target_velocity=target_velocity,
            previous_acceleration=acceleration,
        )

    def path(
        self,
        names: tuple[str, ...],
        spacing_s: float,
        period_s: float,
        start: tuple[Values, Values, Values],
        plan: tuple[Values, Values],
        way: tuple[Values, Values],
        measured: Values,
    ) -> FilteredPath:
        """Points of a trajectory ``spacing_s`` apart, of which ``period_s`` is executed before the next.

        ``start`` is position, velocity and acceleration [D] of the joints' reference now, ``plan`` positions
        and velocities [K, D] to follow from now on, ``way`` the same as one would like to reach them from
        ``start``, in whose first row it is. The way is taken as it is when the cubics through its points keep
        every limit; if not with these velocities (straight lines have none that last), then with those that
        its points imply. What is left is led along the plan inside the limits. Raises UnsafeCommand for
        values that are not finite.
        """
        limits = self._limits_of(names)
        values, velocities = way
        if not all(map(math.isfinite, (values.sum(), velocities.sum(), measured.sum()))):
            self.counters["refused"] += 1
            raise UnsafeCommand(f"the way of {', '.join(names)} is not finite: {values.tolist()}")
        position, speed, gained = start
        if limits.keeps(values, velocities, spacing_s, period_s, gained, measured):
            return FilteredPath(values, velocities)
        rise = (values[1:] - values[:-1]) / spacing_s
        implied = velocities.copy()
        implied[1:-1] = 0.5 * (rise[1:] + rise[:-1])
        if limits.keeps(values, implied, spacing_s, period_s, gained, measured):
            return FilteredPath(values, implied)
        wanted, moving = plan
        inside = clip(wanted, limits.low, limits.high)
        near = clip(inside, measured - limits.tracking, measured + limits.tracking)
        near = clip(near, limits.low, limits.high)  # the measured joint itself may stand outside
        # A target that was moved stands still where it was moved to.
        moving = np.where(np.abs(near - wanted) > TOLERANCE, 0.0, moving)
        moving = clip(moving, -limits.velocity, limits.velocity)
        points, speeds, there = limits.lead(position, speed, gained, near, moving, spacing_s, period_s)
        there |= np.abs(points - near) <= NEAR
        fast = ~there & (np.abs(speeds) >= limits.velocity * (1.0 - TOLERANCE))
        clipped = self._noted(
            names,
            position=(inside[1:], wanted[1:]),
            tracking=(near[1:], inside[1:]),
            velocity=(np.where(fast, np.inf, 0.0), 0.0),
            acceleration=(np.where(there | fast, 0.0, np.inf), 0.0),
        )
        return FilteredPath(points, speeds, clipped)

    def inside(self, names: tuple[str, ...], position: Values) -> Values:
        """A place on a curve between two points [D], for a command to begin at. Where a joint comes to rest
        at its limit the curve may swing over it by some 1e-4 rad, which no servo resolves; no command says
        so."""
        limits = self._limits_of(names)
        return clip(position, limits.low, limits.high)

    def _first(self, names: tuple[str, ...], measured: Values, limits: GroupLimits) -> Values:
        """Where the first command starts. A joint just outside its limits is led back in; one that is further
        out would jump (``MAX_OUTSIDE_S``): somebody has to look."""
        start = clip(measured, limits.low, limits.high)
        outside = np.minimum(limits.velocity * MAX_OUTSIDE_S, limits.tracking)
        for i in np.flatnonzero(np.abs(start - measured) > outside):
            raise UnsafeCommand(
                f"{names[i]} stands at {measured[i]:.3f}, outside its limits {limits.low[i]:g} to "
                f"{limits.high[i]:g}: move it inside by hand, or correct the limits in the robot YAML"
            )
        return start

    def _limits_of(self, names: tuple[str, ...]) -> GroupLimits:
        group = self._groups.get(names)
        if group is None:
            for name in names:
                if name not in self._limits:
                    raise UnsafeCommand(
                        f"joint {name!r} has no limits in the robot YAML: it is not commanded"
                    )
            group = self._groups[names] = GroupLimits([self._limits[name] for name in names])
        return group

    def _noted(self, names: tuple[str, ...], **stages: tuple[ArrayLike, ArrayLike]) -> tuple[str, ...]:
        """Count and name what each kind of limit changed, from what came out of it and what went in, [D] or
        [K, D]. Raises UnsafeCommand where such a change stops the robot."""
        clipped: list[str] = []
        for kind, (got, asked) in stages.items():
            changed = np.abs(np.subtract(got, asked)) > TOLERANCE
            found = np.flatnonzero(changed.reshape(-1, len(names)).any(axis=0))
            clipped.extend(self.exceeded(kind, [names[i] for i in found]))
        return tuple(clipped)

    def exceeded(self, kind: str, names: Sequence[str], *, catching_up: bool = False) -> tuple[str, ...]:
        """Count and tell that the limits ``kind`` of ``names`` were in the way. Raises UnsafeCommand where a
        plan that exceeds them stops the robot; while it is ``catching_up`` that is not the plan's doing."""
        self.counters[kind] += len(names)
        if names and kind in self._stops and not catching_up:
            raise UnsafeCommand(
                f"the plan exceeds the {kind} limit of {', '.join(names)} (executor.violations.{kind}: stop)"
            )
        return tuple(f"{name} ({kind})" for name in names)


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
