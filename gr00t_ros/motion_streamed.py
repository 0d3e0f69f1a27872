# SPDX-License-Identifier: Apache-2.0
"""A group of joints that takes one position a period: it stands where it was told to, whatever happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.commands import GroupCommand, single_point
from gr00t_ros.motion import JointMotion
from gr00t_ros.motion_types import Move
from gr00t_ros.motion_velocity import STANDING_PERIODS
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import ActionGroupConfig
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.timeline import Window

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Streamed:
    """A position [D] that was sent, the velocity [D] at which it was reached, and the acceleration [D] at
    which that was."""

    position: Values
    velocity: Values
    acceleration: Values


class StreamedMotion(JointMotion):
    """One action group. Not thread safe."""

    def __init__(self, group: ActionGroupConfig, robot: RobotConfig, safety: SafetyFilter) -> None:
        super().__init__(group, robot, safety)
        self._zero = np.zeros(group.width)
        self._last: Streamed | None = None
        self._standing = 0  # periods for which time has stood

    @property
    def moving(self) -> bool:
        """Whether the last position was reached in motion: to stop there would be a jump of speed."""
        return self._last is not None and bool(self._last.velocity.any())

    @property
    def begun(self) -> bool:
        """Whether the last command of this group is known."""
        return self._last is not None

    def forget(self) -> None:
        """The next motion starts where the robot is measured."""
        self._last = self._left = self._approach = None

    def shift(self, by_ns: int) -> None:
        """A position that was sent has no date."""

    def follow(self, window: Window, measured: Mapping[str, float], now_ns: int, dt: float) -> Move:
        """The next position on the way along the plan. Raises UnsafeCommand; changes nothing."""
        values, velocities = self._planned(window, now_ns, 1)
        last = self._last
        step = self._filter.follow(
            self.joints,
            values[0],
            velocities[0],
            None if last is None else last.position,
            self._zero if last is None else last.velocity,
            self._zero if last is None else last.acceleration,
            self._positions(measured),
            dt,
        )
        if dt > 0.0 or last is None:
            before = self._zero if last is None else last.velocity
            gained = (step.velocities - before) / dt if dt > 0.0 else self._zero
            sent = Streamed(step.values, step.velocities, gained)
        else:  # time has not moved since the last period, so the joint keeps its speed
            sent = replace(last, position=step.values)
        command = single_point(self.group, step.values, 0.0)
        return Move(sent, bool(step.clipped), command, behind=self._approach is not None)

    def sent(self, move: Move, now_ns: int) -> None:
        """Remembers what is commanded now."""
        self._last, self._standing = move.last, 0
        self._done(now_ns)

    def hold(self, now_ns: int, dt: float, *, brake: bool) -> GroupCommand:
        """Runs out at the acceleration limit, and keeps its end; without a limit it stands at once."""
        assert self._last is not None
        self._standing = self._standing + 1 if dt == 0.0 else 0
        if self._standing > STANDING_PERIODS:  # as the position does that is sent all the while
            self._stand()
        if dt > 0.0:
            speed = np.maximum(np.abs(self._last.velocity) - self._acceleration * dt, 0.0)
            wanted = self._last.position + np.copysign(speed, self._last.velocity) * dt
            position = np.minimum(np.maximum(wanted, self._low), self._high)
            velocity = (position - self._last.position) / dt
            self._last = Streamed(position, velocity, (velocity - self._last.velocity) / dt)
        return single_point(self.group, self._last.position, 0.0)

    def _stand(self) -> None:
        if self._last is not None:
            self._last = Streamed(self._last.position, self._zero, self._zero)

    def _commanded(self, now_ns: int) -> tuple[Values, bool]:
        assert self._last is not None
        return self._last.position, self.moving

    def _origin(self, measured: Values, now_ns: int) -> Streamed:
        if self._last is not None:
            return self._last
        start = self._filter.apply(self.joints, measured, None, measured, 0.0).values
        return Streamed(start, self._zero, self._zero)

    def _origin_at(self, origin: Streamed, times_s: Values) -> tuple[Values, Values]:
        """It would run out at the acceleration limit."""
        speed = np.where(self._bounded, np.abs(origin.velocity), 0.0)
        moving = np.minimum(times_s[:, None], speed / self._brake)
        lost = self._brake * moving
        way = np.copysign((speed - lost / 2.0) * moving, origin.velocity)
        position = np.minimum(np.maximum(origin.position + way, self._low), self._high)
        return position, np.copysign(speed - lost, origin.velocity)
