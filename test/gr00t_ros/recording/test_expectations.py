# SPDX-License-Identifier: Apache-2.0
"""What a robot YAML lets one expect of its topics."""

from __future__ import annotations

from gr00t_ros.recording.expectations import Expected, expectations
from gr00t_ros.robot import RobotConfig
from support_mobile import mobile_config
from support_recording import ARM, EXPECTED, FRONT, GRIPPER, INSTRUCTION, JOINTS, WRIST
from support_robots import small_robot


def of(robot: RobotConfig) -> dict[str, Expected]:
    return expectations(robot, lambda topic: topic if topic.startswith("/") else f"/ns/{topic}")


def test_every_topic_of_the_robot_once() -> None:
    assert list(EXPECTED) == [FRONT, WRIST, JOINTS, ARM, GRIPPER, INSTRUCTION]
    front, joints, arm = EXPECTED[FRONT], EXPECTED[JOINTS], EXPECTED[ARM]
    assert (front.message_type, front.path) == ("sensor_msgs/msg/Image", "video.front")
    assert (front.required, front.max_age, front.least_rate, front.stamp) == (True, 0.2, 20.0, "header")
    assert (joints.used_by, joints.max_age) == (("state.arm", "state.gripper"), 0.1)
    # A trajectory's age counts from its last point, which nobody reads here; it may begin later than it came.
    assert (arm.required, arm.max_age, arm.stamp, arm.max_ahead_ns) == (True, None, "receive", 10**10)
    assert (EXPECTED[GRIPPER].max_age, EXPECTED[GRIPPER].max_ahead_ns) == (0.5, None)
    assert front.max_ahead_ns == 2 * 10**7
    assert not EXPECTED[INSTRUCTION].required


def test_two_uses_of_a_topic_ask_for_the_stricter_of_both() -> None:
    values = small_robot()
    values["state"]["gripper"]["max_age"] = 0.05
    assert of(RobotConfig.from_mapping(values))["/joint_states"].max_age == 0.05


def test_commands_are_required_only_where_they_are_the_actions() -> None:
    values = small_robot()
    values["recording"] = {"action_source": "future_state"}
    found = of(RobotConfig.from_mapping(values))
    arm = found["/arm_controller/joint_trajectory"]
    assert (arm.required, arm.max_age) == (False, None)
    assert found["/joint_states"].required


def test_commands_may_be_as_old_as_the_converter_takes_them() -> None:
    values = small_robot()
    values["recording"] = {"max_command_age": 0.0}
    assert of(RobotConfig.from_mapping(values))["/gripper_controller/commands"].max_age is None
    base = of(mobile_config())["/arm_controller/commands"]
    assert base.max_age == 0.2, "a velocity counts no longer than its downstream_timeout"


def test_the_executors_own_topics_are_recorded_too() -> None:
    values = small_robot()
    values["executor"]["joint_state_topic"] = "/all_joints"
    values["instruction"] = {"topic": "instruction"}
    found = of(RobotConfig.from_mapping(values))
    assert found["/all_joints"].message_type == "sensor_msgs/msg/JointState"
    assert not found["/all_joints"].required
    assert "/ns/instruction" in found
    mobile = of(mobile_config())
    assert mobile["/tool/pose"].used_by == ("state.tool", "action.tool.measured_topic")
    assert mobile["/base_controller/cmd_vel"].message_type == "geometry_msgs/msg/TwistStamped"
