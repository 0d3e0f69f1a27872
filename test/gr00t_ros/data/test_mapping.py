# SPDX-License-Identifier: Apache-2.0
"""A dataset's columns find the robot's joints by key or by name, in SI units, or the mismatch is named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.mapping import map_dataset
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from support_datasets import JOINTS, states, write_dataset

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def robot(**changes: Any) -> RobotConfig:
    arm, gripper = list(JOINTS[:5]), ["gripper"]
    limits = {joint: {"min": -2.0, "max": 2.0, "velocity": 2.0} for joint in JOINTS}
    groups = {"arm": {"joints": arm}, "gripper": {"joints": gripper}}
    description = {
        "name": "so101",
        "embodiment_tag": "new_embodiment",
        "step_rate": 20.0,
        "video": {"keys": ["front", "wrist"], "front": {"topic": "/f"}, "wrist": {"topic": "/w"}},
        "state": {
            "keys": list(groups),
            **{key: {"topic": "/joint_states", **g} for key, g in groups.items()},
        },
        "action": {
            "keys": list(groups),
            **{
                key: {
                    "representation": "joint_position",
                    "interface": "float64_multi_array",
                    "topic": f"/{key}",
                    **g,
                }
                for key, g in groups.items()
            },
        },
        "limits": limits,
    }
    return RobotConfig.from_mapping(description | changes)


def test_groups_by_modality_json_come_out_in_si(tmp_path: Path) -> None:
    dataset = LeRobotDataset(write_dataset(tmp_path))
    units = {
        "shoulder_lift": {"scale": math.pi / 180, "offset": 0.0, "sign": -1},
        "gripper": {"scale": 0.01, "offset": -0.15, "sign": 1},
    }
    described = robot(units=units)
    mapping, episode = map_dataset(dataset, described), dataset.episode(1)
    raw = states(1, 25).astype(np.float64)
    arm = mapping.state_si(described, episode, "arm")
    np.testing.assert_allclose(arm[:, 0], raw[:, 0])
    np.testing.assert_allclose(arm[:, 1], -np.radians(raw[:, 1]))
    np.testing.assert_allclose(mapping.state_si(described, episode, "gripper")[:, 0], raw[:, 5] * 0.01 - 0.15)
    np.testing.assert_allclose(mapping.action_si(described, episode, "arm")[:, 0], raw[:, 0] + 0.5, rtol=1e-6)
    assert mapping.videos == {"front": "observation.images.front", "wrist": "observation.images.wrist"}


def test_joints_in_a_group_of_modality_json_are_found_by_name(tmp_path: Path) -> None:
    """A dataset of another order than the robot's is read in the robot's, with LeRobot's suffix or with the
    key in front as the converter writes it where names would repeat."""
    mixed = (*JOINTS[2:5], *JOINTS[:2], "gripper")
    arm = ("observation.state", (3, 4, 0, 1, 2))
    for names in ([f"{joint}.pos" for joint in mixed], [*(f"arm_{joint}" for joint in mixed[:5]), "g"]):
        dataset = LeRobotDataset(write_dataset(tmp_path / names[0], lengths=(2,), names=names))
        mapping = map_dataset(dataset, robot())
        assert mapping.states == {"arm": arm, "gripper": ("observation.state", (5,))}
        assert mapping.actions["arm"] == ("action", arm[1])


def test_names_that_are_none_of_the_robot_s_say_nothing(tmp_path: Path) -> None:
    for names in ([f"motor_{i}" for i in range(6)], ["a"] * 6, []):
        dataset = LeRobotDataset(write_dataset(tmp_path / str(len(set(names))), lengths=(2,), names=names))
        assert map_dataset(dataset, robot()).states["arm"][1] == (0, 1, 2, 3, 4)


def test_names_of_which_some_are_elsewhere_are_refused(tmp_path: Path) -> None:
    names = ["shoulder_lift", "shoulder_pan", "elbow", "wrist_flex", "wrist_roll", "gripper"]
    dataset = LeRobotDataset(write_dataset(tmp_path, lengths=(2,), names=names))
    with pytest.raises(
        DatasetError, match=r"state\.arm: info\.json calls its values shoulder_lift, shoulder"
    ):
        map_dataset(dataset, robot())


def test_without_modality_json_joints_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    names = [f"{joint}.pos" for joint in JOINTS[::-1]]
    dataset = LeRobotDataset(write_dataset(tmp_path, modality=False, names=names))
    mapping = map_dataset(dataset, robot())
    assert mapping.states["arm"] == ("observation.state", (5, 4, 3, 2, 1))
    assert mapping.actions["gripper"] == ("action", (0,))


def test_other_names_are_taken_in_order_only_when_the_width_fits(tmp_path: Path) -> None:
    dataset = LeRobotDataset(write_dataset(tmp_path, modality=False, names=[f"j{i}" for i in range(6)]))
    assert map_dataset(dataset, robot()).states["gripper"] == ("observation.state", (5,))
    smaller = robot(
        state={"keys": ["arm"], "arm": {"topic": "/joint_states", "joints": list(JOINTS[:5])}},
        executor={"joint_state_topic": "/joint_states"},
    )
    with pytest.raises(DatasetError, match=r"6 values \(j0, .*the robot's state groups have 5 joints"):
        map_dataset(dataset, smaller)


def test_a_group_that_does_not_fit_is_named(tmp_path: Path) -> None:
    dataset = LeRobotDataset(write_dataset(tmp_path))
    modality = tmp_path / "meta/modality.json"
    text = modality.read_text()
    modality.write_text(text.replace('"end": 5', '"end": 4'))
    with pytest.raises(DatasetError, match=r"state\.arm has 4 values, the robot's group has 5 joints"):
        map_dataset(LeRobotDataset(tmp_path), robot())
    modality.write_text(text.replace('"arm"', '"left_arm"'))
    with pytest.raises(DatasetError, match=r"state has no group 'arm'; it has left_arm, gripper"):
        map_dataset(LeRobotDataset(tmp_path), robot())
    assert dataset.path == tmp_path


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not beside the repository")
def test_the_shipped_gr1_description_fits_the_public_recording() -> None:
    dataset = LeRobotDataset(SAMPLES / "gr1_pick_and_place")
    described = RobotConfig.from_file(robot_file("gr1"))
    mapping, episode = map_dataset(dataset, described), dataset.episode(0)
    np.testing.assert_array_equal(mapping.state_si(described, episode, "right_arm"), episode.state[:, 22:29])
    for key in described.action:
        values = mapping.action_si(described, episode, key)
        for column, joint in enumerate(described.action[key].joints):
            limits = described.limits[joint]
            assert limits.min <= values[:, column].min(), joint
            assert values[:, column].max() <= limits.max, joint
