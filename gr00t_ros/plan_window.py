# SPDX-License-Identifier: Apache-2.0
"""The plan as it is followed over the next moments: the timeline's pieces, slowed down where they run out.

A plan that ends while it moves cannot be followed to its last step and stand there: nothing stops at once.
When nothing newer has come by then, it is therefore followed ever more slowly from some time before its end,
along the same way, and stands at its last step as long after its end. All groups slow down together, and stay
on the way that was planned. How long before follows from how fast the plan moves there and the acceleration
limits (``Piece.ending_ns``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk
from gr00t_ros.merging import Piece, follow

Values = NDArray[np.float64]
Times = NDArray[np.int64]

#: nothing has been added
EMPTY = "empty"
#: the plan starts later: hold
EARLY = "early"
#: follow ``values``
ACTIVE = "active"
#: the last step has passed: stop and hold
ENDED = "ended"

# No plan is slowed down for longer (s) before its end, and after it: 3 rad/s at 10 rad/s^2.
LONGEST_ENDING_S = 0.3


@dataclass(frozen=True)
class Window:
    """The plan at K times in rising order, ``times_s`` [K] from the first. ``values`` and ``velocities`` are
    SI (velocities per second), float64 [K, D] by group key, and empty unless ``status``, that of the first
    time, is ``active`` or ``ended``. After the plan's end, and in a gap, the last step before it stands.

    ``pace`` [K] is the speed at which the plan is followed, 1 but near its end, where it goes to 0. In
    ``velocities`` it is contained; values that are velocities themselves are to be multiplied by it.
    """

    status: str
    times_s: Values
    values: Mapping[str, Values] = field(default_factory=dict)
    velocities: Mapping[str, Values] = field(default_factory=dict)
    pace: Values = field(default_factory=lambda: np.zeros(0))


def look(pieces: tuple[Piece, ...], times: Times) -> Window:
    """The plan at some times [K] in rising order."""
    first, final = int(times[0]), int(times[-1])
    times_s = (times - first) / 1e9
    status, rules = _status(pieces, first)
    if status in (EMPTY, EARLY):
        return Window(status, times_s)
    if begun(pieces, final) == rules and final <= pieces[rules].end_ns - pieces[rules].ending_ns:
        positions, velocities = follow(pieces, rules, times)
        pace = np.ones(len(times))
    else:
        parts = [
            _part(pieces, place, np.fromiter(run, np.int64))
            for place, run in groupby(times.tolist(), lambda t_ns: begun(pieces, t_ns))
        ]
        positions, velocities, pace = (np.concatenate(part) for part in zip(*parts, strict=True))
    chunk = pieces[rules].chunk
    return Window(status, times_s, by_group(chunk, positions), by_group(chunk, velocities), pace)


def begun(pieces: tuple[Piece, ...], t_ns: int) -> int:
    """The place of the last piece that has begun by ``t_ns``, -1 for none."""
    place = len(pieces) - 1
    while place >= 0 and pieces[place].begin_ns > t_ns:
        place -= 1
    return place


def _runs_out(pieces: tuple[Piece, ...], place: int) -> bool:
    """Whether nothing takes over from a piece before its end."""
    return place == len(pieces) - 1 or pieces[place + 1].begin_ns > pieces[place].end_ns


def _status(pieces: tuple[Piece, ...], t_ns: int) -> tuple[str, int]:
    if not pieces:
        return EMPTY, -1
    rules = begun(pieces, t_ns)
    if rules < 0:
        return EARLY, -1
    if _runs_out(pieces, rules) and t_ns > pieces[rules].end_ns + pieces[rules].ending_ns:
        return (ENDED if rules == len(pieces) - 1 else EARLY), rules
    return ACTIVE, rules


def _part(pieces: tuple[Piece, ...], place: int, times: Times) -> tuple[Values, Values, Values]:
    """Positions and velocities [K, D] and pace [K] at times at all of which ``pieces[place]`` is the last
    that has begun."""
    piece, pace = pieces[place], np.ones(len(times))
    if _runs_out(pieces, place) and times[-1] > piece.end_ns - piece.ending_ns:
        times, pace = _slowed(times, piece.end_ns, piece.ending_ns)
    positions, velocities = follow(pieces, place, times)
    return positions, velocities * pace[:, None], pace


def _slowed(times: Times, end_ns: int, ending_ns: int) -> tuple[Times, Values]:
    """The times of the plan that are followed at ``times``, and how fast they pass: 1 until ``ending_ns``
    before the end, smoothly 0 as long after it. Half of that is what the plan lasts meanwhile."""
    if not ending_ns:
        return np.minimum(times, end_ns), np.where(times < end_ns, 1.0, 0.0)
    begin_ns, whole = end_ns - ending_ns, 2.0 * ending_ns
    u = np.minimum(np.maximum((times - begin_ns) / whole, 0.0), 1.0)
    gone = np.round(whole * (u - u * u * u + 0.5 * u * u * u * u)).astype(np.int64)
    return np.where(times < begin_ns, times, begin_ns + gone), 1.0 - u * u * (3.0 - 2.0 * u)


def by_group(chunk: Chunk, columns: Values) -> dict[str, Values]:
    """``columns`` [..., D of all groups] by group key."""
    values, begin = {}, 0
    for group in chunk.groups:
        values[group.key] = columns[..., begin : begin + len(group.names)]
        begin += len(group.names)
    return values
