# SPDX-License-Identifier: Apache-2.0
"""A recorded JointTrajectory as the curve that its controller ran.

joint_trajectory_controller goes from where it stands to the first point, then from point to point: cubic
Hermite where points have velocities (``splines.Sent``), straight lines where they have none, and stands at
the last one. Points of other joints are ignored; a group's joints must all be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import MessageError
from gr00t_ros.splines import Sent

Values = NDArray[np.float64]
State = tuple[Values, "Values | None"]
_NS = 1_000_000_000


class Trajectory:
    """One trajectory of D joints. ``end_ns`` is when it reaches its last point."""

    def __init__(
        self, start_ns: int, times_s: Values, positions: Values, velocities: Values | None, known: bool
    ) -> None:
        """``times_s`` [P] rise from 0; ``known`` says whether the first of them is where it really began."""
        self._start_ns, self._times_s, self._positions = start_ns, times_s, positions
        self._known = known
        self._velocities = velocities
        self._curve = None if velocities is None else Sent(start_ns, times_s, positions, velocities)
        self.end_ns = start_ns + round(float(times_s[-1]) * _NS)

    @classmethod
    def read(
        cls, msg: Any, joints: tuple[str, ...], start_ns: int, begin: State | None, path: str
    ) -> Trajectory | None:
        """From a message whose trajectory begins at ``start_ns``, where the controller stands at ``begin``
        (None: nobody knows). None when it is about other joints; without points it is a stop.

        Raises:
            MessageError: joints or values are missing, not finite, or times do not rise.
        """
        names = list(msg.joint_names)
        missing = [joint for joint in joints if joint not in names]
        if len(missing) == len(joints):
            return None
        if missing:
            raise MessageError(
                f"{path}: joint{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing in a "
                f"trajectory; it has {', '.join(names) or 'no joints'}"
            )
        columns = [names.index(joint) for joint in joints]
        if not len(msg.points):  # a stop
            return None if begin is None else cls(start_ns, np.zeros(1), begin[0][None], None, known=True)
        times = np.array([_seconds(point.time_from_start) for point in msg.points])
        positions = _column(msg.points, "positions", columns, len(names), path)
        if positions is None:
            raise MessageError(f"{path}: a trajectory without positions, expected them in every point")
        velocities = _column(msg.points, "velocities", columns, len(names), path)
        if times[0] < 0.0 or (np.diff(times) <= 0.0).any():
            raise MessageError(f"{path}: the points of a trajectory are not in order of time")
        if times[0] > 0.0:
            times, positions, velocities = _begun(times, positions, velocities, begin)
        return cls(start_ns, times, positions, velocities, known=begin is not None or times[0] == 0.0)

    def at(self, time_ns: int) -> Values | None:
        """Position [D] at a time; None before the first point where it is not known where it began."""
        state = self.state(time_ns)
        return None if state is None else state[0]

    def state(self, time_ns: int) -> State | None:
        """Position and velocity [D] at a time; the velocity is None where the points have none."""
        at_s = (time_ns - self._start_ns) / _NS
        if at_s < self._times_s[0]:
            if not self._known:
                return None
            at_s = float(self._times_s[0])
        if at_s >= self._times_s[-1]:
            still = None if self._velocities is None else np.zeros_like(self._positions[-1])
            return self._positions[-1], still
        if self._curve is not None:
            position, velocity, _ = self._curve.at(time_ns)
            return position, velocity
        after = int(self._times_s.searchsorted(at_s, side="right"))
        before = after - 1
        share = (at_s - self._times_s[before]) / (self._times_s[after] - self._times_s[before])
        return self._positions[before] + share * (self._positions[after] - self._positions[before]), None


def _begun(
    times: Values, positions: Values, velocities: Values | None, begin: State | None
) -> tuple[Values, Values, Values | None]:
    """The points with the controller's own state in front of them, where that is known."""
    if begin is None:
        return times, positions, velocities
    position, velocity = begin
    times = np.concatenate([[0.0], times])
    positions = np.concatenate([position[None], positions])
    if velocities is not None:
        first = np.zeros_like(position) if velocity is None else velocity
        velocities = np.concatenate([first[None], velocities])
    return times, positions, velocities


def _column(points: Sequence[Any], field: str, columns: list[int], width: int, path: str) -> Values | None:
    """A field of all points [P, D]; None where none of them has it."""
    sizes = {len(getattr(point, field)) for point in points}
    if sizes == {0}:
        return None
    if sizes != {width}:
        raise MessageError(
            f"{path}: {field} of a trajectory's points have {', '.join(map(str, sorted(sizes)))} values for "
            f"{width} joints, expected one each"
        )
    values = np.array([getattr(point, field) for point in points], np.float64)[:, columns]
    if not np.isfinite(values).all():
        raise MessageError(f"{path}: {field} of a trajectory's points are not finite")
    return values


def _seconds(duration: Any) -> float:
    return int(duration.sec) + int(duration.nanosec) / _NS
