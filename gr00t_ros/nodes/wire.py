# SPDX-License-Identifier: Apache-2.0
"""Messages whose numbers change in every period and whose shape does not, kept as they go over the wire.

rclpy turns each field of a message into C and that into bytes, which for a trajectory of six points costs
several times what sending it does. Here a message is serialized once by the middleware, with numbers that are
found again in the result; from then on only those bytes are written. Nothing is assumed about the encoding
but that a number is one piece of bytes in this machine's order; where that is not so, :class:`LayoutUnknown`
says it, and the caller publishes messages.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import serialize_message

Doubles = NDArray[np.float64]
Times = NDArray[np.int32]

# Where the marks begin: values that no other part of a message has.
_MARK = 1.2345e200
_TIME_MARK = 0x6D000000
# What lies between two parts of a message is whatever the memory held before, even an earlier message with
# its marks: each search has marks of its own, and a few of them are tried.
_SEARCHES = itertools.count()
_MARKS_A_SEARCH, _ATTEMPTS = 4096, 3
# builtin_interfaces/Time and Duration count seconds in an int32.
_MAX_NS = (2**31 - 1) * 1_000_000_000


class LayoutUnknown(Exception):
    """The numbers of a message are not found in its serialized form."""


class WireMessage:
    """One message of fixed shape."""

    def __init__(self, make: Callable[[Doubles, Times], Any], doubles: int, times: int) -> None:
        """``make(values [doubles], times [times, 2])`` builds the message; times are seconds and nanoseconds.

        Raises:
            LayoutUnknown: see the module.
        """
        for attempt in range(_ATTEMPTS):
            first = next(_SEARCHES) % _MARKS_A_SEARCH * _MARKS_A_SEARCH
            values = _MARK * np.arange(first + 1, first + doubles + 1, dtype=np.float64)
            marks = np.arange(first, first + 2 * times, dtype=np.int32).reshape(times, 2) + _TIME_MARK
            self._bytes = bytearray(serialize_message(make(values, marks.astype(np.int32))))
            try:
                self._doubles, self._double_at = self._find(values, np.dtype(np.float64))
                self._ints, self._int_at = self._find(marks.reshape(-1), np.dtype(np.int32))
                return
            except LayoutUnknown:
                if attempt == _ATTEMPTS - 1:
                    raise

    def write_doubles(self, first: int, values: Doubles) -> None:
        """Sets the doubles from ``first`` on, in the order in which ``make`` got them."""
        flat = values.reshape(-1)
        self._doubles[self._double_at[first : first + len(flat)]] = flat

    def write_time(self, which: int, nanoseconds: int) -> None:
        """Sets one of the times."""
        seconds, rest = divmod(min(nanoseconds, _MAX_NS), 1_000_000_000)
        at = self._int_at
        self._ints[at[2 * which]], self._ints[at[2 * which + 1]] = seconds, rest

    def serialized(self) -> bytes:
        """What a publisher sends."""
        return bytes(self._bytes)

    def _find(self, marks: NDArray[Any], kind: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """A view of the bytes as numbers of ``kind``, and where each of the marks lies in it."""
        offsets = []
        for mark in marks:
            pattern = mark.tobytes()
            if self._bytes.count(pattern) != 1:
                raise LayoutUnknown(f"{self._bytes.count(pattern)} places for a number of the message")
            offsets.append(self._bytes.index(pattern))
        begin = offsets[0] % kind.itemsize if offsets else 0
        if any((offset - begin) % kind.itemsize for offset in offsets):
            raise LayoutUnknown("the numbers of the message are not aligned alike")
        count = (len(self._bytes) - begin) // kind.itemsize
        view = np.frombuffer(self._bytes, kind, count, begin)
        return view, np.array([(offset - begin) // kind.itemsize for offset in offsets], np.intp)
