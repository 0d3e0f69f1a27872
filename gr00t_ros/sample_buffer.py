# SPDX-License-Identifier: Apache-2.0
"""The recent messages of one source, sorted by stamp, and the rule by which one of them is picked for a point
in time.

The observation builder owns one buffer for each camera and each state. A buffer knows stamps and ages; what a
sample is (an image message, a row of joint values) it does not care about. Memory is bounded in time, number
and bytes.
"""

from __future__ import annotations

import bisect
from typing import Any

from gr00t_ros.errors import Cause, MessageError, NotReady
from gr00t_ros.images import check_image
from gr00t_ros.robot_types import HEADER, JOINT_STATE, StateSource, VideoSource
from gr00t_ros.state_reading import reader_for, stamp_ns

# A stamp may be this far ahead of the time of its arrival: clocks of one robot, kept by PTP or chrony, agree
# better.
FUTURE_TOLERANCE_NS = 20_000_000
# Stamps of a 30 Hz camera are rounded to whole nanoseconds; a past frame must not be missed by one of them.
HISTORY_ROUNDING_NS = 1_000
# A source keeps this much more than its rules can ask for, so that a slow worker still finds what it needs.
SPARE_NS = 500_000_000
# Bounds on one source, reached only by a publisher far beyond any camera's or controller's rate.
MAX_SAMPLES = 4096
MAX_BYTES = 512 * 1024 * 1024


class SampleBuffer:
    """Samples of one source by stamp. Not thread-safe: the builder's lock guards it.

    ``path`` is the source's key path for messages (``video.front``), ``offsets`` the checkpoint's delta
    indices in ns (none above 0), ``oldest_frame_ns`` how long before now an acceptable frame, and so t_obs,
    may lie.
    """

    def __init__(
        self, source: VideoSource | StateSource, path: str, offsets: tuple[int, ...], oldest_frame_ns: int
    ) -> None:
        self.source = source
        self.path = path
        self.stamps: list[int] = []
        self._samples: list[Any] = []
        self._sizes: list[int] = []
        self._bytes = 0
        self._offsets = offsets
        self._max_age_ns = round(source.max_age * 1e9)
        self._keep_ns = self._max_age_ns + oldest_frame_ns - min(offsets) + SPARE_NS
        self._read_state = reader_for(source) if isinstance(source, StateSource) else None

    def read(self, msg: Any) -> tuple[Any, int] | None:
        """What is kept of a message, and its size in bytes: an image message itself, a state's columns [D] in
        SI.

        None when a JointState is about other joints. Raises MessageError for a message that is refused.
        """
        if self._read_state is not None:
            values = self._read_state(msg)
            return None if values is None else (values, values.nbytes)
        check_image(msg, self.path)
        return msg, len(msg.data)

    def has(self, stamp: int) -> bool:
        """Whether there is a sample of exactly this time."""
        at = bisect.bisect_left(self.stamps, stamp)
        return at < len(self.stamps) and self.stamps[at] == stamp

    def stamp_of(self, msg: Any, receive_ns: int) -> int:
        """The time that counts for a message: its header's, or that of its arrival where the YAML says so."""
        if self.source.stamp != HEADER:
            return receive_ns
        stamp = stamp_ns(msg.header.stamp)
        if stamp <= 0:
            raise MessageError(
                f"{self.path}: found a zero stamp on {self.source.topic}, expected the time of measurement; "
                "if the driver has no clock, set 'stamp: receive' for this topic in the robot YAML"
            )
        if stamp > receive_ns + FUTURE_TOLERANCE_NS:
            raise MessageError(
                f"{self.path}: found a stamp {(stamp - receive_ns) / 1e9:.3f} s ahead of node time on "
                f"{self.source.topic}, expected one from the past: check the clocks and use_sim_time"
            )
        return stamp

    def insert(self, stamp: int, sample: Any, size: int) -> None:
        """Keep a sample in its place by time, in place of one with the same stamp; then forget the oldest."""
        at = bisect.bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self.stamps[at] == stamp:
            self._forget(at, at + 1)
        self.stamps.insert(at, stamp)
        self._samples.insert(at, sample)
        self._sizes.insert(at, size)
        self._bytes += size
        expired = bisect.bisect_left(self.stamps, self.stamps[-1] - self._keep_ns)
        self._forget(0, max(expired, len(self.stamps) - MAX_SAMPLES))
        while self._bytes > MAX_BYTES and len(self.stamps) > 1:
            self._forget(0, 1)

    def drop(self, stamp: int, sample: Any) -> None:
        """Forget a sample that turned out to be unusable, unless it has been replaced."""
        at = bisect.bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self._samples[at] is sample:
            self._forget(at, at + 1)

    def clear(self) -> None:
        """Forget all samples."""
        self._forget(0, len(self.stamps))

    def pick(self, t_obs: int) -> tuple[list[tuple[int, Any]], Cause | None]:
        """The samples for t_obs with their stamps, one for each delta index in its order, or why there are
        none."""
        picked: list[tuple[int, Any]] = []
        if not self.stamps:
            return picked, self.nothing_yet()
        for offset in self._offsets:
            wanted = t_obs + offset
            latest = wanted + (HISTORY_ROUNDING_NS if offset < 0 else 0)
            at = bisect.bisect_right(self.stamps, latest) - 1
            if at < 0 or wanted - self.stamps[at] > self._max_age_ns:
                return [], self._cause(offset, wanted, at)
            picked.append((self.stamps[at], self._samples[at]))
        return picked, None

    def nothing_yet(self) -> Cause:
        """The cause for a source from which nothing has come."""
        text = f"{self.path}: no message yet on {self.source.topic}"
        if isinstance(self.source, StateSource) and self.source.type == JOINT_STATE:
            text += f" with {', '.join(self.source.joints)}"
        return Cause(NotReady.NO_MESSAGE, self.path, text)

    def stale_frame(self, now_ns: int) -> Cause | None:
        """The cause when this camera's newest frame cannot be used now: from the future, or too old."""
        age = (now_ns - self.stamps[-1]) / 1e9
        where = f"{self.path}: the newest frame on {self.source.topic}"
        if self.stamps[-1] > now_ns + FUTURE_TOLERANCE_NS:
            return Cause(
                NotReady.FUTURE, self.path, f"{where} is {-age:.3f} s ahead of now: check the clocks"
            )
        if now_ns - self.stamps[-1] > self._max_age_ns:
            text = f"{where} is {age:.3f} s old, expected at most {self.source.max_age:g} s"
            return Cause(NotReady.STALE, self.path, text)
        return None

    def _cause(self, offset: int, wanted: int, at: int) -> Cause:
        where, limit = f"on {self.source.topic}", self.source.max_age
        if offset < 0:
            text = (
                f"{self.path}: no message {where} from {-offset / 1e9:.3f} s before the newest frame (within "
                f"{limit:g} s of it), which the checkpoint's history needs"
            )
            return Cause(NotReady.HISTORY, self.path, text)
        if at < 0:
            ahead = (self.stamps[0] - wanted) / 1e9
            text = f"{self.path}: the oldest message {where} is {ahead:.3f} s later than the newest frame"
            return Cause(NotReady.BEHIND, self.path, text)
        age = (wanted - self.stamps[at]) / 1e9
        text = f"{self.path}: the latest message {where} is {age:.3f} s older than the newest frame"
        return Cause(NotReady.STALE, self.path, f"{text}, expected at most {limit:g} s")

    def _forget(self, begin: int, end: int) -> None:
        if begin < end:
            self._bytes -= sum(self._sizes[begin:end])
            del self.stamps[begin:end], self._samples[begin:end], self._sizes[begin:end]
