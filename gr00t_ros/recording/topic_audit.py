# SPDX-License-Identifier: Apache-2.0
"""What is noted about one topic while it is recorded: a few numbers, whatever its length.

Gaps and rate are taken by the time that counts for the topic: the header's where the robot YAML says so, as
the converter will, otherwise the time of arrival. Only twelve bytes of a message are ever looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gr00t_ros.recorded_time import header_stamp_ns
from gr00t_ros.recording.expectations import Expected
from gr00t_ros.robot_types import HEADER

NS = 1_000_000_000


@dataclass(frozen=True)
class TopicAudit:
    """One topic of a finished episode. Times in s, rates in Hz.

    ``longest_gap`` is the longest time without a message, the beginning and the end of the episode included;
    ``gaps`` counts those that exceeded ``max_age``, and ``stale`` is the share of the episode in which the
    newest message was older than that (both 0 where there is no ``max_age``). ``offset_*`` are arrival minus
    stamp, None without a header. ``dropped`` messages came and could not be written in time, ``lost`` ones
    were published and never came. ``zero_stamps``, ``backwards`` (a time more than ``max_age`` before the
    newest) and ``ahead`` (stamped more than ``max_ahead`` after arrival; None where stamps mean nothing)
    count messages.
    """

    topic: str
    message_type: str
    used_by: tuple[str, ...]
    required: bool
    messages: int
    size: int
    rate: float
    least_rate: float
    longest_gap: float
    max_age: float | None
    gaps: int
    stale: float
    offset_mean: float | None
    offset_min: float | None
    offset_max: float | None
    dropped: int
    lost: int
    zero_stamps: int
    backwards: int
    stamped: bool
    max_ahead: float | None = None
    ahead: int = 0

    def line(self) -> str:
        """The topic in one line for people."""
        if not self.messages:
            return f"{self.topic}: nothing"
        text = f"{self.topic}: {self.messages} messages, {self.rate:.1f} Hz"
        if self.least_rate:
            text += f" (at least {self.least_rate:g})"
        text += f", longest gap {self.longest_gap:.3f} s"
        if self.max_age is not None:
            text += f" ({self.gaps} over {self.max_age:g} s)"
        if self.stamped and self.offset_mean is not None:
            text += f", stamps {1e3 * self.offset_mean:.1f} ms before arrival"
        return text


class TopicWatch:
    """Adds up one topic. One thread adds; any may look."""

    def __init__(
        self, topic: str, message_type: str, *, has_header: bool, start_ns: int, expected: Expected | None
    ) -> None:
        self.topic, self.message_type, self.expected = topic, message_type, expected
        self._has_header = has_header
        # A topic that the YAML does not name is judged by its header, where it has one.
        self._by_stamp = has_header and (expected is None or expected.stamp == HEADER)
        limit = expected.max_age if expected is not None else None
        self._max_age_ns = None if limit is None else round(limit * NS)
        self._max_ahead_ns = expected.max_ahead_ns if expected is not None else None
        self._start_ns = start_ns
        self.messages = self.size = self.dropped = self.lost = 0
        self._zero = self._ahead = self._backwards = self._gaps = self._stale_ns = self._longest_ns = 0
        self._first_arrival = self._last_arrival = 0
        self._first_ns = self._last_ns = 0
        self._offsets, self._offset_sum, self._offset_min, self._offset_max = 0, 0, 0, 0
        self._sequence: int | None = None
        self._numbered = True

    def add(self, receive_ns: int, data: bytes, sequence: int | None) -> None:
        """One more message came. ``sequence`` is its publisher's number for it, where there is one
        publisher."""
        time_ns = receive_ns
        if self._has_header:
            stamp_ns = header_stamp_ns(data)
            if not stamp_ns:
                self._zero += 1
            else:
                self._take_offset(receive_ns - stamp_ns)
                if self._by_stamp:
                    time_ns = stamp_ns
        if self.messages == 0:
            self._first_arrival, self._first_ns = receive_ns, time_ns
            self._gap(receive_ns - self._start_ns)
        elif time_ns >= self._last_ns:
            self._gap(time_ns - self._last_ns)
        elif self._last_ns - time_ns > (self._max_age_ns or 0):
            self._backwards += 1
        else:  # of another publisher, say: the converter puts it in its place
            time_ns = self._last_ns
        self._last_arrival, self._last_ns = receive_ns, time_ns
        self._count_lost(sequence)
        self.messages += 1
        self.size += len(data)

    def _count_lost(self, sequence: int | None) -> None:
        last, self._sequence = self._sequence, sequence
        if sequence is None or last is None or not self._numbered:
            return
        if sequence <= last:
            # Another publisher, or a new one: what the jumps between their numbers were is not known.
            self._numbered, self.lost = False, 0
        else:
            self.lost += sequence - last - 1

    def _take_offset(self, offset_ns: int) -> None:
        if self._offsets == 0:
            self._offset_min = self._offset_max = offset_ns
        if self._max_ahead_ns is not None and offset_ns < -self._max_ahead_ns:
            self._ahead += 1
        self._offsets += 1
        self._offset_sum += offset_ns
        self._offset_min = min(self._offset_min, offset_ns)
        self._offset_max = max(self._offset_max, offset_ns)

    def _gap(self, gap_ns: int) -> None:
        self._longest_ns = max(self._longest_ns, gap_ns)
        if self._max_age_ns is not None and gap_ns > self._max_age_ns:
            self._gaps += 1
            self._stale_ns += gap_ns - self._max_age_ns

    def finish(self, stop_ns: int) -> TopicAudit:
        """What it comes to when the episode ends at ``stop_ns``. Called once."""
        last = self._last_arrival if self.messages else self._start_ns
        self._gap(stop_ns - last)
        duration = max(stop_ns - self._start_ns, 1)
        span = self._last_ns - self._first_ns
        expected = self.expected
        known: dict[str, Any] = {"offset_mean": None, "offset_min": None, "offset_max": None}
        if self._offsets:
            known["offset_mean"] = self._offset_sum / self._offsets / NS
            known["offset_min"], known["offset_max"] = self._offset_min / NS, self._offset_max / NS
        return TopicAudit(
            topic=self.topic,
            message_type=self.message_type,
            used_by=expected.used_by if expected is not None else (),
            required=expected is not None and expected.required,
            messages=self.messages,
            size=self.size,
            rate=(self.messages - 1) * NS / span if span > 0 else 0.0,
            least_rate=expected.least_rate if expected is not None else 0.0,
            longest_gap=self._longest_ns / NS,
            max_age=expected.max_age if expected is not None else None,
            gaps=self._gaps,
            stale=min(1.0, self._stale_ns / duration),
            dropped=self.dropped,
            lost=self.lost,
            zero_stamps=self._zero,
            backwards=self._backwards,
            stamped=self._by_stamp,
            max_ahead=None if self._max_ahead_ns is None else self._max_ahead_ns / NS,
            ahead=self._ahead,
            **known,
        )
