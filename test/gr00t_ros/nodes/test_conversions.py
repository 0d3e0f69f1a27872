# SPDX-License-Identifier: Apache-2.0
"""Chunks and commands survive the way into messages and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import ChunkRefused
from support_chunks import small_chunk
from support_mobile import mobile_chunk, mobile_config
from support_robots import small_config

pytestmark = pytest.mark.ros

T = 1_700_000_000_123_456_789
ROBOT = small_config()


def test_a_chunk_comes_back_as_it_was() -> None:
    from gr00t_ros.nodes.conversions import chunk_from_msg, chunk_msg

    arm = np.arange(20.0).reshape(10, 2)
    chunk = small_chunk(
        arm, start_ns=T, t_obs_ns=T - 5, session=2**63, sequence=4, inference_ns=1_500_000_001
    )
    message = chunk_msg(chunk)
    assert message.horizon == 10
    assert message.groups[0].width == 2
    assert list(message.groups[0].values[:4]) == [0.0, 1.0, 2.0, 3.0], "step-major"
    back = chunk_from_msg(message)
    for got, expected in zip(back.groups, chunk.groups, strict=True):
        np.testing.assert_array_equal(got.values, expected.values)
    same = replace(back, groups=())
    assert same == replace(chunk, groups=())


@pytest.mark.parametrize(("field", "value"), [("horizon", 9), ("horizon", 0), ("width", 3), ("width", 0)])
def test_numbers_that_do_not_fill_the_steps_are_refused(field: str, value: int) -> None:
    from gr00t_ros.nodes.conversions import chunk_from_msg, chunk_msg

    message = chunk_msg(small_chunk(np.zeros((10, 2)), start_ns=T))
    setattr(message if field == "horizon" else message.groups[0], field, value)
    with pytest.raises(ChunkRefused, match="holds 20 values"):
        chunk_from_msg(message)


@pytest.mark.parametrize("span", [0, 1, 999_999_999, 1_000_000_000, 123_456_789_012_345_678])
def test_times_keep_every_nanosecond(span: int) -> None:
    from gr00t_ros.nodes.conversions import duration_msg, nanoseconds, time_msg

    assert nanoseconds(time_msg(span)) == span
    assert nanoseconds(duration_msg(span)) == span
    assert nanoseconds(duration_msg(-span)) == -span


def test_times_beyond_the_message_are_clamped_not_wrapped() -> None:
    from gr00t_ros.nodes.conversions import duration_msg, nanoseconds, time_msg

    assert nanoseconds(time_msg(-5)) == 0
    assert nanoseconds(time_msg(2**63)) == (2**31 - 1) * 1_000_000_000
    assert nanoseconds(duration_msg(-(2**63))) == -(2**31 - 1) * 1_000_000_000


def command(key: str, interface: str, points: int) -> GroupCommand:
    group = replace(ROBOT.action[key], interface=interface)
    positions = np.arange(float(points * group.width)).reshape(points, group.width)
    return GroupCommand(group, positions, -positions, np.arange(1, points + 1) * 0.02)


def test_a_trajectory_message_names_its_joints_and_times() -> None:
    from gr00t_ros.nodes.conversions import command_msg, nanoseconds

    message = command_msg(command("arm", "joint_trajectory", 3), T)
    assert list(message.joint_names) == ["shoulder", "elbow"]
    assert nanoseconds(message.header.stamp) == T
    assert [nanoseconds(point.time_from_start) for point in message.points] == [
        20_000_000,
        40_000_000,
        60_000_000,
    ]
    assert list(message.points[2].positions) == [4.0, 5.0]
    assert list(message.points[2].velocities) == [-4.0, -5.0]


def test_a_trajectory_that_is_under_way_begins_where_its_controller_stands() -> None:
    from gr00t_ros.nodes.conversions import command_msg, nanoseconds

    under_way = replace(
        command("arm", "joint_trajectory", 2), begin=(np.array([0.5, 0.6]), np.array([1.0, 2.0]))
    )
    message = command_msg(under_way, T)
    assert [nanoseconds(point.time_from_start) for point in message.points] == [0, 20_000_000, 40_000_000]
    assert list(message.points[0].positions) == [0.5, 0.6]
    assert list(message.points[0].velocities) == [1.0, 2.0]


def test_an_array_message_holds_the_joints_in_order() -> None:
    from gr00t_ros.nodes.conversions import command_msg

    message = command_msg(command("arm", "float64_multi_array", 1), T)
    assert list(message.data) == [0.0, 1.0]
    assert message.layout.dim[0].size == 2


def test_a_joint_state_message_holds_names_and_positions() -> None:
    from gr00t_ros.nodes.conversions import command_msg, nanoseconds

    message = command_msg(command("arm", "joint_state", 1), T)
    assert list(message.name) == ["shoulder", "elbow"]
    assert list(message.position) == [0.0, 1.0]
    assert nanoseconds(message.header.stamp) == T


MOBILE = mobile_config()


def told(key: str, values: list[float]) -> GroupCommand:
    """What a group of the mobile manipulator is told: a pose, or velocities."""
    row = np.array([values])
    if key == "tool":
        return GroupCommand(MOBILE.action[key], row, np.zeros((1, 7)), np.zeros(1))
    return GroupCommand(MOBILE.action[key], np.zeros((0, len(values))), row, np.zeros(1))


def test_velocities_a_twist_and_a_pose_as_their_controllers_take_them() -> None:
    from gr00t_ros.nodes.conversions import command_msg, nanoseconds

    arm = told("arm", [0.1, -0.2])
    assert list(command_msg(arm, T).data) == [0.1, -0.2]
    state = command_msg(replace(arm, group=replace(arm.group, interface="joint_state")), T)
    assert (list(state.name), list(state.velocity)) == (["lift", "wheel"], [0.1, -0.2])
    assert not state.position, "a velocity is no position"
    base = command_msg(told("base", [0.3, -0.4]), T)
    assert (base.header.frame_id, nanoseconds(base.header.stamp)) == ("base_link", T)
    assert (base.twist.linear.x, base.twist.angular.z) == (0.3, -0.4)
    assert (base.twist.linear.y, base.twist.angular.x) == (0.0, 0.0), "what is not commanded"
    plain = replace(told("base", [0.3, -0.4]), group=replace(MOBILE.action["base"], interface="twist"))
    assert command_msg(plain, T).linear.x == 0.3
    pose = command_msg(told("tool", [0.1, 0.2, 0.3, 0.0, 0.6, 0.0, 0.8]), T)
    assert (pose.header.frame_id, nanoseconds(pose.header.stamp)) == ("base_link", T)
    assert (pose.pose.position.z, pose.pose.orientation.y, pose.pose.orientation.w) == (0.3, 0.6, 0.8)


def test_frames_and_rotations_go_over_the_wire_and_an_empty_chunk_ends_a_plan() -> None:
    from gr00t_ros.nodes.conversions import chunk_from_msg, chunk_msg

    chunk = mobile_chunk(MOBILE, T, 3)
    back = chunk_from_msg(chunk_msg(chunk))
    tool = back.groups[2]
    assert (tool.frame_id, tool.child_frame, tool.rotation) == ("base_link", "tool0", "quaternion")
    np.testing.assert_array_equal(tool.values, chunk.groups[2].values)
    empty = chunk_from_msg(chunk_msg(replace(chunk, groups=())))
    assert (empty.horizon, empty.groups) == (0, ())
    message = chunk_msg(replace(chunk, groups=()))
    message.horizon = 5
    with pytest.raises(ChunkRefused, match="5 steps without groups"):
        chunk_from_msg(message)
