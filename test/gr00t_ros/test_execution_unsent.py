# SPDX-License-Identifier: Apache-2.0
"""Commands that were made and never sent: what moves goes on from what its controller really has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.chunk import ChunkGroup
from gr00t_ros.execution import Execution
from gr00t_ros.robot_types import FLOAT64_MULTI_ARRAY, JOINT_VELOCITY, ActionGroupConfig, JointLimits
from support_execution import PERIOD_S, ROBOT, Rig, chunk, make, of, ramp

BOTH = ("arm", "gripper")


def begin(rig: Rig) -> tuple[np.ndarray, np.ndarray]:
    found = of(rig.period(), "arm").begin
    assert found is not None
    return found


def moving() -> Rig:
    rig = Rig(make())
    rig.period()
    rig.offer(ramp(32))
    rig.run(0.6)
    return rig


@pytest.mark.parametrize("stopped", [False, True], ids=["a motion", "a brake"])
def test_the_next_trajectory_begins_on_the_last_one_that_was_sent(stopped: bool) -> None:
    """As if the period had not been: two robots, one of which had none at that time."""
    rig, twin = moving(), moving()
    if stopped:
        rig.execution.stop("test")
        twin.execution.stop("test")
    sent = rig.execution.counters.commands_sent
    positions = dict(rig.positions)
    assert rig.period()
    rig.positions = positions
    rig.execution.unsent(BOTH)
    assert rig.execution.counters.commands_sent == sent
    twin.now_ns, twin.mono_ns = rig.now_ns, rig.mono_ns
    np.testing.assert_allclose(begin(rig), begin(twin), atol=1e-9)
    ends = [of(r.run(0.3)[-1], "arm").velocities[-1] for r in (rig, twin)]
    np.testing.assert_allclose(ends, 0.0, atol=1e-9)


def test_a_first_command_that_was_not_sent_begins_nothing() -> None:
    rig = Rig(make())
    rig.period()
    rig.offer(ramp(32))
    assert rig.period()
    rig.execution.unsent(BOTH)
    rig.execution.stop("test")
    assert rig.run(0.2) == [()] * 10


def test_after_a_silence_what_was_not_sent_holds_nothing() -> None:
    rig = moving()
    rig.run(3.0)
    assert rig.period() == ()
    rig.execution.offer(chunk(rig.now_ns, ramp(32), sequence=1), rig.now_ns)
    assert rig.period()
    rig.execution.unsent(("gripper",))
    rig.execution.stop("test")
    assert {c.group.key for commands in rig.run(0.2) for c in commands} == {"arm"}


def wheels() -> Execution:
    group = ActionGroupConfig(
        "wheels", JOINT_VELOCITY, ("left", "right"), FLOAT64_MULTI_ARRAY, "/wheels", downstream_timeout=0.5
    )
    limit = JointLimits(-np.inf, np.inf, velocity=4.0, acceleration=8.0)
    limits = {**ROBOT.limits, "left": limit, "right": limit}
    return make(replace(ROBOT, action={**ROBOT.action, "wheels": group}, limits=limits))


def test_zero_is_said_again_however_long_the_process_stood_still() -> None:
    """A velocity runs on: one zero that was not sent must not be the last word."""
    rig = Rig(wheels())
    rig.positions.update(left=0.0, right=0.0)
    rig.follow = False
    rig.period()
    made = chunk(rig.now_ns, np.zeros((32, 5)))
    group = ChunkGroup("wheels", "joint_velocity", ("left", "right"), np.full((32, 2), 1.0))
    rig.execution.offer(replace(made, groups=(*made.groups, group)), rig.now_ns)
    rig.run(0.6)
    rig.execution.stop("test")
    while of(rig.period(), "wheels").velocities.any():
        pass
    # Go one period back: that zero was never sent.
    rig.execution.unsent(("arm", "gripper", "wheels"))
    assert rig.execution.moving
    assert not of(rig.period(5.0), "wheels").velocities.any()


def test_what_began_anew_since_is_not_brought_back() -> None:
    rig = moving()
    assert rig.period()
    rig.execution.reset("test")
    rig.execution.unsent(BOTH)
    assert rig.run(0.2) == [()] * 10


@pytest.mark.parametrize("jump_s", [-10.0, 10.0])
def test_what_was_not_sent_in_the_period_of_a_clock_jump_goes_on_after_it(jump_s: float) -> None:
    """A jump changes the date of what is under way, sent or not."""
    rig = moving()
    rig.period()
    under_way = rig.execution._motions[0]._last.at  # type: ignore[attr-defined]
    at_ns = rig.now_ns
    rig.now_ns += round(jump_s * 1e9)
    assert rig.period()
    rig.execution.unsent(BOTH)
    position, velocity = begin(rig)
    expected = under_way(at_ns + 2 * round(PERIOD_S * 1e9))
    np.testing.assert_allclose(position, expected[0], atol=1e-9)
    np.testing.assert_allclose(velocity, expected[1], atol=1e-9)
