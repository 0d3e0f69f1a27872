# SPDX-License-Identifier: Apache-2.0
"""What the chunk executor decides in one period: which commands go out, or why none do. No ROS types, no
threads.

``nodes/chunk_executor`` owns one :class:`Execution`, feeds it chunks and joint states as they arrive and
calls :meth:`Execution.step` at a fixed rate. All time is handed in: ROS time places chunks, monotonic time
only tells when ROS time cannot be trusted.

The rules, in the order in which they are asked:

1. Stopped stays stopped until ``start``.
2. With a fault nothing new moves; what else happens is the reaction of the gravest one.
3. Without ROS time that can be trusted and a fresh measurement of every joint that is needed nothing moves.
4. Without a plan for this very moment nothing moves.
5. What moves passes the safety filter; what the filter refuses stops the executor.

"Nothing moves" means: before the first command nothing is sent at all; afterwards what is under way comes to
rest inside the limits and that position is sent for ``hold_s``, then nothing, so that whoever takes over the
robot next is not fought. A position is never replaced by zero. How a group moves is ``motion``'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike

from gr00t_ros.chunk import Chunk, check_chunk, not_finite
from gr00t_ros.clockwatch import ClockWatch
from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import ChunkRefused, MessageError, UnsafeCommand
from gr00t_ros.faults import Fault, Reaction
from gr00t_ros.measured import Measured
from gr00t_ros.motion import point_times
from gr00t_ros.motion_factory import motion_for
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import STOP
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.timeline import ACTIVE, EARLY, ENDED, Plan, Timeline, Window
from gr00t_ros.unsent import Marks

# A late period may move a joint as far as two on-time ones, no further: catching up is not worth a jump.
MAX_CATCH_UP_PERIODS = 2.0
# A robot that is behind when its plan ends still goes to the last step for this long (s); whatever keeps it
# from there then is no matter of time.
MAX_SETTLING_S = 1.0
# Chunks kept at once: those between which the target goes over, and some that start in the future.
MAX_CHUNKS = 8
NONE: frozenset[str] = frozenset()


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
        self.state, self.reason = State.WAITING, "no chunk yet"
        self.accepted: tuple[int, int] | None = None  # session, sequence
        self._newest: Chunk | None = None  # the last one accepted
        self._period_s = period_s
        # A hold lasts until everything has come to rest, whatever the parameter says.
        self._hold_s = max(hold_s, lookahead_s)
        self._times_ns = np.round(point_times(period_s, lookahead_s) * 1e9).astype(np.int64)
        self._timeline = Timeline.of(robot, MAX_CHUNKS)
        self._filter = SafetyFilter(robot)
        self._motions = tuple(
            motion_for(group, robot, self._filter, period_s=period_s, lookahead_s=lookahead_s)
            for group in robot.action.values()
        )
        self._marks = Marks(self._motions)
        self._clock = _clock_watch(robot)
        # What a motion starts from; a speed of the tool starts from nothing.
        self._measured = Measured(robot, [name for motion in self._motions for name in motion.joints])
        self._silent = False  # the hold is over: nothing is sent until the next motion
        self.problem = ""  # what was wrong with ROS time or the measured joints in the last period
        self._all = frozenset(motion.group.key for motion in self._motions)
        self._fresh = self._all  # the groups that did not follow the plan in the last period
        self._anew: frozenset[str] = NONE  # those that have not moved since ``start``
        self._pace = 1.0  # at which it was followed then
        self._behind = False  # the robot was not on the plan then
        self._settle_until_ns = 0
        self._hold_until_ns: int | None = None
        self._braked = False  # in this hold
        self._no_plan = self.reason
        self._cut = False  # the plan did not run out by itself: it was taken away
        self._last_ns: int | None = None
        if not enabled:
            self.state, self.reason = State.STOPPED, "disabled until executor/start"

    # What comes in.

    def offer(self, chunk: Chunk, now_ns: int) -> None:
        """Puts a chunk on the timeline. One without steps ends the plan: what moves is braked and held.

        Raises ChunkRefused when it is stale, out of order, does not fit the robot, or execution is stopped.
        Values that are not finite also stop execution, unless ``violations.not_finite`` says otherwise: a
        policy that computes them cannot be trusted with the next chunk.
        """
        try:
            text = not_finite(chunk)
            if text:
                if self.state != State.STOPPED and self.robot.executor.violations.not_finite == STOP:
                    self.stop(text)
                raise ChunkRefused(text)
            if self.state == State.STOPPED:
                raise ChunkRefused("stopped: call executor/start")
            last = None if self._lapsed(chunk.session, now_ns) else self.accepted
            chunk = check_chunk(chunk, self.robot, now_ns, last)
        except ChunkRefused as refusal:
            self.refuse(str(refusal))
            raise
        self.accepted, self._newest = (chunk.session, chunk.sequence), chunk
        self.counters.chunks_accepted += 1
        if not chunk.horizon:
            self._drop("the policy ended its plan")
            return
        self._timeline.add(chunk, now_ns)
        self._no_plan, self._cut = "the plan has ended and no newer chunk has come", False

    def _drop(self, reason: str) -> None:
        """Takes the plan away; the next period brakes."""
        self._timeline.clear()
        self._no_plan, self._cut = reason, True

    def _lapsed(self, session: int, now_ns: int) -> bool:
        """Whether a chunk of ``session`` need not be newer than the last one: that one's plan is over, and
        old enough for the policy behind it to be taken for gone.

        A policy that was started while its clock was wrong must not shut out all that come after it. Within
        one session the order always counts.
        """
        last = self._newest
        if last is None or last.session == session or last.end_ns >= now_ns:
            return False
        return now_ns - last.t_obs_ns > self.robot.executor.max_chunk_age * 1e9

    def refuse(self, reason: str) -> None:
        """Counts a chunk that is not executed."""
        self.counters.chunks_refused += 1
        self.counters.last_refusal = reason

    def measure(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, now_ns: int) -> None:
        """Takes the measured positions [rad, m] of some joints; one older than what is known changes nothing,
        nor does a message without any commanded joint.

        Raises MessageError when the message is damaged, unstamped, from the future, or not finite for a
        joint that is commanded.
        """
        try:
            self._measured.take_joints(names, positions, stamp_ns, now_ns)
        except MessageError:
            self.counters.joint_states_refused += 1
            raise

    def measure_pose(self, key: str, frame_id: str, pose: ArrayLike, stamp_ns: int, now_ns: int) -> None:
        """Takes the measured pose [7] (m, quaternion) of action group ``key``, in frame ``frame_id``. Raises
        MessageError as :meth:`measure`, and for another frame than the group's."""
        try:
            self._measured.take_pose(key, frame_id, pose, stamp_ns, now_ns)
        except MessageError:
            self.counters.joint_states_refused += 1
            raise

    def stop(self, reason: str) -> None:
        """Stops within this period and stays stopped until :meth:`start`."""
        if self.state == State.EXECUTING:
            self.counters.stops += 1
        self.state, self.reason = State.STOPPED, reason
        self._timeline.clear()
        self._hold_until_ns, self._braked = None, False

    def start(self) -> None:
        """Ends a stop. Nothing old is executed: a chunk that arrives from now on is the first, and what
        stands begins where it is measured."""
        if self.state == State.STOPPED:
            self.state, self.reason = State.WAITING, "started, no chunk yet"
            # What is being braked runs on when nothing more is said, and so does what no period has braked.
            if self._hold_until_ns is not None and not self.moving:
                self._fall_silent()
            self._fresh = self._anew = self._all
            self._drop(self.reason)
            self.accepted = None

    def end(self, reason: str) -> None:
        """Takes the plan away: what moves is braked and held."""
        self._drop(reason)

    def reset(self, reason: str) -> None:
        """Forgets plans, measurements and commands, as after a pause of unknown length. A stop stays."""
        if self.state != State.STOPPED:
            self.state, self.reason = State.WAITING, reason
        self._drop(reason)
        self.accepted = None
        self._measured.clear()
        self._fresh = self._all
        for motion in self._motions:
            motion.forget()
        self._marks.clear()
        self._last_ns = self._hold_until_ns = None
        self._clock = _clock_watch(self.robot)

    def unheard(self, keys: Collection[str]) -> None:
        """Nobody listens to the commands of these action groups. What was sent to them was not followed, so
        that their next motion begins where the robot is measured, whoever comes back to listen."""
        for motion in self._motions:
            if motion.group.key in keys and motion.begun:
                motion.forget()

    def unsent(self, keys: Collection[str]) -> None:
        """What the last step made for these action groups was not sent: they go on from what was before."""
        self._silent = self._silent or self._marks.back(keys)
        self._fresh |= frozenset(keys)
        self._braked, self._hold_until_ns = False, None
        self.counters.commands_sent -= len(keys)

    # What goes out.

    def step(self, now_ns: int, mono_ns: int, faults: Sequence[Fault] = ()) -> tuple[GroupCommand, ...]:
        """The commands of this period, possibly none. ``now_ns`` is ROS time, ``mono_ns`` monotonic time,
        ``faults`` are what the watchdogs report now; the gravest decides, the first of several."""
        self._anew &= self._fresh
        dt, untrusted = self._elapse(now_ns, mono_ns)
        self._marks.take(self._silent)
        problem, reaction = self._problem(untrusted, now_ns, mono_ns)
        self.problem = problem
        fault = max(faults, key=lambda found: found.reaction, default=None)
        if self.state != State.STOPPED:
            if fault is not None and fault.reaction == Reaction.LATCH:
                self.stop(fault.reason)
            elif problem and reaction == Reaction.LATCH and self._sending:
                self.stop(problem)  # also where a lesser fault has ended the motion already
        if self.state == State.STOPPED:
            return self._hold(now_ns, mono_ns, dt, brake=True)
        if fault is not None and fault.reaction == Reaction.STOP:
            self._drop(f"no chunk since: {fault.reason}")
            return self._suspend(fault.reason, now_ns, mono_ns, dt, brake=True)
        if problem:
            return self._suspend(problem, now_ns, mono_ns, dt, brake=True)
        if fault is not None:
            return self._suspend(fault.reason, now_ns, mono_ns, dt, brake=False)
        window = self._timeline.window(now_ns + self._times_ns)
        if window.status != ACTIVE and not self._settles(window, mono_ns):
            reason = "the plan starts later" if window.status == EARLY else self._no_plan
            return self._suspend(reason, now_ns, mono_ns, dt, brake=self._cut)
        try:
            commands = self._move(window, now_ns, dt)
        except UnsafeCommand as error:
            self.stop(str(error))
            return self._hold(now_ns, mono_ns, dt, brake=True)
        self.state, self.reason, self._hold_until_ns, self._braked = State.EXECUTING, "", None, False
        if window.status == ACTIVE:
            self._settle_until_ns = mono_ns + round(MAX_SETTLING_S * 1e9)
        self.counters.commands_sent += len(commands)
        return commands

    def _settles(self, window: Window, mono_ns: int) -> bool:
        """Whether a robot that is behind its plan still goes to the last step of one that has ended."""
        return window.status == ENDED and not self._fresh and self._behind and mono_ns < self._settle_until_ns

    def _elapse(self, now_ns: int, mono_ns: int) -> tuple[float, str]:
        """The time (s) that a motion may make up for in this period, and why ROS time jumped, or an empty
        text."""
        elapsed_s = 0.0 if self._last_ns is None else (now_ns - self._last_ns) / 1e9
        self._last_ns = now_ns
        untrusted = self._clock.check(now_ns, mono_ns)
        if untrusted:
            # Chunks and measurements are placed by a time that no longer exists; so are sessions, which count
            # up with the clock.
            self._drop(untrusted)
            self.accepted = None
            self._measured.clear()
            # What is under way goes on as if one period had passed.
            for motion in self._motions:
                motion.shift(round((elapsed_s - self._period_s) * 1e9))
            elapsed_s = self._period_s
        return min(max(elapsed_s, 0.0), MAX_CATCH_UP_PERIODS * self._period_s), untrusted

    def _problem(self, untrusted: str, now_ns: int, mono_ns: int) -> tuple[str, Reaction]:
        """Why time or measurements do not allow to move, an empty text when they do; and what is done about
        it: braked and continued when it is over, or latched."""
        watchdogs = self.robot.executor.watchdogs
        clock = untrusted or self._clock.standing(now_ns, mono_ns)
        if clock:
            return clock, watchdogs.clock.reaction
        return self._measured.problem(now_ns), watchdogs.joint_state_age.reaction

    def plan(self, now_ns: int) -> Plan | None:
        """What is committed from ``now_ns`` on, or None: what will be commanded while nothing else comes
        in."""
        return self._timeline.plan(now_ns) if self.state == State.EXECUTING else None

    @property
    def moving(self) -> bool:
        """Whether something that was commanded runs on by itself: to fall silent now would leave it so."""
        return any(motion.moving for motion in self._motions)

    @property
    def _sending(self) -> bool:
        """Whether there is a motion or a hold that is not over."""
        return not self._silent and any(motion.begun for motion in self._motions)

    @property
    def clips(self) -> dict[str, int]:
        """Joint values that were brought back inside a limit, by kind of limit."""
        return dict(self._filter.counters)

    def _move(self, window: Window, now_ns: int, dt: float) -> tuple[GroupCommand, ...]:
        """One command for every group, along the plan and inside the limits. After UnsafeCommand nothing of
        it is kept."""
        positions = self._measured.known
        # Where a newer plan ends the slowing down of an older one, the robot is behind both.
        resumed = self._all if window.pace[0] > self._pace else self._fresh
        for motion in self._motions:
            key = motion.group.key
            if key in self._anew:
                motion.anew(now_ns)
            if key in resumed or not motion.begun:
                motion.resume(window, positions, now_ns)
        made = [motion.follow(window, positions, now_ns, dt) for motion in self._motions]
        for motion, move in zip(self._motions, made, strict=True):
            motion.sent(move, now_ns)
        self._silent, self._fresh = False, NONE
        self._pace = window.pace[0]
        self._behind = any(move.clipped or move.behind for move in made)
        self.counters.commands_clipped += any(move.clipped for move in made)
        return tuple(move.command for move in made)

    def _suspend(
        self, reason: str, now_ns: int, mono_ns: int, dt: float, *, brake: bool
    ) -> tuple[GroupCommand, ...]:
        """Nothing may move now, for ``reason``."""
        if self.state == State.EXECUTING:
            self.counters.stops += 1
        if self.state != State.WAITING:
            self.state = State.HOLDING
        self.reason = reason
        return self._hold(now_ns, mono_ns, dt, brake=brake)

    def _hold(self, now_ns: int, mono_ns: int, dt: float, *, brake: bool) -> tuple[GroupCommand, ...]:
        """What ends the motion and keeps its end, for a short time; then, and before any command, nothing.

        ``brake`` ends it as soon as the limits allow, without it a trajectory ends where it would have ended
        by itself: at the plan's last step, when the plan has ended.
        """
        self._fresh = self._all
        if not self._sending:
            return ()
        begun = [motion for motion in self._motions if motion.begun]
        if self._hold_until_ns is None or self.moving:
            self._hold_until_ns = mono_ns + round(self._hold_s * 1e9)
        elif mono_ns > self._hold_until_ns:
            self._fall_silent()
            return ()
        brake = brake or bool(self._anew)  # the stop before the start, where no period has seen it
        # Once: braking anew every period would end later and later.
        again, self._braked = brake and not self._braked, self._braked or brake
        self.counters.commands_sent += len(begun)
        return tuple(motion.hold(now_ns, dt, brake=again) for motion in begun)

    def _fall_silent(self) -> None:
        """From here on others may move the robot."""
        if not self._silent:
            self._silent = True
            for motion in self._motions:
                motion.leave(self._measured.known)


def _clock_watch(robot: RobotConfig) -> ClockWatch:
    bound_s = robot.executor.watchdogs.clock.after
    return ClockWatch(bound_s, bound_s)
