# SPDX-License-Identifier: Apache-2.0
"""Whatever a plan asks of velocities, twists and poses: what is sent keeps every limit and can stop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.errors import UnsafeCommand
from gr00t_ros.robot_types import JointLimits, PoseLimits, TwistLimits
from gr00t_ros.rotations import between, multiply, rotvec_to_quaternion
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.safety_groups import JointVelocityLimits, PoseSafety, PoseState, TwistVelocityLimits
from support_robots import small_config

DT = 0.02
ANY = st.floats(-100.0, 100.0)
PERIODS = st.sampled_from([DT, DT / 2, 2 * DT])
NOTHING = np.zeros(2)


def safety() -> SafetyFilter:
    return SafetyFilter(small_config())


def joint_limits(filter_: SafetyFilter) -> JointVelocityLimits:
    limits = [JointLimits(-1.0, 0.5, 1.0, 2.0), JointLimits(-math.inf, math.inf, 3.0, 9.0)]
    return JointVelocityLimits(["lift", "wheel"], limits, filter_, period_s=DT)


@settings(max_examples=100, deadline=None)
@given(start=st.floats(-1.0, 0.5), plan=st.lists(st.tuples(ANY, ANY, PERIODS), min_size=1, max_size=60))
def test_joint_velocities_stay_inside_and_leave_room_to_stop(start: float, plan: Any) -> None:
    """With a joint that does what it is told."""
    limits = joint_limits(safety())
    position, velocity = np.array([start, 0.0]), np.zeros(2)
    for lift, wheel, dt in plan:
        before = velocity
        velocity, _ = limits.apply(np.array([lift, wheel]), before, dt, position, (NOTHING, NOTHING))
        assert (np.abs(velocity) <= [1.0 + 1e-9, 3.0 + 1e-9]).all()
        assert (np.abs(velocity - before) <= np.array([2.0, 9.0]) * dt + 1e-9).all()
        position = position + velocity * dt
        stop = position[0] + velocity[0] * abs(velocity[0]) / 4.0
        assert -1.0 - 1e-6 <= stop <= 0.5 + 1e-6
    for _ in range(200):
        velocity = limits.braked(velocity, DT)
        position = position + velocity * DT
        assert -1.0 - 1e-6 <= position[0] <= 0.5 + 1e-6
    assert velocity.tolist() == [0.0, 0.0]


def test_what_a_joint_has_moved_since_it_was_measured_counts() -> None:
    limits, at = joint_limits(safety()), np.array([0.0, 0.0])
    ahead, _ = limits.apply(np.array([1.0, 0.0]), np.array([1.0, 0.0]), DT, at, (NOTHING, NOTHING))
    late, clipped = limits.apply(
        np.array([1.0, 0.0]), np.array([1.0, 0.0]), DT, at, (np.array([0.45, 0.0]), NOTHING)
    )
    assert ahead[0] == 1.0
    assert late[0] == pytest.approx(1.0 - 2.0 * DT)
    assert "lift (position)" in clipped


def test_a_joint_outside_its_limits_moves_back_in_only() -> None:
    limits, at = joint_limits(safety()), np.array([0.7, 0.0])
    out, _ = limits.apply(np.array([1.0, 0.0]), np.zeros(2), DT, at, (NOTHING, NOTHING))
    back, _ = limits.apply(np.array([-1.0, 0.0]), np.zeros(2), DT, at, (NOTHING, NOTHING))
    assert out[0] == 0.0
    assert back[0] == pytest.approx(-2.0 * DT)


TWIST = TwistLimits(0.5, 1.0, 1.5, 3.0)
COLUMNS = ("linear_x", "angular_z", "linear_y")


@settings(max_examples=100, deadline=None)
@given(plan=st.lists(st.tuples(ANY, ANY, ANY, PERIODS), min_size=1, max_size=40))
def test_a_twist_keeps_the_lengths_of_its_parts(plan: Any) -> None:
    limits = TwistVelocityLimits(COLUMNS, TWIST, safety())
    velocity = np.zeros(3)
    for *wanted, dt in plan:
        before = velocity
        velocity, _ = limits.apply(np.array(wanted), before, dt, np.zeros(0), (np.zeros(3), np.zeros(3)))
        change = velocity - before
        assert np.hypot(velocity[0], velocity[2]) <= 0.5 + 1e-9
        assert np.hypot(change[0], change[2]) <= 1.0 * dt + 1e-9
        assert abs(velocity[1]) <= 1.5 + 1e-9
        assert abs(change[1]) <= 3.0 * dt + 1e-9
    for _ in range(30):
        before, velocity = velocity, limits.braked(velocity, DT)
        assert np.hypot(*(velocity - before)[[0, 2]]) <= 1.0 * DT + 1e-9
    assert velocity.tolist() == [0.0, 0.0, 0.0]


def test_clipping_a_twist_keeps_its_direction_and_counts() -> None:
    filter_ = safety()
    limits = TwistVelocityLimits(COLUMNS, TWIST, filter_)
    velocity, clipped = limits.apply(
        np.array([3.0, 0.0, 4.0]), np.zeros(3), 0.1, np.zeros(0), (np.zeros(3), np.zeros(3))
    )
    np.testing.assert_allclose(velocity, [0.06, 0.0, 0.08])
    assert clipped == ("linear (velocity)", "linear (acceleration)")
    assert (filter_.counters["velocity"], filter_.counters["acceleration"]) == (1, 1)


BOX = PoseLimits((-0.3, -0.2, 0.0), (0.3, 0.2, 0.4), 0.5, 2.0, 1.5, 6.0, max_distance=0.2, max_angle=0.5)
COORDINATE = st.floats(-0.6, 0.6)
TURN = st.tuples(*[st.floats(-3.0, 3.0)] * 3).map(np.array)


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.tuples(COORDINATE, COORDINATE, COORDINATE), TURN, st.integers(1, 15), PERIODS),
        min_size=1,
        max_size=6,
    ),
    lag=st.booleans(),
)
def test_poses_stay_in_their_box_near_the_measured_and_slow(plan: Any, lag: bool) -> None:
    limits = PoseSafety("tool", BOX, safety())
    state = limits.first(np.array([0.1, 0.1, 0.2, 0.0, 0.0, 0.0, 1.0]))
    measured = state.pose
    for place, turn, periods, dt in plan:
        target = np.concatenate([place, rotvec_to_quaternion(turn)])
        for _ in range(periods):
            before = state
            state, _ = limits.apply(target, np.zeros(6), before, measured, dt)
            check_step(before, state, dt)
            measured = before.pose if lag else state.pose
    for _ in range(60):
        before, state = state, limits.braked(state, DT)
        check_step(before, state, DT)
    assert not state.linear.any()
    assert not state.angular.any()
    assert (state.pose == limits.braked(state, DT).pose).all(), "it holds"


def check_step(before: PoseState, after: PoseState, dt: float) -> None:
    low, high = np.array(BOX.min), np.array(BOX.max)
    assert (after.position >= low - 1e-9).all()
    assert (after.position <= high + 1e-9).all()
    # Braking in the direction of motion ends inside.
    stop = after.position + after.linear * np.linalg.norm(after.linear) / (2 * BOX.linear_acceleration)
    assert (stop >= low - 1e-6).all()
    assert (stop <= high + 1e-6).all()
    linear = (after.position - before.position) / dt
    angular = between(before.rotation, after.rotation) / dt
    assert np.linalg.norm(linear) <= BOX.linear_velocity + 1e-6
    assert np.linalg.norm(angular) <= BOX.angular_velocity + 1e-6
    assert np.linalg.norm(linear - before.linear) <= BOX.linear_acceleration * dt + 1e-6
    assert np.linalg.norm(angular - before.angular) <= BOX.angular_acceleration * dt + 1e-6
    assert abs(np.linalg.norm(after.rotation) - 1.0) < 1e-9


@settings(max_examples=20, deadline=None)
@given(place=st.tuples(*[st.floats(-0.15, 0.15)] * 2, st.floats(0.05, 0.35)), turn=TURN)
def test_a_reachable_pose_is_reached_and_a_plan_within_the_limits_followed_to_the_letter(
    place: Any, turn: Any
) -> None:
    limits = PoseSafety("tool", BOX, safety())
    state = limits.first(np.array([0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0]))
    target = np.concatenate([place, rotvec_to_quaternion(turn)])
    for _ in range(400):
        state, _ = limits.apply(target, np.zeros(6), state, state.pose, DT)
    assert np.linalg.norm(state.position - target[:3]) < 1e-6
    assert np.linalg.norm(between(state.rotation, target[3:])) < 1e-6
    # From there slowly on: every step exactly.
    for i in range(1, 20):
        move = 0.0005 * i * i * DT
        pose = np.concatenate(
            [
                target[:3] + np.array([0.0, 0.0, move]),
                multiply(rotvec_to_quaternion([0, 0, move]), target[3:]),
            ]
        )
        rate = 0.0005 * (2 * i - 1)
        state, clipped = limits.apply(pose, np.array([0, 0, rate, 0, 0, rate]), state, state.pose, DT)
        np.testing.assert_allclose(state.position, pose[:3], atol=1e-9)
        assert np.linalg.norm(between(state.rotation, pose[3:])) < 1e-9
        assert clipped == ()


def test_a_pose_is_pulled_to_the_measured_one_and_into_the_box() -> None:
    filter_ = safety()
    limits = PoseSafety("tool", BOX, filter_)
    measured = np.array([0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0])
    state = limits.first(measured)
    target = np.concatenate([[0.9, 0.0, 0.2], rotvec_to_quaternion([0.0, 0.0, 2.0])])
    for _ in range(300):
        state, clipped = limits.apply(target, np.zeros(6), state, measured, DT)
    np.testing.assert_allclose(state.position, [0.2, 0.0, 0.2], atol=1e-6)
    np.testing.assert_allclose(between(measured[3:], state.rotation), [0.0, 0.0, 0.5], atol=1e-6)
    assert clipped == ("position (position)", "position (tracking)", "rotation (tracking)")
    assert min(filter_.counters[kind] for kind in ("position", "tracking", "velocity", "acceleration")) > 0


def test_what_stands_far_outside_or_is_no_number_is_refused() -> None:
    filter_ = safety()
    limits = PoseSafety("tool", BOX, filter_)
    inside = limits.first(np.array([0.312, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0]))
    assert inside.position[0] == 0.3, "just outside (25 ms at 0.5 m/s): led back in"
    with pytest.raises(UnsafeCommand, match=r"tool stands at 0\.313"):
        limits.first(np.array([0.313, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0]))
    with pytest.raises(UnsafeCommand, match=r"tool stands at 0\.900, 0\.000, 0\.200 m, outside its box"):
        limits.first(np.array([0.9, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0]))
    with pytest.raises(UnsafeCommand, match="target"):
        limits.apply(np.full(7, math.nan), np.zeros(6), inside, inside.pose, DT)
    with pytest.raises(UnsafeCommand, match="measured"):
        joint_limits(filter_).apply(
            np.zeros(2), np.zeros(2), DT, np.array([math.inf, 0.0]), (NOTHING, NOTHING)
        )
    assert filter_.counters["refused"] == 4
