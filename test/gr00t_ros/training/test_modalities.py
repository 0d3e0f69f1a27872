# SPDX-License-Identifier: Apache-2.0
"""Modality configurations for a new robot: from its YAML, or from a dataset alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gr00t_model.processing import ActionConfig
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training.modalities import Representations, described, from_dataset, from_robot
from gr00t_ros.training.options import TrainingError
from support_datasets import write_dataset
from support_robots import shipped

NO_CHOICE = Representations()
RELATIVE = ActionConfig(rep="RELATIVE")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", lengths=(6,))


def test_a_robot_s_joints_are_relative_and_its_scalars_absolute() -> None:
    modality = from_robot(shipped("so101"), 16, NO_CHOICE)
    assert modality["video"].modality_keys == ("front", "wrist")
    assert modality["state"].modality_keys == modality["action"].modality_keys == ("arm", "gripper")
    action = modality["action"]
    assert action.delta_indices == tuple(range(16))
    assert action.action_config("arm") == ActionConfig(rep="RELATIVE", state_key="arm")
    assert action.action_config("gripper") == ActionConfig()
    assert modality["language"].modality_keys == ("annotation.human.task_description",)
    assert described(modality) == (
        "cameras front, wrist; states arm, gripper; 16 steps of arm relative, gripper absolute"
    )


def test_representations_can_be_chosen() -> None:
    robot = shipped("so101")

    def chosen(**given: Any) -> list[bool]:
        action = from_robot(robot, 4, Representations(**given))["action"]
        return [action.action_config(key).relative for key in action.modality_keys]

    assert chosen(relative=("gripper",)) == [True, True]
    assert chosen(absolute=("all",)) == [False, False]
    assert chosen(absolute=("all",), relative=("gripper",)) == [False, True]
    with pytest.raises(TrainingError, match=r"no action 'elbow'; the actions are arm, gripper"):
        chosen(relative=("elbow",))
    with pytest.raises(TrainingError, match="arm: named with both"):
        chosen(relative=("arm",), absolute=("arm",))


def test_scaling_can_be_chosen() -> None:
    robot = shipped("so101")
    assert from_robot(robot, 4, NO_CHOICE)["action"].mean_std_embedding_keys == ()
    for given, keys in ((("arm",), ("arm",)), (("all",), ("arm", "gripper"))):
        assert from_robot(robot, 4, Representations(mean_std=given))["action"].mean_std_embedding_keys == keys
    with pytest.raises(TrainingError, match=r"--mean-std: there is no action 'elbow'"):
        from_robot(robot, 4, Representations(mean_std=("elbow",)))


def robot_with(change: Any) -> RobotConfig:
    values = yaml.safe_load((Path(__file__).parents[3] / "config/robots/so101.yaml").read_text())
    robot = values["/**"]["ros__parameters"]["robot"]
    change(robot)
    return RobotConfig.from_mapping(robot)


def pose_robot(rotation: str) -> RobotConfig:
    """An arm that is commanded by the pose of its hand, which it also measures."""

    def change(robot: dict[str, Any]) -> None:
        robot["state"]["keys"].append("hand")
        robot["state"]["hand"] = {
            "topic": "/hand_pose",
            "type": "pose",
            "rotation": rotation,
            "frame_id": "base",
            "max_age": 0.1,
        }
        robot["action"] = {
            "keys": ["hand"],
            "hand": {
                "representation": "ee_pose",
                "interface": "pose_stamped",
                "topic": "/hand_command",
                "rotation": rotation,
                "frame_id": "base",
                "child_frame": "hand",
                "measured_topic": "/hand_pose",
            },
        }
        robot["limits"] = {
            "hand": {
                "min": [-1, -1, 0],
                "max": [1, 1, 1],
                "linear_velocity": 0.2,
                "linear_acceleration": 1.0,
                "angular_velocity": 1.0,
                "angular_acceleration": 4.0,
            }
        }

    return robot_with(change)


@pytest.mark.parametrize(("rotation", "layout"), [("rot6d", "XYZ_ROT6D"), ("rotvec", "XYZ_ROTVEC")])
def test_poses_are_relative_as_poses(rotation: str, layout: str) -> None:
    action = from_robot(pose_robot(rotation), 4, NO_CHOICE)["action"]
    assert action.action_config("hand") == ActionConfig("RELATIVE", "EEF", layout, "hand")


def test_a_pose_in_quaternions_stays_absolute() -> None:
    robot = pose_robot("quaternion")
    assert from_robot(robot, 4, NO_CHOICE)["action"].action_config("hand") == ActionConfig()
    with pytest.raises(TrainingError, match="action hand cannot be relative: no state group of robot so101"):
        from_robot(robot, 4, Representations(relative=("hand",)))


def test_a_dataset_alone_does_not_say_what_actions_are(dataset: Path) -> None:
    modality = from_dataset(LeRobotDataset(dataset), 8, NO_CHOICE)
    assert modality["video"].modality_keys == ("front", "wrist")
    assert not any(config.relative for config in modality["action"].action_configs)
    chosen = from_dataset(LeRobotDataset(dataset), 8, Representations(relative=("arm",)))["action"]
    assert chosen.action_configs == (RELATIVE, ActionConfig())


def test_a_dataset_s_own_name_of_the_task(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "set", lengths=(4,)) / "meta/modality.json"
    content = json.loads(path.read_text())
    for names, expected in (
        (["human.validity", "human.action.task_description"], "annotation.human.action.task_description"),
        (["human.task_description"], "annotation.human.task_description"),
        (["human.validity"], "annotation.human.task_description"),
    ):
        path.write_text(json.dumps({**content, "annotation": {name: {} for name in names}}))
        modality = from_dataset(LeRobotDataset(tmp_path / "set"), 8, NO_CHOICE)
        assert modality["language"].modality_keys == (expected,)


def test_datasets_that_say_too_little(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", lengths=(4,))
    path = folder / "meta/modality.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "video": {}}))
    with pytest.raises(TrainingError, match=r"modality.json names no video"):
        from_dataset(LeRobotDataset(folder), 8, NO_CHOICE)
    state = {"arm": {"start": 0, "end": 4}}
    path.write_text(json.dumps({**content, "state": state}))
    with pytest.raises(TrainingError, match="arm cannot be relative, expected a state arm of 5 values"):
        from_dataset(LeRobotDataset(folder), 8, Representations(relative=("arm",)))
    path.unlink()
    with pytest.raises(TrainingError, match=r"modality.json is missing.*give --robot"):
        from_dataset(LeRobotDataset(folder), 8, NO_CHOICE)
