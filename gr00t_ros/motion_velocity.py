# SPDX-License-Identifier: Apache-2.0
"""A group that is told velocities: joints, or a twist.

Holding means zero: it is braked inside its acceleration limits, and then told zero. A velocity that was sent
runs on by itself, so what it has done since a position was measured is counted: a joint comes to rest before
its position limit also when its measurement is as old as it may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.commands import GroupCommand
from gr00t_ros.merging import smooth_step
from gr00t_ros.motion_types import Move
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import ActionGroupConfig, TwistLimits
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.safety_groups import JointVelocityLimits, TwistVelocityLimits
from gr00t_ros.timeline import Window

Values = NDArray[np.float64]

# Where time stands for this many periods, what moves is braked by periods: it must not go on until time does.
STANDING_PERIODS = 10
# A joint state is this much older (s) than its stamp says at most: what a driver takes to read a bus.
UNSEEN_S = 0.02


@dataclass(frozen=True)
class Sent:
    """Velocities [D] that were sent at ``now_ns``."""

    velocity: Values
    now_ns: int


class VelocityMotion:
    """One action group. Not thread safe; times are ROS time. See ``motion_types.Motion``."""

    def __init__(
        self, group: ActionGroupConfig, robot: RobotConfig, safety: SafetyFilter, *, period_s: float
    ) -> None:
        self.group = group
        self.joints = group.measured
        limits = robot.group_limits.get(group.key)
        self._limits: JointVelocityLimits | TwistVelocityLimits
        if isinstance(limits, TwistLimits):
            self._limits = TwistVelocityLimits(group.twist, limits, safety)
        else:
            joints = [robot.limits[joint] for joint in group.joints]
            self._limits = JointVelocityLimits(group.joints, joints, safety, period_s=period_s)
        self._period_s, self._blend_s = period_s, robot.executor.blend_time
        self._last: Sent | None = None
        self._from: Sent | None = None  # where the motion that has begun went over from
        # The way [D] of each of the last periods, a ring: as many as a measurement may be old, and half as
        # many again for periods that are short.
        self._oldest_s = robot.executor.max_joint_state_age + UNSEEN_S
        self._ways = np.zeros((math.ceil(1.5 * self._oldest_s / period_s) + 1, group.width))
        self._place = self._standing = 0
        self._behind = True  # the last command was not on the plan

    @property
    def begun(self) -> bool:
        """Whether the last command of this group is known."""
        return self._last is not None

    @property
    def moving(self) -> bool:
        """Whether the last command is not zero."""
        return self._last is not None and bool(self._last.velocity.any())

    def forget(self) -> None:
        """The next motion starts at zero."""
        self._last = self._from = None
        self._ways[:] = 0.0

    def shift(self, by_ns: int) -> None:
        """ROS time jumped: what was sent is now dated ``by_ns`` later."""
        if self._last is not None:
            self._last = Sent(self._last.velocity, self._last.now_ns + by_ns)
        if self._from is not None:
            self._from = Sent(self._from.velocity, self._from.now_ns + by_ns)

    def leave(self, measured: Mapping[str, float]) -> None:
        """Nothing is sent from here on; it has been told zero."""
        self.forget()

    def anew(self, now_ns: int) -> None:
        """A velocity begins at zero, or at the one under way, also after ``executor/start``."""

    def resume(self, window: Window, measured: Mapping[str, float], now_ns: int) -> None:
        """The plan is gone over to within ``blend_time``, from the velocity under way, or from zero."""
        zero = np.zeros(self.group.width)
        self._from = Sent(zero if self._last is None else self._last.velocity, now_ns)
        self._behind = True

    def follow(self, window: Window, measured: Mapping[str, float], now_ns: int, dt: float) -> Move:
        """The velocities of this period. Raises UnsafeCommand; changes nothing."""
        # Velocities are followed as they are: how fast the plan changes them is the acceleration limit's.
        target = window.values[self.group.key][0] * window.pace[0]
        if self._from is not None:
            begun_s = (now_ns - self._from.now_ns) / 1e9
            share = smooth_step(np.array(begun_s / self._blend_s))[0]
            target = self._from.velocity + share * (target - self._from.velocity)
        previous = np.zeros(self.group.width) if self._last is None else self._last.velocity
        position = np.array([measured[joint] for joint in self.joints])
        velocity, clipped = self._limits.apply(
            target, previous, dt, position, self._since(now_ns), catching_up=self._behind
        )
        if dt == 0.0 and self._last is not None:  # time has not moved since the last period
            velocity = previous
        return Move(Sent(velocity, now_ns), bool(clipped), self._command(velocity), self._from is not None)

    def sent(self, move: Move, now_ns: int) -> None:
        """Remembers what is commanded now."""
        self._remember(move.last)
        self._standing, self._behind = 0, move.clipped or move.behind
        if self._from is not None and now_ns - self._from.now_ns > self._blend_s * 1e9:
            self._from = None

    def hold(self, now_ns: int, dt: float, *, brake: bool) -> GroupCommand:
        """Brakes at the acceleration limit, then zero; there is no other way to end a velocity."""
        assert self._last is not None
        self._behind = True
        self._standing = self._standing + 1 if dt == 0.0 else 0
        if self._standing > STANDING_PERIODS:
            dt = self._period_s
        self._remember(Sent(self._limits.braked(self._last.velocity, dt), now_ns))
        return self._command(self._last.velocity)

    def _remember(self, sent: Sent) -> None:
        if self._last is not None and sent.now_ns != self._last.now_ns:
            self._ways[self._place] = self._last.velocity * self._elapsed_s(sent.now_ns)
            self._place = (self._place + 1) % len(self._ways)
        self._last = sent

    def _elapsed_s(self, now_ns: int) -> float:
        """For how long the last command has run, as far as that matters."""
        assert self._last is not None
        return min(max((now_ns - self._last.now_ns) / 1e9, 0.0), self._oldest_s)

    def _since(self, now_ns: int) -> tuple[Values, Values]:
        """How far up and down [D] the joints may have moved since the oldest measurement that counts."""
        way = np.zeros(self.group.width)
        if self._last is not None:
            way = self._last.velocity * self._elapsed_s(now_ns)
        up = np.maximum(self._ways, 0.0).sum(axis=0) + np.maximum(way, 0.0)
        down = np.maximum(-self._ways, 0.0).sum(axis=0) + np.maximum(-way, 0.0)
        return up, down

    def _command(self, velocity: Values) -> GroupCommand:
        return GroupCommand(self.group, np.zeros((0, len(velocity))), velocity[None], np.zeros(1))
