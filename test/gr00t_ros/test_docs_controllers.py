# SPDX-License-Identifier: Apache-2.0
"""The how-to page about controllers: every YAML on it is valid, and the two sides of each example agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import TWIST_STAMPED, VELOCITIES

PAGE = Path(__file__).parents[2] / "docs/how-to/controllers.md"
# What a controller of each type listens to, relative to its own name.
COMMANDS = {
    "joint_trajectory_controller/JointTrajectoryController": "joint_trajectory",
    "forward_command_controller/ForwardCommandController": "commands",
    "diff_drive_controller/DiffDriveController": "cmd_vel",
}


def examples() -> dict[str, list[dict[str, Any]]]:
    """The YAML documents below each heading that has any."""
    found: dict[str, list[dict[str, Any]]] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```yaml\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[section.partition("\n")[0]] = [yaml.safe_load(block) for block in blocks]
    return found


EXAMPLES = examples()


def robot_of(documents: list[dict[str, Any]], folder: Path) -> RobotConfig:
    file = folder / "robot.yaml"
    robot = next(document for document in documents if "/**" in document)
    file.write_text(yaml.safe_dump(robot, sort_keys=False))
    return RobotConfig.from_file(file)


def test_every_interface_has_an_example(tmp_path: Path) -> None:
    robots = [robot_of(documents, tmp_path) for documents in EXAMPLES.values()]
    interfaces = {group.interface for robot in robots for group in robot.action.values()}
    assert interfaces >= {
        "joint_trajectory",
        "float64_multi_array",
        "joint_state",
        "pose_stamped",
        TWIST_STAMPED,
    }
    assert {group.representation for robot in robots for group in robot.action.values()} >= {
        "joint_position",
        "joint_velocity",
        "ee_pose",
        "twist",
    }


@pytest.mark.parametrize("heading", EXAMPLES)
def test_both_sides_of_an_example_agree(heading: str, tmp_path: Path) -> None:
    robot = robot_of(EXAMPLES[heading], tmp_path)
    (group,) = robot.action.values()
    others = [document for document in EXAMPLES[heading] if "/**" not in document]
    if not others:
        assert heading.startswith("joint_state"), "only a driver has no YAML of its own"
        return
    (document,) = others
    if "servo_node" in document:
        check_servo(document["servo_node"]["ros__parameters"]["moveit_servo"], group)
        return
    manager = document.pop("controller_manager")["ros__parameters"]
    ((name, part),) = document.items()
    kind, options = manager[name]["type"], part["ros__parameters"]
    assert group.topic == f"/{name}/{COMMANDS[kind]}"
    if "joints" in options:
        assert tuple(options["joints"]) == group.joints, "the order of joints"
    if kind.startswith("joint_trajectory"):
        assert options["interpolate_from_desired_state"] is True
        assert options["allow_trajectory_replacement"] is False
        assert options["allow_nonzero_velocity_at_trajectory_end"] is False
    if kind.startswith("forward"):
        velocity = group.representation in VELOCITIES
        assert options["interface_name"] == ("velocity" if velocity else "position")
    if kind.startswith("diff_drive"):
        assert options["cmd_vel_timeout"] == group.downstream_timeout
        assert options["use_stamped_vel"] == (group.interface == TWIST_STAMPED)
        (wheels,) = robot.state.values()
        assert wheels.joints == (*options["left_wheel_names"], *options["right_wheel_names"])


def check_servo(options: dict[str, Any], group: Any) -> None:
    pose = group.representation == "ee_pose"
    topic = options["pose_command_in_topic" if pose else "cartesian_command_in_topic"]
    assert group.topic == topic.replace("~", "/servo_node")
    assert group.frame_id
    if not pose:
        assert group.interface == TWIST_STAMPED, "Servo takes no Twist"
        assert options["command_in_type"] == "speed_units"
        assert options["incoming_command_timeout"] == group.downstream_timeout
