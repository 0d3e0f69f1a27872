# SPDX-License-Identifier: Apache-2.0
"""What all groups of joint positions have in common: where a motion begins, and how it goes over to the plan.

Who interpolates makes the difference between the two kinds: ``motion_trajectory`` gives a controller a piece
of the way, ``motion_streamed`` one position a period.

A motion that begins, or goes on after a hold, starts from what is under way (a trajectory that ends, a
position that stands) and goes over to the plan with the weight of ``merging.smooth_step``, so that position,
velocity and acceleration are continuous. That takes ``blend_time``, or longer where the limits ask for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.merging import smooth_step
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import SCALAR, ActionGroupConfig
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.timeline import Window

Values = NDArray[np.float64]

# Points of a trajectory before it brakes, at most. They fill the first half of the lookahead: enough to
# bridge some late periods, and no more work at a high rate than at 50 Hz.
MOVING_POINTS = 5
# A joint that has moved by less (rad, m) since the last command was sent has not been moved by anybody: ten
# times the resolution of a hobby servo (2 pi / 4096), and little enough to begin with.
STOOD_STILL = 0.015
# A joint that is further (rad, m) from its command when a motion begins was not held there: a motor without
# power, an arm that sagged. Less is what a soft servo differs by under load.
HELD = 0.1
# To go over to a plan that is d away and moves at v takes, in the time T, at most 5.8 d / T^2 + 4.6 v / T of
# acceleration and 1.9 d / T + 1.5 v of speed: the extremes of smooth_step's derivatives, and of s times it.
# This share of the limits is for that, the rest for the plan's own motion.
SHARE = 0.8
# A way that would take longer (s) is cut by the limits instead: the plan waits for nobody.
LONGEST_APPROACH_S = 1.0


@dataclass(frozen=True)
class Approach:
    """From ``start_ns`` on the plan is gone over to within ``time_s``, from ``origin``: what was under way
    then, as its motion remembers it."""

    start_ns: int
    time_s: float
    origin: Any


class JointMotion(ABC):
    """A group of joint positions. Not thread safe; times are ROS time. See ``motion_types.Motion``."""

    def __init__(self, group: ActionGroupConfig, robot: RobotConfig, safety: SafetyFilter) -> None:
        self.group = group
        self.joints = group.joints
        limits = [robot.limits[joint] for joint in group.joints]
        self._low = np.array([limit.min for limit in limits])
        self._high = np.array([limit.max for limit in limits])
        self._speed = np.array([limit.velocity for limit in limits])
        self._acceleration = np.array([limit.acceleration or np.inf for limit in limits])
        self._bounded = np.isfinite(self._acceleration)
        self._brake = np.where(self._bounded, self._acceleration, 1.0)  # a number to count with
        tracking = np.array([limit.max_tracking_error for limit in limits])
        # How far a joint may stand from a command that is begun at; a gripper holds an object with that.
        self._followed = tracking if group.representation == SCALAR else np.minimum(tracking, HELD)
        self._filter = safety
        self._blend_s = robot.executor.blend_time
        self._approach: Approach | None = None
        self._left: Values | None = None  # where it was measured when the last command had been sent

    @property
    def moving(self) -> bool:
        """A position ends by itself, where it leads to."""
        return False

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether the last command of this group is known."""

    @abstractmethod
    def forget(self) -> None:
        """The next motion starts where the robot is measured."""

    @abstractmethod
    def _stand(self) -> None:
        """Nothing moves any more by what was sent."""

    @abstractmethod
    def _commanded(self, now_ns: int) -> tuple[Values, bool]:
        """Where the last command is now [D], and whether it moves."""

    @abstractmethod
    def _origin(self, measured: Values, now_ns: int) -> Any:
        """What is under way at ``now_ns``; where nothing is, the joints as ``measured`` [D]. Raises
        UnsafeCommand where nothing may begin."""

    @abstractmethod
    def _origin_at(self, origin: Any, times_s: Values) -> tuple[Values, Values]:
        """Positions and velocities [K, D] of what was under way, ``times_s`` [K] after it was."""

    def leave(self, measured: Mapping[str, float]) -> None:
        """Nothing is sent from here on, and others may move the robot."""
        self._stand()
        if all(joint in measured for joint in self.joints):
            self._left = self._positions(measured)
        else:
            self.forget()

    def anew(self, now_ns: int) -> None:
        """After ``executor/start``; see ``motion_types.Motion``. A gripper that begins where it is measured
        would let go of what it holds."""
        if self.begun and self.group.representation != SCALAR and not self._commanded(now_ns)[1]:
            self.forget()

    def resume(self, window: Window, measured: Mapping[str, float], now_ns: int) -> None:
        """Goes over to the plan from now on; see ``motion_types.Motion``.

        After :meth:`leave` from the last command as long as nobody else moved the robot: a gripper that was
        told to close and holds an object stands far from its command, and would let go of it if that began at
        the object.
        """
        position = self._positions(measured)
        if self.begun and self._left is not None:
            command, moves = self._commanded(now_ns)
            stood = moves or (np.abs(position - self._left) <= STOOD_STILL).all()
            if not stood or (np.abs(position - command) > self._followed).any():
                self.forget()
        origin = self._origin(position, now_ns)
        start, speed = (rows[0] for rows in self._origin_at(origin, np.zeros(1)))
        key = self.group.key
        way, pace = np.abs(window.values[key][0] - start), np.abs(window.velocities[key][0] - speed)
        most = SHARE * self._brake
        long = (2.3 * pace + np.sqrt((2.3 * pace) ** 2 + 5.8 * most * way)) / most
        room = np.maximum(SHARE * self._speed - 1.5 * pace, 0.1 * self._speed)
        needed = float(np.maximum(np.where(self._bounded, long, 0.0), 1.9 * way / room).max())
        time_s = max(self._blend_s, min(needed, LONGEST_APPROACH_S))
        self._approach = Approach(now_ns, time_s, origin)

    def _planned(self, window: Window, now_ns: int, rows: int) -> tuple[Values, Values]:
        """Positions and velocities [rows, D] that the plan asks for, on the way to it where that is not over
        yet; new arrays."""
        key, approach = self.group.key, self._approach
        values, velocities = window.values[key][:rows], window.velocities[key][:rows]
        if approach is None:
            return values, velocities
        times_s = window.times_s[:rows] + (now_ns - approach.start_ns) / 1e9
        share, change = smooth_step(times_s / approach.time_s)
        share, change = share[:, None], change[:, None] / approach.time_s
        start, speed = self._origin_at(approach.origin, times_s)
        apart = values - start
        return start + share * apart, speed + share * (velocities - speed) + change * apart

    def _done(self, now_ns: int) -> None:
        """A command was sent: nobody else moves the robot, and an approach may be over."""
        self._left = None
        approach = self._approach
        if approach is not None and now_ns - approach.start_ns >= approach.time_s * 1e9:
            self._approach = None

    def _positions(self, measured: Mapping[str, float]) -> Values:
        return np.array([measured[joint] for joint in self.joints])


def point_times(period_s: float, lookahead_s: float) -> Values:
    """The instants from now (s), the first 0, at which a trajectory follows the plan before it brakes."""
    spacing_s = max(period_s, lookahead_s / 2.0 / MOVING_POINTS)
    points = max(1, int(lookahead_s / 2.0 / spacing_s + 1e-9))
    return np.arange(points + 1, dtype=np.float64) * spacing_s
