# SPDX-License-Identifier: Apache-2.0
"""What the chunk executor decides: nothing without a plan and fresh joints, never anything outside limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.commands import GroupCommand, monotone_velocities
from gr00t_ros.errors import ChunkRefused, MessageError
from gr00t_ros.execution import Execution, State
from gr00t_ros.interpolation import Curve
from gr00t_ros.robot import RobotConfig
from gr00t_ros.sim.controllers import TrajectoryController

ROBOT = RobotConfig.from_file(Path(__file__).parents[2] / "config/robots/so101.yaml")
ARM, GRIPPER = ROBOT.action["arm"], ROBOT.action["gripper"]
START_NS = 1_700_000_000_000_000_000
PERIOD_S = 0.02
LOOKAHEAD_S = 0.2
HOLD_S = 0.5


def chunk(
    t_ns: int, arm: np.ndarray, gripper: np.ndarray | None = None, sequence: int = 0, session: int = 1
) -> Chunk:
    """A chunk whose step 0 is due at ``t_ns``: arm [T, 5] rad."""
    if gripper is None:
        gripper = np.zeros((len(arm), 1))
    groups = (
        ChunkGroup("arm", "joint_position", ARM.joints, np.asarray(arm, np.float64)),
        ChunkGroup("gripper", "scalar", GRIPPER.joints, np.asarray(gripper, np.float64)),
    )
    return Chunk(session, sequence, "test", t_ns, t_ns, ROBOT.step_ns, groups)


def ramp(steps: int = 16, per_step: float = 0.02) -> np.ndarray:
    """All arm joints from 0 up, rad: 0.4 rad/s at 20 Hz."""
    return np.repeat(np.arange(steps)[:, None] * per_step, 5, axis=1)


@dataclass
class Rig:
    """An execution with its clocks, and a robot that stands where it was told."""

    execution: Execution
    now_ns: int = START_NS
    mono_ns: int = 5_000_000_000
    joints_come: bool = True
    follow: bool = True

    def __post_init__(self) -> None:
        self.positions = dict.fromkeys(ROBOT.joints, 0.0)

    def period(self, seconds: float = PERIOD_S) -> tuple[GroupCommand, ...]:
        """Lets one period pass."""
        self.now_ns += round(seconds * 1e9)
        self.mono_ns += round(seconds * 1e9)
        if self.joints_come:
            self.execution.measure(
                list(self.positions), list(self.positions.values()), self.now_ns, self.now_ns
            )
        commands = self.execution.step(self.now_ns, self.mono_ns)
        if self.follow:
            for command in commands:
                self.positions.update(zip(command.group.joints, command.positions[0], strict=True))
        return commands

    def run(self, seconds: float) -> list[tuple[GroupCommand, ...]]:
        return [self.period() for _ in range(round(seconds / PERIOD_S))]

    def offer(self, arm: np.ndarray, **options: object) -> None:
        self.execution.offer(chunk(self.now_ns, arm, **options), self.now_ns)  # type: ignore[arg-type]


@dataclass
class Driven(Rig):
    """A robot whose arm is where a trajectory controller's reference is: cubic segments, each new trajectory
    from where that stands. ``speeds`` holds the reference's, every millisecond."""

    skew_ns: int = 0  # the controller's clock does not see the jumps of ROS time that the executor must see

    def __post_init__(self) -> None:
        super().__post_init__()
        self.arm = TrajectoryController(ARM.joints, np.zeros(5))
        self.gripper = [0.0]
        self.speeds: list[np.ndarray] = []

    def period(self, seconds: float = PERIOD_S) -> tuple[GroupCommand, ...]:
        begin = self.now_ns - self.skew_ns
        path = [self.arm.sample(begin + i * 1_000_000) for i in range(max(2, round(seconds * 1e3) + 1))]
        self.speeds.extend(np.diff(path, axis=0) / 1e-3)
        self.positions.update(zip(ARM.joints, path[-1], strict=True))
        self.positions["gripper"] = self.gripper[-1]
        self.follow = False
        commands = super().period(seconds)
        clock = self.now_ns - self.skew_ns
        for command in commands:
            if command.group.key == "gripper":
                self.gripper.append(float(command.positions[0, 0]))
                continue
            offsets = [round(due * 1e9) for due in command.times_s]
            points = command.positions.tolist(), command.velocities.tolist()
            self.arm.accept(ARM.joints, offsets, *points, stamp_ns=clock, now_ns=clock)
        return commands

    def stand(self, position: float) -> None:
        self.arm.reset(np.full(5, position))

    def assert_forward_within_limits(self) -> None:
        speeds = np.array(self.speeds)
        assert speeds.max() <= 1.1 * ROBOT.limits["shoulder_pan"].velocity
        assert speeds.min() >= -1e-6


@pytest.fixture
def driven() -> Driven:
    return Driven(make())


@pytest.fixture
def rig() -> Rig:
    return Rig(make())


def make(robot: RobotConfig = ROBOT, enabled: bool = True) -> Execution:
    return Execution(robot, period_s=PERIOD_S, lookahead_s=LOOKAHEAD_S, hold_s=HOLD_S, enabled=enabled)


def following(**options: object) -> RobotConfig:
    """The robot with other executor options."""
    return replace(ROBOT, executor=replace(ROBOT.executor, **options))  # type: ignore[arg-type]


def of(commands: tuple[GroupCommand, ...], key: str) -> GroupCommand:
    return next(command for command in commands if command.group.key == key)


def test_nothing_is_commanded_before_the_first_chunk(rig: Rig) -> None:
    assert not any(rig.run(1.0))
    assert rig.execution.state == State.WAITING


def test_nothing_is_commanded_without_joint_states(rig: Rig) -> None:
    rig.joints_come = False
    rig.offer(ramp())
    assert not any(rig.run(0.5))
    assert rig.execution.state == State.WAITING
    assert "shoulder_pan" in rig.execution.reason
    assert "/joint_states" in rig.execution.reason


def test_a_joint_that_is_never_measured_is_named(rig: Rig) -> None:
    del rig.positions["wrist_flex"]
    rig.offer(ramp())
    assert not any(rig.run(0.2))
    assert "wrist_flex" in rig.execution.reason


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
    for _ in range(80):
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
    for _ in range(15):
        command = of(rig.period(), "arm")
        for position, due_s in zip(command.positions[:-1], command.times_s, strict=False):
            place = (rig.now_ns + round(due_s * 1e9) - plan.start_ns) / plan.step_ns
            if place == int(place):
                np.testing.assert_allclose(position[0], told[int(place)], atol=1e-9)


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


def test_when_the_plan_ends_the_last_step_is_held_and_then_silence(rig: Rig) -> None:
    rig.offer(ramp())
    rig.run(0.8)
    assert rig.execution.state == State.HOLDING
    assert "ended" in rig.execution.reason
    holds = rig.run(HOLD_S - 0.1)
    assert all(holds)
    for commands in holds:
        np.testing.assert_allclose(of(commands, "arm").positions[-1], np.full(5, 15 * 0.02), atol=1e-9)
        assert not of(commands, "arm").velocities.any()
    rig.run(0.2)
    assert not any(rig.run(1.0))


def test_stale_joint_states_stop_the_motion_and_fresh_ones_resume_it(rig: Rig) -> None:
    rig.offer(ramp(40))
    rig.run(0.4)
    rig.joints_come = False
    commands = rig.run(0.3)[-1]
    assert rig.execution.state == State.HOLDING
    assert "stale" in rig.execution.reason
    held = of(commands, "arm").positions[-1]
    assert not of(commands, "arm").velocities.any()
    for commands in rig.run(0.1):
        np.testing.assert_array_equal(of(commands, "arm").positions[-1], held)
    rig.joints_come = True
    rig.run(0.1)
    assert rig.execution.state == State.EXECUTING
    assert rig.execution.counters.stops == 1


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
    driven.offer(ramp(40, 0.075) - 1.4)  # 1.5 rad/s
    driven.run(0.5)
    driven.period(late_s)
    driven.run(1.0)
    driven.assert_forward_within_limits()
    expected = [driven.now_ns / 1e9 - START_NS / 1e9 - PERIOD_S] * 5
    np.testing.assert_allclose(driven.arm.sample(driven.now_ns), np.multiply(expected, 1.5) - 1.4, atol=0.01)


@pytest.mark.parametrize("periods", [1, 2, 5, 12])
def test_a_chunk_that_ends_a_hold_continues_the_motion_under_way(driven: Driven, periods: int) -> None:
    """The position at which the hold would end is up to a lookahead ahead of the controller."""
    jump = np.vstack([np.zeros((14, 5)), np.full((2, 5), 0.6)])
    driven.period()
    driven.offer(jump)
    driven.run(0.76)
    while driven.execution.state == State.EXECUTING:
        driven.period()
    driven.run((periods - 1) * PERIOD_S)
    assert driven.execution.state == State.HOLDING
    assert driven.arm.sample(driven.now_ns)[0] < 0.5
    driven.offer(np.full((30, 5), 0.6), sequence=1)
    driven.run(0.8)
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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_chunk_that_is_not_finite_stops_until_start(rig: Rig, value: float) -> None:
    rig.offer(ramp())
    rig.run(0.2)
    bad = ramp()
    bad[3, 2] = value
    with pytest.raises(ChunkRefused, match=r"not finite: action\.arm, elbow_flex is .* in step 3"):
        rig.offer(bad, sequence=1)
    assert rig.execution.state == State.STOPPED
    with pytest.raises(ChunkRefused, match="executor/start"):
        rig.offer(ramp(), sequence=2)
    for commands in rig.run(2.0):
        for command in commands:
            assert np.isfinite(command.positions).all()
            assert not command.velocities.any()
    assert not any(rig.run(0.5))
    rig.execution.start()
    assert not any(rig.run(0.2))
    rig.offer(ramp(), sequence=3)
    rig.run(0.1)
    assert rig.execution.state == State.EXECUTING


def test_stop_acts_in_the_next_period_and_forgets_the_plan(rig: Rig) -> None:
    rig.offer(ramp(40))
    rig.run(0.2)
    rig.execution.stop("test")
    commands = rig.period()
    assert not of(commands, "arm").velocities.any()
    rig.execution.start()
    assert not any(rig.run(0.5)), "what was planned before a stop must not be executed after it"


def test_a_stopped_executor_stays_stopped_whatever_comes() -> None:
    rig = Rig(make(enabled=False))
    for sequence in range(5):
        with pytest.raises(ChunkRefused):
            rig.offer(ramp(), sequence=sequence)
        assert not any(rig.run(0.2))
    assert rig.execution.state == State.STOPPED


@pytest.mark.parametrize("jump_s", [-3600.0, -1.0, 2.0, 3600.0])
def test_a_jump_of_ros_time_holds_and_forgets_the_plan(rig: Rig, jump_s: float) -> None:
    rig.offer(ramp(40))
    rig.run(0.2)
    before = dict(rig.positions)
    rig.now_ns += round(jump_s * 1e9)
    commands = rig.period()
    assert rig.execution.state == State.HOLDING
    assert ("back" if jump_s < 0 else "forward") in rig.execution.reason
    for joint, position in zip(ARM.joints, of(commands, "arm").positions[-1], strict=True):
        assert abs(position - before[joint]) < 0.1
    rig.run(0.2)
    assert rig.execution.state == State.HOLDING
    # A policy that was started since then counts its sessions by the clock as it is now.
    rig.offer(ramp(40), session=0)
    rig.run(0.2)
    assert rig.execution.state == State.EXECUTING


def test_paused_time_holds(rig: Rig) -> None:
    rig.offer(ramp(40))
    rig.run(0.2)
    for _ in range(40):
        rig.mono_ns += round(PERIOD_S * 1e9)
        rig.execution.step(rig.now_ns, rig.mono_ns)
    assert rig.execution.state == State.HOLDING
    assert "stands still" in rig.execution.reason


def test_a_frozen_joint_state_source_is_stale(rig: Rig) -> None:
    """The same message again and again is not a measurement."""
    rig.offer(ramp(40))
    rig.run(0.2)
    rig.joints_come = False
    frozen = rig.now_ns
    for _ in range(15):
        rig.execution.measure(list(rig.positions), list(rig.positions.values()), frozen, rig.now_ns)
        rig.period()
    assert rig.execution.state == State.HOLDING


@pytest.mark.parametrize(
    ("names", "positions", "stamp", "word"),
    [
        (["shoulder_pan"], [np.nan], 0, "nan"),
        (["shoulder_pan"], [np.inf], 0, "inf"),
        (["shoulder_pan", "gripper"], [0.0], 0, "2 names but 1 positions"),
        (["shoulder_pan"], [0.0], -START_NS, "zero"),
        (["shoulder_pan"], [0.0], 500_000_000, "ahead"),
    ],
)
def test_bad_joint_states_are_refused(names: list, positions: list, stamp: int, word: str) -> None:
    execution = make()
    with pytest.raises(MessageError, match=word):
        execution.measure(names, positions, START_NS + stamp, START_NS)
    assert execution.counters.joint_states_refused == 1


def test_joints_that_are_not_commanded_may_be_anything(rig: Rig) -> None:
    rig.execution.measure(["camera_tilt"], [np.nan], START_NS, START_NS)
    rig.execution.measure(["wheel"], [], 0, START_NS)  # wheels that tell their speed only
    assert rig.execution.counters.joint_states_refused == 0


def test_a_first_command_starts_where_the_robot_stands(rig: Rig) -> None:
    rig.positions["shoulder_pan"] = 0.8
    rig.offer(ramp(40))
    first = of(rig.period(), "arm").positions[0]
    reach = ROBOT.limits["shoulder_pan"].velocity * 2 * PERIOD_S
    assert 0.8 - first[0] <= reach + 1e-9


def test_a_joint_far_outside_its_limits_stops_with_advice(rig: Rig) -> None:
    rig.positions["shoulder_pan"] = 3.0
    rig.follow = False
    rig.offer(ramp(40))
    assert not any(rig.run(0.2))
    assert rig.execution.state == State.STOPPED
    assert "shoulder_pan" in rig.execution.reason


def test_a_new_session_is_accepted_and_an_old_one_refused(rig: Rig) -> None:
    rig.offer(ramp(40), session=5, sequence=9)
    rig.period()
    with pytest.raises(ChunkRefused):
        rig.offer(ramp(40), session=4, sequence=10)
    rig.offer(ramp(40), session=6, sequence=0)
    assert rig.execution.accepted == (6, 0)
    assert rig.execution.counters.chunks_refused == 1


LAST_SESSION = 2**64 - 1


def test_a_session_lapses_when_its_plan_is_over_and_old(rig: Rig) -> None:
    """A policy that was started while its clock was wrong must not shut out all that come after it."""
    rig.offer(ramp(16), session=LAST_SESSION, sequence=LAST_SESSION)
    rig.run(0.7)  # the plan lasts 0.75 s
    with pytest.raises(ChunkRefused, match="older than"):
        rig.offer(ramp(16))
    rig.run(0.2)  # over, and younger than max_chunk_age
    with pytest.raises(ChunkRefused, match="older than"):
        rig.offer(ramp(16))
    rig.run(0.2)
    rig.offer(ramp(16))
    assert rig.execution.accepted == (1, 0)
    with pytest.raises(ChunkRefused, match="again"):
        rig.offer(ramp(16))


def test_a_long_plan_keeps_its_session_while_it_lasts(rig: Rig) -> None:
    rig.offer(np.zeros((60, 5)), session=5)
    rig.run(2.5)
    with pytest.raises(ChunkRefused, match="older than"):
        rig.offer(ramp(16), session=4)


def test_a_stale_chunk_is_refused_after_its_session_has_lapsed(rig: Rig) -> None:
    first = chunk(rig.now_ns, ramp(40))
    rig.execution.offer(first, rig.now_ns)
    rig.run(2.1)
    with pytest.raises(ChunkRefused, match="max_chunk_age"):
        rig.execution.offer(replace(first, session=0), rig.now_ns)


def test_the_order_within_a_session_outlasts_its_plan(rig: Rig) -> None:
    rig.offer(ramp(16), sequence=3)
    rig.run(2.0)
    with pytest.raises(ChunkRefused, match="after 3"):
        rig.offer(ramp(16), sequence=2)


def test_after_stop_and_start_any_session_may_follow(rig: Rig) -> None:
    rig.offer(ramp(40), session=LAST_SESSION)
    rig.run(0.1)
    rig.execution.stop("test")
    rig.execution.start()
    rig.offer(ramp(40))
    rig.run(0.1)
    assert rig.execution.state == State.EXECUTING


def test_receive_time_counts_where_the_robot_yaml_says_so() -> None:
    state = {key: replace(source, stamp="receive") for key, source in ROBOT.state.items()}
    execution = make(replace(ROBOT, state=state))
    execution.measure(["shoulder_pan"], [0.1], 0, START_NS)
    assert execution.counters.joint_states_refused == 0


def test_a_lookahead_shorter_than_two_periods_is_refused() -> None:
    with pytest.raises(ValueError, match="two periods"):
        Execution(ROBOT, period_s=0.1, lookahead_s=0.15, hold_s=0.5)


@given(
    positions=st.lists(st.floats(-3, 3), min_size=3, max_size=12),
    gaps=st.lists(st.floats(0.01, 0.3), min_size=12, max_size=12),
)
def test_the_spline_through_a_trajectory_never_leaves_its_points(
    positions: list[float], gaps: list[float]
) -> None:
    """So a controller's cubic interpolation keeps the limits that the points keep."""
    points = np.array(positions)[:, None]
    times = np.cumsum(gaps[: len(positions)])
    velocities = monotone_velocities(points, times)
    assert not velocities[0].any()
    assert not velocities[-1].any()
    u = np.linspace(0.0, 1.0, 21)
    for i in range(len(points) - 1):
        p0, p1, h = points[i, 0], points[i + 1, 0], times[i + 1] - times[i]
        m0, m1 = velocities[i, 0] * h, velocities[i + 1, 0] * h
        spline = (
            (2 * u**3 - 3 * u**2 + 1) * p0
            + (u**3 - 2 * u**2 + u) * m0
            + (-2 * u**3 + 3 * u**2) * p1
            + (u**3 - u**2) * m1
        )
        assert spline.min() >= min(p0, p1) - 1e-9
        assert spline.max() <= max(p0, p1) + 1e-9


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), st.integers(0, 2**32 - 1), st.floats(0.0, 4.0), st.integers(0, 12)),
        st.tuples(st.just("run"), st.floats(0.02, 0.4)),
        st.tuples(st.just("joints"), st.booleans()),
        st.tuples(st.just("late"), st.floats(0.02, 1.0)),
        # Jumps that can be told from a late period.
        st.tuples(st.just("jump"), st.floats(-2.0, -0.05) | st.floats(0.51, 2.0)),
        st.tuples(st.just("stop")),
        st.tuples(st.just("start")),
        st.tuples(st.just("nan")),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(events=EVENTS)
@pytest.mark.parametrize(
    ("merge", "interpolation"), [("replace", "linear"), ("blend", "cubic"), ("ensemble", "quintic")]
)
def test_whatever_comes_commands_are_finite_inside_limits_and_continuous(
    merge: str, interpolation: str, events: list[tuple]
) -> None:
    """And what a controller makes of them moves no faster than the limits."""
    rig = Driven(make(following(merge=merge, interpolation=interpolation)))
    low = {joint: limit.min - 1e-9 for joint, limit in ROBOT.limits.items()}
    high = {joint: limit.max + 1e-9 for joint, limit in ROBOT.limits.items()}
    speed = np.array([ROBOT.limits[joint].velocity for joint in ARM.joints])
    reach = ROBOT.limits["gripper"].velocity * 2 * PERIOD_S
    sequence = 0

    def check(commands: tuple[GroupCommand, ...]) -> None:
        for command in commands:
            assert np.isfinite(command.positions).all()
            assert np.isfinite(command.velocities).all()
            assert (command.positions >= [low[joint] for joint in command.group.joints]).all()
            assert (command.positions <= [high[joint] for joint in command.group.joints]).all()
        assert abs(rig.gripper[-1] - rig.gripper[-2 if len(rig.gripper) > 1 else -1]) <= reach + 1e-9
        assert (np.abs(rig.speeds).max(axis=0) <= 1.1 * speed).all()
        rig.speeds.clear()

    rig.period()  # a clock that has not been read yet cannot be seen to jump
    for event, *values in events:
        if event == "chunk":
            steps = np.random.default_rng(values[0]).normal(0.0, values[1], (16, 6))
            sequence += 1
            start_ns = rig.now_ns - values[2] * ROBOT.step_ns
            try:
                late = chunk(start_ns, steps[:, :5], gripper=steps[:, 5:], sequence=sequence)
                rig.execution.offer(late, rig.now_ns)
            except ChunkRefused:
                assert rig.execution.state == State.STOPPED
        elif event == "nan":
            sequence += 1
            with pytest.raises(ChunkRefused):
                rig.offer(np.full((16, 5), np.nan), sequence=sequence)
        elif event == "run":
            for _ in range(round(values[0] / PERIOD_S)):
                check(rig.period())
        elif event == "late":
            check(rig.period(values[0]))
        elif event == "joints":
            rig.joints_come = values[0]
        elif event == "jump":
            jump_ns = round(values[0] * 1e9)
            rig.now_ns += jump_ns
            rig.skew_ns += jump_ns
            check(rig.period())
        elif event == "stop":
            rig.execution.stop("test")
        else:
            rig.execution.start()
    # And it stops: without anything new every plan ends.
    for _ in range(125):
        check(rig.period())
    assert rig.execution.state != State.EXECUTING
    assert not rig.period()
