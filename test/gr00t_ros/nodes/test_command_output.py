# SPDX-License-Identifier: Apache-2.0
"""Commands that are written into serialized messages are the commands that rclpy would have sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.commands import GroupCommand
from support_robots import shipped

pytestmark = pytest.mark.ros

ROBOT = shipped("so101")
ARM, GRIPPER = ROBOT.action["arm"], ROBOT.action["gripper"]


def command(rng: np.random.Generator, points: int, begin: bool) -> GroupCommand:
    shape = (points, ARM.width)
    return GroupCommand(
        ARM,
        rng.normal(size=shape),
        rng.normal(size=shape),
        np.sort(rng.uniform(1e-3, 0.2, points)),
        (rng.normal(size=ARM.width), rng.normal(size=ARM.width)) if begin else None,
    )


def test_a_trajectory_is_what_rclpy_would_send() -> None:
    from rclpy.serialization import deserialize_message
    from trajectory_msgs.msg import JointTrajectory

    from gr00t_ros.nodes.command_output import Trajectories
    from gr00t_ros.nodes.conversions import command_msg

    # One for all examples: what one command leaves behind must not show in the next.
    trajectories = Trajectories(ARM)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.booleans(), st.integers(1, 2**31 * 10**9 - 1))
    def same(seed: int, points: int, begin: bool, now_ns: int) -> None:
        made = command(np.random.default_rng(seed), points, begin)
        sent: Any = deserialize_message(trajectories.fill(made, now_ns), JointTrajectory)
        assert sent == command_msg(made, now_ns)

    same()


def test_an_array_is_what_rclpy_would_send() -> None:
    from rclpy.serialization import deserialize_message
    from std_msgs.msg import Float64MultiArray

    from gr00t_ros.nodes.command_output import Arrays
    from gr00t_ros.nodes.conversions import command_msg

    arrays = Arrays(GRIPPER)
    for value in (0.0, -0.15, 1.72, 1e-300):
        made = GroupCommand(GRIPPER, np.array([[value]]), np.zeros((1, 1)), np.zeros(1))
        assert deserialize_message(arrays.fill(made, 1), Float64MultiArray) == command_msg(made, 1)


def test_numbers_that_are_not_found_are_said_not_to_be() -> None:
    from std_msgs.msg import Float64MultiArray

    from gr00t_ros.nodes.wire import LayoutUnknown, WireMessage

    with pytest.raises(LayoutUnknown):
        WireMessage(lambda values, times: Float64MultiArray(data=[*values, *values]), 2, 0)
    with pytest.raises(LayoutUnknown):
        WireMessage(lambda values, times: Float64MultiArray(data=[values[0]]), 2, 0)


def test_what_an_earlier_message_left_in_memory_is_not_taken_for_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two parts of a message lies what the memory held before; here all of the last message does."""
    from std_msgs.msg import Float64MultiArray

    from gr00t_ros.nodes import wire

    left, real = [b""], wire.serialize_message

    def serialize(message: Any) -> bytes:
        data = real(message)
        before, left[0] = left[0], data
        return data + before

    monkeypatch.setattr(wire, "serialize_message", serialize)
    for _ in range(3):
        message = wire.WireMessage(lambda values, times: Float64MultiArray(data=values.tolist()), 4, 0)
        message.write_doubles(0, np.arange(4.0))
        assert np.arange(4.0).tobytes() in message.serialized()
