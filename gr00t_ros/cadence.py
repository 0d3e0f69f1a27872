# SPDX-License-Identifier: Apache-2.0
"""When the next inference begins: back to back, so many times a second, or when the plan runs short.

Frames that come while none is due are not used; the planner counts them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from gr00t_ros.chunk import Chunk
from gr00t_ros.executor_report import ExecutorReport
from gr00t_ros.rtc import LatencyEstimate

# How long the executor may take to tell that it follows the newest chunk: three of its statuses. After that
# it has refused the chunk, and the next one is due.
ACCEPTANCE_S = 0.3


class Cadence:
    """For the planner's thread, but for ``hear`` and ``clear``, which any thread may call."""

    def __init__(
        self, rate: Callable[[], float] = lambda: 0.0, replan_below: Callable[[], float] = lambda: 0.0
    ) -> None:
        """``rate`` gives inferences per second, 0: back to back. ``replan_below`` gives how many seconds of
        plan must be left, beyond a chunk's latency, for the next inference to wait; 0: it never does."""
        self._rate, self._replan_below = rate, replan_below
        self._latency = LatencyEstimate()
        self._executor: ExecutorReport | None = None
        self._newest: tuple[int, int, float] | None = None  # session, sequence, and when it was published
        self._turn_s = -math.inf  # monotonic time at which the last inference was due

    def hear(self, report: ExecutorReport) -> None:
        """What the executor said last."""
        self._executor = report

    def measure(self, seconds: float) -> None:
        """A chunk was published so long after its frame."""
        self._latency.add(seconds)

    def begin(self) -> None:
        """An inference begins. One that begins late does not make the next one early."""
        now_s, period_s = time.monotonic(), self._period_s()
        due_s = self._turn_s + period_s
        self._turn_s = due_s if now_s - due_s < period_s else now_s

    def published(self, chunk: Chunk) -> None:
        """A chunk went out."""
        self._newest = (chunk.session, chunk.sequence, time.monotonic())

    def clear(self) -> None:
        """There is no plan any more."""
        self._executor = self._newest = None

    def wait_s(self) -> float | None:
        """For how long none will be due for certain; None when that is not known."""
        wait_s = self._turn_s + self._period_s() - time.monotonic()
        return wait_s if wait_s > 0.0 else None

    def is_due(self, now_ns: int) -> bool:
        """Whether an inference should begin now (``now_ns``: ROS time)."""
        return self.wait_s() is None and not self._plan_lasts(now_ns)

    def _period_s(self) -> float:
        rate = self._rate()
        return 1.0 / rate if rate > 0.0 else 0.0

    def _plan_lasts(self, now_ns: int) -> bool:
        """Whether the executor has more of a plan than it must have. Not when that is not known."""
        below_s, latency_s, now_s = self._replan_below(), self._latency.seconds, time.monotonic()
        executor, newest = self._executor, self._newest
        if below_s <= 0.0 or latency_s is None or newest is None:
            return False
        session, sequence, published_s = newest
        if now_s - published_s < ACCEPTANCE_S and (
            executor is None or (executor.session, executor.sequence) < (session, sequence)
        ):
            return True  # what is left with the newest chunk will be told in a moment
        if executor is None or executor.silent(now_s):
            return False
        return executor.remaining_s(now_ns) - latency_s > below_s
