# SPDX-License-Identifier: Apache-2.0
"""Limits of velocities, twists and poses, applied: what ``safety`` is for positions of joints.

Pure functions of their arguments but for the counters, which are the robot's one
``SafetyFilter.counters``: what is clipped here counts there. A linear or angular velocity is limited by its
length, so that clipping changes how fast something moves, not where to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import UnsafeCommand
from gr00t_ros.robot_types import ANGULAR_COLUMNS, LINEAR_COLUMNS, JointLimits, PoseLimits, TwistLimits
from gr00t_ros.rotations import between, multiply, rotvec_to_quaternion
from gr00t_ros.safety import MAX_OUTSIDE_S, MAX_PERIOD, MIN_PERIOD, SafetyFilter
from gr00t_ros.safety_limits import TOLERANCE, clip, stopping_speed

Values = NDArray[np.float64]

# Further (rad, m) than any stop takes.
FAR = 1e9
# Shares of the way between braking and what is wished that are tried where a wish would leave a pose's box.
_SHARES = np.linspace(0.0, 1.0, 17)


class JointVelocityLimits:
    """Velocities of some joints: each below its limit, changed no faster than its acceleration, and never so
    fast towards a position limit that the joint could not stop before it."""

    def __init__(
        self, names: Sequence[str], limits: Sequence[JointLimits], safety: SafetyFilter, *, period_s: float
    ) -> None:
        self._names, self._safety, self._period_s = tuple(names), safety, period_s
        self._low = np.array([limit.min for limit in limits])
        self._high = np.array([limit.max for limit in limits])
        self._velocity = np.array([limit.velocity for limit in limits])
        self._acceleration = np.array([limit.acceleration or math.inf for limit in limits])

    def apply(
        self,
        target: Values,
        previous: Values,
        dt: float,
        measured: Values,
        since: tuple[Values, Values],
        *,
        catching_up: bool = False,
    ) -> tuple[Values, tuple[str, ...]]:
        """The velocities [D] nearest to ``target`` that may be sent ``dt`` s after ``previous``, and what was
        clipped. ``measured`` [D] are positions; ``since`` is how far up and down [D] each joint may have
        moved since they were measured. ``catching_up``: still on the way to the plan. Raises UnsafeCommand
        for values that are not finite, and for a plan that exceeds a limit where that stops."""
        _refuse_non_finite(self._safety, self._names, target=target, measured=measured)
        if dt < MIN_PERIOD:
            return previous, ()
        dt = min(dt, MAX_PERIOD)
        slow = clip(target, -self._velocity, self._velocity)
        # A joint that stands outside may move back in, no further out. What is sent now lasts for a period.
        ahead_s = max(dt, self._period_s)
        up = stopping_speed(self._room(self._high - measured - since[0]), self._acceleration, ahead_s)
        down = stopping_speed(self._room(measured - since[1] - self._low), self._acceleration, ahead_s)
        inside = clip(slow, -down, up)
        change = self._acceleration * dt
        result = clip(inside, previous - change, previous + change)
        names, exceeded = self._names, self._safety.exceeded
        return result, (
            *exceeded("velocity", _changed(names, np.abs(slow - target))),
            *exceeded("position", _changed(names, np.abs(inside - slow))),
            *exceeded("acceleration", _changed(names, np.abs(result - inside)), catching_up=catching_up),
        )

    def _room(self, distance: Values) -> Values:
        """At least 0, and finite for a wheel."""
        return clip(distance, np.zeros_like(distance), np.full_like(distance, FAR))

    def braked(self, previous: Values, dt: float) -> Values:
        """On the way to zero, and zero exactly at its end."""
        return _towards_zero(previous, self._acceleration * dt)


class TwistVelocityLimits:
    """A twist: the lengths of its linear and of its angular part below their limits, and so their changes."""

    def __init__(self, columns: Sequence[str], limits: TwistLimits, safety: SafetyFilter) -> None:
        self._safety, self._names = safety, tuple(columns)
        linear = np.array([column in LINEAR_COLUMNS for column in columns])
        assert all(column in LINEAR_COLUMNS + ANGULAR_COLUMNS for column in columns)
        self._parts = [
            (name, np.flatnonzero(which), velocity, acceleration)
            for name, which, velocity, acceleration in (
                ("linear", linear, limits.linear_velocity, limits.linear_acceleration),
                ("angular", ~linear, limits.angular_velocity, limits.angular_acceleration),
            )
            if which.any()
        ]

    def apply(
        self,
        target: Values,
        previous: Values,
        dt: float,
        measured: Values,
        since: tuple[Values, Values],
        *,
        catching_up: bool = False,
    ) -> tuple[Values, tuple[str, ...]]:
        """As :meth:`JointVelocityLimits.apply`; a twist has no position."""
        _refuse_non_finite(self._safety, self._names, target=target)
        if dt < MIN_PERIOD:
            return previous, ()
        dt = min(dt, MAX_PERIOD)
        result = np.empty_like(target)
        clipped: list[str] = []
        for name, columns, velocity, acceleration in self._parts:
            slow = shortened(target[columns], velocity)
            before = previous[columns]
            result[columns] = before + shortened(slow - before, acceleration * dt)
            changes = (
                ("velocity", np.abs(slow - target[columns]).max(), False),
                ("acceleration", np.abs(result[columns] - slow).max(), catching_up),
            )
            for kind, change, late in changes:
                names = (name,) if change > TOLERANCE else ()
                clipped += self._safety.exceeded(kind, names, catching_up=late)
        return result, tuple(clipped)

    def braked(self, previous: Values, dt: float) -> Values:
        """As :meth:`JointVelocityLimits.braked`, in the direction in which it moves."""
        result = np.empty_like(previous)
        for _, columns, _, acceleration in self._parts:
            result[columns] = shortened_by(previous[columns], acceleration * dt)
        return result


@dataclass(frozen=True)
class PoseState:
    """A pose that was commanded: position [3] (m), unit quaternion [4], and the velocities [3] (m/s, rad/s)
    at which it was reached, all in the group's frame."""

    position: Values
    rotation: Values
    linear: Values
    angular: Values

    @property
    def pose(self) -> Values:
        """Position and quaternion [7]."""
        return np.concatenate([self.position, self.rotation])

    @classmethod
    def at_rest(cls, pose: Values) -> PoseState:
        """A pose [7] that stands."""
        return cls(pose[:3].copy(), pose[3:].copy(), np.zeros(3), np.zeros(3))


class PoseSafety:
    """A pose: its position in a box, both parts near the measured pose, and neither moving nor gathering
    speed faster than allowed. Box before speed, speed before nearness, as for joints."""

    def __init__(self, key: str, limits: PoseLimits, safety: SafetyFilter) -> None:
        self._key, self._limits, self._safety = key, limits, safety
        self._low, self._high = np.array(limits.min), np.array(limits.max)

    def near(self, command: Values, measured: Values) -> bool:
        """Whether a command [7] may be held against a measured pose [7]."""
        limits = self._limits
        away = float(np.linalg.norm(command[:3] - measured[:3]))
        turned = float(np.linalg.norm(between(measured[3:], command[3:])))
        return away <= limits.max_distance and turned <= limits.max_angle

    def first(self, measured: Values) -> PoseState:
        """Where a motion begins: at the measured pose [7], brought into the box. Raises UnsafeCommand where
        that would be a jump (``MAX_OUTSIDE_S``): somebody has to look."""
        _refuse_non_finite(self._safety, ("pose",), measured=measured)
        inside = clip(measured[:3], self._low, self._high)
        outside = min(self._limits.linear_velocity * MAX_OUTSIDE_S, self._limits.max_distance)
        if np.linalg.norm(inside - measured[:3]) > outside:
            self._safety.counters["refused"] += 1
            where = ", ".join(f"{x:.3f}" for x in measured[:3])
            raise UnsafeCommand(
                f"{self._key} stands at {where} m, outside its box {list(self._limits.min)} to "
                f"{list(self._limits.max)}: move it inside by hand, or correct the limits in the robot YAML"
            )
        return PoseState.at_rest(np.concatenate([inside, measured[3:]]))

    def apply(
        self,
        target: Values,
        velocity: Values,
        previous: PoseState,
        measured: Values,
        dt: float,
        *,
        catching_up: bool = False,
    ) -> tuple[PoseState, tuple[str, ...]]:
        """The pose nearest to ``target`` [7] that may be sent ``dt`` s after ``previous``, and what was
        clipped. The target moves at ``velocity`` [6] (linear, angular). Raises UnsafeCommand for values that
        are not finite."""
        _refuse_non_finite(self._safety, ("pose",), target=target, velocity=velocity, measured=measured)
        if dt < MIN_PERIOD:
            return previous, ()
        dt = min(dt, MAX_PERIOD)
        limits = self._limits
        boxed = clip(target[:3], self._low, self._high)
        near = measured[:3] + shortened(boxed - measured[:3], limits.max_distance)
        near = clip(near, self._low, self._high)
        moving = velocity[:3] if np.abs(near - target[:3]).max() <= TOLERANCE else np.zeros(3)
        linear, held_linear = _led(
            near - previous.position,
            moving,
            previous.linear,
            limits.linear_velocity,
            limits.linear_acceleration,
            dt,
        )
        linear = self._inside(linear, previous, dt)
        position = clip(previous.position + linear * dt, self._low, self._high)

        asked = between(measured[3:], target[3:])
        allowed = shortened(asked, limits.max_angle)
        turned = bool(np.abs(allowed - asked).max() > TOLERANCE)
        goal = multiply(rotvec_to_quaternion(allowed), measured[3:]) if turned else target[3:]
        angular, held_angular = _led(
            between(previous.rotation, goal),
            np.zeros(3) if turned else velocity[3:],
            previous.angular,
            limits.angular_velocity,
            limits.angular_acceleration,
            dt,
        )
        rotation = multiply(rotvec_to_quaternion(angular * dt), previous.rotation)
        rotation /= np.linalg.norm(rotation)
        reached = PoseState(position, rotation, (position - previous.position) / dt, angular)
        boxed_away, pulled = np.abs(boxed - target[:3]).max(), np.abs(near - boxed).max()
        exceeded = self._safety.exceeded
        near_names = [n for n, held in (("position", pulled > TOLERANCE), ("rotation", turned)) if held]
        clipped = [
            *exceeded("position", ["position"] if boxed_away > TOLERANCE else []),
            *exceeded("tracking", near_names, catching_up=catching_up),
        ]
        for name, held in (("position", held_linear), ("rotation", held_angular)):
            if held:
                clipped += exceeded(held, [name], catching_up=catching_up)
        return reached, tuple(clipped)

    def braked(self, previous: PoseState, dt: float) -> PoseState:
        """On the way to rest, in the direction in which it moves."""
        linear = shortened_by(previous.linear, self._limits.linear_acceleration * dt)
        angular = shortened_by(previous.angular, self._limits.angular_acceleration * dt)
        position = clip(previous.position + linear * dt, self._low, self._high)
        rotation = previous.rotation
        if angular.any():
            rotation = multiply(rotvec_to_quaternion(angular * dt), rotation)
            rotation /= np.linalg.norm(rotation)
        return PoseState(position, rotation, linear, angular)

    def _inside(self, wish: Values, previous: PoseState, dt: float) -> Values:
        """``wish`` or, where braking from it in its direction would end outside the box, as much of it as may
        be, beside braking now.

        A velocity v may be kept for a period and braked from when v_i*dt + v_i*|v|/2a leaves room on every
        axis. From one that keeps this, braking by a*dt in its direction gives one that keeps it again; all
        speeds between braking and the wish keep the limits of both.
        """
        if self._keeps(wish[None], previous.position, dt)[0]:
            return wish
        braked = shortened_by(previous.linear, self._limits.linear_acceleration * dt)
        mixed = braked + _SHARES[:, None] * (wish - braked)
        keeps = self._keeps(mixed, previous.position, dt)
        return np.asarray(mixed[np.flatnonzero(keeps)[-1]] if keeps.any() else braked)

    def _keeps(self, velocities: Values, position: Values, dt: float) -> NDArray[np.bool_]:
        speed = np.linalg.norm(velocities, axis=-1, keepdims=True)
        end = position + velocities * (dt + speed / (2.0 * self._limits.linear_acceleration))
        return np.asarray(((end <= self._high + TOLERANCE) & (end >= self._low - TOLERANCE)).all(axis=-1))


def shortened(vector: Values, length: float) -> Values:
    """``vector`` [n], or as much of it as has ``length``."""
    own = float(np.linalg.norm(vector))
    return vector if own <= length else vector * (length / own)


def shortened_by(vector: Values, length: float) -> Values:
    """``vector`` [n] without ``length`` of it; zero where there is no more."""
    own = float(np.linalg.norm(vector))
    return np.zeros_like(vector) if own <= length else vector * (1.0 - length / own)


def _towards_zero(values: Values, change: Values) -> Values:
    left = np.abs(values) - change
    return np.where(left > 0.0, np.copysign(left, values), 0.0)


def _led(
    way: Values, moving: Values, before: Values, most: float, acceleration: float, dt: float
) -> tuple[Values, str]:
    """The velocity [3] for a period ``dt`` at which to go ``way`` [3] to a target that moves at ``moving``,
    and which limit did not let it go there at once: velocity, acceleration or an empty text.

    As for joints (``safety_limits.step_within``), by lengths: relative to the target at most so fast that it
    could stop at it.
    """
    exact = way / dt
    speed = float(np.linalg.norm(exact))
    change = acceleration * dt
    kept = change * (1.0 + TOLERANCE) + TOLERANCE
    slow = speed <= most * (1.0 + TOLERANCE) + TOLERANCE
    moving = shortened(moving, most)
    if slow and np.linalg.norm(exact - before) <= kept and np.linalg.norm(moving - exact) <= kept:
        return exact, ""
    left = way - moving * dt
    distance = float(np.linalg.norm(left))
    wish = moving
    if distance > 0.0:
        # The share of ``left`` that is ``stopping_speed``.
        wish = moving + left * (2.0 / (math.sqrt(dt * dt + 2.0 * distance / acceleration) + dt))
    wish = shortened(wish, most)
    result = before + shortened(wish - before, change)
    same = np.linalg.norm(result - exact) <= TOLERANCE
    return result, "" if same else "velocity" if not slow else "acceleration"


def _changed(names: Sequence[str], changes: Values) -> list[str]:
    """The names whose values were changed."""
    return [names[i] for i in np.flatnonzero(changes > TOLERANCE).tolist()]


def _refuse_non_finite(safety: SafetyFilter, names: Sequence[str], **values: Values) -> None:
    for what, array in values.items():
        if not np.isfinite(array).all():
            safety.counters["refused"] += 1
            raise UnsafeCommand(f"{what} of {', '.join(names)} is {array.tolist()}, expected finite numbers")
