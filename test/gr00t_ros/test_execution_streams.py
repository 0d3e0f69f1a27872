# SPDX-License-Identifier: Apache-2.0
"""Whatever comes, in whatever order: commands are finite, inside the limits, continuous, and they end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import ChunkRefused
from gr00t_ros.execution import State
from support_execution import ARM, PERIOD_S, ROBOT, Driven, chunk, following, make

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
