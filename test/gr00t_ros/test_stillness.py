# SPDX-License-Identifier: Apache-2.0
"""Standing still is measured, never assumed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.stillness import Stillness

NAMES = ("shoulder", "elbow")
GAP_S = 0.2
THRESHOLD = 0.02


def test_it_counts_from_the_last_joint_that_moved() -> None:
    still = Stillness(NAMES, GAP_S)
    for i in range(40):
        still.measure(NAMES, (0.5, -1.0 if i < 10 else 1.0), i / 10, THRESHOLD)
    assert still.still_s(3.9) == pytest.approx(2.9)
    still.clear()
    assert still.still_s(3.9) == 0.0


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (("shoulder",), (0.5,)),
        ((), ()),
        (NAMES, (0.5,)),
        (NAMES, (0.5, math.nan)),
        (NAMES, (0.5, math.inf)),
        (("shoulder", "wheel"), (0.5, 1.0)),
    ],
    ids=["one joint", "none", "no position", "nan", "inf", "another joint"],
)
def test_a_joint_that_is_not_measured_does_not_stand_still(
    names: tuple[str, ...], positions: tuple[float, ...]
) -> None:
    still = Stillness(NAMES, GAP_S)
    still.measure(NAMES, (0.5, 1.0), 0.0, THRESHOLD)
    for i in range(1, 20):
        still.measure(names, positions, i / 10, THRESHOLD)
    assert still.still_s(1.9) == 0.0


def test_after_a_gap_it_begins_anew() -> None:
    still = Stillness(NAMES, GAP_S)
    for now_s in (0.0, 0.1, 0.2, 0.6, 0.7):
        still.measure(NAMES, (0.5, 1.0), now_s, THRESHOLD)
    assert still.still_s(0.7) == pytest.approx(0.1)
    assert still.still_s(0.95) == 0.0


def test_a_joint_that_creeps_does_not_stand_still() -> None:
    still = Stillness(NAMES, GAP_S)
    for i in range(1000):
        still.measure(NAMES, (0.5, 0.01 * i / 10), i / 10, THRESHOLD)  # 0.01 rad/s
    assert still.still_s(99.9) <= 2.2


def test_messages_of_some_joints_each_add_up() -> None:
    still = Stillness(NAMES, GAP_S)
    for i in range(20):
        still.measure((NAMES[i % 2],), (0.5,), i / 20, THRESHOLD)
    assert still.still_s(0.95) == pytest.approx(0.9)


def test_no_joints_never_stand_still() -> None:
    assert Stillness((), GAP_S).still_s(1.0) == 0.0


@given(
    st.lists(st.tuples(st.floats(0.01, 0.5), st.floats(-0.05, 0.05)), min_size=1, max_size=60),
    st.floats(0.001, 0.1),
)
def test_in_the_time_that_it_tells_no_joint_left_its_range(
    samples: list[tuple[float, float]], threshold: float
) -> None:
    still, now_s, seen = Stillness(("one",), GAP_S), 0.0, []
    for step_s, value in samples:
        now_s += step_s
        seen.append((now_s, value))
        still.measure(("one",), (value,), now_s, threshold)
        since_s = now_s - still.still_s(now_s) - 1e-9
        inside = [(at, value) for at, value in seen if at >= since_s]
        values = [value for _, value in inside]
        assert max(values) - min(values) <= threshold
        times = [at for at, _ in inside]
        assert all(b - a <= GAP_S + 1e-9 for a, b in pairwise(times))
