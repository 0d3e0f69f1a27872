# SPDX-License-Identifier: Apache-2.0
"""How far apart rates may be, and whether a video is as long as its rows."""

from __future__ import annotations

import pytest

from gr00t_ros.data import rates
from gr00t_ros.data.video import VideoFacts


@pytest.mark.parametrize(
    ("rate", "expected", "beyond"),
    [
        (30.0, 30.0, ()),
        (29.99, 30.0, ()),
        (29.97, 30.0, ("WRITTEN",)),
        (29.5, 30.0, ("WRITTEN", "MEASURED")),
        (25.0, 30.0, ("WRITTEN", "MEASURED", "MISTAKEN")),
        (60.0, 30.0, ("WRITTEN", "MEASURED", "MISTAKEN")),
    ],
)
def test_rates_differ_by_shares(rate: float, expected: float, beyond: tuple[str, ...]) -> None:
    names = ("WRITTEN", "MEASURED", "MISTAKEN")
    assert tuple(n for n in names if rates.differ(rate, expected, getattr(rates, n))) == beyond


def test_the_last_frame_begins_a_period_before_the_end() -> None:
    video = VideoFacts(rate=20.0, seconds=2.0)
    assert not rates.ends_before(video, 1.95, 20.0)
    assert not rates.ends_before(video, 2.02, 20.0)
    assert rates.ends_before(video, 2.05, 20.0)
    assert not rates.ends_before(VideoFacts(rate=20.0, seconds=0.0), 2.05, 20.0)
