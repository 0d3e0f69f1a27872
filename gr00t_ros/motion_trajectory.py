# SPDX-License-Identifier: Apache-2.0
"""A group of joints whose controller takes a piece of the way at a time and joins its points by splines.

What was sent goes on without us: the controller is somewhere between two points when the next trajectory
comes, and that one must start exactly there, at that speed, however long the period took and whether the last
one was a motion or a hold. The points carry the plan's own velocities, so that the controller's reference is
the plan. Where the reference has left the plan (a limit was in the way, a period was late), it comes back to
it along a cubic that meets the plan where the trajectory begins to brake.

A trajectory under way says where its controller is now (``GroupCommand.begin``): one whose first point is
still to come makes joint_trajectory_controller begin from a state that is one of its updates off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.commands import GroupCommand
from gr00t_ros.motion import JointMotion, point_times
from gr00t_ros.motion_types import Move
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import ActionGroupConfig
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.splines import Brakes, Sent
from gr00t_ros.timeline import Window

Values = NDArray[np.float64]


class TrajectoryMotion(JointMotion):
    """One action group. Not thread safe."""

    def __init__(
        self,
        group: ActionGroupConfig,
        robot: RobotConfig,
        safety: SafetyFilter,
        *,
        period_s: float,
        lookahead_s: float,
    ) -> None:
        super().__init__(group, robot, safety)
        self._zero = np.zeros(group.width)
        self._period_s, self._lookahead_s = period_s, lookahead_s
        self._times_s = point_times(period_s, lookahead_s)
        self._spacing_s = float(self._times_s[1])
        self._brakes = Brakes(
            self._low, self._high, self._acceleration, self._spacing_s, self._times_s, lookahead_s
        )
        self._jerky = any(robot.limits[joint].jerk for joint in group.joints)
        self._return = _return_basis(self._times_s)
        self._last: Sent | None = None

    @property
    def begun(self) -> bool:
        """Whether the last command of this group is known."""
        return self._last is not None

    def forget(self) -> None:
        """The next motion starts where the robot is measured."""
        self._last = self._left = self._approach = None

    def shift(self, by_ns: int) -> None:
        """ROS time jumped: what was sent is now dated ``by_ns`` later."""
        if self._last is not None:
            self._last = replace(self._last, start_ns=self._last.start_ns + by_ns)

    def follow(self, window: Window, measured: Mapping[str, float], now_ns: int, dt: float) -> Move:
        """The next piece of the way along the plan. Raises UnsafeCommand; changes nothing."""
        position = self._positions(measured)
        if self._last is None:
            start = self._filter.apply(self.joints, position, None, position, 0.0).values
            speed = gain = self._zero
        else:
            start, speed, gain = self._last.at(now_ns)
            if self._jerky:  # as it was until now: where two curves meet it may jump
                gain = self._last.at(now_ns - 1000)[2]
        rows = len(self._times_s)
        values, velocities = self._planned(window, now_ns, rows)
        apart = np.empty((2, len(start)))
        np.subtract(start, values[0], out=apart[0])
        np.subtract(speed, velocities[0], out=apart[1])
        back = self._return @ apart
        path = self._filter.path(
            self.joints,
            self._spacing_s,
            self._period_s,
            (start, speed, gain),
            (values, velocities),
            (values + back[:rows], velocities + back[rows:]),
            position,
        )
        points, speeds, due = self._brakes.tail(path.values, path.velocities)
        begin = None if self._last is None else (self._filter.inside(self.joints, start), speed)
        command = GroupCommand(self.group, points[1:], speeds[1:], due[1:], begin)
        last = Sent(now_ns, due, points, speeds)
        return Move(last, bool(path.clipped), command, behind=self._approach is not None)

    def sent(self, move: Move, now_ns: int) -> None:
        """Remembers what is commanded now."""
        self._last = move.last
        self._done(now_ns)

    def hold(self, now_ns: int, dt: float, *, brake: bool) -> GroupCommand:
        """Ends where it would have ended by itself, or with ``brake`` as soon as the acceleration limits
        allow, between half the lookahead and all of it; then keeps that."""
        assert self._last is not None
        if brake:
            self._last = self._braked(self._last, now_ns)
        # Not sooner than half the lookahead: a message that is under way for a while must not be past.
        positions, velocities, due = self._last.ahead(now_ns, self._lookahead_s / 2.0)
        begin = None
        if now_ns < self._last.end_ns:
            position, velocity, _ = self._last.at(now_ns)
            begin = (self._filter.inside(self.joints, position), velocity)
        return GroupCommand(self.group, positions, velocities, due, begin)

    def _braked(self, last: Sent, now_ns: int) -> Sent:
        position, velocity, _ = last.at(now_ns)
        wanted = float(np.max(np.abs(velocity) / self._acceleration, initial=0.0))
        braking_s = min(max(wanted, self._lookahead_s / 2.0), self._lookahead_s)
        points, speeds, due = self._brakes.stop(position, velocity, braking_s)
        return Sent(now_ns, due, points, speeds)

    def _stand(self) -> None:
        """A trajectory ends by itself."""

    def _commanded(self, now_ns: int) -> tuple[Values, bool]:
        assert self._last is not None
        return self._last.at(now_ns)[0], now_ns < self._last.end_ns

    def _origin(self, measured: Values, now_ns: int) -> Sent:
        if self._last is None:
            start = self._filter.apply(self.joints, measured, None, measured, 0.0).values
            return Sent(now_ns, np.array([0.0, 1.0]), np.stack([start, start]), np.zeros((2, len(start))))
        # From now on, whatever happens to the clock.
        since_s = (now_ns - self._last.start_ns) / 1e9
        return replace(self._last, start_ns=now_ns, times_s=self._last.times_s - since_s)

    def _origin_at(self, origin: Sent, times_s: Values) -> tuple[Values, Values]:
        return origin.along(times_s)


def _return_basis(times_s: Values) -> Values:
    """[2K, 2]: positions, then velocities, of the cubics that begin with position 1 and velocity 0, and with
    0 and 1, and end at rest in 0 at the last of the times [K]."""
    end_s = float(times_s[-1])
    u = times_s / end_s
    rest = 1.0 - u
    return np.vstack(
        [
            np.stack([rest * rest * (1.0 + 2.0 * u), u * rest * rest * end_s], axis=1),
            np.stack([-6.0 * u * rest / end_s, rest * (1.0 - 3.0 * u)], axis=1),
        ]
    )
