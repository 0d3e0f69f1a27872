# SPDX-License-Identifier: Apache-2.0
"""How one action group moves: from where its last command stands, towards the plan, inside the limits. No ROS
types, no threads.

``execution`` owns one :class:`GroupMotion` a group and decides whether to follow the plan or to hold. What is
remembered of the last command depends on who interpolates. A trajectory goes on without us: its controller is
somewhere between two points when the next one comes, and the next one must start exactly there, however long
the period took and whether the last one was a motion or a hold. A streamed position stands where it was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.commands import GroupCommand, monotone_velocities, single_point
from gr00t_ros.motion_types import Move
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_TRAJECTORY, ActionGroupConfig
from gr00t_ros.safety import MIN_PERIOD, Filtered, SafetyFilter
from gr00t_ros.timeline import Window

Values = NDArray[np.float64]

# Points of a trajectory before it brakes, at most. They fill the first half of the lookahead: enough to
# bridge some late periods, and no more work at a high rate than at 50 Hz.
MOVING_POINTS = 5
# A point due sooner than this (s) is as good as past when it arrives.
MIN_DUE_S = 0.001
# A joint that has moved by less (rad, m) since the last command was sent has not been moved by anybody: ten
# times the resolution of a hobby servo (2 pi / 4096), and little enough to begin with.
STOOD_STILL = 0.015


@dataclass(frozen=True)
class Sent:
    """A trajectory as its controller sees it, from where that stood when it came: times_s [P] from
    ``start_ns``, the first 0; positions and velocities [P, D]; at rest from the last point on.

    ``before`` [D] is the mean velocity over ``span_s`` before the start.
    """

    start_ns: int
    times_s: Values
    positions: Values
    velocities: Values
    before: Values
    span_s: float

    @property
    def end_ns(self) -> int:
        """When it comes to rest."""
        return self.start_ns + round(float(self.times_s[-1]) * 1e9)

    def at(self, now_ns: int) -> tuple[Values, Values]:
        """Position and velocity [D] at ``now_ns``: cubic Hermite between points, as
        joint_trajectory_controller interpolates points with velocities."""
        return self._at((now_ns - self.start_ns) / 1e9)

    def mean_velocity(self, now_ns: int) -> Values:
        """The mean velocity [D] over the last ``span_s``: what the next step of that length is compared with
        to know its acceleration."""
        at_s = (now_ns - self.start_ns) / 1e9
        return (self._at(at_s)[0] - self._at(at_s - self.span_s)[0]) / self.span_s

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

    def _at(self, at_s: float) -> tuple[Values, Values]:
        if at_s < 0.0:  # the parabola through what is known of the time before
            bend = (self.velocities[0] - self.before) / self.span_s
            position = self.positions[0] + self.velocities[0] * at_s + bend * at_s * at_s
            return position, self.velocities[0]
        after = int(np.searchsorted(self.times_s, at_s, side="right"))
        if after >= len(self.times_s):
            return self.positions[-1], np.zeros_like(self.positions[-1])
        span = self.times_s[after] - self.times_s[after - 1]
        u = (at_s - self.times_s[after - 1]) / span
        p0, p1 = self.positions[after - 1], self.positions[after]
        m0, m1 = self.velocities[after - 1] * span, self.velocities[after] * span
        position = p0 + u * u * (3 - 2 * u) * (p1 - p0) + u * (1 - u) * ((1 - u) * m0 - u * m1)
        slope = 6 * u * (1 - u) * (p1 - p0) + (1 - u) * (1 - 3 * u) * m0 + u * (3 * u - 2) * m1
        return position, slope / span


@dataclass(frozen=True)
class Streamed:
    """A position [D] that was sent, and the velocity [D] at which it was reached."""

    position: Values
    velocity: Values


class GroupMotion:
    """One action group. Not thread safe; times are ROS time."""

    def __init__(
        self,
        group: ActionGroupConfig,
        robot: RobotConfig,
        safety: SafetyFilter,
        *,
        period_s: float,
        lookahead_s: float,
    ) -> None:
        self.group = group
        limits = [robot.limits[joint] for joint in group.joints]
        self._low = np.array([limit.min for limit in limits])
        self._high = np.array([limit.max for limit in limits])
        self._acceleration = np.array([limit.acceleration or np.inf for limit in limits])
        self._tracking = np.array([limit.max_tracking_error for limit in limits])
        self._filter = safety
        self._lookahead_s = lookahead_s
        self._times_s = point_times(period_s, lookahead_s)
        self._spacing_s = float(self._times_s[1])
        self.joints = group.joints
        self._last: Sent | Streamed | None = None
        self._left: Values | None = None  # where it was measured when the last command had been sent

    @property
    def begun(self) -> bool:
        """Whether the last command of this group is known."""
        return self._last is not None

    def forget(self) -> None:
        """The next motion starts where the robot is measured."""
        self._last = self._left = None

    def shift(self, by_ns: int) -> None:
        """ROS time jumped: what was sent is now dated ``by_ns`` later."""
        if isinstance(self._last, Sent):
            self._last = replace(self._last, start_ns=self._last.start_ns + by_ns)

    def leave(self, measured: Mapping[str, float]) -> None:
        """Nothing is sent from here on, and others may move the robot."""
        if isinstance(self._last, Streamed):
            self._last = replace(self._last, velocity=np.zeros_like(self._last.velocity))
        if all(joint in measured for joint in self.group.joints):
            self._left = self._positions(measured)
        else:
            self.forget()

    def resume(self, measured: Mapping[str, float], now_ns: int) -> None:
        """Whether to go on from the last command after :meth:`leave`, or from where the robot is measured.

        From the last command as long as nobody else moved the robot: a gripper that was told to close and
        holds an object stands far from its command, and would let go of it if that began at the object.
        """
        if self._last is None or self._left is None:
            return
        position = self._positions(measured)
        command = self._last.at(now_ns)[0] if isinstance(self._last, Sent) else self._last.position
        under_way = isinstance(self._last, Sent) and now_ns < self._last.end_ns
        stood = under_way or (np.abs(position - self._left) <= STOOD_STILL).all()
        if not stood or (np.abs(position - command) > self._tracking).any():
            self.forget()

    def sent(self, move: Move) -> None:
        """Remembers what is commanded now."""
        self._last, self._left = move.last, None

    def follow(self, window: Window, measured: Mapping[str, float], now_ns: int, dt: float) -> Move:
        """The next command on the way along the plan at :func:`point_times` from now. Raises UnsafeCommand;
        changes nothing."""
        position = self._positions(measured)
        if self.group.interface == JOINT_TRAJECTORY:
            return self._follow_trajectory(window, position, now_ns)
        assert not isinstance(self._last, Sent)
        previous = None if self._last is None else self._last.position
        velocity = np.zeros(self.group.width) if self._last is None else self._last.velocity
        step = self._towards(window, 0, previous, velocity, position, dt)
        if dt == 0.0:  # time has not moved since the last period, so the joint keeps its speed
            step = replace(step, velocities=velocity)
        command = single_point(self.group, step.values, 0.0)
        return Move(Streamed(step.values, step.velocities), bool(step.clipped), command)

    def _follow_trajectory(self, window: Window, measured: Values, now_ns: int) -> Move:
        assert not isinstance(self._last, Streamed)
        speed = before = np.zeros(self.group.width)
        if self._last is None:
            start = self._filter.apply(self.group.joints, measured, None, measured, 0.0).values
        else:
            start, speed = self._last.at(now_ns)
            before = self._last.mean_velocity(now_ns)
        positions, velocity, clipped = [start], before, False
        for row in range(1, len(self._times_s)):
            step = self._towards(window, row, positions[-1], velocity, measured, self._spacing_s)
            positions.append(step.values)
            velocity, clipped = step.velocities, clipped or bool(step.clipped)
        # From the last moving point on: constant deceleration over the time that is left. Not clipped to the
        # neighbourhood of the measured joint: it cannot stop sooner, and must not turn back.
        braking_s = self._lookahead_s - float(self._times_s[-1])
        rest = np.clip(positions[-1] + velocity * braking_s / 2.0, self._low, self._high)
        path, due = np.stack([*positions, rest]), np.append(self._times_s, self._lookahead_s)
        velocities = monotone_velocities(path, due)
        velocities[0] = speed
        # Full speed where braking begins, or the controller would have to hurry before it; three times the
        # slope is the most that does not overshoot.
        slope = (rest - positions[-1]) / braking_s
        most = np.where(slope * velocity > 0.0, 3.0 * np.abs(slope), 0.0)
        velocities[-2] = np.copysign(np.minimum(np.abs(velocity), most), velocity)
        last = Sent(now_ns, due, path, velocities, before, self._spacing_s)
        begin = None if self._last is None else (start, speed)
        return Move(last, clipped, GroupCommand(self.group, path[1:], velocities[1:], due[1:], begin))

    def _towards(
        self,
        window: Window,
        row: int,
        previous: Values | None,
        velocity: Values,
        measured: Values,
        dt: float,
    ) -> Filtered:
        joints, key = self.group.joints, self.group.key
        target, target_velocity = window.values[key][row], window.velocities[key][row]
        step = self._filter.apply(joints, target, previous, measured, dt)
        bound = self._acceleration * max(dt, MIN_PERIOD) + 1e-9
        sharp = np.abs(step.velocities - velocity) > bound
        sharp |= np.abs(target_velocity - step.velocities) > bound
        if step.clipped or sharp.any():
            # A plan that keeps the limits is executed to the letter. What would accelerate too much is
            # smoothed, and so is the way back to a plan that was out of reach: it must not overshoot.
            step = self._filter.apply(
                joints,
                target,
                previous,
                measured,
                dt,
                previous_velocity=velocity,
                target_velocity=target_velocity,
            )
        return step

    def hold(self, now_ns: int, dt: float, *, brake: bool) -> GroupCommand:
        """What ends the motion, and then keeps its end.

        A trajectory ends where it would have ended by itself, or with ``brake`` as soon as the acceleration
        limits allow, between half the lookahead and all of it. A streamed position runs out at the
        acceleration limit; without one it stands at once.
        """
        assert self._last is not None
        if isinstance(self._last, Streamed):
            slower = np.zeros(self.group.width)
            if dt > 0.0:
                rest = np.maximum(np.abs(self._last.velocity) - self._acceleration * dt, 0.0)
                slower = np.copysign(rest, self._last.velocity)
            position = np.clip(self._last.position + slower * dt, self._low, self._high)
            self._last = Streamed(position, slower if dt > 0.0 else self._last.velocity)
            return single_point(self.group, position, 0.0)
        if brake:
            self._last = self._braked(self._last, now_ns)
        # Not sooner than half the lookahead: a message that is under way for a while must not be past.
        positions, velocities, due = self._last.ahead(now_ns, self._lookahead_s / 2.0)
        begin = self._last.at(now_ns) if now_ns < self._last.end_ns else None
        return GroupCommand(self.group, positions, velocities, due, begin)

    def _braked(self, last: Sent, now_ns: int) -> Sent:
        position, velocity = last.at(now_ns)
        wanted = float(np.max(np.abs(velocity) / self._acceleration, initial=0.0))
        braking_s = min(max(wanted, self._lookahead_s / 2.0), self._lookahead_s)
        end = np.clip(position + velocity * braking_s / 2.0, self._low, self._high)
        return Sent(
            now_ns,
            np.array([0.0, braking_s]),
            np.stack([position, end]),
            np.stack([velocity, np.zeros_like(velocity)]),
            last.mean_velocity(now_ns),
            last.span_s,
        )

    def _positions(self, measured: Mapping[str, float]) -> Values:
        return np.array([measured[joint] for joint in self.group.joints])


def point_times(period_s: float, lookahead_s: float) -> Values:
    """The instants from now (s), the first 0, at which a trajectory follows the plan before it brakes."""
    spacing_s = max(period_s, lookahead_s / 2.0 / MOVING_POINTS)
    points = max(1, int(lookahead_s / 2.0 / spacing_s + 1e-9))
    return np.arange(points + 1, dtype=np.float64) * spacing_s
