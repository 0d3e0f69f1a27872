# SPDX-License-Identifier: Apache-2.0
"""The thread that runs the periods of the executor: at its pace, until it is ended, whatever happens in one.

No ROS types. ``nodes/chunk_executor`` makes one :class:`ControlLoop` an activation. Each has an end of its
own: a thread that was stalled while it should have ended does not wake up as part of the next activation.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import numpy as np

from gr00t_ros.pacing import Pace
from gr00t_ros.realtime import SteadyInterpreter, take_priority
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import PoseLimits, TwistLimits

# Braking may take this much longer (s) than the limits say: the loop's reaction, a period that is late.
BRAKING_SLACK_S = 0.5
# Whoever ends a process does not wait for ever.
LONGEST_BRAKING_S = 10.0


class ControlLoop:
    """One thread of turns. ``start`` and ``end`` are its owner's."""

    def __init__(
        self,
        pace: Pace,
        turn: Callable[[float], None],
        failed: Callable[[Exception], None],
        *,
        real_time: bool,
    ) -> None:
        """``turn(late_s)`` is called once a period; what it raises goes to ``failed``, and the next period
        comes all the same. ``real_time`` asks for a real-time priority."""
        self.pace = pace
        self.has_priority = False
        self._turn, self._failed, self._real_time = turn, failed, real_time
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """The first turn comes at once."""
        self._thread.start()

    def end(self, timeout_s: float) -> bool:
        """No further turn; whether the thread has ended within ``timeout_s``."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        self.has_priority = self._real_time and not take_priority()
        with SteadyInterpreter() as interpreter:
            self.pace.start()
            late_s = 0.0
            while not self._ended.is_set():
                # Without this thread nobody brakes: nothing may end it but its owner.
                try:
                    self._turn(late_s)
                    interpreter.idle(self.pace.slack_s())
                except Exception as error:
                    self._tell(error)
                try:
                    late_s = self.pace.wait()
                except Exception as error:
                    self._tell(error)
                    self._ended.wait(self.pace.period_s)

    def _tell(self, error: Exception) -> None:
        with contextlib.suppress(Exception):
            self._failed(error)


def braking_s(robot: RobotConfig) -> float:
    """How long (s) whatever ``robot`` may be commanded takes to come to rest inside its limits, and some
    slack; at most :data:`LONGEST_BRAKING_S`."""
    pairs = [(limit.velocity, limit.acceleration) for limit in robot.limits.values()]
    for limits in robot.group_limits.values():
        if isinstance(limits, TwistLimits | PoseLimits):
            pairs.append((limits.linear_velocity, limits.linear_acceleration))
            pairs.append((limits.angular_velocity, limits.angular_acceleration))
    longest = max((v / a for v, a in pairs if a and np.isfinite(v)), default=0.0)
    return min(longest + BRAKING_SLACK_S, LONGEST_BRAKING_S)
