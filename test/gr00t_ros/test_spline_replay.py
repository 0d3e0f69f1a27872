# SPDX-License-Identifier: Apache-2.0
"""What the executor sends, followed by the rules of ros2_control's controllers: no stop and no jump where
chunks meet, whatever the messages go through on their way, and rest when no more of them come."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.commands import GroupCommand
from gr00t_ros.execution import Execution
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import FLOAT64_MULTI_ARRAY
from gr00t_ros.sim.controllers import TrajectoryController
from support_ros2_control import (
    HUMBLE,
    JAZZY,
    REPLACING,
    ForwardCommandController,
    JointTrajectoryController,
    Message,
    Piece,
    Point,
    Refused,
)

ROBOT = RobotConfig.from_file(Path(__file__).parents[2] / "config/robots/so101.yaml")
ARM, GRIPPER = ROBOT.action["arm"], ROBOT.action["gripper"]
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
LOOKAHEAD_S = 0.2
LATENCY_S, EVERY_S = 0.15, 0.4
SETTLED_S = 1.5  # from standing into the motion
ACCELERATION = ROBOT.limits["shoulder_pan"].acceleration
assert ACCELERATION is not None
# The safety filter bounds the way from point to point; a cubic between two of them bends a little more at its
# ends.
TOLERANCE = 1.3
# What one update may be off the way of the one before (rad) because a message came late or not at all: the
# older trajectory was followed in between, and differs from the newer one by what a hand-over changed since,
# or had begun to brake.
OFF_RAD = 0.001


def motion(t: np.ndarray) -> np.ndarray:
    """Positions [T, 6]: some joint always moves, by 0.2 rad/s and more."""
    phases = np.array([0.0, 1.3, 2.6, 3.9, 5.2])
    arm = 0.25 * np.sin(1.2 * t[:, None] + phases) + 0.1 * np.sin(2.5 * t[:, None] + 2 * phases)
    return np.column_stack([arm, 0.7 + 0.2 * np.sin(t)])


def chunk(sequence: int, t_obs_s: float, off: np.ndarray) -> Chunk:
    values = motion(t_obs_s + np.arange(16) / ROBOT.step_rate) + off
    groups = (
        ChunkGroup("arm", ARM.representation, ARM.joints, values[:, :5]),
        ChunkGroup("gripper", GRIPPER.representation, GRIPPER.joints, values[:, 5:]),
    )
    stamp = START_NS + round(t_obs_s * 1e9)
    return Chunk(1, sequence, "", stamp, stamp, ROBOT.step_ns, groups)


def message(command: GroupCommand, stamp_ns: int) -> Message:
    """As ``nodes.conversions.command_msg`` writes it."""
    points = [] if command.begin is None else [Point(0, *command.begin)]
    for due, position, velocity in zip(command.times_s, command.positions, command.velocities, strict=True):
        points.append(Point(round(due * 1e9), position, velocity))
    return Message(command.group.joints, stamp_ns, tuple(points))


@dataclass(frozen=True)
class Way:
    """What happens to messages: delays up to (s), the share that is lost, and the share of periods that are
    late by up to one more period."""

    delay_s: float = 0.0
    lost: float = 0.0
    late: float = 0.0


CLEAN, ROUGH = Way(), Way(delay_s=0.02, lost=0.05, late=0.1)


def replay(
    rules: str, rate: float, way: Way, *, dies_s: float = np.inf, update_hz: float = 1000.0
) -> np.ndarray:
    """The controller's position commands [N, 5], one an update, for 3 s."""
    random, errors = np.random.default_rng(5), np.random.default_rng(7)
    execution = Execution(ROBOT, period_s=1 / rate, lookahead_s=LOOKAHEAD_S, hold_s=0.5)
    start = motion(np.zeros(1))[0]
    controller = JointTrajectoryController(ARM.joints, start[:5], rate_hz=update_hz, rules=rules)
    reference, gripper, path = start[:5], start[5], []
    under_way: list[tuple[int, int, Message]] = []  # by arrival
    chunks, sent, arrival, next_ns = 0, 0, 0, START_NS
    for update in range(round(3.0 * update_hz)):
        now_ns = START_NS + round(update * 1e9 / update_hz)
        while next_ns <= now_ns and next_ns - START_NS < dies_s * 1e9:
            t = (next_ns - START_NS) / 1e9
            execution.measure([*ARM.joints, *GRIPPER.joints], [*reference, gripper], next_ns, next_ns)
            if t >= LATENCY_S + chunks * EVERY_S - 1e-9:
                execution.offer(chunk(chunks, t - LATENCY_S, errors.normal(0, 0.005, 6)), next_ns)
                chunks += 1
            for command in execution.step(next_ns, next_ns):
                if command.group.key == "gripper":
                    gripper = command.positions[0, 0]
                elif random.random() >= way.lost:
                    # One connection keeps the order.
                    arrival, sent = (
                        max(arrival, next_ns + round(random.uniform(0, way.delay_s) * 1e9)),
                        sent + 1,
                    )
                    heapq.heappush(under_way, (arrival, sent, message(command, next_ns)))
            late = random.uniform() if random.random() < way.late else 0.0
            next_ns += round((1 + late) / rate * 1e9)
        while under_way and under_way[0][0] <= now_ns:
            controller.receive(heapq.heappop(under_way)[2], now_ns)  # Refused would fail the test
        reference = controller.update(now_ns)
        path.append(reference)
    return np.array(path)


def assert_goes_on(path: np.ndarray, update_hz: float, off_rad: float) -> None:
    """Neither stops nor jumps, and bends no more than the limits allow."""
    path = path[round(SETTLED_S * update_hz) :]
    speed = np.diff(path, axis=0) * update_hz
    assert np.linalg.norm(speed, axis=1).min() > 0.1, "stood still"
    assert np.abs(np.diff(path, 2, axis=0)).max() < off_rad + TOLERANCE * ACCELERATION / update_hz**2, (
        "jumped"
    )
    # What a joint's drive can follow: over 20 ms.
    n = round(0.02 * update_hz)
    bend = (path[2 * n :] - 2 * path[n:-n] + path[: -2 * n]) / (n / update_hz) ** 2
    assert np.abs(bend).max() < TOLERANCE * ACCELERATION, "bent more than the limit"


@pytest.mark.parametrize("way", [CLEAN, Way(late=0.1), ROUGH], ids=["clean", "late", "rough"])
@pytest.mark.parametrize("rate", [50.0, 200.0])
@pytest.mark.parametrize("rules", [HUMBLE, JAZZY])
def test_no_stop_and_no_jump_where_chunks_meet(rules: str, rate: float, way: Way) -> None:
    path = replay(rules, rate, way)
    assert_goes_on(path, 1000.0, 0.0 if way == CLEAN else OFF_RAD)
    wanted = motion(np.arange(len(path)) / 1000.0)[:, :5]
    assert np.abs(path - wanted)[round(SETTLED_S * 1000) :].max() < 0.05, "not the motion"


def test_replacement_that_counts_from_arrival_must_be_turned_off() -> None:
    """Rolling's ``allow_trajectory_replacement``: why the how-to page about controllers says false."""
    with pytest.raises(AssertionError, match="stood still"):
        assert_goes_on(replay(REPLACING, 50.0, Way(delay_s=0.02)), 1000.0, OFF_RAD)


@pytest.mark.parametrize("rules", [HUMBLE, JAZZY])
def test_a_controller_slower_than_the_executor_moves_as_well(rules: str) -> None:
    """Every message replaces the one before: one that had to begin anew each time would get nowhere."""
    assert_goes_on(replay(rules, 200.0, Way(delay_s=0.002), update_hz=100.0), 100.0, OFF_RAD)


@pytest.mark.parametrize("rate", [50.0, 200.0])
@pytest.mark.parametrize("rules", [HUMBLE, JAZZY])
def test_when_the_executor_dies_the_arm_is_at_rest_within_the_lookahead(rules: str, rate: float) -> None:
    dies_s = 2.51
    path = replay(rules, rate, Way(delay_s=0.02), dies_s=dies_s)
    rest = round((dies_s + LOOKAHEAD_S) * 1000) + 1
    assert np.linalg.norm((path[2500] - path[2490]) * 100) > 0.1, "it was to die while the arm moves"
    assert (path[rest:] == path[rest]).all()
    speed = np.diff(path[1500 : rest + 40 :], axis=0) * 1000
    bend = (speed[20:] - speed[:-20]) / 0.02
    assert np.abs(bend).max() < 2 * TOLERANCE * ACCELERATION, "no brake, but a wall"


def test_values_of_a_forward_controller_are_in_the_order_of_its_joints() -> None:
    from gr00t_ros.nodes.conversions import command_msg

    arm = replace(ARM, interface=FLOAT64_MULTI_ARRAY)
    robot = replace(ROBOT, action={"arm": arm, "gripper": GRIPPER})
    execution = Execution(robot, period_s=0.02, lookahead_s=LOOKAHEAD_S, hold_s=0.5)
    controller = ForwardCommandController(arm.joints, motion(np.zeros(1))[0, :5])
    position = dict(zip(robot.joints, motion(np.zeros(1))[0], strict=True))
    path = []
    for period in range(100):
        now_ns = START_NS + period * 20 * MS
        execution.measure(list(position), list(position.values()), now_ns, now_ns)
        if period % 20 == 0:
            execution.offer(chunk(period, period / 50.0, np.zeros(6)), now_ns)
        for command in execution.step(now_ns, now_ns):
            if command.group.key == "arm":
                controller.receive(command_msg(command, now_ns).data.tolist())
                position.update(controller.commands)
            else:
                position["gripper"] = command.positions[0, 0]
        path.append([position[joint] for joint in ARM.joints])
    wanted = motion(np.arange(100) / 50.0)[:, :5]
    assert np.abs(np.array(path) - wanted)[75:].max() < 0.02
    assert np.abs(np.diff(path, 2, axis=0)).max() < TOLERANCE * ACCELERATION * 0.02**2


# The models themselves.


def point(
    ms: int, position: float, velocity: float | None = None, acceleration: float | None = None
) -> Point:
    rows = (None if value is None else np.array([value]) for value in (velocity, acceleration))
    return Point(ms * MS, np.array([position]), *rows)


def test_the_degree_follows_from_what_both_points_carry() -> None:
    straight = Piece(point(0, 0.0, 1.0), point(1000, 2.0)).at(250 * MS)
    assert straight.position[0] == pytest.approx(0.5)
    cubic = Piece(point(0, 0.0, 0.0, 1.0), point(1000, 2.0, 0.0)).at(250 * MS)
    assert cubic.position[0] == pytest.approx(2.0 * (3 * 0.25**2 - 2 * 0.25**3))
    quintic = Piece(point(0, 0.0, 0.0, 0.0), point(1000, 2.0, 0.0, 0.0)).at(250 * MS)
    assert quintic.position[0] == pytest.approx(2.0 * (10 * 0.25**3 - 15 * 0.25**4 + 6 * 0.25**5))


@pytest.mark.parametrize(("rules", "steps"), [(HUMBLE, 0.0), (JAZZY, 2.0)])
def test_without_a_point_that_is_over_each_message_costs_an_update(rules: str, steps: float) -> None:
    """The reason why the executor says where the controller stands."""

    def line(now_ms: int, begin: bool) -> Message:
        due = [0, 20, 100, 200] if begin else [20, 100, 200]
        points = [point(ms, (now_ms + ms) / 1000, 1.0) for ms in due]
        points[-1] = replace(points[-1], velocity=np.zeros(1))
        return Message(("a",), START_NS + now_ms * MS, tuple(points))

    for begin, expected in ((True, 1.0), (False, steps)):
        controller = JointTrajectoryController(["a"], np.zeros(1), rate_hz=1000.0, rules=rules)
        controller.receive(line(0, True), START_NS)
        for ms in range(20):
            controller.update(START_NS + ms * MS)
        before = controller.update(START_NS + 20 * MS)[0]
        controller.receive(line(21, begin), START_NS + 21 * MS)
        assert controller.update(START_NS + 21 * MS)[0] - before == pytest.approx(expected * 1e-3, abs=3e-5)


def test_what_the_controller_refuses() -> None:
    good = [point(20, 0.1, 0.5), point(40, 0.2, 0.0)]
    wrong = {
        "joints": Message(("b",), 0, tuple(good)),
        "points": Message(("a",), 0, ()),
        "rise": Message(("a",), 0, (good[1], good[0])),
        "moves": Message(("a",), 0, (good[0],)),
        "past": Message(("a",), START_NS - 41 * MS, tuple(good)),
    }
    for text, bad in wrong.items():
        controller = JointTrajectoryController(["a"], np.zeros(1), rate_hz=1000.0)
        with pytest.raises(Refused, match=text):
            controller.receive(bad, START_NS)
        assert controller.update(START_NS).tolist() == [0.0]
    with pytest.raises(Refused):
        ForwardCommandController(["a"], np.zeros(1)).receive([float("nan")])


@settings(deadline=None, max_examples=30)
@given(
    values=st.lists(st.floats(-1, 1), min_size=8, max_size=8),
    speeds=st.lists(st.floats(-2, 2), min_size=8, max_size=8),
    gaps=st.lists(st.integers(1, 80), min_size=8, max_size=8),
    split=st.integers(1, 7),
    late=st.integers(0, 30),
)
def test_the_simulated_controller_follows_the_same_rules(
    values: list[float], speeds: list[float], gaps: list[int], split: int, late: int
) -> None:
    """Two messages, each with a point that is over: what the executor sends."""
    speeds[split - 1] = speeds[-1] = 0.0
    simulated = TrajectoryController(["a"], np.zeros(1))
    model = JointTrajectoryController(["a"], np.zeros(1), rate_hz=1000.0, rules=HUMBLE)
    times = [0, *np.cumsum(gaps[:-1]).tolist()]
    stamp = START_NS
    for part in (slice(0, split), slice(split, 8)):
        due = [(ms - times[part.start]) * MS for ms in times[part]]
        rows = list(zip(due, values[part], speeds[part], strict=True))
        points = tuple(Point(ns, np.array([p]), np.array([v])) for ns, p, v in rows)
        now_ns = stamp + min(late * MS, due[-1])
        model.receive(Message(("a",), stamp, points), now_ns)
        simulated.accept(
            ["a"],
            due,
            [[p] for p in values[part]],
            [[v] for v in speeds[part]],
            stamp_ns=stamp,
            now_ns=now_ns,
        )
        for ns in range(now_ns, now_ns + 60 * MS, 3 * MS):
            assert simulated.sample(ns)[0] == pytest.approx(model.update(ns)[0], abs=1e-9)
        stamp = now_ns + 60 * MS
