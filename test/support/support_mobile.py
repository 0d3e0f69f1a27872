# SPDX-License-Identifier: Apache-2.0
"""A mobile manipulator for tests, with what the small robot lacks: velocities of an arm, a twist, a pose."""

from __future__ import annotations

from typing import Any

import numpy as np

from gr00t_ros.chunk import Chunk, chunk_group
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rotations import multiply, rotvec_to_quaternion
from support_robots import small_robot

STEP_NS = 50_000_000
HOME = np.array([0.4, 0.0, 0.3, 0.0, 0.0, 0.0, 1.0])


def mobile_robot() -> dict[str, Any]:
    """The description as a fresh nested mapping. Units are SI."""
    robot = small_robot() | {"name": "mobile"}
    del robot["units"]
    robot["state"] = {
        "keys": ["arm", "tool"],
        "arm": {"topic": "/joint_states", "joints": ["lift", "wheel"]},
        "tool": {"topic": "/tool/pose", "type": "pose", "rotation": "rot6d", "frame_id": "base_link"},
    }
    robot["action"] = {
        "keys": ["arm", "base", "tool"],
        "arm": {
            "representation": "joint_velocity",
            "joints": ["lift", "wheel"],
            "interface": "float64_multi_array",
            "topic": "/arm_controller/commands",
            "downstream_timeout": 0.2,
        },
        "base": {
            "representation": "twist",
            "columns": ["linear_x", "angular_z"],
            "interface": "twist",
            "stamped": True,
            "frame_id": "base_link",
            "topic": "/base_controller/cmd_vel",
            "downstream_timeout": 0.5,
        },
        "tool": {
            "representation": "ee_pose",
            "rotation": "rot6d",
            "frame_id": "base_link",
            "child_frame": "tool0",
            "interface": "pose_stamped",
            "topic": "/tool/target_pose",
        },
    }
    robot["limits"] = {
        "lift": {"min": -0.5, "max": 0.5, "velocity": 0.8, "acceleration": 4.0},
        "wheel": {"velocity": 3.0, "acceleration": 10.0},
        "base": {
            "linear_velocity": 0.5,
            "linear_acceleration": 1.0,
            "angular_velocity": 1.5,
            "angular_acceleration": 3.0,
        },
        "tool": {
            "min": [0.2, -0.3, 0.1],
            "max": [0.6, 0.3, 0.6],
            "linear_velocity": 0.3,
            "linear_acceleration": 1.5,
            "angular_velocity": 1.5,
            "angular_acceleration": 6.0,
            "max_distance": 0.2,
            "max_angle": 1.0,
        },
    }
    return robot


def mobile_config() -> RobotConfig:
    """The description, read."""
    return RobotConfig.from_mapping(mobile_robot())


def mobile_chunk(
    robot: RobotConfig,
    start_ns: int,
    sequence: int,
    *,
    arm: Any = (0.1, 1.0),
    base: Any = (0.2, 0.4),
    way: Any = (0.0, 0.0, 0.1),
    turn: Any = (0.0, 0.0, 0.4),
    begin: Any = HOME,
    steps: int = 16,
    session: int = 1,
) -> Chunk:
    """Steady velocities, and the tool from ``begin`` on by ``way`` and ``turn`` (a rotation vector)."""
    share = np.linspace(0.0, 1.0, steps)[:, None]
    turned = multiply(rotvec_to_quaternion(share * np.asarray(turn, np.float64)), begin[3:])
    tool = np.concatenate([begin[:3] + share * np.asarray(way, np.float64), turned], axis=1)
    values = {"arm": np.tile(arm, (steps, 1)), "base": np.tile(base, (steps, 1)), "tool": tool}
    return Chunk(
        session=session,
        sequence=sequence,
        instruction="test",
        t_obs_ns=start_ns,
        start_ns=start_ns,
        step_ns=STEP_NS,
        groups=tuple(
            chunk_group(group, np.asarray(values[key], np.float64)) for key, group in robot.action.items()
        ),
    )
