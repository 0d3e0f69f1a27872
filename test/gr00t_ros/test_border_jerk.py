# SPDX-License-Identifier: Apache-2.0
"""How smooth the arm is where chunks meet: the figures that the documentation gives, on a shorter motion."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from border_jerk import LONG, OWN, REPLACE, Setting, measure, replay

RATE, ERROR_RAD, SECONDS, EVERY_S = 50.0, 0.005, 10.0, 0.4


def ratio(setting: Setting) -> float:
    """RMS jerk at chunk borders, in units of that inside chunks."""
    run = replay(setting, SECONDS, EVERY_S)
    assert len(run.borders) == round(SECONDS / EVERY_S), "chunks were accepted all the time"
    return measure(run, RATE)["ratio"]


def test_real_time_chunking_and_blend_leave_no_more_than_a_fifth_of_jerk_at_borders() -> None:
    assert ratio(Setting(RATE, ERROR_RAD, horizon=LONG, guidance=OWN)) <= 1.2


def test_replace_is_what_it_is_compared_with() -> None:
    assert ratio(Setting(RATE, ERROR_RAD, REPLACE, horizon=LONG)) > 3.0


def test_chunks_without_an_error_meet_without_a_trace() -> None:
    assert ratio(Setting(RATE, 0.0)) == pytest.approx(1.0, abs=0.05)
