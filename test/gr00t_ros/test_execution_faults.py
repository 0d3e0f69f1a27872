# SPDX-License-Identifier: Apache-2.0
"""What the executor does about the faults of a period, and about a policy that ends its plan."""

from __future__ import annotations

import numpy as np
import pytest

from gr00t_ros.chunk import Chunk
from gr00t_ros.errors import ChunkRefused
from gr00t_ros.execution import State
from gr00t_ros.faults import Fault, Reaction
from gr00t_ros.robot_types import WatchdogConfig, WatchdogsConfig
from gr00t_ros.watchdogs import Watchdogs
from support_execution import ARM, PERIOD_S, ROBOT, Driven, Rig, chunk, following, make, of, ramp

HOLD = Fault("the policy is silent", Reaction.HOLD)
STOP = Fault("nobody follows", Reaction.STOP)
LATCH = Fault("somebody pressed the button", Reaction.LATCH)


@pytest.fixture
def rig() -> Rig:
    rig = Rig(make())
    rig.offer(ramp(40))
    rig.run(0.4)
    assert rig.execution.state == State.EXECUTING
    return rig


def end(rig: Rig, sequence: int, session: int = 1) -> None:
    """The policy ends its plan."""
    last = Chunk(session, sequence, "test", rig.now_ns, rig.now_ns, ROBOT.step_ns, ())
    rig.execution.offer(last, rig.now_ns)


def test_hold_ends_what_is_under_way_and_goes_on_by_itself(rig: Rig) -> None:
    ahead = of(rig.period(), "arm").positions[-1]
    rig.faults = (HOLD,)
    held = of(rig.period(), "arm").positions[-1]
    np.testing.assert_allclose(held, ahead, atol=1e-9)
    assert (rig.execution.state, rig.execution.reason) == (State.HOLDING, HOLD.reason)
    rig.run(0.3)
    rig.faults = ()
    rig.period()
    assert rig.execution.state == State.EXECUTING


def test_stop_drops_the_plan_and_goes_on_with_the_next_chunk(rig: Rig) -> None:
    rig.faults = (STOP,)
    rig.period()
    assert (rig.execution.state, rig.execution.reason) == (State.HOLDING, STOP.reason)
    rig.offer(ramp(40), sequence=1)  # while the fault lasts it counts as old
    rig.period()
    rig.faults = ()
    rig.run(0.2)
    assert rig.execution.state == State.HOLDING
    assert STOP.reason in rig.execution.reason
    rig.offer(ramp(40), sequence=2)
    rig.period()
    assert rig.execution.state == State.EXECUTING


def test_latch_stays_stopped_until_start(rig: Rig) -> None:
    rig.faults = (LATCH,)
    rig.period()
    rig.faults = ()
    rig.run(0.2)
    assert (rig.execution.state, rig.execution.reason) == (State.STOPPED, LATCH.reason)
    with pytest.raises(ChunkRefused):
        rig.offer(ramp(40), sequence=1)
    rig.execution.start()
    rig.offer(ramp(40), sequence=2)
    rig.period()
    assert rig.execution.state == State.EXECUTING


@pytest.mark.parametrize("faults", [(HOLD, STOP), (STOP, HOLD)])
def test_the_gravest_of_several_faults_counts(rig: Rig, faults: tuple[Fault, ...]) -> None:
    rig.faults = faults
    rig.period()
    assert rig.execution.reason == STOP.reason


def test_a_graver_fault_brakes_what_a_hold_lets_end_by_itself() -> None:
    driven = Driven(make())
    driven.offer(ramp(40, 0.04))
    driven.run(1.0)
    driven.faults = (HOLD,)
    soft = of(driven.period(), "arm").positions[-1]
    driven.faults = (STOP,)
    hard = of(driven.period(), "arm").positions[-1]
    assert np.all(hard < soft - 0.01)


def test_a_fault_does_not_make_a_robot_move_that_has_never_moved() -> None:
    rig = Rig(make(), faults=(HOLD,))
    rig.offer(ramp(40))
    assert not any(rig.run(0.3))
    assert rig.execution.state == State.WAITING


def test_lost_joint_states_may_be_latched() -> None:
    latched = WatchdogsConfig(joint_state_age=WatchdogConfig(0.2, Reaction.LATCH))
    rig = Rig(make(following(watchdogs=latched)))
    rig.joints_come = False
    rig.offer(ramp(40))
    rig.period()
    assert rig.execution.state == State.WAITING, "not before it has moved"
    rig.joints_come = True
    rig.run(0.3)
    rig.joints_come = False
    rig.run(0.4)
    assert rig.execution.state == State.STOPPED
    assert "stale" in rig.execution.reason


@pytest.mark.parametrize("lesser", [HOLD, STOP])
@pytest.mark.parametrize("before", [0, 1])
def test_a_latch_counts_also_behind_a_lesser_fault(lesser: Fault, before: int) -> None:
    """In the same period, and while the lesser one's hold is under way."""
    latched = WatchdogsConfig(joint_state_age=WatchdogConfig(0.2, Reaction.LATCH))
    rig = Rig(make(following(watchdogs=latched)))
    rig.offer(ramp(40))
    rig.run(0.4)
    rig.joints_come = False
    rig.faults = (lesser,)
    for _ in range(before):
        rig.period()
    rig.period(0.3)
    rig.faults, rig.joints_come = (), True
    rig.run(0.1)
    assert rig.execution.state == State.STOPPED
    assert "stale" in rig.execution.reason


def test_an_empty_chunk_ends_the_plan_inside_the_limits() -> None:
    driven = Driven(make())
    driven.offer(ramp(40, 0.09))  # 1.8 rad/s
    driven.run(0.6)
    end(driven, 1)
    begin = len(driven.speeds) + 20
    driven.run(0.4)
    assert (driven.execution.state, driven.execution.reason) == (State.HOLDING, "the policy ended its plan")
    limit = ROBOT.limits[ARM.joints[0]].acceleration
    assert limit is not None
    assert np.diff(driven.speeds[begin:], axis=0).min() / 1e-3 >= -1.05 * limit
    np.testing.assert_allclose(driven.speeds[-1], 0.0, atol=1e-9)
    with pytest.raises(ChunkRefused, match="again"):
        driven.offer(ramp(40), sequence=1)
    driven.offer(ramp(40), sequence=2)
    driven.period()
    assert driven.execution.state == State.EXECUTING


def test_an_empty_chunk_that_is_not_newer_ends_nothing(rig: Rig) -> None:
    with pytest.raises(ChunkRefused):
        end(rig, 0)
    with pytest.raises(ChunkRefused):
        end(rig, 5, session=0)
    rig.period()
    assert rig.execution.state == State.EXECUTING


def test_a_robot_that_was_held_for_an_old_observation_stays_held_to_the_end_of_its_plan_and_beyond() -> None:
    rig = Driven(make())
    dogs = Watchdogs(ROBOT.executor, (), rig.mono_ns)
    rig.run(0.1)
    plan = chunk(rig.now_ns, ramp(100, 0.01))  # 5 s, and it moves at its end
    rig.execution.offer(plan, rig.now_ns)
    dogs.accepted(plan.t_obs_ns, plan.end_ns, rig.mono_ns)
    held = None
    for _ in range(350):
        next_ns = round(PERIOD_S * 1e9)
        rig.faults = dogs.check(rig.now_ns + next_ns, rig.mono_ns + next_ns, 0)
        rig.period()
        if held is None and rig.faults:
            rig.run(0.3)
            held = rig.positions["shoulder_pan"]
            assert held == pytest.approx(0.6, abs=0.05)
    assert rig.positions["shoulder_pan"] == held
    assert rig.execution.state == State.HOLDING
