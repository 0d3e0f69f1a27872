# SPDX-License-Identifier: Apache-2.0
"""The rules by which ros2_control's controllers follow their topics, as small models of their own.

Written from reading ros2_controllers 2.54 (Humble), 4.42 (Jazzy), 5.17 (Kilted) and 6.9 (Rolling), and
independent of ``gr00t_ros.sim.controllers``. joint_trajectory_controller with
``interpolate_from_desired_state`` (Humble: ``open_loop_control``) and interpolation method ``splines``:

- A message is refused as a whole when a joint is missing or unknown, it has no points, times do not rise, a
  row has a wrong length, it ended before now, or (``allow_nonzero_velocity_at_trajectory_end`` false) its
  last point moves.
- The newest message replaces the one before it at the controller's next update, wholly: nothing of the old
  one is followed up to the start of the new one.
- Time zero in the header means the time of that update. Points that are over are passed by.
- Before the first point it goes there from the state that it commanded last. Which time it takes that state
  to be of differs. Humble: of now, though it was commanded one update ago; at every message the command
  stands still for one update. Since 4.19: of one update ago, though it is what is due now; at every message
  the command takes two updates' way at once. A first point that is already over spares both.
- Between two points: a straight line if either lacks velocities, a cubic with both, a quintic with
  accelerations too. After the last point it stands there.
- ``allow_trajectory_replacement`` (Rolling after 6.9, on unless told otherwise) counts a message whose stamp
  is past from the update at which it came in: the longer it was under way, the later it is followed.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

HUMBLE, JAZZY, REPLACING = "humble", "jazzy", "replacing"
RULES = (HUMBLE, JAZZY, REPLACING)


class Refused(Exception):
    """The controller would log an error and ignore the message."""


@dataclass(frozen=True)
class Point:
    """A place [D] to be in at a time (ns): from the message's start, or on the clock."""

    time_ns: int
    position: Values
    velocity: Values | None = None
    acceleration: Values | None = None


@dataclass(frozen=True)
class Message:
    """What a JointTrajectory says."""

    joints: tuple[str, ...]
    stamp_ns: int
    points: tuple[Point, ...]


class Piece:
    """The polynomial that agrees with two points in all that both of them say."""

    def __init__(self, before: Point, after: Point) -> None:
        self._start_ns = before.time_ns
        span = (after.time_ns - before.time_ns) / 1e9
        ends, wanted = [(0.0, 0), (span, 0)], [before.position, after.position]
        if before.velocity is not None and after.velocity is not None:
            ends, wanted = [*ends, (0.0, 1), (span, 1)], [*wanted, before.velocity, after.velocity]
            if before.acceleration is not None and after.acceleration is not None:
                ends, wanted = (
                    [*ends, (0.0, 2), (span, 2)],
                    [*wanted, before.acceleration, after.acceleration],
                )
        self._count = len(ends)
        rows = np.stack([self._powers(t, derivative) for t, derivative in ends])
        self._factors = np.linalg.solve(rows, np.stack(wanted))

    def _powers(self, t: float, derivative: int) -> Values:
        """What each factor counts for in a derivative at ``t``."""
        powers = np.zeros(self._count)
        for k in range(derivative, self._count):
            powers[k] = math.perm(k, derivative) * t ** (k - derivative)
        return powers

    def at(self, time_ns: int) -> Point:
        t = (time_ns - self._start_ns) / 1e9
        state = np.stack([self._powers(t, derivative) for derivative in range(3)]) @ self._factors
        return Point(time_ns, *state)


class JointTrajectoryController:
    """One controller with an update rate; ``update`` is called once an update and returns the position
    command [D]."""

    def __init__(
        self, joints: Sequence[str], positions: Values, *, rate_hz: float, rules: str = JAZZY
    ) -> None:
        self.joints, self._rules = tuple(joints), rules
        self._period_ns = round(1e9 / rate_hz)
        self._points: tuple[Point, ...] = (Point(0, np.array(positions, float)),)
        self._pieces: dict[int, Piece] = {}
        self._new: Message | None = None
        # The state commanded last, as of when the controller takes it to be.
        self._last = Point(0, np.array(positions, float), np.zeros(len(self.joints)))
        self._last_update_ns: int | None = None

    def receive(self, message: Message, now_ns: int) -> None:
        """The topic's callback. Raises Refused."""
        if sorted(message.joints) != sorted(self.joints):
            raise Refused(f"joints {message.joints}")
        if not message.points:
            raise Refused("no points")
        times = [point.time_ns for point in message.points]
        if any(b <= a for a, b in itertools.pairwise(times)):
            raise Refused("times do not rise")
        for point in message.points:
            for row in (point.position, point.velocity, point.acceleration):
                if row is not None and len(row) != len(self.joints):
                    raise Refused("a row of a wrong length")
        last = message.points[-1].velocity
        if last is not None and (np.abs(last) > np.finfo(np.float32).eps).any():
            raise Refused("the last point moves")
        if message.stamp_ns and message.stamp_ns + times[-1] < now_ns:
            raise Refused("ended in the past")
        order = [message.joints.index(joint) for joint in self.joints]

        def own(row: Values | None) -> Values | None:
            return None if row is None else np.asarray(row, float)[order]

        points = [
            Point(p.time_ns, np.asarray(p.position, float)[order], own(p.velocity), own(p.acceleration))
            for p in message.points
        ]
        self._new = replace(message, points=tuple(points))

    def update(self, now_ns: int) -> Values:
        """One update of the control loop."""
        if self._new is not None:
            self._take(self._new, now_ns)
            self._new = None
        due_ns = now_ns if self._rules == HUMBLE else now_ns + self._period_ns
        state = self._sample(due_ns)
        self._last, self._last_update_ns = state, now_ns
        return state.position

    def _take(self, message: Message, now_ns: int) -> None:
        start_ns, before = message.stamp_ns or now_ns, self._last_update_ns
        points: list[Point] = []
        if self._rules == REPLACING and before is not None and len(self._points) > 1:
            start_ns = max(start_ns, now_ns)
            # The old one, from its last update's place on, counts from now.
            late_ns = now_ns - before
            bridge = replace(self._sample(start_ns - late_ns), time_ns=start_ns)
            points = [
                replace(old, time_ns=old.time_ns + late_ns) for old in self._points if old.time_ns > before
            ]
            points = [old for old in points if old.time_ns < start_ns]
            if message.points[0].time_ns > 0:
                points.append(bridge)
        points += [replace(point, time_ns=start_ns + point.time_ns) for point in message.points]
        as_of = now_ns if self._rules == HUMBLE or before is None else before
        if points[0].time_ns > as_of:
            points.insert(0, replace(self._last, time_ns=as_of))
        self._points, self._pieces = tuple(points), {}

    def _sample(self, time_ns: int) -> Point:
        points = self._points
        if time_ns < points[0].time_ns or time_ns >= points[-1].time_ns:
            end = points[0 if time_ns < points[0].time_ns else -1]
            return Point(time_ns, end.position, np.zeros(len(self.joints)))
        after = bisect.bisect_right(points, time_ns, key=lambda point: point.time_ns)
        if after not in self._pieces:
            self._pieces[after] = Piece(points[after - 1], points[after])
        return self._pieces[after].at(time_ns)


class ForwardCommandController:
    """forward_command_controller and what derives from it: value i is joint i's, at once, until the next."""

    def __init__(self, joints: Sequence[str], values: Values) -> None:
        self.joints = tuple(joints)
        self.commands = dict(zip(joints, np.array(values, float).tolist(), strict=True))

    def receive(self, data: Sequence[float]) -> None:
        """The topic's callback and the next update. Raises Refused."""
        if not np.isfinite(data).all():
            raise Refused("not finite")
        if len(data) != len(self.joints):
            raise Refused(f"{len(data)} values for {len(self.joints)} joints")
        self.commands = dict(zip(self.joints, data, strict=True))
