# SPDX-License-Identifier: Apache-2.0
"""What is odd about columns is found, and what is not odd is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.data.column_checks import CONSTANT, FROZEN, JUMP, NOT_FINITE, check_columns

NAMES = ("a", "b", "c")


def moving(rows: int = 400) -> np.ndarray:
    time = np.arange(rows)[:, None] / 20
    noise = np.random.default_rng(0).normal(scale=1e-3, size=(rows, 3))
    return np.sin(time * (0.7, 1.1, 1.9)) + noise


def stopped(first: int, end: int) -> np.ndarray:
    """Stands still from row ``first`` to ``end``, then goes on from there."""
    values = moving()
    return np.concatenate(
        [values[:first], np.repeat(values[first : first + 1], end - first, 0), values[first + 1 :]]
    )


def kinds(values: np.ndarray, **options: object) -> list[tuple[str, tuple[str, ...]]]:
    return [(f.kind, f.columns) for f in check_columns(NAMES, values, 20.0, **options)]  # type: ignore[arg-type]


def test_columns_that_move_are_not_mentioned() -> None:
    assert check_columns(NAMES, moving(), 20.0) == []


def test_a_constant_column_is_named_with_its_value() -> None:
    values = moving()
    values[:, 1] = -1.5
    (finding,) = check_columns(NAMES, values, 20.0)
    assert (finding.kind, finding.columns) == (CONSTANT, ("b",))
    assert str(finding) == "never changes: b (always -1.5)"


def test_a_stream_that_never_changes_is_frozen() -> None:
    (finding,) = check_columns(NAMES, np.ones((300, 3)), 20.0)
    assert finding.kind == FROZEN
    assert "no value ever changes in 300 rows" in finding.text


def test_a_stream_that_stops_for_a_while_is_found_with_its_place() -> None:
    values = stopped(100, 180)
    (finding,) = check_columns(NAMES, values, 20.0)
    assert finding.kind == FROZEN
    assert "stands still for 80 rows (4.0 s) from row 100 on" in finding.text


def test_standing_still_is_not_counted_across_episodes() -> None:
    values = stopped(30, 90)
    assert kinds(values) == [(FROZEN, NAMES)]
    assert kinds(values, starts=(0, 60)) == []


def test_a_jump_is_found_but_a_switch_is_meant_to_jump() -> None:
    values = moving()
    values[200, 2] += 6.0
    (finding,) = check_columns(NAMES, values, 20.0)
    assert (finding.kind, finding.columns) == (JUMP, ("c",))
    assert "after row 199" in finding.text
    values = moving()
    values[:, 2] = np.arange(400) // 100 % 2
    assert kinds(values) == []


def test_a_jump_between_two_episodes_is_none() -> None:
    values = moving()
    values[200:, 0] += 50.0
    assert kinds(values) == [(JUMP, ("a",))]
    assert kinds(values, starts=(0, 200)) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_found_with_its_first_row(bad: float) -> None:
    values = moving()
    values[[7, 9], 1] = bad
    findings = check_columns(NAMES, values, 20.0)
    assert (findings[0].kind, findings[0].columns) == (NOT_FINITE, ("b",))
    assert findings[0].text == "b: 2 values are not finite, the first in row 7"
    assert len(findings) == 1


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, -2.5, np.nan, np.inf, 1e30]), min_size=2, max_size=2), max_size=30
    ),
    st.sampled_from([0.0, 1.0, 30.0]),
    st.lists(st.integers(-2, 40), max_size=4),
)
def test_any_values_can_be_looked_at(rows: list[list[float]], fps: float, starts: list[int]) -> None:
    values = np.array(rows, np.float64).reshape(-1, 2)
    for finding in check_columns(("a", "b"), values, fps, starts):
        assert finding.text
        assert set(finding.columns) <= {"a", "b"}
