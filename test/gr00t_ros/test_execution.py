# SPDX-License-Identifier: Apache-2.0
"""What the chunk executor decides: nothing without a plan and fresh joints, and a stop that stays."""

from __future__ import annotations

import numpy as np
import pytest

from gr00t_ros.errors import ChunkRefused
from gr00t_ros.execution import Execution, State
from support_execution import HOLD_S, ROBOT, Rig, make, of, ramp


@pytest.fixture
def rig() -> Rig:
    return Rig(make())


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


def test_a_joint_far_outside_its_limits_stops_with_advice(rig: Rig) -> None:
    rig.positions["shoulder_pan"] = 3.0
    rig.follow = False
    rig.offer(ramp(40))
    assert not any(rig.run(0.2))
    assert rig.execution.state == State.STOPPED
    assert "shoulder_pan" in rig.execution.reason


def test_a_lookahead_shorter_than_two_periods_is_refused() -> None:
    with pytest.raises(ValueError, match="two periods"):
        Execution(ROBOT, period_s=0.1, lookahead_s=0.15, hold_s=0.5)
