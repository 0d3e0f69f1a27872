# SPDX-License-Identifier: Apache-2.0
"""Which chunks, joint states and clocks the executor trusts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.errors import ChunkRefused, MessageError
from gr00t_ros.execution import State
from gr00t_ros.robot_types import ViolationsConfig
from support_execution import ARM, PERIOD_S, ROBOT, START_NS, Rig, chunk, following, make, of, ramp


@pytest.fixture
def rig() -> Rig:
    return Rig(make())


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


def test_a_chunk_that_is_not_finite_may_be_refused_alone() -> None:
    rig = Rig(make(following(violations=ViolationsConfig(not_finite="refuse"))))
    rig.offer(ramp(40))
    rig.run(0.2)
    with pytest.raises(ChunkRefused, match="not finite"):
        rig.offer(ramp() + np.nan, sequence=1)
    rig.run(0.2)
    assert rig.execution.state == State.EXECUTING
    assert rig.execution.counters.chunks_refused == 1


@pytest.mark.parametrize(
    ("kind", "arm", "gripper"),
    [
        ("position", ramp(40, 0.06), None),  # to 2.4 rad, over the range of each
        ("velocity", ramp(40, 0.0), np.arange(40)[:, None] * 0.15),  # 3 rad/s
        ("acceleration", np.where(np.arange(40) % 8 < 4, 0.0, 0.2)[:, None] * np.ones(5), None),
    ],
)
def test_a_plan_that_exceeds_a_limit_stops_where_that_is_configured(
    kind: str, arm: np.ndarray, gripper: np.ndarray | None
) -> None:
    clips, stops = Rig(make()), Rig(make(following(violations=ViolationsConfig(**{kind: "stop"}))))
    for rig in (clips, stops):
        rig.offer(arm, gripper=gripper)
        for _ in range(90):
            rig.period()
    assert clips.execution.clips[kind] > 0
    assert clips.execution.state != State.STOPPED
    assert stops.execution.state == State.STOPPED
    assert f"executor.violations.{kind}: stop" in stops.execution.reason


def test_a_blocked_joint_stops_where_that_is_configured() -> None:
    rig = Rig(make(following(violations=ViolationsConfig(tracking="stop"))), follow=False)
    rig.offer(ramp(40, 0.05))
    rig.run(1.0)
    assert rig.execution.state == State.STOPPED
    assert "tracking limit of shoulder_pan" in rig.execution.reason
