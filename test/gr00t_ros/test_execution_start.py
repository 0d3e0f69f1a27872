# SPDX-License-Identifier: Apache-2.0
"""Stop and start: what moves is braked, and what stands begins where it is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.execution import Execution, State
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import FLOAT64_MULTI_ARRAY
from support_execution import (
    ARM,
    GRIPPER,
    LOOKAHEAD_S,
    PERIOD_S,
    ROBOT,
    Driven,
    Rig,
    chunk,
    make,
    of,
    ramp,
)

BRAKE = 2.0  # rad/s^2
SAGGED = 0.4


def streamed(acceleration: float) -> RobotConfig:
    """The arm as one position a period, with another acceleration limit."""
    action = {**ROBOT.action, "arm": replace(ARM, interface=FLOAT64_MULTI_ARRAY)}
    arm = {joint: replace(ROBOT.limits[joint], acceleration=acceleration) for joint in ARM.joints}
    return replace(ROBOT, action=action, limits={**ROBOT.limits, **arm})


class Traced(Rig):
    """What the first joint of the arm is told, silence as no change."""

    def trace(self, seconds: float) -> np.ndarray:
        told = []
        for commands in self.run(seconds):
            told.append(of(commands, "arm").positions[0, 0] if commands else told[-1])
        return np.array(told)

    def moving(self) -> np.ndarray:
        """Until it moves, faster than it can be braked within the lookahead at ``BRAKE``."""
        self.offer(ramp(40, 0.03))
        told = self.trace(1.0)
        assert told[-1] - told[-2] > 1.1 * BRAKE * LOOKAHEAD_S * PERIOD_S
        return told


def hardest(told: np.ndarray) -> float:
    return float(np.abs(np.diff(told, 2)).max()) / PERIOD_S**2


@pytest.mark.parametrize("interface", ["joint_trajectory", FLOAT64_MULTI_ARRAY])
@pytest.mark.parametrize("unsent", [False, True])
def test_after_a_start_the_arm_begins_where_it_is_measured_and_eases_from_there(
    interface: str, unsent: bool
) -> None:
    """Whatever holds it without us, or does not, in a stop: here it sags."""
    rig = Traced(make(ROBOT if interface == "joint_trajectory" else streamed(10.0)))
    rig.moving()
    rig.execution.stop("emergency stop")
    rig.run(0.3)
    rig.follow = False
    rig.positions |= {joint: rig.positions[joint] - SAGGED for joint in ARM.joints}
    rig.run(1.5)
    rig.execution.start()
    rig.run(0.2)
    rig.follow = True
    stands = rig.positions["shoulder_pan"]
    rig.offer(np.full((40, 5), stands + 0.1), sequence=1, session=2)
    if unsent:
        rig.execution.unsent([command.group.key for command in rig.period()])
    blend_s = ROBOT.executor.blend_time
    told = rig.trace(blend_s)
    assert told[0] == pytest.approx(stands, abs=2e-3)
    assert hardest(np.concatenate([[stands, stands], told])) <= 10.0
    assert stands + 0.05 < rig.trace(0.4)[-1] <= stands + 0.1 + 1e-6


def test_a_gripper_keeps_what_it_holds_through_stop_and_start() -> None:
    rig = Rig(make(), follow=False)
    rig.positions[GRIPPER.joints[0]] = 0.8  # told to close, and holds an object
    rig.offer(np.zeros((30, 5)))
    rig.run(1.0)
    rig.execution.stop("test")
    rig.run(1.5)
    rig.execution.start()
    rig.run(0.2)
    rig.offer(np.zeros((30, 5)), sequence=1)
    assert of(rig.period(), "gripper").positions[0, 0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("periods", [0, 1, 5])
def test_a_start_while_a_streamed_arm_is_braked_does_not_stop_it_at_once(periods: int) -> None:
    rig = Traced(make(streamed(BRAKE)))
    told = rig.moving()
    rig.execution.stop("test")
    if periods:
        told = np.concatenate([told, rig.trace(periods * PERIOD_S)])
    rig.execution.start()
    told = np.concatenate([told, rig.trace(1.5)])
    assert hardest(told) <= BRAKE * 1.01
    assert told[-1] == told[-2]
    assert not rig.period(), "and then it falls silent"


def test_a_hold_lasts_until_a_streamed_arm_has_come_to_rest() -> None:
    rig = Traced(Execution(streamed(BRAKE), period_s=PERIOD_S, lookahead_s=LOOKAHEAD_S, hold_s=0.0))
    told = rig.moving()
    assert rig.execution.moving, "who deactivates must wait for it"
    rig.execution.stop("test")
    told = np.concatenate([told, rig.trace(1.5)])
    assert hardest(told) <= BRAKE * 1.01
    assert told[-1] == told[-2]
    assert not rig.execution.moving


def test_a_streamed_arm_whose_clock_stands_is_not_waited_for() -> None:
    rig = Traced(make(streamed(BRAKE)))
    rig.moving()
    for _ in range(100):
        rig.mono_ns += round(PERIOD_S * 1e9)
        commands = rig.execution.step(rig.now_ns, rig.mono_ns)
    assert not commands
    assert not rig.execution.moving


def test_stop_and_start_within_one_period_go_over_to_the_next_plan_without_a_jump_of_speed() -> None:
    rig = Traced(make(streamed(10.0)))
    told = rig.moving()
    rig.execution.stop("test")
    rig.execution.start()
    rig.offer(np.zeros((40, 5)), sequence=1)
    told = np.concatenate([told, rig.trace(0.3)])
    assert hardest(told) <= 10.1
    assert rig.execution.state == State.EXECUTING


@pytest.mark.parametrize("later", [False, True])
def test_stop_and_start_within_one_period_still_stop_a_trajectory(later: bool) -> None:
    """Also where the next plan, which begins later, is known by then."""
    stands = []
    for start in (False, True):
        driven = Driven(make())
        driven.offer(ramp(60, 0.05))
        driven.run(1.0)
        driven.execution.stop("test")
        if start:
            driven.execution.start()
            if later:
                ahead = chunk(driven.now_ns + 400_000_000, np.ones((16, 5)), sequence=1)
                driven.execution.offer(replace(ahead, t_obs_ns=driven.now_ns), driven.now_ns)
        assert driven.period(), "the stop is sent"
        driven.run(0.3)
        stands.append(driven.arm.sample(driven.now_ns))
    np.testing.assert_allclose(stands[1], stands[0], atol=1e-9)


@pytest.mark.parametrize(("away", "begins_at"), [(SAGGED, -SAGGED), (0.05, 0.0)])
def test_after_a_silence_an_arm_that_was_not_held_begins_where_it_is_measured(
    away: float, begins_at: float
) -> None:
    """Its motors lost power while the last position was sent. A soft servo under load is another matter:
    taking its own error for its place would let it sag by that once more."""
    rig = Rig(make())
    rig.period()
    rig.offer(np.zeros((10, 5)))
    rig.run(0.6)
    rig.follow = False
    rig.positions |= dict.fromkeys(ARM.joints, -away)
    rig.run(3.0)
    assert rig.period() == ()
    rig.offer(np.zeros((40, 5)), sequence=1)
    first = of(rig.period(), "arm").positions[0]
    np.testing.assert_allclose(first, begins_at, atol=0.01)
