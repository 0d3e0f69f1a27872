# SPDX-License-Identifier: Apache-2.0
"""For how long the measured joints have stood still. A joint that is not measured does not stand still."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


class _Joint:
    """The range [``low``, ``high``] in which one joint has been from ``since_s`` to ``last_s``."""

    __slots__ = ("high", "last_s", "low", "since_s")

    def __init__(self) -> None:
        self.since_s = self.last_s = -math.inf
        self.low = self.high = 0.0

    def see(self, value: float, now_s: float, threshold: float, gap_s: float) -> None:
        low, high = min(self.low, value), max(self.high, value)
        if now_s - self.last_s > gap_s or high - low > threshold:
            self.since_s, low, high = now_s, value, value
        self.low, self.high, self.last_s = low, high, now_s


class Stillness:
    """Watches ``joints`` for times in which none moves by more than a threshold, in its own unit (rad, m).

    What counts is the range that a joint stays within, not its speed: that is free of the noise of a
    differentiated encoder, and a joint that creeps leaves every range. After ``gap_s`` without a measurement
    a joint begins anew: nobody knows where it was meanwhile.
    """

    def __init__(self, joints: Iterable[str], gap_s: float) -> None:
        self._joints = {joint: _Joint() for joint in joints}
        self._gap_s = gap_s

    def clear(self) -> None:
        """Forget all measurements."""
        self._joints = {joint: _Joint() for joint in self._joints}

    def measure(
        self, names: Sequence[str], positions: Sequence[float], now_s: float, threshold: float
    ) -> None:
        """Positions by joint at monotonic time ``now_s``, of all joints or of some. Names without a position,
        and positions that are no numbers, are not measured."""
        for name, position in zip(names, positions, strict=False):
            joint = self._joints.get(name)
            if joint is not None and math.isfinite(position):
                joint.see(position, now_s, threshold, self._gap_s)

    def still_s(self, now_s: float) -> float:
        """For how long all joints have stood still until now (monotonic); 0 while one is not measured."""
        if not self._joints or any(now_s - joint.last_s > self._gap_s for joint in self._joints.values()):
            return 0.0
        return max(0.0, now_s - max(joint.since_s for joint in self._joints.values()))
