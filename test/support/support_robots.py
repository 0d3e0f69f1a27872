# SPDX-License-Identifier: Apache-2.0
"""A small robot description for tests: two cameras, an arm of two joints and a gripper in percent."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from gr00t_ros.robot import RobotConfig

REPOSITORY = Path(__file__).resolve().parents[2]

_SMALL: dict[str, Any] = {
    "name": "small",
    "embodiment_tag": "new_embodiment",
    "step_rate": 20.0,
    "video": {
        "keys": ["front", "wrist"],
        "front": {"topic": "/camera/front/image_raw", "max_age": 0.2},
        "wrist": {"topic": "/camera/wrist/image_raw/compressed", "max_age": 0.2},
    },
    "state": {
        "keys": ["arm", "gripper"],
        "arm": {"topic": "/joint_states", "joints": ["shoulder", "elbow"], "max_age": 0.1},
        "gripper": {"topic": "/joint_states", "joints": ["gripper"], "max_age": 0.1},
    },
    "action": {
        "keys": ["arm", "gripper"],
        "arm": {
            "representation": "joint_position",
            "joints": ["shoulder", "elbow"],
            "interface": "joint_trajectory",
            "topic": "/arm_controller/joint_trajectory",
        },
        "gripper": {
            "representation": "scalar",
            "joints": ["gripper"],
            "interface": "float64_multi_array",
            "topic": "/gripper_controller/commands",
        },
    },
    "units": {"gripper": {"scale": 0.01, "offset": 0.5, "sign": -1}},
    "limits": {
        "shoulder": {"min": -1.5, "max": 1.5, "velocity": 2.0, "acceleration": 8.0},
        "elbow": {"min": -1.0, "max": 2.0, "velocity": 1.0, "max_tracking_error": 0.3},
        "gripper": {"min": -0.6, "max": 0.6, "velocity": 4.0},
    },
    "instruction": {"topic": "/gr00t/instruction", "default": ""},
    "recording": {"action_source": "commands"},
    "executor": {"max_chunk_age": 1.0, "max_joint_state_age": 0.2},
}


def small_robot() -> dict[str, Any]:
    """The description as a fresh nested mapping, to change and read with ``RobotConfig.from_mapping``."""
    return copy.deepcopy(_SMALL)


def small_config() -> RobotConfig:
    """The description, read."""
    return RobotConfig.from_mapping(small_robot())


def shipped(name: str) -> RobotConfig:
    """A description from ``config/robots``."""
    return RobotConfig.from_file(REPOSITORY / "config" / "robots" / f"{name}.yaml")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested to flat, as ROS parameters are: ``{"video.front.topic": ...}``."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
