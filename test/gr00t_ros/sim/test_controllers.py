# SPDX-License-Identifier: Apache-2.0
"""The simulated controllers follow commands as ros2_control's do, and refuse what those refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.errors import MessageError
from gr00t_ros.sim.controllers import PositionController, TrajectoryController

S = 1_000_000_000
NOW = 100 * S


def controller(position: float = 0.0) -> TrajectoryController:
    return TrajectoryController(["a", "b"], np.array([position, 10.0]))


def send(
    target: TrajectoryController,
    offsets: list[float],
    a: list[float],
    *,
    names: tuple[str, ...] = ("a", "b"),
    stamp: int = 0,
    now: int = NOW,
    speeds: list[list[float]] | None = None,
) -> None:
    rows = [[value, 10.0] if names[0] == "a" else [10.0, value] for value in a]
    target.accept(
        list(names),
        [round(offset * S) for offset in offsets],
        rows,
        speeds or [[] for _ in rows],
        stamp_ns=stamp,
        now_ns=now,
    )


def test_holds_its_start_until_told() -> None:
    assert controller(0.5).sample(NOW).tolist() == [0.5, 10.0]


def test_zero_stamp_starts_now_and_goes_straight_from_point_to_point() -> None:
    arm = controller(1.0)
    send(arm, [0.0, 1.0, 3.0], [1.0, 2.0, 4.0])
    got = [arm.sample(NOW + round(t * S))[0] for t in (0.0, 0.5, 1.0, 2.0, 3.0, 9.0)]
    np.testing.assert_allclose(got, [1.0, 1.5, 2.0, 3.0, 4.0, 4.0], atol=1e-9)


def test_first_stretch_starts_from_the_commanded_position() -> None:
    arm = controller(1.0)
    send(arm, [2.0], [3.0])
    np.testing.assert_allclose([arm.sample(NOW + t * S)[0] for t in (0, 1, 2)], [1.0, 2.0, 3.0])


def test_points_that_are_over_are_passed_by() -> None:
    arm = controller(0.0)
    send(arm, [0.0, 1.0, 2.0], [5.0, 6.0, 7.0], stamp=NOW - S // 2)
    np.testing.assert_allclose(arm.sample(NOW)[0], 5.5)


def test_future_trajectory_replaces_the_present_one_at_once() -> None:
    """Nothing of the old one is followed until the new one begins: it leads to the first point right away."""
    arm = controller(0.0)
    send(arm, [0.0, 4.0], [0.0, -4.0])
    send(arm, [0.0, 1.0], [3.0, 9.0], stamp=NOW + 3 * S, now=NOW + S)
    np.testing.assert_allclose([arm.sample(NOW + t * S)[0] for t in (1, 2, 3, 4)], [-1.0, 1.0, 3.0, 9.0])


def test_a_point_that_is_over_is_a_place_to_begin() -> None:
    """Then the stamps alone count, not when the message came in."""
    arm = controller(0.0)
    send(arm, [0.0, 1.0], [5.0, 6.0], stamp=NOW - S // 4, speeds=[[1.0, 0.0], [0.0, 0.0]])
    send(arm, [0.0, 1.0], [5.0, 6.0], stamp=NOW - S // 2, speeds=[[1.0, 0.0], [0.0, 0.0]])
    assert arm.sample(NOW)[0] == pytest.approx(5.625)


def test_newest_trajectory_replaces_the_one_before() -> None:
    arm = controller(0.0)
    send(arm, [1.0], [4.0])
    send(arm, [1.0], [-4.0], now=NOW + S // 2)
    np.testing.assert_allclose(arm.sample(NOW + S // 2)[0], 2.0)
    np.testing.assert_allclose(arm.sample(NOW + S + S // 2)[0], -4.0)


def test_joints_are_matched_by_name() -> None:
    arm = controller(0.0)
    send(arm, [0.0], [3.0], names=("b", "a"))
    assert arm.sample(NOW).tolist() == [3.0, 10.0]


def test_velocities_make_the_path_smooth() -> None:
    arm = controller(0.0)
    send(arm, [0.0, 1.0], [0.0, 1.0], speeds=[[0.0, 0.0], [0.0, 0.0]])
    before, middle, after = (arm.sample(NOW + round(t * S))[0] for t in (0.01, 0.5, 0.99))
    assert middle == pytest.approx(0.5)
    assert before < 0.001
    assert after > 0.999


def test_a_stream_of_trajectories_with_velocities_goes_on_without_a_jerk() -> None:
    """An executor sends a new trajectory each period: the motion must be the path's, not stop and go."""
    arm = controller(0.0)
    worst = 0.0
    for k in range(100):
        now = NOW + k * S // 50
        ahead = np.array([0.02, 0.04, 0.1])
        speeds = [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]
        send(arm, ahead.tolist(), (0.5 * (k / 50 + ahead)).tolist(), now=now, speeds=speeds)
        for t in (0.005, 0.01, 0.015):
            worst = max(worst, abs(arm.sample(now + round(t * S))[0] - 0.5 * (k / 50 + t)))
        if k == 0:
            worst = 0.0  # the first period starts from rest
    assert worst < 1e-9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ("a", "c")}, "joints"),
        ({"names": ("a",)}, "joints"),
        ({"offsets": [], "a": []}, "without points"),
        ({"offsets": [1.0, 1.0], "a": [0.0, 0.0]}, "ascend"),
        ({"a": [float("nan")]}, "not finite"),
        ({"a": [float("inf")]}, "not finite"),
        ({"stamp": NOW - 5 * S}, "ended 4"),
        ({"speeds": [[0.0, 0.1]]}, "end at rest"),
    ],
)
def test_refused_commands_change_nothing(change: dict[str, object], said: str) -> None:
    arm = controller(0.25)
    call = {"offsets": [1.0], "a": [3.0]} | change
    with pytest.raises(MessageError, match=said):
        send(arm, **call)  # type: ignore[arg-type]
    assert arm.sample(NOW + 10 * S).tolist() == [0.25, 10.0]


def test_rows_of_a_wrong_length_are_refused() -> None:
    with pytest.raises(MessageError, match="point 0 has 1 positions for 2 joints"):
        controller().accept(["a", "b"], [S], [[1.0]], [[]], stamp_ns=0, now_ns=NOW)


@given(
    points=st.lists(st.floats(-3, 3), min_size=1, max_size=8),
    gaps=st.lists(st.floats(0.01, 1.0), min_size=8, max_size=8),
    at=st.floats(0, 10),
)
def test_never_leaves_the_range_of_its_points(points: list[float], gaps: list[float], at: float) -> None:
    arm = controller(points[0])
    send(arm, np.cumsum(gaps)[: len(points)].tolist(), points)
    value = arm.sample(NOW + round(at * S))[0]
    assert min(points) - 1e-9 <= value <= max(points) + 1e-9


def test_position_controller_takes_the_newest_and_refuses_the_rest() -> None:
    gripper = PositionController(["gripper"], np.array([0.6]))
    gripper.accept([0.2])
    for wrong in ([], [0.1, 0.2], [float("nan")]):
        with pytest.raises(MessageError):
            gripper.accept(wrong)
    assert gripper.sample(0).tolist() == [0.2]
