# SPDX-License-Identifier: Apache-2.0
"""Recorded things by their own time, although they were recorded in the order of arrival."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from gr00t_ros.data.bags_storage import apart
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS

T = TypeVar("T")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """Something recorded at ``receive_ns`` that belongs to ``time_ns``."""

    time_ns: int
    receive_ns: int
    item: T


@dataclass(frozen=True)
class SetBack:
    """Here the recorder's clock was set back by ``by_ns``: what follows is another stretch of time."""

    by_ns: int


def by_time(arrivals: Iterable[Timed[T]], window_ns: int) -> Iterator[Timed[T] | SetBack]:
    """``arrivals`` (in the order of recording) in the order of their times.

    Each is held until something arrives ``window_ns`` after its time. What comes later than that after its
    own time is passed on at once, behind things that are newer. What belongs to a time after the last arrival
    (a trajectory that was to begin later) never came to be. Memory holds what arrives in a window, and what
    is ahead of it.
    """
    held: list[tuple[int, int, Timed[T]]] = []
    newest = 0
    for count, arrival in enumerate(arrivals):
        if apart(newest, arrival.receive_ns):
            yield from _rest(held, newest)
            yield SetBack(newest - arrival.receive_ns)
            newest = 0
        newest = max(newest, arrival.receive_ns)
        heapq.heappush(held, (arrival.time_ns, count, arrival))
        while held and held[0][0] <= newest - window_ns:
            yield heapq.heappop(held)[2]
    yield from _rest(held, newest)


def _rest(held: list[tuple[int, int, Timed[T]]], newest_ns: int) -> Iterator[Timed[T]]:
    """What is left when nothing more comes after ``newest_ns``."""
    while held and held[0][0] <= newest_ns + FUTURE_TOLERANCE_NS:
        yield heapq.heappop(held)[2]
    held.clear()
