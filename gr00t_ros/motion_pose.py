# SPDX-License-Identifier: Apache-2.0
"""A group that is told a pose, one a period: it stands where it was told to, whatever happens.

Holding means the last commanded pose, reached at rest; never zero. A motion begins where the pose is
measured, or at the last command while nobody has moved it since, and goes over to the plan within
``blend_time``: positions in a straight line, rotations on the shortest arc, weighted by
``merging.smooth_step``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.commands import GroupCommand
from gr00t_ros.merging import smooth_step
from gr00t_ros.motion_types import Move
from gr00t_ros.motion_velocity import STANDING_PERIODS
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import ActionGroupConfig, PoseLimits
from gr00t_ros.rotations import angular_velocity, between, multiply, rotvec_to_quaternion
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.safety_groups import PoseSafety, PoseState
from gr00t_ros.timeline import Window

Values = NDArray[np.float64]

# A pose that has moved by less (m, rad) since the last command was sent has not been moved by anybody.
STOOD_STILL_M, STOOD_STILL_RAD = 0.005, 0.015


@dataclass(frozen=True)
class Approach:
    """From ``start_ns`` on the plan is gone over to, from ``origin``, which may have been moving then."""

    start_ns: int
    origin: PoseState


class PoseMotion:
    """One action group. Not thread safe; times are ROS time. See ``motion_types.Motion``."""

    def __init__(
        self, group: ActionGroupConfig, robot: RobotConfig, safety: SafetyFilter, *, period_s: float
    ) -> None:
        self.group = group
        self.joints = group.measured
        limits = robot.group_limits[group.key]
        assert isinstance(limits, PoseLimits)
        self._safety = PoseSafety(group.key, limits, safety)
        self._period_s, self._blend_s = period_s, robot.executor.blend_time
        self._standing = 0
        self._behind = True  # the last command was not on the plan
        self._last: PoseState | None = None
        self._left: Values | None = None  # where it was measured when the last command had been sent
        self._approach: Approach | None = None

    @property
    def begun(self) -> bool:
        """Whether the last command of this group is known."""
        return self._last is not None

    @property
    def moving(self) -> bool:
        """Whether the last command is on its way still."""
        return self._last is not None and bool(self._last.linear.any() or self._last.angular.any())

    def forget(self) -> None:
        """The next motion starts where the pose is measured."""
        self._last = self._left = self._approach = None

    def shift(self, by_ns: int) -> None:
        """A pose that was sent has no date; the way to the plan has."""
        if self._approach is not None:
            self._approach = replace(self._approach, start_ns=self._approach.start_ns + by_ns)

    def leave(self, measured: Mapping[str, float]) -> None:
        """Nothing is sent from here on, and others may move the tool."""
        if self._last is not None and all(name in measured for name in self.joints):
            self._last = PoseState.at_rest(self._last.pose)
            self._left = self._pose(measured)
        else:
            self.forget()

    def anew(self, now_ns: int) -> None:
        """After ``executor/start`` a pose at rest is taken as it is measured."""
        if not self.moving:
            self.forget()

    def resume(self, window: Window, measured: Mapping[str, float], now_ns: int) -> None:
        """The plan is gone over to from the last command, or from the measured pose at the first motion and
        where somebody moved it. Raises UnsafeCommand where that is outside the box."""
        pose = self._pose(measured)
        if self._last is not None and self._left is not None:
            moved = float(np.linalg.norm(pose[:3] - self._left[:3]))
            turned = float(np.linalg.norm(between(self._left[3:], pose[3:])))
            stood = moved <= STOOD_STILL_M and turned <= STOOD_STILL_RAD
            if not stood or not self._safety.near(self._last.pose, pose):
                self.forget()
        origin = self._safety.first(pose) if self._last is None else self._last
        self._left, self._approach = None, Approach(now_ns, origin)
        self._behind = True

    def follow(self, window: Window, measured: Mapping[str, float], now_ns: int, dt: float) -> Move:
        """The next pose on the way along the plan. Raises UnsafeCommand; changes nothing."""
        pose = self._pose(measured)
        target, velocity = self._target(window, now_ns)
        last = self._last
        if last is None:
            last = self._safety.first(pose) if self._approach is None else self._approach.origin
        reached, clipped = self._safety.apply(target, velocity, last, pose, dt, catching_up=self._behind)
        return Move(reached, bool(clipped), self._command(reached), self._approach is not None)

    def sent(self, move: Move, now_ns: int) -> None:
        """Remembers what is commanded now."""
        self._last, self._left, self._standing = move.last, None, 0
        self._behind = move.clipped or move.behind
        if self._approach is not None and now_ns - self._approach.start_ns > self._blend_s * 1e9:
            self._approach = None

    def hold(self, now_ns: int, dt: float, *, brake: bool) -> GroupCommand:
        """Runs out at the acceleration limits, and keeps its end."""
        assert self._last is not None
        self._behind = True
        self._standing = self._standing + 1 if dt == 0.0 else 0
        if self._standing > STANDING_PERIODS:
            dt = self._period_s
        if dt > 0.0:
            self._last = self._safety.braked(self._last, dt)
        return self._command(self._last)

    def _target(self, window: Window, now_ns: int) -> tuple[Values, Values]:
        """Where the plan wants it [7], and how fast that moves [6]: linear, angular."""
        values, rates = window.values[self.group.key][0], window.velocities[self.group.key][0]
        velocity = np.concatenate([rates[:3], angular_velocity(values[3:], rates[3:])])
        if self._approach is None:
            return values, velocity
        begun_s = min(max((now_ns - self._approach.start_ns) / 1e9, 0.0), self._blend_s)
        share, change = (float(x) for x in smooth_step(np.array(begun_s / self._blend_s)))
        # What was under way runs out meanwhile, its velocity going down to zero.
        origin, left = self._approach.origin, 1.0 - begun_s / self._blend_s
        run_s = begun_s * (1.0 + left) / 2.0
        place = origin.position + origin.linear * run_s
        turned = multiply(rotvec_to_quaternion(origin.angular * run_s), origin.rotation)
        turn = between(turned, values[3:])
        position = place + share * (values[:3] - place)
        rotation = multiply(rotvec_to_quaternion(share * turn), turned)
        # Of the rotation the part along the arc; the acceleration limit has the rest.
        rate = np.concatenate([values[:3] - place, turn]) * (change / self._blend_s)
        old = np.concatenate([origin.linear, origin.angular]) * left
        return np.concatenate([position, rotation]), old + share * (velocity - old) + rate

    def _command(self, state: PoseState) -> GroupCommand:
        pose = state.pose
        return GroupCommand(self.group, pose[None], np.zeros((1, len(pose))), np.zeros(1))

    def _pose(self, measured: Mapping[str, float]) -> Values:
        return np.array([measured[name] for name in self.joints])
