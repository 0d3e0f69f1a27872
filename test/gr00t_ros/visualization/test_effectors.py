# SPDX-License-Identifier: Apache-2.0
"""Which links have a path: the ends of arms, neither grippers nor what carries an arm."""

import re
from typing import Any

import pytest

from gr00t_ros.robot import RobotConfig
from gr00t_ros.visualization.effectors import Effector, EffectorError, find_effectors
from gr00t_ros.visualization.robot_model import RobotModel, read_model
from support_mobile import mobile_config
from support_robots import small_config
from support_two_arms import SIDES, arm_joints, two_arms_config, two_arms_robot, two_arms_urdf

MODEL = read_model(two_arms_urdf())


def links(robot: RobotConfig, model: RobotModel = MODEL, *wanted: str) -> list[str]:
    return [effector.link for effector in find_effectors(robot, model, wanted)[0]]


def test_each_arm_has_one_and_waist_and_grippers_have_none() -> None:
    found, missing = find_effectors(two_arms_config(), MODEL)
    assert found == [
        Effector("left_tcp", "left_arm", "base_link", "left_tcp"),
        Effector("right_tcp", "right_arm", "base_link", "right_tcp"),
    ]
    assert missing == []


def regrouped(groups: dict[str, list[str]]) -> RobotConfig:
    """The two-armed robot with other action groups."""
    robot: dict[str, Any] = two_arms_robot()
    arm = robot["action"]["left_arm"]
    robot["action"] = {"keys": list(groups)} | {
        key: arm | {"joints": joints, "topic": f"/{key}/commands"} for key, joints in groups.items()
    }
    return RobotConfig.from_mapping(robot)


def test_one_group_of_two_arms_has_two() -> None:
    assert links(regrouped({"arms": [*arm_joints("left"), *arm_joints("right")]})) == [
        "left_tcp",
        "right_tcp",
    ]


def test_a_gripper_in_one_group_with_its_arm_is_not_the_end() -> None:
    """As in most LeRobot datasets of small arms."""
    robot = two_arms_robot()
    urdf = two_arms_urdf().replace("left_grip", "left_gripper")
    robot["limits"]["left_gripper"] = robot["limits"].pop("left_grip")
    robot["state"]["left_gripper"]["joints"] = ["left_gripper"]
    arm = robot["action"]["left_arm"] | {"joints": [*arm_joints("left"), "left_gripper"]}
    robot["action"] = {"keys": ["left_arm"], "left_arm": arm}
    assert links(RobotConfig.from_mapping(robot), read_model(urdf)) == ["left_tcp"]


def test_a_gripper_that_is_a_position_group_is_none() -> None:
    groups = {f"{side}_arm": arm_joints(side) for side in SIDES}
    assert links(regrouped(groups | {"pliers": ["left_grip"]})) == ["left_tcp", "right_tcp"]


def test_without_a_link_named_like_a_tool_it_is_the_furthest_rigid_one() -> None:
    model = read_model(two_arms_urdf().replace("left_tcp", "left_camera"))
    assert links(two_arms_config(), model) == ["left_camera", "right_tcp"]
    # Between the fingers nothing hangs rigidly any more: the hand that carries them.
    bare = re.sub(r'<joint name="left_tool".*?</joint>|<link name="left_tcp"/>', "", two_arms_urdf())
    assert links(two_arms_config(), read_model(bare)) == ["left_hand", "right_tcp"]


def test_links_may_be_named_and_a_wrong_name_is_refused() -> None:
    found, missing = find_effectors(two_arms_config(), MODEL, ("left_finger", "torso"))
    assert [(effector.link, effector.key) for effector in found] == [
        ("left_finger", "left_gripper"),
        ("torso", "waist"),
    ]
    assert missing == []
    with pytest.raises(EffectorError, match=r"end_effectors: found 'nose', which is no link of .* base_link"):
        find_effectors(two_arms_config(), MODEL, ("nose",))


def test_pose_groups_need_no_model_and_others_say_that_they_do() -> None:
    found, missing = find_effectors(mobile_config(), None)
    assert found == [Effector("tool0", "tool", "base_link")]
    assert missing == ["no robot model: no path of arm"]


def test_a_model_of_another_robot_is_said_to_lack_the_joints() -> None:
    found, missing = find_effectors(small_config(), MODEL)
    assert found == []
    assert missing == [
        "the robot model has no joint shoulder, elbow of arm",
        "the robot model has no joint gripper of gripper",
    ]
