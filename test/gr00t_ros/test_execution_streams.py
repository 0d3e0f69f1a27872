# SPDX-License-Identifier: Apache-2.0
"""Whatever comes, in whatever order: commands are finite, inside the limits, continuous, and they end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import ChunkRefused, MessageError
from gr00t_ros.execution import MAX_CATCH_UP_PERIODS, Execution, State
from gr00t_ros.faults import Fault, Reaction
from gr00t_ros.interpolation import Curve
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import FLOAT64_MULTI_ARRAY, JOINT_VELOCITY, ActionGroupConfig, JointLimits
from support_execution import ARM, LOOKAHEAD_S, PERIOD_S, ROBOT, Driven, chunk, following, make

WHEELS = ActionGroupConfig(
    "wheels", JOINT_VELOCITY, ("left", "right"), FLOAT64_MULTI_ARRAY, "/wheels", downstream_timeout=0.5
)
WHEEL = JointLimits(-np.inf, np.inf, velocity=4.0, acceleration=8.0)
# A plan ends at most this long (s) after the last event: a chunk may begin 0.4 s ahead, has 16 steps, is
# slowed down for 0.3 s more, and a robot that is behind has 1 s to come to the last step; then a hold.
REST_S = 0.4 + 0.75 + 0.3 + 1.0 + 0.5 + 0.1
# An arm's joint may need a little more than its acceleration to be at rest within the lookahead: at its full
# speed v it has the lookahead less one point, 0.18 s, and v / 0.18 s is 1.11 times the limit of the SO-101.
# The rest is what a second difference and the corner of a position limit add.
ROUGH = 1.15

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), st.integers(0, 2**32 - 1), st.floats(0.0, 4.0), st.integers(-8, 12)),
        st.tuples(st.just("smooth"), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0), st.integers(0, 6)),
        st.tuples(st.just("run"), st.floats(0.02, 0.4)),
        st.tuples(st.just("joints"), st.booleans()),
        st.tuples(st.just("blind")),
        st.tuples(st.just("late"), st.floats(0.02, 1.0)),
        # Jumps that can be told from a late period.
        st.tuples(st.just("jump"), st.floats(-2.0, -0.05) | st.floats(0.51, 2.0)),
        st.tuples(st.just("fault"), st.sampled_from(list(Reaction)), st.floats(0.0, 0.3)),
        st.tuples(st.just("stop")),
        st.tuples(st.just("start")),
        st.tuples(st.just("nan")),
        st.tuples(st.just("empty")),
        st.tuples(st.just("again")),
    ),
    min_size=3,
    max_size=20,
)


def with_wheels(robot: RobotConfig) -> RobotConfig:
    limits = {**robot.limits, "left": WHEEL, "right": WHEEL}
    return replace(robot, action={**robot.action, "wheels": WHEELS}, limits=limits)


class Stream(Driven):
    """A robot to which anything may happen, at any rate, and what every period of it must keep."""

    def __init__(self, execution: Execution, period_s: float) -> None:
        super().__init__(execution)
        self.period_s, self.sequence, self.last = period_s, 0, None
        self.wheels = [np.zeros(2)]
        self.step = 0.0  # the gripper's, rad/s
        limits = [ROBOT.limits[joint] for joint in ARM.joints]
        self.low, self.high = np.array([x.min for x in limits]), np.array([x.max for x in limits])
        self.fastest = np.array([x.velocity for x in limits])
        self.most = np.array([x.acceleration for x in limits])

    def chunk(self, values: np.ndarray, late: int) -> None:
        """Offers a chunk of all groups: values [16, 8]."""
        self.sequence += 1
        start_ns = self.now_ns - late * ROBOT.step_ns
        given = chunk(start_ns, values[:, :5], gripper=values[:, 5:6], sequence=self.sequence)
        if "wheels" in self.execution.robot.action:
            wheels = ChunkGroup("wheels", JOINT_VELOCITY, WHEELS.joints, values[:, 6:])
            given = replace(given, groups=(*given.groups, wheels))
        self.last = replace(given, t_obs_ns=min(start_ns, self.now_ns))
        self.offer_any(self.last)

    def offer_any(self, given: Chunk) -> None:
        try:
            self.execution.offer(given, self.now_ns)
        except ChunkRefused:
            assert self.execution.counters.chunks_refused

    def pass_time(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / self.period_s))):
            self.check(self.period_s)

    def check(self, seconds: float) -> None:
        """Lets one period pass. The path of the arm's controller is looked at every millisecond."""
        clock, before = self.now_ns - self.skew_ns, self.gripper[-1]
        was = len(self.gripper)
        times = [clock + i * 1_000_000 for i in range(max(4, round(seconds * 1e3) + 1))]
        path = np.array([self.arm.sample(t_ns) for t_ns in times])
        speeds = np.diff(path, axis=0) / 1e-3
        assert np.isfinite(path).all()
        assert (path >= self.low - 2e-4).all()
        assert (path <= self.high + 2e-4).all()
        assert (np.abs(speeds) <= 1.02 * self.fastest).all()
        assert (np.abs(np.diff(speeds, axis=0)) / 1e-3 <= ROUGH * self.most).all()
        for command in self.period(seconds):
            self.check_command(command)
        self.speeds.clear()
        if len(self.gripper) > was:
            counted = min(seconds, MAX_CATCH_UP_PERIODS * self.period_s)
            step = (self.gripper[-1] - before) / counted
            limit = ROBOT.limits["gripper"]
            assert abs(step) <= limit.velocity * (1 + 1e-6)
            assert abs(step - self.step) <= limit.acceleration * counted * (1 + 1e-6) + 1e-6
            self.step = step
        else:
            self.step = 0.0

    def check_command(self, command: GroupCommand) -> None:
        assert np.isfinite(command.positions).all()
        assert np.isfinite(command.velocities).all()
        if command.group.key == "wheels":
            speed = command.velocities[0]
            assert (np.abs(speed) <= WHEEL.velocity + 1e-9).all()
            return
        limits = [ROBOT.limits[joint] for joint in command.group.joints]
        assert (command.positions >= [x.min - 1e-9 for x in limits]).all()
        assert (command.positions <= [x.max + 1e-9 for x in limits]).all()
        if command.group.key == "arm":
            assert command.times_s[-1] <= LOOKAHEAD_S + 1e-9
            assert not command.velocities[-1].any()


def happen(rig: Stream, event: str, values: list) -> None:
    """One event of a stream."""
    if event == "chunk":
        rig.chunk(np.random.default_rng(values[0]).normal(0.0, values[1], (16, 8)), values[2])
    elif event == "smooth":
        random = np.random.default_rng(values[0])
        phase = random.uniform(0, 6, 8) + np.arange(16)[:, None] * random.uniform(0.0, 0.15, 8)
        rig.chunk(values[1] * np.sin(phase), values[2])
    elif event == "nan":
        rig.chunk(np.full((16, 8), np.nan), 0)
    elif event == "empty":
        rig.sequence += 1
        rig.offer_any(Chunk(1, rig.sequence, "", rig.now_ns, rig.now_ns, ROBOT.step_ns, ()))
    elif event == "again" and rig.last is not None:
        rig.offer_any(rig.last)
        rig.offer_any(replace(rig.last, sequence=max(rig.last.sequence - 1, 0)))
    elif event == "run":
        rig.pass_time(values[0])
    elif event == "late":
        rig.check(values[0])
    elif event == "joints":
        rig.joints_come = values[0]
    elif event == "blind":
        with pytest.raises(MessageError):
            rig.execution.measure(["elbow_flex"], [np.nan], rig.now_ns, rig.now_ns)
    elif event == "jump":
        jump_ns = round(values[0] * 1e9)
        rig.now_ns += jump_ns
        rig.skew_ns += jump_ns
        rig.check(rig.period_s)
    elif event == "fault":
        rig.faults = (Fault("something", values[0]),)
        rig.pass_time(values[1])
        rig.faults = ()
    elif event == "stop":
        rig.execution.stop("test")
    elif event == "start":
        rig.execution.start()


@settings(max_examples=20, deadline=None)
@given(events=EVENTS)
@pytest.mark.parametrize(
    ("merge", "interpolation", "rate", "wheels"),
    [("replace", "linear", 50, False), ("blend", "cubic", 200, False), ("ensemble", "quintic", 125, True)],
)
def test_whatever_comes_commands_are_finite_inside_limits_and_continuous(
    merge: str, interpolation: str, rate: int, wheels: bool, events: list[tuple]
) -> None:
    """And what a controller makes of them keeps the limits too, and comes to rest."""
    robot = following(merge=merge, interpolation=interpolation)
    robot = with_wheels(robot) if wheels else robot
    rig = Stream(make(robot, period_s=1 / rate), 1 / rate)
    if wheels:
        rig.positions |= {"left": 0.0, "right": 0.0}
    rig.check(rig.period_s)  # a clock that has not been read yet cannot be seen to jump
    for event, *values in events:
        happen(rig, event, values)
    # And it stops: without anything new every plan ends.
    rig.pass_time(REST_S)
    stands = rig.arm.sample(rig.now_ns - rig.skew_ns)
    rig.pass_time(1.0)
    assert rig.execution.state != State.EXECUTING
    assert not rig.period(rig.period_s)
    np.testing.assert_allclose(rig.arm.sample(rig.now_ns - rig.skew_ns), stands, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    away=st.floats(-0.3, 0.3),
    phase=st.floats(0.0, 6.0),
    hertz=st.floats(0.0, 0.3),
    rate=st.sampled_from([50, 100, 200]),
)
def test_a_first_motion_goes_over_to_the_plan_without_a_jump_of_acceleration(
    away: float, phase: float, hertz: float, rate: int
) -> None:
    """From where the robot is measured, at rest, to a plan that moves already."""
    moments = np.arange(40) * 0.05
    arm = 0.3 * np.sin(2 * np.pi * hertz * moments + phase)[:, None] * np.ones(5)
    rig = Stream(make(following(interpolation="quintic"), period_s=1 / rate), 1 / rate)
    stood = arm[0, 0] + away
    rig.stand(stood)
    rig.check(rig.period_s)
    begin_ns = rig.now_ns
    rig.offer(arm)
    for _ in range(round(1.5 * rate)):
        rig.check(rig.period_s)
    assert rig.execution.counters.commands_clipped == 0
    curve = Curve(arm, begin_ns, ROBOT.step_ns, "quintic")
    plan = curve.at(np.array([rig.now_ns]))[0][0]
    np.testing.assert_allclose(rig.arm.sample(rig.now_ns), plan, atol=1e-3)


def test_the_way_to_the_plan_has_no_jump_of_acceleration() -> None:
    rig = Stream(make(following(interpolation="quintic"), period_s=0.005), 0.005)
    rig.stand(0.3)
    rig.check(0.005)
    rig.offer(0.3 * np.sin(np.arange(40) * 0.1)[:, None] * np.ones(5))
    path = []
    for _ in range(200):
        clock = rig.now_ns
        path += [rig.arm.sample(clock + i * 1_000_000) for i in range(5)]
        rig.check(0.005)
    np.testing.assert_allclose(path[:10], 0.3, atol=1e-4)
    bend = np.diff(path, 2, axis=0) / 1e-6
    assert np.abs(bend).max() > 1.0, "it moves"
    assert np.abs(np.diff(bend, axis=0)).max() < 0.5


@pytest.mark.parametrize("seed", [6, 9, 51])
def test_no_message_says_a_place_beyond_a_position_limit(seed: int) -> None:
    """Nor does the point that a trajectory begins with, where the curves of plans beyond the limit end."""
    rng, highest = np.random.default_rng(seed - 1), ROBOT.limits["elbow_flex"].max
    rig, base = Driven(make()), 0.0
    begun = 0.0
    for number in range(120):
        base = rng.uniform(1.3, 1.9) if number % 7 == 0 else base
        arm = np.zeros((16, 5))
        arm[:, 2] = base + rng.normal(0, 0.05, 16).cumsum() * rng.uniform(0, 0.5)
        rig.offer(arm, sequence=number)
        for _ in range(int(rng.integers(1, 5))):
            for command in rig.period(PERIOD_S * rng.uniform(0.8, 1.4)):
                if command.group.key == "arm":
                    assert command.positions[:, 2].max() <= highest
                    begun = max(begun, command.begin[0][2] if command.begin is not None else 0.0)
    assert highest - 1e-3 < begun <= highest, "it stood at its limit"
