# SPDX-License-Identifier: Apache-2.0
"""What the executor said last, as far as the policy cares: whether it follows a plan, and until when.

``nodes/conversions`` reads the plan itself; this is for those who only ask how much of it is left.
"""

from __future__ import annotations

from dataclasses import dataclass

# It publishes ten times a second: ten messages missed.
SILENT_S = 1.0


@dataclass(frozen=True)
class ExecutorReport:
    """One ``ExecutorStatus``. ``heard_s`` is monotonic time at its arrival, ``plan_end_ns`` ROS time at which
    the last step of the plan is due, None without a plan."""

    heard_s: float
    executing: bool
    stopped: bool
    reason: str
    session: int
    sequence: int
    plan_end_ns: int | None

    def silent(self, now_s: float) -> bool:
        """Whether this is too old to say anything about now (monotonic time)."""
        return now_s - self.heard_s > SILENT_S

    def remaining_s(self, now_ns: int) -> float:
        """For how long there still is a plan at ROS time ``now_ns``; 0 without one."""
        if not self.executing or self.plan_end_ns is None:
            return 0.0
        return max(0.0, (self.plan_end_ns - now_ns) / 1e9)
