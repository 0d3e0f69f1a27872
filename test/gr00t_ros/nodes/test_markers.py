# SPDX-License-Identifier: Apache-2.0
"""Shapes become markers that stay themselves; what is not drawn any more is deleted once. TF of the links."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from visualization_msgs.msg import Marker

from gr00t_ros.msg import ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.markers import LIFETIME_NS, Markers
from gr00t_ros.nodes.robot_state import transform_messages
from gr00t_ros.nodes.status_lines import executor_line, policy_line
from gr00t_ros.rotations import quaternion_to_matrix
from gr00t_ros.visualization import shapes
from gr00t_ros.visualization.kinematics import Kinematics
from gr00t_ros.visualization.robot_model import read_model
from gr00t_ros.visualization.shapes import Shape
from support_two_arms import two_arms_urdf

pytestmark = pytest.mark.ros

LINE = Shape(
    ("predicted", 3), shapes.LINES, "base_link", (0.01, 0.0, 0.0),
    points=np.arange(12.0).reshape(4, 3), colors=shapes.over_time(4),
)  # fmt: skip
BALL = Shape(("limits", 0), shapes.SPHERE, "base_link", (0.1, 0.2, 0.3), (1.0, 0.0, 0.0, 0.5),
             pose=(1.0, 2.0, 3.0, 0.0, 0.6, 0.0, 0.8))  # fmt: skip


def test_a_shape_says_the_same_as_its_marker() -> None:
    line, ball = Markers().update([LINE, BALL]).markers
    assert (line.ns, line.id, line.type, line.action) == ("predicted", 3, Marker.LINE_LIST, Marker.ADD)
    assert [(point.x, point.y, point.z) for point in line.points] == [tuple(p) for p in LINE.points.tolist()]
    assert [color.g for color in line.colors] == pytest.approx(LINE.colors[:, 1])
    assert line.lifetime.sec * 10**9 + line.lifetime.nanosec == LIFETIME_NS
    assert line.header.stamp.sec == line.header.stamp.nanosec == 0
    assert (ball.type, ball.header.frame_id) == (Marker.SPHERE, "base_link")
    assert (ball.scale.x, ball.scale.y, ball.scale.z) == (0.1, 0.2, 0.3)
    assert (ball.color.r, ball.color.a) == (1.0, 0.5)
    assert (ball.pose.position.z, ball.pose.orientation.y, ball.pose.orientation.w) == (3.0, 0.6, 0.8)


def test_a_shape_that_changes_replaces_and_one_that_goes_is_deleted_once() -> None:
    markers = Markers()
    markers.update([LINE, BALL])
    shorter = replace(LINE, points=LINE.points[:2] + 1.0, colors=LINE.colors[:2], scale=(0.02, 0.0, 0.0))
    line, ball = markers.update([shorter, replace(BALL, color=(0.0, 1.0, 0.0, 1.0), pose=(9.0,) * 7)]).markers
    assert len(line.points) == len(line.colors) == 2
    assert (line.points[0].x, line.scale.x) == (1.0, 0.02)
    assert (ball.color.g, ball.pose.position.x) == (1.0, 9.0)
    line, gone = markers.update([shorter]).markers
    assert (gone.ns, gone.id, gone.action) == ("limits", 0, Marker.DELETE)
    [line] = markers.update([shorter]).markers
    line, ball = markers.update([shorter, BALL]).markers
    assert (ball.action, ball.color.r, ball.pose.position.x) == (Marker.ADD, 1.0, 1.0)
    _, gone = markers.update([BALL]).markers
    assert (gone.ns, gone.points, gone.colors) == ("predicted", [], [])
    _, line = markers.update([BALL, LINE]).markers
    assert (line.action, len(line.points)) == (Marker.ADD, 4)
    [everything] = markers.clear().markers
    assert everything.action == Marker.DELETEALL


def test_transforms_say_where_each_link_hangs() -> None:
    kinematics = Kinematics(read_model(two_arms_urdf()))
    found = transform_messages(kinematics, {"waist": 0.5, "left_shoulder": -0.3}, 1_500_000_000)
    by_child = {message.child_frame_id: message for message in found}
    assert {"torso", "head", "left_upper", "left_tcp"} <= set(by_child)
    assert "left_fore" not in by_child, "the elbow was not measured"
    message = by_child["left_upper"]
    assert message.header.frame_id == "torso"
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_000)
    place, turn = message.transform.translation, message.transform.rotation
    pose = kinematics.transforms({"left_shoulder": -0.3})["left_upper"]
    assert (place.x, place.y, place.z) == pytest.approx(pose[:3, 3])
    matrix = quaternion_to_matrix((turn.x, turn.y, turn.z, turn.w))
    np.testing.assert_allclose(matrix, pose[:3, :3], atol=1e-12)


def test_policy_and_executor_in_one_line() -> None:
    running = PolicyStatus(state=PolicyStatus.RUNNING, chunks=3, inference_time=0.0451, observation_age=0.08)
    assert policy_line(running) == "policy running, inference 45 ms, picture 80 ms old"
    assert policy_line(PolicyStatus(state=PolicyStatus.FAULT, reason="out of\nmemory")) == (
        "policy fault: out of memory"
    )
    assert policy_line(PolicyStatus(state=77)) == "policy unknown"
    assert len(policy_line(PolicyStatus(reason="x" * 1000))) < 130
    now = ExecutorStatus(
        state=ExecutorStatus.HOLDING, reason="plan ended", commands_sent=30, commands_clipped=5
    )
    assert executor_line(now, None) == "executor holding: plan ended"
    before = ExecutorStatus(commands_sent=10, commands_clipped=3)
    assert executor_line(now, before) == "executor holding: plan ended, clips 2 of 20 commands"
    restarted = ExecutorStatus(commands_sent=1000, commands_clipped=100)
    assert executor_line(now, restarted) == "executor holding: plan ended"
    assert executor_line(ExecutorStatus(dry_run=True), None) == "executor waiting (dry run)"
