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
from gr00t_ros.robot import RobotConfig

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


@pytest.fixture
def rig() -> Rig:
    return Rig(make())


def make(robot: RobotConfig = ROBOT, enabled: bool = True) -> Execution:
    return Execution(robot, period_s=PERIOD_S, lookahead_s=LOOKAHEAD_S, hold_s=HOLD_S, enabled=enabled)


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


def test_a_plan_that_keeps_the_limits_is_executed_to_the_letter(rig: Rig) -> None:
    phase = np.arange(40) * 0.05 * np.pi / 2
    arm = 0.2 * (1.0 - np.cos(phase))[:, None] * np.array([1.0, 0.5, -0.5, -0.8, 1.2])
    rig.period()
    rig.offer(arm)
    begin = rig.now_ns
    for _ in range(80):
        trajectory = of(rig.period(), "arm")
        for position, due_s in zip(trajectory.positions[:-1], trajectory.times_s, strict=False):
            place = ((rig.now_ns - begin) / 1e9 + due_s) / 0.05
            expected = [np.interp(place, range(40), column) for column in arm.T]
            np.testing.assert_allclose(position, expected, atol=1e-9)
    assert rig.execution.counters.commands_clipped == 0


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_chunk_that_is_not_finite_stops_until_start(rig: Rig, value: float) -> None:
    rig.offer(ramp())
    rig.run(0.2)
    bad = ramp()
    bad[3, 2] = value
    with pytest.raises(ChunkRefused, match="not finite"):
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
        st.tuples(st.just("chunk"), st.integers(0, 2**32 - 1), st.floats(0.0, 4.0)),
        st.tuples(st.just("run"), st.floats(0.02, 0.4)),
        st.tuples(st.just("joints"), st.booleans()),
        st.tuples(st.just("late"), st.floats(0.02, 1.0)),
        st.tuples(st.just("jump"), st.floats(-2.0, 2.0)),
        st.tuples(st.just("stop")),
        st.tuples(st.just("start")),
        st.tuples(st.just("nan")),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_whatever_comes_commands_are_finite_inside_limits_and_continuous(events: list[tuple]) -> None:
    rig = Rig(make())
    low = np.array([ROBOT.limits[joint].min for joint in ROBOT.joints])
    high = np.array([ROBOT.limits[joint].max for joint in ROBOT.joints])
    speed = np.array([ROBOT.limits[joint].velocity for joint in ROBOT.joints])
    where = {joint: i for i, joint in enumerate(ROBOT.joints)}
    last = np.zeros(len(ROBOT.joints))
    sequence = 0

    def check(commands: tuple[GroupCommand, ...], span_s: float) -> None:
        for command in commands:
            columns = [where[joint] for joint in command.group.joints]
            assert np.isfinite(command.positions).all()
            assert np.isfinite(command.velocities).all()
            assert (command.positions >= low[columns] - 1e-9).all()
            assert (command.positions <= high[columns] + 1e-9).all()
            # From what was commanded before to each point, no faster than the limit allows for the time in
            # between (and one more period: a late one may catch up).
            path = np.vstack([last[columns], command.positions])
            times = np.concatenate([[0.0], command.times_s])
            spans = np.diff(times)
            spans[0] += min(span_s, 2 * PERIOD_S) + PERIOD_S
            assert (np.abs(np.diff(path, axis=0)) <= speed[columns] * spans[:, None] + 1e-6).all()
            last[columns] = command.positions[0]

    for event, *values in events:
        if event == "chunk":
            steps = np.random.default_rng(values[0]).normal(0.0, values[1], (16, 6))
            sequence += 1
            try:
                rig.offer(steps[:, :5], gripper=steps[:, 5:], sequence=sequence)
            except ChunkRefused:
                assert rig.execution.state == State.STOPPED
        elif event == "nan":
            sequence += 1
            with pytest.raises(ChunkRefused):
                rig.offer(np.full((16, 5), np.nan), sequence=sequence)
        elif event == "run":
            for _ in range(round(values[0] / PERIOD_S)):
                check(rig.period(), PERIOD_S)
        elif event == "late":
            check(rig.period(values[0]), values[0])
        elif event == "joints":
            rig.joints_come = values[0]
        elif event == "jump":
            rig.now_ns += round(values[0] * 1e9)
            check(rig.period(), PERIOD_S)
        elif event == "stop":
            rig.execution.stop("test")
        else:
            rig.execution.start()
    # And it stops: without anything new every plan ends.
    for commands in rig.run(2.5):
        check(commands, PERIOD_S)
    assert rig.execution.state != State.EXECUTING
    assert not rig.period()
