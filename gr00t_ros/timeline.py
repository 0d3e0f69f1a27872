# SPDX-License-Identifier: Apache-2.0
"""Action chunks on a time axis: what every group should be at a point in time.

The executor adds each accepted chunk and asks for the target at every period. No ROS types, no wall time.
Limits are the safety filter's; here they only keep the curves between the steps inside. Steps that are past
are skipped, simply because nobody asks for them. How the target runs between two steps is
``interpolation``'s, how a newer chunk takes over from an older one is ``merging``'s:

- ``replace``: from the newer chunk's start on, or at once when that has passed, with whatever jump of the
  target this means; the safety filter bounds what becomes of it.
- ``blend``: from then on over ``blend_time``, smoothly; in less where the older plan ends sooner.
- ``ensemble``: as ``blend``, towards the weighted mean of the newest chunks.

There is a hand-over only from a plan that is still running. After a hold the target is the new plan at once,
and ``motion`` leads there from where the robot is: an old plan's end may be far from that by then. Whether
the newer chunk is of the same start of the policy makes no difference: the robot moves along the old plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.interpolation import Curve
from gr00t_ros.merging import Piece, ensemble, follow
from gr00t_ros.plan_window import (
    ACTIVE,
    EARLY,
    EMPTY,
    ENDED,
    LONGEST_ENDING_S,
    Window,
    begun,
    by_group,
    look,
)
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import (
    DEFAULT_BLEND_TIME,
    DEFAULT_ENSEMBLE_DECAY,
    ENSEMBLE,
    INTERPOLATIONS,
    JOINT_VELOCITY,
    LINEAR,
    MERGES,
    REPLACE,
    TWIST,
    ActionGroupConfig,
    PoseLimits,
)

Values = NDArray[np.float64]

# Steps of a committed plan at most: over twice the 50 steps of the released checkpoint, so more than any
# policy freezes; all 1024 that a chunk may hold would take longer to sample than a period of the executor.
MAX_PLAN_STEPS = 128
# Hand-overs under way at once, at most: a chunk that comes sooner after another begins to take over a little
# later. That bounds the work of a period whatever arrives, and a policy that gives ten chunks a second still
# never waits at the default blend time.
MAX_HAND_OVERS = 3
# A hand-over may take as little as the blend time divided by this where the older plan is about to end: two
# plans that agree well still meet without a jump, and a hold of that length is hardly seen.
SHORTEST_SHARE = 4
# They need room beside the plan that they started from and one that waits.
LEAST_CHUNKS = MAX_HAND_OVERS + 2

# The same pose with the quaternion's other sign.
_OPPOSITE = np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Sample:
    """The plan at one point in time. ``values`` and ``velocities`` are SI (velocities per second), float64
    [D] by group key, and empty unless ``status`` is ``active``: a caller cannot follow a plan that has ended.

    ``step`` is the place in ``chunk``, in steps with a fraction.
    """

    status: str
    values: Mapping[str, Values] = field(default_factory=dict)
    velocities: Mapping[str, Values] = field(default_factory=dict)
    step: float = 0.0
    chunk: Chunk | None = None


@dataclass(frozen=True)
class Plan:
    """The committed plan: step i of every group is due at ``start_ns + i * step_ns``; values float64 [T, D],
    SI."""

    start_ns: int
    step_ns: int
    groups: tuple[ChunkGroup, ...]


class Timeline:
    """At most ``max_chunks`` chunks: the one that is followed, those that it takes over from, and those that
    start later.

    ``add`` and ``clear`` may run on another thread than ``sample``, ``samples`` and ``plan``: the pieces are
    an immutable tuple that is exchanged in one step. Plain ``Timeline()`` is the chunks themselves, one
    replacing the other; the executor's has the settings of its robot YAML.
    """

    def __init__(
        self,
        max_chunks: int = 4,
        *,
        merge: str = REPLACE,
        interpolation: str = LINEAR,
        blend_time_s: float = DEFAULT_BLEND_TIME,
        ensemble_decay: float = DEFAULT_ENSEMBLE_DECAY,
        limits: Mapping[str, tuple[Values, Values]] | None = None,
        accelerations: Mapping[str, Values] | None = None,
    ) -> None:
        """``limits``: lowest and highest values [D] by group key, for curves that stay inside them.
        ``accelerations``: how fast a group's columns [D] may be braked at the end of a plan; a group that is
        not named stands at once. Raises ValueError for settings that make no sense."""
        least = 1 if merge == REPLACE else LEAST_CHUNKS
        if max_chunks < least:
            raise ValueError(f"max_chunks is {max_chunks}, expected at least {least}")
        for name, value, choices in (
            ("merge", merge, MERGES),
            ("interpolation", interpolation, INTERPOLATIONS),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        if not blend_time_s > 0.0:
            raise ValueError(f"blend_time_s is {blend_time_s}, expected more than 0")
        self._max_chunks = max_chunks
        self._merge, self._interpolation, self._decay = merge, interpolation, ensemble_decay
        self._window_ns = max(1, round(blend_time_s * 1e9))
        self._least_ns = -(-self._window_ns // SHORTEST_SHARE)
        self._spacing_ns = -(-self._window_ns // MAX_HAND_OVERS)
        self._limits = dict(limits or {})
        self._accelerations = dict(accelerations or {})
        self._pieces: tuple[Piece, ...] = ()  # by beginning; each newer than those before it

    @classmethod
    def of(cls, robot: RobotConfig, max_chunks: int) -> Timeline:
        """As the executor of ``robot`` follows chunks."""
        options = robot.executor
        return cls(
            max_chunks,
            merge=options.merge,
            interpolation=options.interpolation,
            blend_time_s=options.blend_time,
            ensemble_decay=options.ensemble_decay,
            limits={key: _bounds(robot, group) for key, group in robot.action.items()},
            accelerations={key: _accelerations(robot, group) for key, group in robot.action.items()},
        )

    def add(self, chunk: Chunk, now_ns: int | None = None) -> None:
        """Add an accepted chunk (see ``check_chunk``), newer than all before, at ``now_ns``.

        It replaces what would begin after it. Without ``now_ns`` it was accepted when it was observed.
        """
        now_ns = chunk.t_obs_ns if now_ns is None else now_ns
        start_ns = chunk.start_ns if self._merge == REPLACE else max(chunk.start_ns, now_ns)
        kept = [old for old in self._pieces if old.begin_ns < start_ns]
        # Too many that start later: the first of them are due first, the newest knows best.
        kept = _not_done(kept, now_ns)[: self._max_chunks - 1]
        if kept:
            chunk = _facing(chunk, kept[-1].chunk, start_ns)
        piece = self._piece(chunk, start_ns, kept[-1] if kept else None)
        # A plan that is shorter is slowed down from its beginning on: before it there is nothing of it.
        ending_ns = min(self._ending_ns(chunk), max(piece.end_ns - piece.begin_ns, 0))
        kept.append(replace(piece, ending_ns=ending_ns))
        self._pieces = tuple(_not_done(kept, now_ns))

    def _piece(self, chunk: Chunk, begin_ns: int, before: Piece | None) -> Piece:
        curve, layout = self._curve(chunk), tuple((group.key, group.names) for group in chunk.groups)
        runs = before is not None and before.end_ns >= begin_ns and before.layout == layout
        if before is None or not runs or self._merge == REPLACE:
            # Nothing to take over from: the chunk counts from its start, or from where it may begin.
            start_ns = chunk.start_ns if before is None else begin_ns
            return Piece(chunk, curve, layout, start_ns, start_ns, chunk.end_ns)
        if before.until_ns > before.begin_ns:
            begin_ns = max(begin_ns, before.begin_ns + self._spacing_ns)
        # Over before the older plan ends, where that leaves enough time: its end would be held for the rest.
        left_ns = before.chunk.end_ns - begin_ns
        until_ns = begin_ns + max(min(self._window_ns, left_ns), self._least_ns)
        end_ns = max(chunk.end_ns, until_ns)
        piece = Piece(chunk, curve, layout, begin_ns, until_ns, end_ns, fade_ns=self._window_ns)
        if self._merge != ENSEMBLE:
            return piece
        members, weight = ensemble(chunk, before, begin_ns, self._decay, self._max_chunks - 1)
        return replace(piece, members=members, weight=weight)

    def _ending_ns(self, chunk: Chunk) -> int:
        """How long before its end the plan must be slowed down: until half of that way is left no column
        brakes harder than its acceleration limit, with a quarter of it for the plan's own motion."""
        longest, step_s = 0.0, chunk.step_ns / 1e9
        steps = int(LONGEST_ENDING_S / step_s) + 2
        for group in chunk.groups:
            limit = self._accelerations.get(group.key)
            if limit is None:
                continue
            last = np.abs(group.values[-steps:])
            if group.representation not in (JOINT_VELOCITY, TWIST):
                last = np.abs(np.diff(group.values[-steps:], axis=0)) / step_s
            if len(last):
                longest = max(longest, float((last.max(axis=0) / limit).max(initial=0.0)))
        return round(min(longest, LONGEST_ENDING_S) * 1e9)

    def _curve(self, chunk: Chunk) -> Curve:
        """All groups side by side."""
        values = np.concatenate([group.values for group in chunk.groups], axis=1)
        low, high = np.full(values.shape[1], -np.inf), np.full(values.shape[1], np.inf)
        lows, highs = by_group(chunk, low), by_group(chunk, high)
        for key, (least, most) in self._limits.items():
            lows[key][:], highs[key][:] = least, most
        rotations, begin = [], 0
        for group in chunk.groups:
            begin += len(group.names)
            if group.rotation:
                rotations.append(slice(begin - 4, begin))
        return Curve(values, chunk.start_ns, chunk.step_ns, self._interpolation, low, high, tuple(rotations))

    def clear(self) -> None:
        """Forget all chunks."""
        self._pieces = ()

    def sample(self, t_ns: int) -> Sample:
        """Target and velocity at ``t_ns``."""
        return self.samples((t_ns,))[0]

    def samples(self, times_ns: Sequence[int]) -> list[Sample]:
        """Target and velocity at each of some times in rising order, all of the same plan; much less work
        than one by one."""
        pieces = self._pieces
        samples: list[Sample] = []
        for status, rules, times in _runs(pieces, times_ns):
            if status == ACTIVE:
                chunk = pieces[rules].chunk
                last = float(chunk.horizon - 1)  # where a hand-over outlasts the chunk
                steps = ((times - chunk.start_ns) / chunk.step_ns).tolist()
                positions, velocities = follow(pieces, rules, times)
                values, rates = by_group(chunk, positions), by_group(chunk, velocities)
                for i, step in enumerate(steps):
                    at = {key: part[i] for key, part in values.items()}
                    moving = {key: part[i] for key, part in rates.items()}
                    samples.append(Sample(ACTIVE, at, moving, min(step, last), chunk))
            elif rules >= 0:
                chunk = pieces[rules].chunk
                samples.extend([Sample(status, step=float(chunk.horizon - 1), chunk=chunk)] * len(times))
            else:
                samples.extend([Sample(status)] * len(times))
        return samples

    def window(self, times_ns: Sequence[int] | NDArray[np.int64]) -> Window:
        """The plan at some times in rising order, as it is followed: slowed down where it runs out."""
        return look(self._pieces, np.asarray(times_ns, np.int64))

    def plan(self, t_ns: int) -> Plan | None:
        """What is committed from ``t_ns`` on, on the time grid of the newest chunk; None when nothing is
        left.

        The first step is the last one due at or before ``t_ns`` where the plan covers that, so that the plan
        can be interpolated at ``t_ns`` itself. Where two chunks leave a gap, the plan begins after it. It has
        at most ``MAX_PLAN_STEPS`` steps.
        """
        pieces = self._pieces
        if not pieces or t_ns > pieces[-1].end_ns:
            return None
        newest, layout = pieces[-1].chunk, pieces[-1].layout
        start_ns, step_ns = newest.start_ns, newest.step_ns
        due: list[int] = []
        for i in range((t_ns - start_ns) // step_ns, (pieces[-1].end_ns - start_ns) // step_ns + 1):
            time_ns = start_ns + i * step_ns
            status, rules = _locate(pieces, time_ns)
            if status == ACTIVE and pieces[rules].layout == layout:
                due.append(time_ns)
            else:  # the newest chunk's own steps are always active, so something is left after the last gap
                due = []
            if len(due) == MAX_PLAN_STEPS:
                break
        found = [follow(pieces, rules, times)[0] for _, rules, times in _runs(pieces, due)]
        values = by_group(newest, np.concatenate(found))
        groups = tuple(replace(group, values=values[group.key]) for group in newest.groups)
        return Plan(due[0], step_ns, groups)


def _not_done(pieces: list[Piece], now_ns: int) -> list[Piece]:
    """Without the pieces whose successor has taken over by now; that one then rules by itself."""
    done = [place for place, piece in enumerate(pieces) if piece.until_ns <= now_ns]
    if not done or done[-1] == 0:
        return pieces
    first = pieces[done[-1]]
    begin_ns = min(first.begin_ns, first.chunk.start_ns)
    return [replace(first, begin_ns=begin_ns, until_ns=begin_ns), *pieces[done[-1] + 1 :]]


def _locate(pieces: tuple[Piece, ...], t_ns: int) -> tuple[str, int]:
    """What holds at ``t_ns``, and the place of the last piece that has begun, -1 for none."""
    if not pieces:
        return EMPTY, -1
    rules = begun(pieces, t_ns)
    if rules < 0:
        return EARLY, -1
    if t_ns > pieces[rules].end_ns:
        return ENDED if rules == len(pieces) - 1 else EARLY, rules
    return ACTIVE, rules


def _runs(pieces: tuple[Piece, ...], times_ns: Sequence[int]) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """The times, in rising order, in runs of the same status and piece."""
    if not times_ns:
        return
    first = _locate(pieces, times_ns[0])
    if first == _locate(pieces, times_ns[-1]):  # most often: nothing begins or ends within a lookahead
        yield *first, np.array(times_ns, np.int64)
        return
    for (status, rules), run in groupby(times_ns, lambda t_ns: _locate(pieces, t_ns)):
        yield status, rules, np.fromiter(run, np.int64)


def _bounds(robot: RobotConfig, group: ActionGroupConfig) -> tuple[Values, Values]:
    """The lowest and highest values [D] that a group's steps should have."""
    if group.representation == JOINT_VELOCITY:
        most = np.array([robot.limits[joint].velocity for joint in group.joints])
        return -most, most
    if group.joints:
        limits = [robot.limits[joint] for joint in group.joints]
        return np.array([limit.min for limit in limits]), np.array([limit.max for limit in limits])
    low, high = np.full(len(group.names), -np.inf), np.full(len(group.names), np.inf)
    box = robot.group_limits[group.key]
    if isinstance(box, PoseLimits):
        low[:3], high[:3] = box.min, box.max
    return low, high


def _accelerations(robot: RobotConfig, group: ActionGroupConfig) -> Values:
    """How fast each column [D] of a group may be braked, per second squared."""
    if group.joints:
        return np.array([robot.limits[joint].acceleration or np.inf for joint in group.joints])
    limits = robot.group_limits[group.key]
    linear, angular = limits.linear_acceleration, limits.angular_acceleration
    if isinstance(limits, PoseLimits):  # a quaternion's parts move at half the angular velocity at most
        return np.array([linear] * 3 + [angular / 2.0] * 4)
    return np.array([linear if column.startswith("linear") else angular for column in group.twist])


def _facing(chunk: Chunk, before: Chunk, t_ns: int) -> Chunk:
    """``chunk`` with the quaternions of poses next to those of ``before`` at ``t_ns``: q and -q are the same
    rotation, and between the wrong two of them the hand-over would take the long way."""
    old = {group.key: group for group in before.groups}
    groups = []
    for group in chunk.groups:
        if group.rotation and group.key in old:
            here = min(max(round((t_ns - chunk.start_ns) / chunk.step_ns), 0), chunk.horizon - 1)
            there = min(max(round((t_ns - before.start_ns) / before.step_ns), 0), before.horizon - 1)
            if group.values[here, 3:] @ old[group.key].values[there, 3:] < 0.0:
                group = replace(group, values=group.values * _OPPOSITE)
        groups.append(group)
    return replace(chunk, groups=tuple(groups))
