# SPDX-License-Identifier: Apache-2.0
"""How the executor moves along its plan, into it and out of it: inside the limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.execution import Execution, State
from gr00t_ros.faults import Fault, Reaction
from gr00t_ros.interpolation import Curve
from support_execution import (
    HOLD_S,
    LOOKAHEAD_S,
    PERIOD_S,
    ROBOT,
    START_NS,
    Driven,
    Rig,
    chunk,
    following,
    make,
    of,
    ramp,
)


@pytest.fixture
def driven() -> Driven:
    return Driven(make())


@pytest.fixture
def rig() -> Rig:
    return Rig(make())


def test_the_commands_follow_the_chunk_in_time(rig: Rig) -> None:
    rig.period()
    rig.offer(ramp())
    begin = rig.now_ns
    for commands in rig.run(0.6):
        assert rig.execution.state == State.EXECUTING
        trajectory = of(commands, "arm")
        assert len(commands) == 2
        assert trajectory.times_s[-1] == pytest.approx(LOOKAHEAD_S)
    # The first point of a trajectory is due one period after its stamp.
    due = (rig.now_ns - begin) / 1e9 + PERIOD_S
    np.testing.assert_allclose(trajectory.positions[0], np.full(5, 0.02 * due / 0.05), atol=1e-9)


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "quintic"])
def test_a_plan_that_keeps_the_limits_is_executed_to_the_letter(interpolation: str) -> None:
    phase = np.arange(40) * 0.05 * np.pi / 2
    arm = 0.2 * (1.0 - np.cos(phase))[:, None] * np.array([1.0, 0.5, -0.5, -0.8, 1.2])
    curve = Curve(arm, 0, ROBOT.step_ns, interpolation)
    rig = Rig(make(following(interpolation=interpolation)))
    rig.period()
    rig.offer(arm)
    begin = rig.now_ns
    rig.run(0.3)  # until then it goes over to the plan
    for _ in range(65):
        trajectory = of(rig.period(), "arm")
        for position, due_s in zip(trajectory.positions[:-1], trajectory.times_s, strict=False):
            due_ns = rig.now_ns - begin + round(due_s * 1e9)
            np.testing.assert_allclose(position, curve.at(np.array([due_ns]))[0][0], atol=1e-9)
    assert rig.execution.counters.commands_clipped == 0


@pytest.mark.parametrize("merge", ["blend", "ensemble"])
def test_a_newer_chunk_takes_over_smoothly_where_replacing_is_cut_by_the_limits(merge: str) -> None:
    """A policy that corrects itself by 0.03 rad at once."""
    clipped = {}
    for policy in ("replace", merge):
        rig = Rig(make(following(merge=policy)))
        rig.period()
        rig.offer(ramp(40, 0.01))
        rig.run(0.6)
        before = rig.execution.counters.commands_clipped
        rig.offer(ramp(40, 0.01) + 0.12 + 0.03, sequence=1)
        arm = np.array([of(commands, "arm").positions[0, 0] for commands in rig.run(0.6)])
        clipped[policy] = rig.execution.counters.commands_clipped - before
        acceleration = np.abs(np.diff(arm, 2)).max() / PERIOD_S**2
        assert acceleration < (6.0 if policy == merge else 11.0)
    assert clipped["replace"] > 0
    assert clipped[merge] == 0


def test_the_plan_that_is_told_is_what_is_commanded_during_a_hand_over(rig: Rig) -> None:
    rig.period()
    rig.offer(ramp(40, 0.01))
    rig.run(0.6)
    rig.offer(ramp(40, 0.01) + 0.15, sequence=1)
    plan = rig.execution.plan(rig.now_ns)
    assert plan is not None
    told = plan.groups[0].values[:, 0]
    # What was under way when the chunk came goes on for a period before it can be led over.
    for _ in range(15):
        command = of(rig.period(), "arm")
        for position, due_s in zip(command.positions[:-1], command.times_s, strict=False):
            place = (rig.now_ns + round(due_s * 1e9) - plan.start_ns) / plan.step_ns
            if place == int(place):
                np.testing.assert_allclose(position[0], told[int(place)], atol=5e-4)


def test_late_steps_are_skipped(rig: Rig) -> None:
    rig.period()
    late = chunk(rig.now_ns - 300_000_000, ramp())
    rig.execution.offer(late, rig.now_ns)
    rig.run(0.4)
    # 0.7 s into the chunk: step 14, and not step 8. The command is one period ahead.
    assert rig.positions["shoulder_pan"] == pytest.approx(0.02 * 14.4, abs=5e-3)


def test_a_jump_in_the_plan_becomes_a_motion_inside_velocity_and_acceleration_limits(rig: Rig) -> None:
    gripper = np.where(np.arange(40) % 12 < 6, 0.0, 1.5)[:, None]
    rig.offer(np.zeros((40, 5)), gripper=gripper)
    path = np.array([of(commands, "gripper").positions[0, 0] for commands in rig.run(1.9)])
    limits = ROBOT.limits["gripper"]
    assert limits.acceleration is not None
    speed = np.diff(path) / PERIOD_S
    assert np.abs(speed).max() <= limits.velocity + 1e-9
    assert np.abs(np.diff(speed)).max() <= limits.acceleration * PERIOD_S + 1e-9
    assert path.max() - path.min() > 0.5, "it moves"
    assert rig.execution.counters.commands_clipped > 0


@pytest.mark.parametrize("rate", [50.0, 100.0, 200.0, 500.0])
def test_at_any_rate_a_trajectory_has_few_points_and_ends_in_time(rate: float) -> None:
    execution = Execution(ROBOT, period_s=1 / rate, lookahead_s=LOOKAHEAD_S, hold_s=HOLD_S)
    rig = Rig(execution)
    rig.period(1 / rate)
    rig.offer(ramp())
    rig.period(1 / rate)
    times = of(rig.period(1 / rate), "arm").times_s
    assert len(times) <= 6
    assert times[-1] == pytest.approx(LOOKAHEAD_S)


def test_every_trajectory_ends_at_rest_within_the_lookahead(rig: Rig) -> None:
    rig.offer(ramp(16, 0.08))
    seen = 0
    for commands in rig.run(1.5):
        for command in commands:
            if command.group.interface == "joint_trajectory":
                seen += 1
                assert np.all(np.diff(command.times_s) > 0)
                assert command.times_s[0] > 0
                assert command.times_s[-1] <= LOOKAHEAD_S + 1e-9
                assert not command.velocities[-1].any()
    assert seen > 40


def test_lost_joint_states_never_freeze_a_velocity(rig: Rig) -> None:
    rig.offer(ramp(40, 0.08))  # 1.6 rad/s
    rig.run(0.4)
    rig.joints_come = False
    while rig.execution.state == State.EXECUTING:
        last = of(rig.period(), "arm").positions[0]
    rest = of(rig.period(), "arm").positions[-1]
    # A constant deceleration from 1.6 rad/s over half the lookahead: 0.08 rad, and two periods of motion.
    assert np.all(np.abs(rest - last) <= 0.08 + 2 * 1.6 * PERIOD_S)


@pytest.mark.parametrize("late_s", [0.05, 0.08, 0.12, 0.3])
def test_after_a_late_period_motion_goes_on_from_where_the_controller_is(
    driven: Driven, late_s: float
) -> None:
    """It followed the old trajectory in the meantime."""
    driven.stand(-1.4)
    driven.period()
    driven.offer(ramp(40, 0.05) - 1.4)  # 1 rad/s
    driven.run(0.5)
    driven.period(late_s)
    driven.run(1.0)
    driven.assert_forward_within_limits()
    expected = [driven.now_ns / 1e9 - START_NS / 1e9 - PERIOD_S] * 5
    np.testing.assert_allclose(driven.arm.sample(driven.now_ns), np.subtract(expected, 1.4), atol=0.01)


@pytest.mark.parametrize("periods", [1, 2, 5, 12])
def test_a_chunk_that_ends_a_hold_continues_the_motion_under_way(driven: Driven, periods: int) -> None:
    """The position at which the hold would end is up to a lookahead ahead of the controller."""
    driven.period()
    driven.offer(np.vstack([np.zeros((14, 5)), np.full((26, 5), 0.6)]))
    driven.run(0.84)
    assert driven.execution.state == State.EXECUTING
    driven.faults = (Fault("test", Reaction.HOLD),)
    driven.run(periods * PERIOD_S)
    assert driven.execution.state == State.HOLDING
    assert driven.arm.sample(driven.now_ns)[0] < 0.5
    driven.faults = ()
    driven.offer(np.full((30, 5), 0.6), sequence=1)
    driven.run(1.2)
    driven.assert_forward_within_limits()
    np.testing.assert_allclose(driven.arm.sample(driven.now_ns), np.full(5, 0.6), atol=1e-3)


@pytest.mark.parametrize("cause", ["stop", "stale"])
def test_a_stop_brakes_the_controller_without_a_jump_of_speed(driven: Driven, cause: str) -> None:
    driven.offer(ramp(40, 0.09))  # 1.8 rad/s
    driven.run(0.5)
    if cause == "stop":
        driven.execution.stop("test")
    driven.joints_come = cause != "stale"
    driven.period()
    while driven.execution.state == State.EXECUTING:
        driven.period()
    begin = len(driven.speeds) + 1
    driven.run(0.4)
    assert driven.execution.state == (State.STOPPED if cause == "stop" else State.HOLDING)
    driven.assert_forward_within_limits()
    tail = np.array(driven.speeds[begin:])
    limit = ROBOT.limits["shoulder_pan"].acceleration
    assert limit is not None
    assert np.diff(tail, axis=0).min() / 1e-3 >= -1.01 * limit
    np.testing.assert_allclose(tail[-1], 0.0, atol=1e-9)


def test_a_stop_while_a_hold_ends_softly_still_brakes_inside_the_limit(driven: Driven) -> None:
    driven.offer(ramp(5, 0.2))
    while driven.execution.state != State.HOLDING:
        driven.period()
    begin = len(driven.speeds)
    driven.execution.stop("operator")
    driven.run(0.4)
    driven.assert_forward_within_limits()
    limit = ROBOT.limits["shoulder_pan"].acceleration
    assert limit is not None
    assert np.diff(driven.speeds[begin + 20 :], axis=0).min() / 1e-3 >= -1.05 * limit


def test_a_plan_that_ends_in_motion_is_slowed_down_to_stand_at_its_last_step(driven: Driven) -> None:
    """Neither group passes the end, and neither brakes harder than it may."""
    steps = 16
    driven.offer(ramp(steps, 0.05), gripper=np.arange(steps)[:, None] * 0.06)  # 1 rad/s and 1.2 rad/s
    driven.run(0.6)
    begin = len(driven.speeds)
    driven.run(0.5)
    assert driven.execution.state == State.HOLDING
    arm = driven.arm.sample(driven.now_ns)
    np.testing.assert_allclose(arm, np.full(5, 15 * 0.05), atol=1e-6)
    assert driven.gripper[-1] == pytest.approx(15 * 0.06, abs=1e-4)
    assert max(driven.gripper) <= 15 * 0.06 + 1e-6
    driven.assert_forward_within_limits()
    limit = ROBOT.limits["shoulder_pan"].acceleration
    assert limit is not None
    assert np.diff(driven.speeds[begin:], axis=0).min() / 1e-3 >= -1.01 * limit
    assert np.diff(driven.gripper, 2).min() / PERIOD_S**2 >= -20.0 * 1.01


def test_a_robot_that_is_behind_when_its_plan_ends_still_goes_to_the_last_step(driven: Driven) -> None:
    gripper = np.concatenate([np.zeros((14, 1)), np.full((2, 1), 1.2)])
    driven.offer(np.concatenate([np.zeros((14, 5)), np.full((2, 5), 0.6)]), gripper=gripper)
    driven.run(2.0)
    np.testing.assert_allclose(driven.arm.sample(driven.now_ns), np.full(5, 0.6), atol=1e-3)
    assert driven.gripper[-1] == pytest.approx(1.2, abs=1e-3)
    assert np.abs(driven.speeds).max() <= 1.01 * ROBOT.limits["shoulder_pan"].velocity
    assert np.min(driven.speeds) >= -0.02


def test_a_chunk_that_comes_while_the_plan_is_slowed_down_is_gone_over_to_smoothly(driven: Driven) -> None:
    driven.offer(ramp(16, 0.05))
    driven.run(0.76)
    begin = len(driven.speeds)
    before = driven.execution.counters.commands_clipped
    driven.offer(ramp(18, 0.05) + 0.75, sequence=1)
    driven.run(0.7)
    assert driven.execution.counters.commands_clipped == before, "it is led there, not cut by the limits"
    driven.assert_forward_within_limits()
    limit = ROBOT.limits["shoulder_pan"].acceleration
    assert limit is not None
    assert np.abs(np.diff(driven.speeds[begin:], axis=0)).max() / 1e-3 <= 1.01 * limit
    assert driven.execution.state == State.EXECUTING


@pytest.mark.parametrize("cause", ["end", "stop"])
def test_a_streamed_group_stops_at_its_acceleration_limit(driven: Driven, cause: str) -> None:
    steps = 10 if cause == "end" else 22
    gripper = np.arange(steps)[:, None] * 0.075  # 1.5 rad/s
    driven.offer(np.zeros((steps, 5)), gripper=gripper)
    driven.run(0.4)
    if cause == "stop":
        driven.execution.stop("test")
    driven.run(1.0)
    speeds = np.diff(driven.gripper) / PERIOD_S
    limit = ROBOT.limits["gripper"].acceleration
    assert limit is not None
    assert speeds.max() > 1.4
    assert (np.abs(np.diff(speeds)) <= limit * PERIOD_S + 1e-9).all()
    assert speeds[-1] == 0.0


def test_a_streamed_group_that_runs_out_stays_inside_its_position_limits() -> None:
    limits = dict(ROBOT.limits)
    limits["gripper"] = replace(limits["gripper"], max=0.5)
    driven = Driven(make(replace(ROBOT, limits=limits)))
    driven.offer(np.zeros((8, 5)), gripper=np.linspace(0.0, 0.5, 8)[:, None])
    driven.run(1.0)
    assert 0.45 < max(driven.gripper) <= 0.5


def test_a_streamed_group_without_acceleration_limit_stands_at_once() -> None:
    limits = dict(ROBOT.limits)
    limits["gripper"] = replace(limits["gripper"], acceleration=None)
    driven = Driven(make(replace(ROBOT, limits=limits)))
    driven.offer(np.zeros((22, 5)), gripper=np.arange(22)[:, None] * 0.075)
    driven.run(0.4)
    driven.execution.stop("test")
    stood = driven.gripper[-1]
    driven.run(0.2)
    assert set(driven.gripper[-5:]) == {stood}


def resume_with_the_gripper_at(position: float) -> float:
    """A gripper that was commanded to 0 and holds an object at 0.8; long after, with the gripper measured at
    ``position``, a new chunk: the first command."""
    rig = Rig(make(), follow=False)
    rig.positions["gripper"] = 0.8
    rig.offer(np.zeros((30, 5)))
    rig.run(2.5)
    assert not rig.period()
    rig.positions["gripper"] = position
    rig.offer(np.zeros((30, 5)), sequence=1)
    return float(of(rig.period(), "gripper").positions[0, 0])


def test_a_gripper_that_holds_an_object_does_not_let_go_when_motion_resumes() -> None:
    assert resume_with_the_gripper_at(0.8) == pytest.approx(0.0, abs=1e-9)
    assert resume_with_the_gripper_at(0.79) == pytest.approx(0.0, abs=1e-9)


def test_what_somebody_moved_during_silence_starts_where_it_is_measured() -> None:
    reach = ROBOT.limits["gripper"].velocity * 2 * PERIOD_S
    assert 0.7 - reach <= resume_with_the_gripper_at(0.7) <= 0.7
    assert 1.2 - reach <= resume_with_the_gripper_at(1.2) <= 1.2


def test_a_first_command_starts_where_the_robot_stands(rig: Rig) -> None:
    rig.positions["shoulder_pan"] = 0.8
    rig.offer(ramp(40))
    first = of(rig.period(), "arm").positions[0]
    reach = ROBOT.limits["shoulder_pan"].velocity * 2 * PERIOD_S
    assert 0.8 - first[0] <= reach + 1e-9
