# SPDX-License-Identifier: Apache-2.0
"""Notices when ROS time cannot be trusted: it went back, leapt ahead, has not begun, or stands still.

ROS time is the system's clock or simulated time; both can be set while a robot runs. Everything that is
placed by stamps (frames, joint states, chunks) is meaningless after such a jump. The policy and the
executor each keep one :class:`ClockWatch` and ask it often: before they use a stamp, and with every message
or period, since a simulation that is faster than real time looks like a jump when asked too seldom.
"""

from __future__ import annotations

# A system clock that is slewed, or read on two cores, may seem to step back by this much. Less than any
# period here.
MAX_STEP_BACK_S = 0.005
# ROS time may run ahead of monotonic time by this much between two checks: it is more than a simulation at
# ten times real time gains in one period of 50 Hz, and less than any clock correction worth the name.
MAX_LEAP_S = 0.5
# Simulated time that has not moved for this long is paused: five messages of a /clock at 10 Hz.
MAX_STANDSTILL_S = 0.5


class ClockWatch:
    """Compares ROS time with monotonic time from one check to the next. Not thread safe: both times are to
    be read under the caller's lock, or they come out of order."""

    def __init__(self, max_leap_s: float = MAX_LEAP_S, max_standstill_s: float = MAX_STANDSTILL_S) -> None:
        """The bounds as the constants above explain them."""
        self._max_leap_s, self._max_standstill_s = max_leap_s, max_standstill_s
        self._last: tuple[int, int] | None = None  # ROS time, monotonic time
        self._moved_ns = 0  # monotonic time at which ROS time was last seen to move

    def check(self, now_ns: int, mono_ns: int) -> str:
        """An empty text, or a sentence about the jump that happened since the last check."""
        last, self._last = self._last, (now_ns, mono_ns)
        if last is None or now_ns != last[0]:
            self._moved_ns = mono_ns
        if last is None or last[0] == 0:
            return ""  # the first reading, or simulated time has just begun
        step_s = (now_ns - last[0]) / 1e9
        if step_s < -MAX_STEP_BACK_S:
            return f"ROS time jumped back by {-step_s:.3f} s"
        leap_s = step_s - (mono_ns - last[1]) / 1e9
        if leap_s > self._max_leap_s:
            return f"ROS time jumped forward by {leap_s:.3f} s"
        return ""

    def standing(self, now_ns: int, mono_ns: int) -> str:
        """An empty text, or a sentence when ROS time has not begun or is paused. Call after :meth:`check`."""
        if now_ns == 0:
            return "simulated time has not begun: nothing came on /clock"
        still_s = (mono_ns - self._moved_ns) / 1e9
        return "ROS time stands still" if still_s > self._max_standstill_s else ""
