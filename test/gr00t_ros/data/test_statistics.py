# SPDX-License-Identifier: Apache-2.0
"""Statistics equal NumPy's, however the rows are dealt out, and nothing divides by zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gr00t_ros.data.statistics import (
    RunningStatistics,
    column_statistics,
    combined,
    relative_statistics,
)
from gr00t_ros.errors import DatasetError

VALUES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, width=32),
)


def expected(values: np.ndarray) -> dict[str, np.ndarray]:
    values = values.astype(np.float64)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "q01": np.quantile(values, 0.01, axis=0),
        "q99": np.quantile(values, 0.99, axis=0),
    }


def assert_equal(found: dict, wanted: dict[str, np.ndarray], scale: float) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9 * max(scale, 1.0), err_msg=name)


@given(VALUES)
def test_columns_equal_numpy(values: np.ndarray) -> None:
    assert_equal(column_statistics(values), expected(values), float(np.abs(values).max()))


@given(VALUES, st.lists(st.integers(1, 39), max_size=5))
def test_parts_give_what_the_whole_gives(values: np.ndarray, cuts: list[int]) -> None:
    running = RunningStatistics()
    for part in np.split(values, sorted(cut for cut in set(cuts) if cut < len(values))):
        running.add(part)
    assert_equal(running.result(), expected(values), float(np.abs(values).max()))


def test_chunks_have_statistics_for_each_step() -> None:
    chunks = np.random.default_rng(0).normal(size=(50, 4, 3))
    assert_equal(
        relative_statistics(chunks.astype(np.float32)), expected(chunks.astype(np.float32)), scale=1.0
    )


@pytest.mark.parametrize("value", [0.1, -3.3e7, 0.0, 1e-30])
def test_a_constant_column_has_deviation_zero(value: float) -> None:
    found = column_statistics(np.full((1001, 1), value, np.float32))
    assert found["std"] == [0.0]
    assert found["min"] == found["max"] == found["mean"] == found["q01"] == [float(np.float32(value))]


def test_percentiles_of_more_rows_than_are_kept_stay_close_and_in_range() -> None:
    values = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    running = RunningStatistics(kept=2_000)
    for part in np.split(values, 37 * np.arange(1, 500)):
        running.add(part)
    found, exact = running.result(), expected(values)
    np.testing.assert_allclose(found["mean"], exact["mean"], atol=1e-9)
    np.testing.assert_allclose(found["std"], exact["std"], atol=1e-9)
    np.testing.assert_array_equal(found["max"], exact["max"])
    for name, share in (("q01", 0.01), ("q99", 0.99)):
        for column, value in enumerate(found[name]):
            assert abs((values[:, column] <= value).mean() - share) < 0.01


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_its_place(bad: float) -> None:
    values = np.zeros((5, 3))
    values[2, 1] = bad
    running = RunningStatistics("episode 4, action")
    running.add(np.zeros((10, 3)))
    with pytest.raises(DatasetError, match=rf"episode 4, action: row 12, column \[1\] is {bad}"):
        running.add(values)


def test_no_rows_have_no_statistics() -> None:
    with pytest.raises(DatasetError, match="no rows"):
        column_statistics(np.zeros((0, 3)))


def test_combined_parts_have_the_moments_of_all_rows() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(n, 2)) for n in (3, 50, 7)]
    told = [column_statistics(part) | {"count": [len(part)]} for part in parts]
    whole = expected(np.concatenate(parts))
    found = combined(told)
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(found[name], whole[name], atol=1e-12)
    assert found["count"] == [60]
