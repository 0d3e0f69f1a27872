# SPDX-License-Identifier: Apache-2.0
"""What the audit says of a topic, compared with the same said by whoever has all messages at hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.recorded_time import header_stamp_ns
from gr00t_ros.recording.expectations import Expected
from gr00t_ros.recording.topic_audit import TopicAudit, TopicWatch
from support_recording import MS, START_NS, message

CAMERA = Expected(
    "/camera", "sensor_msgs/msg/Image", ("video.front",), required=True, max_age=0.2, least_rate=20.0
)
STAMPED = Expected(**{**vars(CAMERA), "stamp": "header", "max_ahead_ns": 20 * MS})


def watched(
    arrivals_ms: list[int],
    stamps_ms: list[int] | None = None,
    *,
    stop_ms: int,
    expected: Expected | None = STAMPED,
    sequence: list[int | None] | None = None,
) -> TopicAudit:
    """Messages at times after the episode's beginning."""
    watch = TopicWatch(
        "/camera", "sensor_msgs/msg/Image", has_header=True, start_ns=START_NS, expected=expected
    )
    for k, arrival in enumerate(arrivals_ms):
        stamp = arrival if stamps_ms is None else stamps_ms[k]
        data = message(START_NS + stamp * MS, size=10)
        watch.add(START_NS + arrival * MS, data, sequence[k] if sequence else None)
    return watch.finish(START_NS + stop_ms * MS)


@pytest.mark.parametrize("big_endian", [False, True])
def test_the_stamp_is_read_from_the_bytes(big_endian: bool) -> None:
    assert header_stamp_ns(message(START_NS + 7, 100, big_endian)) == START_NS + 7
    assert header_stamp_ns(message(START_NS)[:11]) is None


def test_a_steady_camera() -> None:
    audit = watched(list(range(10, 1000, 40)), stop_ms=1000)
    assert (audit.messages, audit.size) == (25, 25 * 22)
    assert audit.rate == pytest.approx(25.0)
    assert audit.longest_gap == pytest.approx(0.04)
    assert (audit.gaps, audit.stale, audit.backwards, audit.zero_stamps) == (0, 0.0, 0, 0)
    assert (audit.offset_mean, audit.offset_min, audit.offset_max) == (0.0, 0.0, 0.0)


def test_gaps_are_of_the_stamps_and_count_the_ends_of_the_episode() -> None:
    # What a pause of the network delivers in a burst was taken all the while.
    audit = watched([300, 305, 310, 900], [0, 100, 205, 895], stop_ms=1500)
    assert audit.longest_gap == pytest.approx(0.69)
    assert audit.gaps == 3  # until the first one came, from 205 to 895, and from the last one to the end
    assert audit.stale == pytest.approx((0.1 + 0.49 + 0.4) / 1.5)
    assert audit.offset_max == pytest.approx(0.3)
    by_arrival = watched([300, 305, 310, 900], [0, 100, 205, 895], stop_ms=1500, expected=CAMERA)
    assert by_arrival.longest_gap == pytest.approx(0.6)


def test_odd_stamps_are_counted() -> None:
    audit = watched([10, 50, 90, 130], [10, -(10**6), 90, 130], stop_ms=150)
    assert audit.backwards == 1
    # Two publishers, the one 5 ms behind the other, are no clock that was set back.
    assert watched([10, 12, 30, 32], [10, 5, 30, 25], stop_ms=50).backwards == 0
    zero = TopicWatch("/c", "t", has_header=True, start_ns=START_NS, expected=STAMPED)
    zero.add(START_NS + MS, message(0), None)
    zero.add(START_NS + 2 * MS, b"\0\1\0\0", None)
    audit = zero.finish(START_NS + 3 * MS)
    assert (audit.messages, audit.zero_stamps, audit.offset_mean) == (2, 2, None)


def test_stamps_after_arrival_are_counted_from_the_tolerance_on() -> None:
    audit = watched([10, 50, 90], [20, 75, 89], stop_ms=100)
    assert (audit.ahead, audit.max_ahead, audit.offset_min) == (1, 0.02, -0.025)
    assert watched([10], [500], stop_ms=600, expected=CAMERA).ahead == 0


def test_messages_that_never_came_are_counted_by_their_numbers() -> None:
    assert watched([1, 2, 3, 4], stop_ms=5, sequence=[1, 2, 5, 6]).lost == 2
    # Of a publisher that begins anew, of two of them, and where there are no numbers, nothing is known.
    assert watched([1, 2, 3, 4], stop_ms=5, sequence=[8, 9, 1, 2]).lost == 0
    assert watched([1, 2, 3, 4], stop_ms=5, sequence=[8, 900, 9, 901]).lost == 0
    assert watched([1, 2, 3, 4], stop_ms=5, sequence=[1, None, 9, 10]).lost == 0


def test_nothing_came() -> None:
    audit = watched([], stop_ms=2000)
    assert (audit.messages, audit.rate, audit.offset_mean) == (0, 0.0, None)
    assert audit.longest_gap == pytest.approx(2.0)
    assert audit.stale == pytest.approx(0.9)
    assert audit.line() == "/camera: nothing"


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), max_size=40),
    st.integers(0, 1000),
)
def test_it_equals_what_one_says_who_sees_everything(steps: list[tuple[int, int]], tail_ms: int) -> None:
    """Arrivals at any distances, stamps any time before them."""
    arrivals = np.cumsum([step for step, _ in steps]).tolist()
    stamps = [arrival - delay for arrival, (_, delay) in zip(arrivals, steps, strict=True)]
    stop = (arrivals[-1] if arrivals else 0) + tail_ms
    audit = watched(arrivals, stamps, stop_ms=stop)
    edges = [arrivals[0], tail_ms] if arrivals else [stop]
    # A little late is not back: 60 ms, of a max_age of 200.
    between = np.diff(np.maximum.accumulate(stamps)) if stamps else np.array([])
    gaps = np.array([*edges, *between])
    assert audit.messages == len(steps)
    assert audit.longest_gap == pytest.approx(gaps.max(initial=0) / 1000)
    assert audit.gaps == int((gaps > 200).sum())
    assert audit.backwards == 0
    stale = np.maximum(gaps - 200, 0).sum() / max(stop, 1e-6)
    assert audit.stale == pytest.approx(min(1.0, stale))
    if steps:
        assert audit.offset_mean == pytest.approx(np.mean([delay for _, delay in steps]) / 1000)
        assert audit.offset_max == pytest.approx(max(delay for _, delay in steps) / 1000)
    if len(steps) > 1 and max(stamps) > stamps[0]:
        assert audit.rate == pytest.approx(1000 * (len(steps) - 1) / (max(stamps) - stamps[0]))
