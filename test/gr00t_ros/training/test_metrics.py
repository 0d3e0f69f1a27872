# SPDX-License-Identifier: Apache-2.0
"""Sums over chunks give the same figures as all chunks at once, and cost no memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gr00t_ros.training.metrics import ChunkErrors, Figures, mean, scaled_ratio

HORIZON, VALUES = 5, 3


@st.composite
def chunks(draw: st.DrawFn) -> list[tuple[NDArray[np.float64], ...]]:
    """Errors, hold-still errors and recorded values [n, Q] of chunks of n steps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.lists(st.integers(1, HORIZON), min_size=1, max_size=12))
    scale = 10.0 ** draw(st.integers(-6, 6))
    return [tuple(scale * rng.standard_normal((3, n, VALUES))) for n in lengths]


@settings(deadline=None, max_examples=60)
@given(chunks())
def test_the_figures_are_those_of_all_chunks_at_once(
    given_chunks: list[tuple[NDArray[np.float64], ...]],
) -> None:
    held = np.array([True, False, True])
    sums = ChunkErrors(HORIZON, held)
    for errors, hold, recorded in given_chunks:
        sums.add(errors, hold, recorded)
    errors, hold, recorded = (np.concatenate(parts) for parts in zip(*given_chunks, strict=True))
    assert sums.chunks == len(given_chunks)
    assert sums.steps == len(errors)
    np.testing.assert_allclose(sums.spans, np.ptp(recorded, axis=0))
    np.testing.assert_allclose(sums.worst, np.abs(errors).max(axis=0))
    for value, figures in enumerate(sums.by_value()):
        check(figures, errors[:, value], hold[:, value] if held[value] else None)
    for step, found in enumerate(sums.by_step()):
        reached = [chunk for chunk in given_chunks if len(chunk[0]) > step]
        assert (found is None) == (not reached)
        for value, figures in enumerate(found or ()):
            at = [np.array([chunk[i][step, value] for chunk in reached]) for i in (0, 1)]
            check(figures, at[0], at[1] if held[value] else None)


def check(figures: Figures, errors: NDArray[np.float64], hold: NDArray[np.float64] | None) -> None:
    assert figures.mse == pytest.approx((errors**2).mean())
    assert figures.mae == pytest.approx(np.abs(errors).mean())
    if hold is None:
        assert figures.mse_hold_still is None
        assert figures.mae_hold_still is None
        assert figures.ratio is None
    else:
        assert figures.mse_hold_still == pytest.approx((hold**2).mean())
        assert figures.mae_hold_still == pytest.approx(np.abs(hold).mean())
        assert figures.ratio == pytest.approx((errors**2).mean() / (hold**2).mean())


def test_nothing_of_a_chunk_is_kept() -> None:
    sums = ChunkErrors(HORIZON, [True] * VALUES)
    sizes = set()
    for _ in range(50):
        sums.add(*np.ones((3, HORIZON, VALUES)))
        sizes.add(sum(value.nbytes for value in vars(sums).values() if isinstance(value, np.ndarray)))
    assert len(sizes) == 1
    assert not [value for value in vars(sums).values() if isinstance(value, list)]


def test_without_a_chunk_there_are_no_figures() -> None:
    sums = ChunkErrors(HORIZON, [True])
    sums.add(*np.ones((3, 0, 1)))
    assert sums.by_value() == []
    assert sums.by_step() == [None] * HORIZON
    assert sums.spans.tolist() == [0.0]


def test_an_unknown_state_leaves_no_trace() -> None:
    """Where nothing is held the errors are NaN; the other values' figures do not see it."""
    sums = ChunkErrors(1, [True, False])
    sums.add(np.ones((1, 2)), np.array([[2.0, np.nan]]), np.zeros((1, 2)))
    first, second = sums.by_value()
    assert first.mse_hold_still == 4.0
    assert second == Figures(1.0, 1.0)


def test_a_mean_over_values_has_no_hold_still_where_one_has_none() -> None:
    full = [Figures(1.0, 1.0, 4.0, 2.0), Figures(3.0, 1.5, 2.0, 1.0)]
    assert mean(full) == Figures(2.0, 1.25, 3.0, 1.5)
    assert mean([*full, Figures(2.0, 1.25)]) == Figures(2.0, 1.25)


def test_holding_still_without_an_error_gives_no_ratio() -> None:
    assert Figures(1.0, 1.0, 0.0, 0.0).ratio is None


def test_the_scaled_ratio_does_not_depend_on_units() -> None:
    radians = [Figures(0.01, 0.1, 0.04, 0.2), Figures(0.09, 0.3, 0.09, 0.3)]
    # The second in percent: errors and range a hundred times as large.
    percent = [radians[0], Figures(900.0, 30.0, 900.0, 30.0)]
    ratio = scaled_ratio(radians, [1.0, 1.0])
    assert ratio == pytest.approx(0.10 / 0.13)
    assert scaled_ratio(percent, [1.0, 100.0]) == pytest.approx(ratio)
    assert scaled_ratio([Figures(1.0, 1.0)], [1.0]) is None
    assert scaled_ratio([Figures(1.0, 1.0, 0.0, 0.0)], [1.0]) is None
    assert scaled_ratio([], []) is None
