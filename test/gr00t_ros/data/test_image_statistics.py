# SPDX-License-Identifier: Apache-2.0
"""Statistics of frames: LeRobot's shape and scale, and the same as NumPy over the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from gr00t_ros.data.image_statistics import ImageStatistics
from gr00t_ros.errors import DatasetError


def test_channels_equal_numpy_over_all_pixels() -> None:
    frames = np.random.default_rng(0).integers(0, 200, (9, 20, 30, 3), dtype=np.uint8)
    counted = ImageStatistics()
    for frame in frames:
        counted.add(frame)
    found = counted.result()
    pixels = frames.reshape(-1, 3) / 255.0
    wanted = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    for name, value in wanted.items():
        assert np.shape(found[name]) == (3, 1, 1)
        np.testing.assert_allclose(np.ravel(found[name]), value, atol=1e-12)
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        np.testing.assert_allclose(
            np.ravel(found[name]), np.quantile(pixels, share, axis=0, method="inverted_cdf"), atol=1 / 255
        )
    assert found["count"] == [9]


def test_long_episodes_are_sampled_evenly_and_large_frames_thinned() -> None:
    counted = ImageStatistics()
    for number in range(1000):
        counted.add(np.full((310, 400, 3), number // 4, np.uint8))
    found = counted.result()
    assert 64 <= found["count"][0] <= 128
    np.testing.assert_allclose(np.ravel(found["mean"]), np.mean(np.arange(1000) // 4) / 255, atol=0.01)


def test_no_frames_have_no_statistics() -> None:
    with pytest.raises(DatasetError, match="no frames"):
        ImageStatistics().result()
