# SPDX-License-Identifier: Apache-2.0
"""What ros2_control would run in front of the simulated servos: a trajectory and a position controller. No
ROS.

Used by ``nodes/so101_sim.py``. They follow joint_trajectory_controller (with
``interpolate_from_desired_state`` and ``allow_trajectory_replacement: false``) and forward_command_controller
closely enough that a program which drives the one drives the other: the newest trajectory replaces the one
before it at once, points that are already over are passed by, the way to a first point that is still to come
starts from the position commanded when the trajectory came in, and a trajectory whose last point moves is
refused. One thing is better here: the real controller takes the state that it starts from to be one of its
updates older or younger than it is. ``docs/how-to/controllers.md`` has the rules.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import MessageError

_NS = 1_000_000_000
# What joint_trajectory_controller takes for zero.
_AT_REST = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Trajectory:
    """Points of one trajectory: times_ns [N] on the clock, ascending; positions and maybe velocities [N, D]
    (SI).
    """

    times_ns: tuple[int, ...]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None

    def sample(self, now_ns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions and velocities [D] at ``now_ns``; at rest before the first and after the last point."""
        after = bisect.bisect_right(self.times_ns, now_ns)
        if after == 0 or after == len(self.times_ns):
            end = self.positions[0 if after == 0 else -1]
            return end, np.zeros_like(end)
        start, end_ns = self.times_ns[after - 1], self.times_ns[after]
        span = (end_ns - start) / _NS
        s = (now_ns - start) / _NS / span
        p0, p1 = self.positions[after - 1], self.positions[after]
        if self.velocities is None:
            return p0 + s * (p1 - p0), (p1 - p0) / span
        # Cubic Hermite: what joint_trajectory_controller does when points carry velocities.
        m0, m1 = self.velocities[after - 1] * span, self.velocities[after] * span
        place = (2 * s**3 - 3 * s**2 + 1) * p0 + (s**3 - 2 * s**2 + s) * m0
        place = place + (3 * s**2 - 2 * s**3) * p1 + (s**3 - s**2) * m1
        slope = (6 * s**2 - 6 * s) * (p0 - p1) + (3 * s**2 - 4 * s + 1) * m0 + (3 * s**2 - 2 * s) * m1
        return place, slope / span


class TrajectoryController:
    """Follows JointTrajectory commands for ``joints``. Times are ns on one clock of the caller's choice."""

    def __init__(self, joints: Sequence[str], positions: NDArray[np.float64]) -> None:
        """positions [D]: held until the first trajectory starts."""
        self.joints = tuple(joints)
        self.reset(positions)

    def reset(self, positions: NDArray[np.float64]) -> None:
        """Forgets every trajectory and holds ``positions`` [D]."""
        self._current = Trajectory((0,), np.array(positions, dtype=np.float64)[None], None)

    def accept(
        self,
        names: Sequence[str],
        offsets_ns: Sequence[int],
        positions: Sequence[Sequence[float]],
        velocities: Sequence[Sequence[float]],
        *,
        stamp_ns: int,
        now_ns: int,
    ) -> None:
        """Takes one trajectory: ``offsets_ns`` [N] from its stamp (0 means now), ``positions`` [N, D],
        ``velocities`` [N, D] or N empty rows, in the order of ``names``.

        Raises MessageError, and keeps what it was doing, when joints are missing or unknown, times do not
        ascend, lengths differ, a value is not finite, the last point moves, or all of the trajectory lies in
        the past.
        """
        if sorted(names) != sorted(self.joints):
            raise MessageError(
                f"trajectory for joints {list(names)}, this controller has {list(self.joints)}"
            )
        if not offsets_ns:
            raise MessageError("trajectory without points")
        if any(later <= earlier for earlier, later in itertools.pairwise(offsets_ns)):
            raise MessageError("trajectory whose time_from_start does not ascend from point to point")
        order = [list(names).index(joint) for joint in self.joints]
        points = self._matrix("positions", positions, len(names))[:, order]
        speeds = None
        if all(len(row) for row in velocities) and velocities:
            speeds = self._matrix("velocities", velocities, len(names))[:, order]
            if (np.abs(speeds[-1]) > _AT_REST).any():
                raise MessageError("trajectory whose last point has a velocity; it must end at rest")
        start = stamp_ns or now_ns
        times = tuple(start + int(offset) for offset in offsets_ns)
        if times[-1] < now_ns:
            late = (now_ns - times[-1]) / _NS
            raise MessageError(f"trajectory that ended {late:.3f} s ago")
        if times[0] > now_ns:
            before, speed = self._current.sample(now_ns)
            times = (now_ns, *times)
            points = np.concatenate([before[None], points])
            if speeds is not None:
                speeds = np.concatenate([speed[None], speeds])
        self._current = Trajectory(times, points, speeds)

    @staticmethod
    def _matrix(what: str, rows: Sequence[Sequence[float]], width: int) -> NDArray[np.float64]:
        for i, row in enumerate(rows):
            if len(row) != width:
                raise MessageError(f"trajectory point {i} has {len(row)} {what} for {width} joints")
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), width)
        if not np.isfinite(matrix).all():
            raise MessageError(f"trajectory with {what} that are not finite")
        return matrix

    def sample(self, now_ns: int) -> NDArray[np.float64]:
        """Commanded positions [D] at ``now_ns``, in the order of ``joints``."""
        return self._current.sample(now_ns)[0]


class PositionController:
    """Holds the newest Float64MultiArray for ``joints``, at once."""

    def __init__(self, joints: Sequence[str], positions: NDArray[np.float64]) -> None:
        self.joints = tuple(joints)
        self.reset(positions)

    def reset(self, positions: NDArray[np.float64]) -> None:
        """Holds ``positions`` [D]."""
        self._positions = np.array(positions, dtype=np.float64)

    def accept(self, values: Sequence[float]) -> None:
        """Takes one command. Raises MessageError for a wrong length or values that are not finite."""
        if len(values) != len(self.joints):
            raise MessageError(f"{len(values)} values for joints {list(self.joints)}")
        new = np.array(values, dtype=np.float64)
        if not np.isfinite(new).all():
            raise MessageError(f"values {list(values)} are not all finite")
        self._positions = new

    def sample(self, now_ns: int) -> NDArray[np.float64]:
        """Commanded positions [D], in the order of ``joints``; the time does not matter."""
        return self._positions
