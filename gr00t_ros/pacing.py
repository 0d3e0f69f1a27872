# SPDX-License-Identifier: Apache-2.0
"""A fixed rate on monotonic time, and how well it is kept. No ROS types.

The control thread calls :meth:`Pace.wait` once a period. Periods lie on a grid: one that takes long does not
move those after it. When a whole period was missed the grid begins anew: catching up would send commands
faster than a controller expects them. However late it is, the thread sleeps for a tenth of a period (at most
2 ms): with a real-time priority and one core nobody else would run, and a stop could not be asked for.

"Late" is how long after its due time a period began, in seconds; the jitter is the 99th percentile of that.
"""

from __future__ import annotations

import time

# The histogram over the whole time: bins of 10 us up to 20 ms, and one for all that is longer.
BIN_S = 1e-5
BINS = 2000
# What is left to others of every period, however long its work takes.
REST_PART, MOST_REST_S = 0.1, 2e-3


class Pace:
    """The periods of one thread. Reading the figures from other threads is safe: they are plain numbers."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.late_periods = 0  # periods that began after the next one was due
        self.worst_s = 0.0
        self._due = self._began = 0.0
        count = max(1, round(1.0 / period_s))  # the last second
        self._late = [0.0] * count
        self._spans = [period_s] * count
        self._count = 0
        self._histogram = [0] * (BINS + 1)

    def start(self) -> None:
        """The first period begins now."""
        self._due = self._began = time.monotonic()

    def wait(self) -> float:
        """Sleeps until the next period is due, and for a tenth of a period (at most 2 ms) when that is sooner
        or past; how late it began, in s."""
        self._due += self.period_s
        rest = self._due - time.monotonic()
        time.sleep(max(rest, min(REST_PART * self.period_s, MOST_REST_S)))
        now = time.monotonic()
        late = max(0.0, now - self._due)
        if late > self.period_s:
            self.late_periods += 1
            self._due = now
        self.worst_s = max(self.worst_s, late)
        place = self._count % len(self._late)
        self._late[place] = late
        self._spans[place] = now - self._began
        self._began = now
        self._histogram[min(int(late / BIN_S), BINS)] += 1
        self._count += 1
        return late

    def slack_s(self) -> float:
        """How long it is until the next period is due, in s; negative when it is late already."""
        return self._due + self.period_s - time.monotonic()

    @property
    def periods(self) -> int:
        """Periods since the start."""
        return self._count

    def jitter_s(self, part: float = 0.99) -> float:
        """How late periods of the last second began, in s: the value that ``part`` of them kept."""
        late = sorted(self._late[: self._count])
        return late[min(int(part * len(late)), len(late) - 1)] if late else 0.0

    def measured_period_s(self) -> float:
        """The mean period over the last second, in s."""
        spans = self._spans[: self._count]
        return sum(spans) / len(spans) if spans else self.period_s

    def lateness_s(self, part: float) -> float:
        """How late periods began since the start, in s, to 10 us (20 ms stands for all that is longer): the
        value that ``part`` of them kept."""
        left = part * self._count
        for place, count in enumerate(self._histogram):
            left -= count
            if left <= 0.0:
                return (place + 1) * BIN_S if self._count else 0.0
        return (BINS + 1) * BIN_S
