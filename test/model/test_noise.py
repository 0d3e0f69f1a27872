# SPDX-License-Identifier: Apache-2.0
"""The chunk noise is a fixed function of seed and stamp: a chunk logged years ago can be computed again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_model.noise import chunk_noise

NOW = 1_700_000_000_000_000_000
# The first three values and the last one of [1, 50, 128]. These may never change: logs refer to them.
PINNED = [
    (0, 0, [2.0130892, 1.0110557, -1.7276407], 1.1847874),
    (1, 0, [1.3667991, -0.07387061, 0.92594534], -0.8007948),
    (0, 1, [-0.045624074, -0.40140486, -0.21065997], 1.4410771),
    (-1, NOW, [-2.1088035, 0.11327762, 2.2118642], -0.6627796),
]


@pytest.mark.parametrize(("seed", "stamp", "first", "last"), PINNED)
def test_the_stream_never_changes(seed: int, stamp: int, first: list[float], last: float) -> None:
    noise = chunk_noise(seed, stamp, 50, 128)
    assert noise.dtype == np.float32
    assert noise.shape == (1, 50, 128)
    np.testing.assert_array_equal(noise[0, 0, :3], np.array(first, np.float32))
    assert noise[0, -1, -1] == np.float32(last)


def test_an_odd_number_of_values_is_pinned_too() -> None:
    expected = np.array([[[0.3641709], [1.2409543], [-1.4786644]]], np.float32)
    np.testing.assert_array_equal(chunk_noise(7, 11, 3, 1), expected)


def test_it_is_standard_normal() -> None:
    many = np.concatenate([chunk_noise(3, NOW + stamp, 50, 128) for stamp in range(40)]).astype(np.float64)
    # A quarter of a million values: the standard errors are 0.002 for the mean and 0.0014 for the spread.
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.007
    assert abs((many**3).mean()) < 0.03
    assert abs((many**4).mean() - 3) < 0.1
    # Both halves of each Box-Muller pair, and neighbours in time, are unrelated.
    flat = many.reshape(40, -1)
    assert abs(np.mean(flat[:, :3200] * flat[:, 3200:])) < 0.015
    assert abs(np.mean(flat[1:] * flat[:-1])) < 0.01


def test_seeds_and_stamps_count_modulo_two_to_the_64() -> None:
    np.testing.assert_array_equal(chunk_noise(-1, -5, 4, 3), chunk_noise(2**64 - 1, 2**64 - 5, 4, 3))


@settings(max_examples=100, deadline=None)
@given(st.integers(), st.integers(), st.integers(1, 20), st.integers(1, 20))
def test_any_seed_and_stamp_repeat_and_differ_from_their_neighbours(
    seed: int, stamp: int, horizon: int, width: int
) -> None:
    noise = chunk_noise(seed, stamp, horizon, width)
    assert np.isfinite(noise).all()
    np.testing.assert_array_equal(noise, chunk_noise(seed, stamp, horizon, width))
    assert not np.array_equal(noise, chunk_noise(seed + 1, stamp, horizon, width))
    assert not np.array_equal(noise, chunk_noise(seed, stamp + 1, horizon, width))
