# SPDX-License-Identifier: Apache-2.0
"""A curve through a chunk's steps meets them, moves as it says, and goes nowhere the steps do not lead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.interpolation import Curve
from gr00t_ros.robot_types import INTERPOLATIONS

STEP_NS = 50_000_000
STEP_S = 0.05
T0 = 10**18
SMOOTH = ("cubic", "quintic")


def fine(steps: int, per_step: int = 40) -> np.ndarray:
    """Times from the first to the last step."""
    return T0 + np.arange((steps - 1) * per_step + 1) * (STEP_NS // per_step)


def wave(steps: int = 60, rad_s: float = 4.0) -> np.ndarray:
    return np.sin(rad_s * STEP_S * np.arange(steps))[:, None]


FLOATS = st.floats(-3, 3, allow_subnormal=False).map(lambda x: round(x, 4))
STEPS = st.one_of(
    st.lists(FLOATS, min_size=1, max_size=12),
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=12),  # plateaus and corners
    st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=12).map(lambda x: np.cumsum(x).tolist()),
    st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=12).map(lambda x: np.cumsum(np.cumsum(x)).tolist()),
)


@given(steps=STEPS)
@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_every_step_is_met_exactly_and_the_last_one_at_rest(kind: str, steps: list[float]) -> None:
    values = np.array(steps)[:, None]
    curve = Curve(values, T0, STEP_NS, kind)
    positions, velocities = curve.at(T0 + np.arange(len(steps)) * STEP_NS)
    np.testing.assert_array_equal(positions, values)
    after, still = curve.at(np.array([T0 + (len(steps) - 1) * STEP_NS + n for n in (1, STEP_NS, 10**12)]))
    np.testing.assert_array_equal(after, np.repeat(values[-1:], 3, axis=0))
    assert not velocities[-1].any()
    assert not still.any()


@settings(deadline=None, max_examples=50)
@given(steps=STEPS)
@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_a_curve_stays_between_its_steps_but_for_the_top_of_a_smooth_turn(
    kind: str, steps: list[float]
) -> None:
    """There it may pass the outer step by a fifth of the second difference common to both steps."""
    values = np.array(steps)
    times = fine(len(steps))
    positions = Curve(values[:, None], T0, STEP_NS, kind).at(times)[0][:, 0]
    before = np.minimum((times - T0) // STEP_NS, max(len(steps) - 2, 0))
    after = np.minimum(before + 1, len(steps) - 1)
    turn = np.zeros(len(steps) + 1)
    if len(steps) > 2 and kind != "linear":
        bend = np.diff(values, 2)
        ends = np.stack([np.concatenate([bend[:1], bend]), np.concatenate([bend, bend[-1:]])])
        common = np.where((np.sign(ends[0]) * np.sign(ends[1])) > 0, np.abs(ends).min(axis=0), 0.0)
        turn[: len(common)] = 0.2 * common
    low = np.minimum(values[before], values[after]) - turn[before] - 1e-9
    high = np.maximum(values[before], values[after]) + turn[before] + 1e-9
    assert (positions >= low).all()
    assert (positions <= high).all()


@settings(deadline=None, max_examples=50)
@given(steps=STEPS, room=st.sampled_from([0.0, 1e-4, 0.01]))
@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_where_the_steps_keep_the_limits_the_curve_does(kind: str, steps: list[float], room: float) -> None:
    values = np.array(steps)[:, None]
    low, high = values.min(axis=0) - room, values.max(axis=0) + room
    positions, _ = Curve(values, T0, STEP_NS, kind, low, high).at(fine(len(steps)))
    assert (positions >= low - 1e-9).all()
    assert (positions <= high + 1e-9).all()


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_steps_outside_the_limits_are_met_all_the_same(kind: str) -> None:
    """They are the safety filter's, which counts and reports them; a curve that hid them would not."""
    values = np.array([[0.0], [2.0], [2.5], [0.5]])
    positions, _ = Curve(values, T0, STEP_NS, kind, np.array([-1.0]), np.array([1.0])).at(fine(4))
    np.testing.assert_array_equal(positions[::40], values)
    assert np.isfinite(positions).all()


@settings(deadline=None, max_examples=50)
@given(steps=STEPS)
@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_the_velocity_is_the_positions_derivative(kind: str, steps: list[float]) -> None:
    curve = Curve(np.array(steps)[:, None], T0, STEP_NS, kind)
    half = STEP_NS // 1000
    between = fine(len(steps), 10)[:-1] + STEP_NS // 20
    slope = (curve.at(between + half)[0] - curve.at(between - half)[0]) / (2 * half * 1e-9)
    np.testing.assert_allclose(curve.at(between)[1], slope, atol=2e-3)


@settings(deadline=None, max_examples=50)
@given(steps=STEPS)
@pytest.mark.parametrize("kind", SMOOTH)
def test_velocity_and_for_quintic_acceleration_are_continuous_at_the_steps(
    kind: str, steps: list[float]
) -> None:
    curve = Curve(np.array(steps)[:, None], T0, STEP_NS, kind)
    at = T0 + np.arange(1, len(steps)) * STEP_NS
    at = at[:-1]  # on the last step it stands
    near = STEP_NS // 10_000
    before, after = curve.at(at - near), curve.at(at + near)
    # What the acceleration makes of ten microseconds.
    change = 24.0 * np.abs(np.diff(steps)).max(initial=0.0) / STEP_S**2 * near * 1e-9
    np.testing.assert_allclose(before[1], after[1], atol=1e-6 + change)
    if kind == "quintic" and len(at):
        left = (curve.at(at)[1] - before[1]) / (near * 1e-9)
        right = (after[1] - curve.at(at)[1]) / (near * 1e-9)
        scale = 1.0 + np.abs(np.diff(steps)).max() / STEP_S**2
        np.testing.assert_allclose(left, right, atol=0.05 * scale)


def test_straight_motion_is_straight_in_every_interpolation() -> None:
    values = np.linspace(0.0, 1.0, 21)[:, None]
    for kind in INTERPOLATIONS:
        positions, velocities = Curve(values, T0, STEP_NS, kind).at(fine(20))
        np.testing.assert_allclose(positions[:, 0], np.arange(len(positions)) * 0.05 / 40, atol=1e-12)
        np.testing.assert_allclose(velocities[:-1], 1.0, atol=1e-9)


@pytest.mark.parametrize(("kind", "position", "velocity"), [("cubic", 2e-4, 0.02), ("quintic", 2e-4, 0.02)])
def test_smooth_motion_comes_back_as_it_was_turning_points_included(
    kind: str, position: float, velocity: float
) -> None:
    """4 rad/s at 20 steps a second: a straight line is off by 5e-3 and 0.4 rad/s there, a strictly monotone
    curve stands still at every turning step, 0.4 rad/s off."""
    times = fine(60)[200:-200]
    positions, velocities = Curve(wave(), T0, STEP_NS, kind).at(times)
    t = (times - T0) * 1e-9
    np.testing.assert_allclose(positions[:, 0], np.sin(4 * t), atol=position)
    np.testing.assert_allclose(velocities[:, 0], 4 * np.cos(4 * t), atol=velocity)


def test_a_plateau_stays_flat_and_the_way_to_it_does_not_swing() -> None:
    """A gripper that closes: neither backwards before it moves, nor past where it stops."""
    values = np.array([0.0, 0.0, 0.0, 0.6, 1.2, 1.2, 1.2])[:, None]
    for kind in INTERPOLATIONS:
        positions = Curve(values, T0, STEP_NS, kind).at(fine(7))[0][:, 0]
        assert not positions[:81].any()
        assert (positions[160:] == 1.2).all()
        assert (np.diff(positions) >= -1e-12).all()


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'spline', expected one of linear, cubic, quintic"):
        Curve(np.zeros((2, 1)), T0, STEP_NS, "spline")
