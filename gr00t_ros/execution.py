# SPDX-License-Identifier: Apache-2.0
"""What the chunk executor decides in one period: which commands go out, or why none do. No ROS types, no
threads.

``nodes/chunk_executor`` owns one :class:`Execution`, feeds it chunks and joint states as they arrive and
calls :meth:`Execution.step` at a fixed rate. All time is handed in: ROS time places chunks, monotonic time
only tells when ROS time cannot be trusted.

The rules, in the order in which they are asked:

1. Stopped stays stopped until ``start``.
2. Without a fresh measurement of every commanded joint nothing moves.
3. Without a plan for this very moment nothing moves.
4. What moves passes the safety filter; what the filter refuses stops the executor.

"Nothing moves" means: before the first command nothing is sent at all; afterwards the last commanded
position is sent for ``hold_s`` more and then nothing, so that whoever takes over the robot next is not
fought. A position is never replaced by zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk, check_chunk
from gr00t_ros.clockwatch import ClockWatch
from gr00t_ros.commands import GroupCommand, monotone_velocities, single_point
from gr00t_ros.errors import ChunkRefused, MessageError, UnsafeCommand
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_TRAJECTORY, RECEIVE, ActionGroupConfig
from gr00t_ros.safety import Filtered, SafetyFilter
from gr00t_ros.timeline import ACTIVE, EARLY, ENDED, Plan, Sample, Timeline

# A late period may move a joint as far as two on-time ones, no further: catching up is not worth a jump.
MAX_CATCH_UP_PERIODS = 2.0
# How far a joint state's stamp may be ahead of this clock. Unbounded, one message from the future would
# stay fresh for ever; 0.1 s is what badly synchronised clocks on one robot reach.
MAX_STAMP_AHEAD_S = 0.1
# Points of a trajectory before it brakes, at most. They fill the first half of the lookahead: enough to
# bridge some late periods, and no more work at a high rate than at 50 Hz.
MOVING_POINTS = 5
# Chunks kept at once: the newest rules, the one before may still be due while the newest starts in the
# future.
MAX_CHUNKS = 8


class State(IntEnum):
    """The numbers are those of ``ExecutorStatus``."""

    WAITING = 0
    EXECUTING = 1
    HOLDING = 2
    STOPPED = 3


@dataclass
class Counters:
    """Totals since the node was configured."""

    chunks_accepted: int = 0
    chunks_refused: int = 0
    last_refusal: str = ""
    joint_states_refused: int = 0
    commands_sent: int = 0
    commands_clipped: int = 0
    stops: int = 0


class Execution:
    """The state machine WAITING -> EXECUTING <-> HOLDING, and STOPPED. Not thread safe: the caller holds a
    lock."""

    def __init__(
        self, robot: RobotConfig, *, period_s: float, lookahead_s: float, hold_s: float, enabled: bool = True
    ) -> None:
        """Commands are made every ``period_s``; a trajectory ends at rest ``lookahead_s`` after its first
        instant."""
        if not 2.0 * period_s <= lookahead_s:
            raise ValueError(f"lookahead {lookahead_s} s must hold at least two periods of {period_s} s")
        self.robot = robot
        self.counters = Counters()
        self.state = State.WAITING
        self.reason = "no chunk yet"
        self.accepted: tuple[int, int] | None = None  # session, sequence
        self._groups = tuple(robot.action.values())
        self._joints = robot.joints
        topic = robot.executor.joint_state_topic
        self._receive_time = any(x.topic == topic and x.stamp == RECEIVE for x in robot.state.values())
        self._period_s, self._lookahead_s, self._hold_s = period_s, lookahead_s, hold_s
        self._spacing_s = max(period_s, lookahead_s / 2.0 / MOVING_POINTS)
        self._points = max(1, int(lookahead_s / 2.0 / self._spacing_s + 1e-9))
        self._acceleration = {
            group.key: np.array([robot.limits[joint].acceleration or np.inf for joint in group.joints])
            for group in self._groups
        }
        self._timeline = Timeline(MAX_CHUNKS)
        self._filter = SafetyFilter(robot)
        self._clock = ClockWatch()
        self._measured: dict[str, tuple[float, int]] = {}  # joint -> position, stamp
        self._command: dict[str, NDArray[np.float64]] | None = None  # what was last sent, by group
        self._velocity: dict[str, NDArray[np.float64]] = {}  # at which it was approached
        # Where and when (ROS time) each group comes to rest when nothing more is sent.
        self._rest: dict[str, NDArray[np.float64]] = {}
        self._rest_ns = 0
        self._hold_until_ns: int | None = None
        self._no_plan = self.reason
        self._last_ns: int | None = None
        if not enabled:
            self.state, self.reason = State.STOPPED, "disabled until executor/start"

    # What comes in.

    def offer(self, chunk: Chunk, now_ns: int) -> None:
        """Puts a chunk on the timeline.

        Raises ChunkRefused when it is stale, out of order, does not fit the robot, or execution is stopped.
        Values that are not finite also stop execution: a policy that computes them cannot be trusted with
        the next chunk.
        """
        try:
            if any(not np.isfinite(group.values).all() for group in chunk.groups):
                text = "the chunk holds values that are not finite"
                if self.state != State.STOPPED:
                    self.stop(text)
                raise ChunkRefused(text)
            if self.state == State.STOPPED:
                raise ChunkRefused("stopped: call executor/start")
            chunk = check_chunk(chunk, self.robot, now_ns, self.accepted)
        except ChunkRefused as refusal:
            self.refuse(str(refusal))
            raise
        self._timeline.add(chunk)
        self.accepted = (chunk.session, chunk.sequence)
        self.counters.chunks_accepted += 1
        self._no_plan = "the plan has ended and no newer chunk has come"

    def refuse(self, reason: str) -> None:
        """Counts a chunk that is not executed."""
        self.counters.chunks_refused += 1
        self.counters.last_refusal = reason

    def measure(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int) -> None:
        """Takes the measured positions [rad, m] of some joints; one older than what is known changes nothing.

        Raises MessageError when the message is damaged, unstamped, from the future, or not finite for a
        joint that is commanded.
        """
        try:
            if len(names) != len(positions):
                raise MessageError(f"joint states: {len(names)} names but {len(positions)} positions")
            if self._receive_time:
                stamp_ns = now_ns
            if stamp_ns <= 0:
                raise MessageError("joint states: the stamp is zero, expected the time of measurement")
            if stamp_ns - now_ns > MAX_STAMP_AHEAD_S * 1e9:
                ahead = (stamp_ns - now_ns) / 1e9
                raise MessageError(
                    f"joint states: stamped {ahead:.3f} s ahead of this clock; synchronise the clocks"
                )
            values = dict(zip(names, positions, strict=True))
            found = [joint for joint in self._joints if joint in values]
            for joint in found:
                if not math.isfinite(values[joint]):
                    raise MessageError(
                        f"joint states: position of {joint!r} is {values[joint]}, expected a number"
                    )
        except MessageError:
            self.counters.joint_states_refused += 1
            raise
        for joint in found:
            if joint not in self._measured or stamp_ns >= self._measured[joint][1]:
                self._measured[joint] = (float(values[joint]), stamp_ns)

    def stop(self, reason: str) -> None:
        """Stops within this period and stays stopped until :meth:`start`."""
        if self.state == State.EXECUTING:
            self.counters.stops += 1
        self.state, self.reason = State.STOPPED, reason
        self._timeline.clear()
        self._hold_until_ns = None

    def start(self) -> None:
        """Ends a stop. Nothing old is executed: a chunk that arrives from now on is the first."""
        if self.state == State.STOPPED:
            self.state = State.WAITING
            self.reason = self._no_plan = "started, no chunk yet"
            self._command = None
            self._timeline.clear()

    def reset(self, reason: str) -> None:
        """Forgets plans, measurements and commands, as after a pause of unknown length. A stop stays."""
        if self.state != State.STOPPED:
            self.state, self.reason = State.WAITING, reason
        self._no_plan = reason
        self._timeline.clear()
        self.accepted = None
        self._measured.clear()
        self._command = self._last_ns = self._hold_until_ns = None
        self._clock = ClockWatch()

    # What goes out.

    def step(self, now_ns: int, mono_ns: int) -> tuple[GroupCommand, ...]:
        """The commands of this period, possibly none. ``now_ns`` is ROS time, ``mono_ns`` monotonic time."""
        elapsed_s = 0.0 if self._last_ns is None else (now_ns - self._last_ns) / 1e9
        self._last_ns = now_ns
        untrusted = self._clock.check(now_ns, mono_ns)
        if untrusted:
            # Chunks and measurements are placed by a time that no longer exists; so are sessions, which count
            # up with the clock.
            self._timeline.clear()
            self.accepted = None
            self._measured.clear()
            self._no_plan = untrusted
        if self.state == State.STOPPED:
            return self._hold(now_ns, mono_ns, brake=True)
        problem = untrusted or self._clock.standing(now_ns, mono_ns) or self._joint_problem(now_ns)
        if problem:
            return self._suspend(problem, now_ns, mono_ns, brake=True)
        sample = self._timeline.sample(now_ns)
        if sample.status != ACTIVE:
            reason = "the plan starts later" if sample.status == EARLY else self._no_plan
            return self._suspend(reason, now_ns, mono_ns, brake=False)
        try:
            commands = self._move(now_ns, min(max(elapsed_s, 0.0), MAX_CATCH_UP_PERIODS * self._period_s))
        except UnsafeCommand as error:
            self.stop(str(error))
            return self._hold(now_ns, mono_ns, brake=True)
        self.state, self.reason, self._hold_until_ns = State.EXECUTING, "", None
        self.counters.commands_sent += len(commands)
        return commands

    def plan(self, now_ns: int) -> Plan | None:
        """What is committed from ``now_ns`` on, or None: what will be commanded while nothing else comes
        in."""
        return self._timeline.plan(now_ns) if self.state == State.EXECUTING else None

    @property
    def clips(self) -> dict[str, int]:
        """Joint values that were brought back inside a limit, by kind of limit."""
        return dict(self._filter.counters)

    def _move(self, now_ns: int, dt: float) -> tuple[GroupCommand, ...]:
        """One command for every group, on the timeline and inside the limits. After UnsafeCommand nothing of
        it is kept."""
        times_s = np.arange(self._points + 1, dtype=np.float64) * self._spacing_s
        samples = [self._timeline.sample(now_ns + round(t * 1e9)) for t in times_s]
        made = [self._move_group(group, samples, times_s, dt) for group in self._groups]
        self._command = {group.key: move.position for group, move in zip(self._groups, made, strict=True)}
        self._velocity = {group.key: move.velocity for group, move in zip(self._groups, made, strict=True)}
        self._rest = {group.key: move.rest for group, move in zip(self._groups, made, strict=True)}
        self._rest_ns = now_ns + round(self._lookahead_s * 1e9)
        self.counters.commands_clipped += any(move.clipped for move in made)
        return tuple(move.command for move in made)

    def _move_group(
        self, group: ActionGroupConfig, samples: list[Sample], times_s: NDArray[np.float64], dt: float
    ) -> _Move:
        """The command of one group: where it should be now and, for a trajectory, a little ahead."""
        key, measured = group.key, self._measured_positions(group)
        previous = None if self._command is None else self._command[key]
        velocity = self._velocity[key] if previous is not None else np.zeros(group.width)
        points: list[Filtered] = []
        for sample in samples if group.interface == JOINT_TRAJECTORY else samples[:1]:
            target, target_velocity = _target(sample, key, previous)
            step = self._filter.apply(group.joints, target, previous, measured, dt)
            if (np.abs(step.velocities - velocity) > self._acceleration[key] * dt + 1e-9).any():
                # Only what would accelerate too much is smoothed: a plan that keeps the limits is executed to
                # the letter.
                step = self._filter.apply(
                    group.joints,
                    target,
                    previous,
                    measured,
                    dt,
                    previous_velocity=velocity,
                    target_velocity=target_velocity,
                )
            if dt == 0.0:  # time has not moved since the last period, so the joint keeps its speed
                step = replace(step, velocities=velocity)
            points.append(step)
            previous, velocity, dt = step.values, step.velocities, self._spacing_s
        first, clipped = points[0], any(point.clipped for point in points)
        if group.interface != JOINT_TRAJECTORY:
            command = single_point(group, first.values, 0.0)
            return _Move(first.values, first.velocities, first.values, clipped, command)
        # From the last moving point on: constant deceleration over the time that is left.
        braking_s = self._lookahead_s - times_s[-1]
        end = previous + velocity * braking_s / 2.0
        rest = self._filter.apply(group.joints, end, previous, measured, braking_s).values
        positions = np.stack([*(point.values for point in points), rest])
        due = np.append(times_s, self._lookahead_s)
        velocities = monotone_velocities(positions, due)
        command = GroupCommand(group, positions[1:], velocities[1:], due[1:])
        return _Move(first.values, first.velocities, rest, clipped, command)

    def _suspend(self, reason: str, now_ns: int, mono_ns: int, *, brake: bool) -> tuple[GroupCommand, ...]:
        """Nothing may move now, for ``reason``."""
        if self.state == State.EXECUTING:
            self.counters.stops += 1
        if self.state != State.WAITING:
            self.state = State.HOLDING
        self.reason = reason
        return self._hold(now_ns, mono_ns, brake=brake)

    def _hold(self, now_ns: int, mono_ns: int, *, brake: bool) -> tuple[GroupCommand, ...]:
        """The position to stand at, for a short time; then, and before any command, nothing.

        A streaming group stands where it was last commanded. A trajectory under way cannot stop in no time:
        it ends where it would have ended by itself (the plan's last step, when the plan has ended), or with
        ``brake`` as soon as a constant deceleration over half the lookahead allows.
        """
        if self._command is None:
            return ()
        if self._hold_until_ns is None:
            self._hold_until_ns = mono_ns + round(self._hold_s * 1e9)
            if brake:
                self._brake(now_ns)
            self._command = dict(self._rest)
            self._velocity = {key: np.zeros_like(position) for key, position in self._rest.items()}
        elif mono_ns > self._hold_until_ns:
            # From here on others may move the robot: the next motion starts where it is measured.
            self._command = None
            return ()
        self.counters.commands_sent += len(self._groups)
        # Not sooner than half the lookahead: a message that is under way for a while must not be past.
        due_s = min(max((self._rest_ns - now_ns) / 1e9, self._lookahead_s / 2.0), self._lookahead_s)
        return tuple(
            single_point(
                group, self._command[group.key], due_s if group.interface == JOINT_TRAJECTORY else 0.0
            )
            for group in self._groups
        )

    def _brake(self, now_ns: int) -> None:
        braking_s = self._lookahead_s / 2.0
        self._rest_ns = now_ns + round(braking_s * 1e9)
        for group in self._groups:
            if group.interface == JOINT_TRAJECTORY and self._command is not None:
                end = self._command[group.key] + self._velocity[group.key] * braking_s / 2.0
                low = [self.robot.limits[joint].min for joint in group.joints]
                high = [self.robot.limits[joint].max for joint in group.joints]
                self._rest[group.key] = np.clip(end, low, high)

    def _measured_positions(self, group: ActionGroupConfig) -> NDArray[np.float64]:
        return np.array([self._measured[joint][0] for joint in group.joints])

    def _joint_problem(self, now_ns: int) -> str:
        """An empty text when every commanded joint was measured lately."""
        missing = [joint for joint in self._joints if joint not in self._measured]
        topic = self.robot.executor.joint_state_topic
        if missing:
            return f"no position of {', '.join(missing)} on {topic} yet"
        oldest = min(self._joints, key=lambda joint: self._measured[joint][1])
        age_s = (now_ns - self._measured[oldest][1]) / 1e9
        limit_s = self.robot.executor.max_joint_state_age
        if age_s > limit_s:
            return f"joint states are stale: {oldest} on {topic} is older than {limit_s:g} s"
        return ""


@dataclass(frozen=True)
class _Move:
    """What one group does in one period. ``position`` and ``velocity`` [D] are those at its instant, ``rest``
    is where it comes to rest when nothing more is sent."""

    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    rest: NDArray[np.float64]
    clipped: bool
    command: GroupCommand


def _target(
    sample: Sample, key: str, previous: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Where the plan wants a group, and how fast that place moves: its last step once it has ended,
    ``previous`` in a gap."""
    if sample.status == ACTIVE:
        return sample.values[key], sample.velocities[key]
    if sample.status == ENDED and sample.chunk is not None:
        return next(group.values[-1] for group in sample.chunk.groups if group.key == key), None
    assert previous is not None, "the first sample of a move is active"
    return previous, None
