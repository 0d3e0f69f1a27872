# SPDX-License-Identifier: Apache-2.0
"""A trajectory is known as its controller runs it, and always comes to rest in time and inside the limits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.safety_limits import stopping_speed
from gr00t_ros.sim.controllers import TrajectoryController
from gr00t_ros.splines import Brakes, Sent

LOW, HIGH, ACCELERATION = np.array([-1.0, -2.0]), np.array([1.0, 0.5]), np.array([10.0, 4.0])
SPACING_S, END_S = 0.02, 0.2


def test_it_is_where_the_controller_is() -> None:
    times = np.array([0.0, 0.02, 0.05, 0.2])
    positions = np.array([[0.0, 1.0], [0.1, 0.9], [0.15, 0.5], [0.3, 0.4]])
    velocities = np.array([[1.0, -2.0], [3.0, -8.0], [0.5, 2.0], [0.0, 0.0]])
    sent = Sent(10**18, times, positions, velocities)
    controller = TrajectoryController(("a", "b"), positions[0])
    due = [round(t * 1e9) for t in times]
    controller.accept(
        ("a", "b"), due, positions.tolist(), velocities.tolist(), stamp_ns=10**18, now_ns=10**18
    )
    step = 1e-4
    for t_ns in range(1_000_000, 250_000_000, 700_000):
        position, velocity, acceleration = sent.at(10**18 + t_ns)
        np.testing.assert_allclose(position, controller.sample(10**18 + t_ns), atol=1e-12)
        along = sent.along(np.array([t_ns / 1e9]))
        np.testing.assert_allclose(along[0][0], position, atol=1e-12)
        np.testing.assert_allclose(along[1][0], velocity, atol=1e-12)
        near = np.array([sent.at(10**18 + t_ns + round(d * step * 1e9))[0] for d in (-1, 1)])
        inside = np.abs(times - t_ns / 1e9).min() > step
        if inside:
            np.testing.assert_allclose((near[1] - near[0]) / (2 * step), velocity, atol=2e-2)
            bend = (near[1] - 2 * position + near[0]) / step**2
            np.testing.assert_allclose(bend, acceleration, atol=1e-3)


@given(
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    speed=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    points=st.integers(1, 6),
)
def test_every_way_comes_to_rest_in_time_and_inside_the_limits(
    place: tuple[float, float], speed: tuple[float, float], points: int
) -> None:
    """From any state from which that is possible at the acceleration limit."""
    start = LOW + np.array(place) * (HIGH - LOW)
    # Straight on at one speed, after which there is room to stop.
    span = (points - 1) * SPACING_S
    room = np.where(np.array(speed) > 0.0, HIGH - start, start - LOW)
    left = END_S - max(span, SPACING_S)
    most = np.minimum(stopping_speed(room, ACCELERATION, span + SPACING_S), ACCELERATION * left)
    v = np.array(speed) * most * (1 - 1e-9)
    times = np.arange(points) * SPACING_S
    way, moving = start + times[:, None] * v, np.repeat(v[None], points, axis=0)
    brakes = Brakes(LOW, HIGH, ACCELERATION, SPACING_S, times, END_S)
    positions, velocities, due = brakes.tail(way, moving) if points > 1 else brakes.stop(start, v, END_S)
    assert due[-1] == END_S
    assert not velocities[-1].any()
    sent = Sent(0, due, positions, velocities)
    for t_ns in range(0, 200_000_000, 1_000_000):
        position, velocity, acceleration = sent.at(t_ns)
        assert (position >= LOW - 1e-4).all()
        assert (position <= HIGH + 1e-4).all()
        assert (velocity * v >= -2e-2 * np.abs(v)).all(), "it never turns back"
        assert (np.abs(acceleration) <= ACCELERATION * 1.35).all()
        if (np.abs(v) * END_S < room).all():
            assert (np.abs(acceleration) <= ACCELERATION * (1 + 1e-6)).all()
