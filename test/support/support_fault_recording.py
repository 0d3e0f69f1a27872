# SPDX-License-Identifier: Apache-2.0
"""What an executor sent, and what the controllers make of it: whether every limit was kept, and when motion
ended.

A :class:`Recording` keeps each command of the SO-101 with the time at which it came. The arm's trajectories
are replayed as joint_trajectory_controller follows them (the newest one takes over from where the reference
stands, cubic splines between points), so that what is checked is the motion and not only the points."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.sim.controllers import Trajectory
from support_robots import shipped

Values = NDArray[np.float64]

ROBOT = shipped("so101")
ARM, GRIPPER = ROBOT.action["arm"].joints, ROBOT.action["gripper"].joints
PERIOD_NS = 20_000_000  # of the executor's default rate
LOOKAHEAD_S = 0.2
NS = 1_000_000_000
# How finely the reference is looked at, and over how many samples an acceleration is the mean: one period.
SAMPLE_NS = 2_000_000
SPAN = PERIOD_NS // SAMPLE_NS
# A clock that runs ahead of the arrivals by this much was set (the executor notices from 0.5 s on).
JUMP_NS = 450_000_000
# rad/s below which nothing moves.
STILL = 1e-3
# rad by which the reference may jump to where a trajectory says that it is: a message that was lost on the
# way.
MAX_JUMP = 2e-3
# The reference may exceed a limit by this share: rounding of times to nanoseconds, and the spline between
# points.
VELOCITY_TOLERANCE = 1.01
ACCELERATION_TOLERANCE = 1.2


def limits(joints: Sequence[str], name: str) -> Values:
    """One limit of the robot YAML for some joints [D]."""
    return np.array([getattr(ROBOT.limits[joint], name) for joint in joints], np.float64)


class Reference:
    """Where a joint_trajectory_controller's reference is; times in ns on any one clock."""

    def __init__(self, positions: Sequence[float]) -> None:
        self._trajectory = Trajectory((0,), np.array([positions], np.float64), None)
        # The farthest that a trajectory has begun from where the reference was, rad.
        self.jump = 0.0

    @property
    def end_ns(self) -> int:
        """From here on it is at rest."""
        return self._trajectory.times_ns[-1]

    def take(self, message: Any, at_ns: int) -> None:
        """Follows a trajectory that begins at ``at_ns``."""
        position, velocity = self.at(at_ns)
        order = [list(message.joint_names).index(joint) for joint in ARM]
        due = [at_ns + offset for offset in offsets_ns(message)]
        positions = np.array([point.positions for point in message.points])[:, order]
        velocities = np.array([point.velocities for point in message.points])[:, order]
        if due[0] > at_ns:  # the way to the first point starts where the reference is
            due.insert(0, at_ns)
            positions, velocities = np.vstack([position, positions]), np.vstack([velocity, velocities])
        else:
            self.jump = max(self.jump, float(np.abs(positions[0] - position).max()))
        self._trajectory = Trajectory(tuple(due), positions, velocities)

    def at(self, at_ns: int) -> tuple[Values, Values]:
        """Position [D] and velocity [D]."""
        return self._trajectory.sample(at_ns)


@dataclass
class Motion:
    """The arm's reference every ``SAMPLE_NS``: mono_ns [N], positions and velocities [N, D]. The first
    ``told`` samples are from before the last command; ``jump`` as in ``Reference``."""

    mono_ns: NDArray[np.int64]
    positions: Values
    velocities: Values
    told: int
    jump: float


@dataclass(frozen=True)
class Worst:
    """The highest velocity and acceleration, as shares of their limits, over all joints."""

    velocity: float
    acceleration: float
    commands: int


@dataclass
class Recording:
    """All commands since ``start``: (monotonic ns of arrival, message). ``start`` [5] and ``gripper_start``
    are where the robot stood."""

    start: Values
    gripper_start: float
    arm: list[tuple[int, Any]] = field(default_factory=list)
    gripper: list[tuple[int, Any]] = field(default_factory=list)

    def take_arm(self, message: Any) -> None:
        self.arm.append((time.monotonic_ns(), message))

    def take_gripper(self, message: Any) -> None:
        self.gripper.append((time.monotonic_ns(), message))

    def last_ns(self) -> int:
        """When the newest command came; 0 for none."""
        return max((commands[-1][0] for commands in (self.arm, self.gripper) if commands), default=0)

    def replay(self) -> Motion:
        """The arm's motion. A message counts from its stamp, as for its controller; where the clock was set,
        from one period after the one before it. Left out is the time in which nothing is sent and nothing
        moves."""
        reference = Reference(self.start)
        mono, positions, velocities = [], [], []
        for at_ns, until_ns, received_ns, message in self._placed():
            reference.take(message, at_ns)
            first_ns = -(-at_ns // SAMPLE_NS) * SAMPLE_NS  # on one grid, for even spacing across messages
            for t_ns in range(first_ns, min(until_ns, reference.end_ns + 2 * SAMPLE_NS), SAMPLE_NS):
                position, velocity = reference.at(t_ns)
                mono.append(received_ns + t_ns - at_ns)
                positions.append(position)
                velocities.append(velocity)
        width = len(ARM)
        return Motion(
            np.array(mono, np.int64),
            np.array(positions).reshape(-1, width),
            np.array(velocities).reshape(-1, width),
            sum(t_ns < self.arm[-1][0] for t_ns in mono),
            reference.jump,
        )

    def _placed(self) -> Iterator[tuple[int, int, int, Any]]:
        """When each trajectory takes over and until when it is followed, on a clock that does not jump."""
        at_ns, placed = 0, []
        for i, (received_ns, message) in enumerate(self.arm):
            if i == 0:
                at_ns = received_ns
            else:
                last_ns, last = self.arm[i - 1]
                if message == last:
                    continue  # the clock stands still, and so does its controller's
                passed_ns = stamp_ns(message) - stamp_ns(last)
                was_set = passed_ns < -PERIOD_NS or passed_ns - (received_ns - last_ns) > JUMP_NS
                at_ns += PERIOD_NS if was_set else max(passed_ns, 0)
            placed.append((at_ns, received_ns, message))
        for i, (begin_ns, received_ns, message) in enumerate(placed):
            until_ns = placed[i + 1][0] if i + 1 < len(placed) else begin_ns + NS
            yield begin_ns, until_ns, received_ns, message

    def rest_ns(self, motion: Motion | None = None) -> int:
        """Monotonic time of the last motion of any joint; 0 when nothing moved."""
        motion = motion or self.replay()
        moving = np.flatnonzero((np.abs(motion.velocities) > STILL).any(axis=1))
        last = int(motion.mono_ns[moving[-1]]) + SAMPLE_NS if len(moving) else 0
        before = self.gripper_start
        for received_ns, message in self.gripper:
            if abs(message.data[0] - before) > STILL * PERIOD_NS / NS:
                last = max(last, received_ns)
            before = message.data[0]
        return last

    def place(self) -> tuple[Values, float]:
        """Where the arm's reference [5] and the gripper's command end."""
        motion = self.replay()
        arm = motion.positions[-1] if len(motion.positions) else self.start
        return arm, self.gripper[-1][1].data[0] if self.gripper else self.gripper_start

    def check(self) -> Worst:
        """AssertionError for the first limit that is not kept; how near the limits it came."""
        return replace(self, arm=list(self.arm), gripper=list(self.gripper))._check()  # more may still come

    def _check(self) -> Worst:
        for _, message in self.arm:
            check_trajectory(message)
        motion = self.replay()
        low, high = limits(ARM, "min") - 1e-6, limits(ARM, "max") + 1e-6
        assert (motion.positions >= low).all()
        assert (motion.positions <= high).all()
        assert motion.jump <= MAX_JUMP, f"the reference jumped by {motion.jump:.4f} rad"
        speed = np.abs(motion.velocities) / limits(ARM, "velocity")
        # What comes after the last command is not followed by a robot whose executor goes on.
        followed = motion.velocities[: motion.told]
        change = np.abs(followed[SPAN:] - followed[:-SPAN]) / (SPAN * SAMPLE_NS / NS)
        faster, sharper = self._gripper()
        velocity = max(float(speed.max(initial=0.0)), faster)
        acceleration = max(float((change / limits(ARM, "acceleration")).max(initial=0.0)), sharper)
        assert velocity <= VELOCITY_TOLERANCE, f"{velocity:.3f} times a velocity limit"
        assert acceleration <= ACCELERATION_TOLERANCE, f"{acceleration:.3f} times an acceleration limit"
        return Worst(velocity, acceleration, len(self.arm) + len(self.gripper))

    def _gripper(self) -> tuple[float, float]:
        """Velocity and acceleration of the gripper's streamed commands, as shares of the limits.

        A late period may take two periods' way. Commands of one period go out together, so the stamps of the
        arm's tell when; only there can an acceleration be told, and only where the periods are even.
        """
        limit = ROBOT.limits[GRIPPER[0]]
        assert limit.acceleration is not None
        assert all(len(message.data) == 1 for _, message in self.gripper)
        values = np.array([self.gripper_start, *(message.data[0] for _, message in self.gripper)])
        assert np.isfinite(values).all()
        assert values.min() >= limit.min - 1e-9
        assert values.max() <= limit.max + 1e-9
        steps, period_s = np.diff(values), PERIOD_NS / NS
        farthest = float(np.abs(steps).max(initial=0.0)) / (limit.velocity * 2 * period_s)
        assert farthest <= VELOCITY_TOLERANCE, f"the gripper made {farthest:.3f} times the way of two periods"
        pairs = min(len(self.arm), len(self.gripper))
        if pairs < 3 or abs(len(self.arm) - len(self.gripper)) > 1:
            return 0.0, 0.0  # the newest pair may be under way; more than that cannot be paired
        dt = np.diff([stamp_ns(message) for _, message in self.arm[:pairs]]) / NS
        even = np.abs(dt - period_s) < 0.2 * period_s
        speed = steps[1:pairs] / np.where(even, dt, np.inf)
        both = even[1:] & even[:-1]
        change = np.where(both, np.abs(np.diff(speed)), 0.0) / np.maximum(dt[1:], period_s / 2)
        return (
            float(np.abs(speed).max(initial=0.0)) / limit.velocity,
            float(change.max(initial=0.0)) / limit.acceleration,
        )


def offsets_ns(message: Any) -> list[int]:
    """When each point of a trajectory is due, from its stamp."""
    return [point.time_from_start.sec * NS + point.time_from_start.nanosec for point in message.points]


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec * NS + message.header.stamp.nanosec)


def check_trajectory(message: Any) -> None:
    """Every trajectory by itself: finite, of the arm's joints, inside its limits, at rest within the
    lookahead."""
    assert list(message.joint_names) == list(ARM)
    positions = np.array([point.positions for point in message.points])
    velocities = np.array([point.velocities for point in message.points])
    due = offsets_ns(message)
    assert np.isfinite(positions).all()
    assert np.isfinite(velocities).all()
    assert (positions >= limits(ARM, "min") - 1e-9).all()
    assert (positions <= limits(ARM, "max") + 1e-9).all()
    fastest = np.abs(velocities) / limits(ARM, "velocity")
    assert fastest.max() <= VELOCITY_TOLERANCE, f"a point with {fastest.max():.4f} times a velocity limit"
    assert due == sorted(set(due)), f"due times {due}"
    assert due[0] >= 0
    assert due[-1] <= round(LOOKAHEAD_S * NS), f"due times {due}"
    assert not velocities[-1].any(), "a trajectory that does not end at rest"
