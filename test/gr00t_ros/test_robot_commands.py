# SPDX-License-Identifier: Apache-2.0
"""Velocities, twists and poses in a robot YAML: read with everything they need, or refused by key."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gr00t_ros.chunk import check_chunk, chunk_from_actions
from gr00t_ros.engine_limits import engine_limits, joint_names
from gr00t_ros.errors import ChunkRefused, RobotConfigError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import POSE_COLUMNS, PoseLimits, TwistLimits
from gr00t_ros.rotations import between, from_quaternion, rotvec_to_quaternion
from support_mobile import STEP_NS, mobile_chunk, mobile_config, mobile_robot
from support_robots import flatten

NOW = 1_000_000_000_000


def changed(path: str, value: Any) -> dict[str, Any]:
    """The mobile manipulator with one value set, or removed where ``value`` is ``...``."""
    robot = mobile_robot()
    level = robot
    *parents, leaf = path.split(".")
    for parent in parents:
        level = level[parent]
    if value is ...:
        del level[leaf]
    else:
        level[leaf] = value
    return robot


def test_every_representation_is_read() -> None:
    robot = mobile_config()
    arm, base, tool = robot.action.values()
    assert (arm.joints, arm.names, arm.downstream_timeout) == (("lift", "wheel"), ("lift", "wheel"), 0.2)
    assert (base.joints, base.columns, base.interface) == ((), ("linear_x", "angular_z"), "twist_stamped")
    assert (tool.width, tool.names, tool.frame_id) == (9, POSE_COLUMNS, "base_link")
    assert (tool.measured_topic, tool.measured_stamp) == ("/tool/pose", "header"), "from the state section"
    assert robot.joints == ("lift", "wheel"), "twists and poses command no joints"
    assert set(robot.limits) == {"lift", "wheel"}
    assert not robot.limits["wheel"].has_ends, "a wheel turns without end"
    assert robot.group_limits["base"] == TwistLimits(0.5, 1.0, 1.5, 3.0)
    limits = robot.group_limits["tool"]
    assert isinstance(limits, PoseLimits)
    assert (limits.max, limits.max_distance) == ((0.6, 0.3, 0.6), 0.2)
    assert [spec.message_type for spec in robot.command_topics] == [
        "std_msgs/msg/Float64MultiArray",
        "geometry_msgs/msg/TwistStamped",
        "geometry_msgs/msg/PoseStamped",
    ]
    assert RobotConfig.from_flat(flatten(mobile_robot())) == robot


def test_a_plain_twist_and_a_pose_measured_elsewhere() -> None:
    robot = changed("action.base.stamped", False)
    del robot["action"]["base"]["frame_id"]
    robot["action"]["tool"]["measured_topic"] = "/tracker/pose"
    config = RobotConfig.from_mapping(robot)
    assert config.action["base"].interface == "twist"
    assert config.action["tool"].measured_topic == "/tracker/pose"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "action.arm.downstream_timeout",
            ...,
            "robot.action.arm.downstream_timeout: missing, expected a time",
        ),
        ("action.base.downstream_timeout", ..., "the last velocity would run on when the executor dies"),
        ("action.base.downstream_timeout", 0.0, "robot.action.base.downstream_timeout: found 0.0"),
        ("action.base.downstream_timeout", 1.5, "at most 1,"),
        ("action.tool.downstream_timeout", 0.5, "robot.action.tool.downstream_timeout: unknown key"),
        ("action.arm.interface", "joint_trajectory", "one of float64_multi_array, joint_state"),
        ("action.base.interface", "twist_stamped", "the command interface of twist: one of twist"),
        ("action.base.columns", ["linear_x", "yaw"], "names of linear_x, linear_y"),
        ("action.base.columns", ..., "robot.action.base.columns: missing"),
        ("action.base.stamped", "yes", "(true or false)"),
        ("action.base.frame_id", ..., "robot.action.base.frame_id: missing"),
        ("action.tool.frame_id", "", "robot.action.tool.frame_id: found ''"),
        ("action.tool.rotation", ..., "robot.action.tool.rotation: missing"),
        ("action.tool.rotation", "euler", "one of quaternion, rot6d, rotvec"),
        (
            "action.tool.frame_id",
            "world",
            "robot.action.tool.measured_topic: missing, expected the PoseStamped",
        ),
        ("action.tool.measured_topic", "/joint_states", "which robot.state.arm reads as sensor_msgs"),
        ("action.tool.measured_topic", "/arm_controller/commands", "a topic that carries commands only"),
        ("action.tool.joints", ["lift"], "robot.action.tool.joints: unknown key"),
        ("limits.lift.acceleration", ..., "robot.limits.lift.acceleration: missing"),
        ("limits.lift.max_tracking_error", 0.1, "robot.limits.lift.max_tracking_error: unknown key"),
        ("limits.wheel.min", 0.0, "robot.limits.wheel.max: missing"),
        ("limits.base", ..., "robot.limits.base: missing, expected limits of this twist: without them"),
        ("limits.base.linear_velocity", -1.0, "robot.limits.base.linear_velocity: found -1.0"),
        ("limits.base.angular_acceleration", ..., "robot.limits.base.angular_acceleration: missing"),
        ("limits.tool.min", [0.2, 0.0], "(three numbers)"),
        ("limits.tool.min", [0.2, math.nan, 0.0], "(finite)"),
        ("limits.tool.max", [0.6, -0.3, 0.6], "more than min, which is [0.2, -0.3, 0.1], on every axis"),
        ("limits.tool.max_angle", 4.0, "at most pi"),
        ("limits.tool.velocity", 1.0, "robot.limits.tool.velocity: unknown key"),
        ("units", {"base_linear_x": {"offset": 1.0}}, "a velocity of zero is zero in every unit"),
        ("units", {"tool_r11": {"scale": 2.0}}, "a rotation's columns (rot6d) have a fixed meaning"),
    ],
)
def test_mistakes_are_named(path: str, value: Any, expected: str) -> None:
    with pytest.raises(RobotConfigError) as error:
        RobotConfig.from_mapping(changed(path, value))
    assert expected in str(error.value)


def test_a_twist_needs_limits_of_the_parts_that_it_has() -> None:
    robot = changed("action.base.columns", ["linear_x"])
    with pytest.raises(RobotConfigError, match=r"limits.base.angular_velocity: unknown key"):
        RobotConfig.from_mapping(robot)
    robot["limits"]["base"] = {"linear_velocity": 0.5, "linear_acceleration": 1.0}
    assert RobotConfig.from_mapping(robot).group_limits["base"] == TwistLimits(0.5, 1.0)


def test_a_group_must_not_have_the_name_of_a_joint() -> None:
    robot = changed("action.keys", ["arm", "lift", "tool"])
    robot["action"]["lift"] = robot["action"].pop("base")
    with pytest.raises(RobotConfigError, match=r"robot.action.lift.*another key than the joint lift"):
        RobotConfig.from_mapping(robot)


# From the policy's output to a chunk.


def with_units() -> RobotConfig:
    robot = mobile_robot()
    robot["units"] = {
        "wheel": {"scale": 0.5, "offset": 3.0, "sign": -1},
        "base_linear_x": {"scale": 0.01},
        "tool_x": {"scale": 0.001, "offset": 0.1},
    }
    return RobotConfig.from_mapping(robot)


def test_actions_become_si_and_rotations_quaternions_of_one_sign() -> None:
    turns = rotvec_to_quaternion(np.linspace(0.0, 6.0, 5)[:, None] * [0.0, 0.6, 0.8])
    tool = np.concatenate([np.tile([300.0, 0.1, 0.2], (5, 1)), 1.7 * from_quaternion(turns, "rot6d")], axis=1)
    actions = {
        "arm": np.tile([0.2, 4.0], (1, 5, 1)),
        "base": np.tile([20.0, 0.3], (1, 5, 1)),
        "tool": tool[None].astype(np.float32),
    }
    chunk = chunk_from_actions(with_units(), actions, t_obs_ns=NOW)
    arm, base, pose = chunk.groups
    np.testing.assert_allclose(arm.values[0], [0.2, -2.0], err_msg="scale and sign, no offset: it is a speed")
    np.testing.assert_allclose(base.values[0], [0.2, 0.3])
    assert (base.names, base.frame_id, base.rotation) == (("linear_x", "angular_z"), "base_link", "")
    assert (pose.names, pose.rotation) == (POSE_COLUMNS, "quaternion")
    assert (pose.frame_id, pose.child_frame) == ("base_link", "tool0")
    np.testing.assert_allclose(pose.values[:, :3], np.tile([0.4, 0.1, 0.2], (5, 1)))
    np.testing.assert_allclose(between(turns, pose.values[:, 3:]), 0.0, atol=1e-6)
    assert ((pose.values[1:, 3:] * pose.values[:-1, 3:]).sum(axis=1) > 0.0).all()


def test_a_rotation_that_is_none_is_refused() -> None:
    actions = {"arm": np.zeros((1, 5, 2)), "base": np.zeros((1, 5, 2)), "tool": np.zeros((1, 5, 9))}
    with pytest.raises(ChunkRefused, match=r"action.tool: found rotation rows that are zero or parallel"):
        chunk_from_actions(mobile_config(), actions, t_obs_ns=NOW)


def test_engines_are_compared_in_the_checkpoints_columns() -> None:
    robot = changed("limits.tool.max_engine_error", 0.01)
    robot["units"] = {"tool_x": {"scale": 0.001}}
    limits = engine_limits(RobotConfig.from_mapping(robot))
    np.testing.assert_allclose(limits["tool"], [10.0, 0.01, 0.01, *[0.01] * 6])
    np.testing.assert_allclose(limits["base"], [0.03, 0.03])
    assert joint_names(mobile_config())["tool"][:4] == ("x", "y", "z", "r11")


def test_widths_are_compared_with_the_checkpoints() -> None:
    keys = ["arm", "base", "tool"]
    modality = {
        "video": SimpleNamespace(modality_keys=["front", "wrist"], delta_indices=[0]),
        "state": SimpleNamespace(modality_keys=["arm", "tool"], delta_indices=[0]),
        "action": SimpleNamespace(modality_keys=keys, delta_indices=list(range(16))),
    }
    state = {"arm": 2, "tool": 9}
    mobile_config().check_against(modality, state, {"arm": 2, "base": 2, "tool": 9}, 16)
    with pytest.raises(RobotConfigError, match=r"action.tool: found 9 columns \(x, y, z, r11.*expected 7"):
        mobile_config().check_against(modality, state, {"arm": 2, "base": 2, "tool": 7}, 16)


# Chunks from others.


def test_chunks_with_other_forms_of_a_rotation_are_taken_as_quaternions() -> None:
    robot = mobile_config()
    chunk = mobile_chunk(robot, NOW, 0, turn=(0.3, 1.0, -0.5))
    accepted = check_chunk(chunk, robot, NOW)
    tool = chunk.groups[2]
    for rotation, names in (
        ("rotvec", ("rx", "ry", "rz")),
        ("rot6d", ("r11", "r12", "r13", "r21", "r22", "r23")),
    ):
        values = np.concatenate([tool.values[:, :3], from_quaternion(tool.values[:, 3:], rotation)], axis=1)
        other = replace(tool, values=values, rotation=rotation, names=("x", "y", "z", *names))
        got = check_chunk(replace(chunk, groups=(*chunk.groups[:2], other)), robot, NOW).groups[2]
        assert (got.rotation, got.names) == ("quaternion", POSE_COLUMNS)
        np.testing.assert_allclose(got.values, accepted.groups[2].values, atol=1e-9)
    flipped = tool.values * np.where(np.arange(16) % 2, -1.0, 1.0)[:, None] ** ([0, 0, 0, 1, 1, 1, 1])
    got = check_chunk(
        replace(chunk, groups=(*chunk.groups[:2], replace(tool, values=flipped))), robot, NOW
    ).groups[2]
    np.testing.assert_allclose(got.values, accepted.groups[2].values, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "changes", "expected"),
    [
        ("tool", {"frame_id": "world"}, "action.tool: found frame_id 'world', expected 'base_link'"),
        ("tool", {"child_frame": ""}, "action.tool: found child_frame '', expected 'tool0'"),
        ("tool", {"rotation": "euler"}, "action.tool: found rotation 'euler', expected one of quaternion"),
        ("tool", {"rotation": "rotvec"}, "expected x, y, z, rx, ry, rz"),
        ("tool", {"values": np.zeros((16, 7))}, "action.tool: found a quaternion of length 0"),
        ("base", {"frame_id": "odom"}, "action.base: found frame_id 'odom'"),
        ("base", {"names": ("linear_x", "linear_y")}, "found columns linear_x, linear_y, expected linear_x"),
        ("base", {"representation": "joint_velocity"}, "found representation 'joint_velocity'"),
    ],
)
def test_groups_that_mean_something_else_are_refused(key: str, changes: Any, expected: str) -> None:
    robot = mobile_config()
    chunk = mobile_chunk(robot, NOW, 0)
    groups = tuple(replace(g, **changes) if g.key == key else g for g in chunk.groups)
    with pytest.raises(ChunkRefused) as error:
        check_chunk(replace(chunk, groups=groups), robot, NOW)
    assert expected in str(error.value)
    assert chunk.step_ns == STEP_NS
