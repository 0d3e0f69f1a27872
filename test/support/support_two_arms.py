# SPDX-License-Identifier: Apache-2.0
"""A robot for tests of drawing: a turning waist that carries two arms, each with a gripper of two fingers.

A camera stands behind it and looks forward. It has what other robots' models are made of: fixed, turning,
endless and sliding joints, a joint that mimics another, boxes, cylinders and spheres.
"""

from __future__ import annotations

from typing import Any

from gr00t_ros.robot import RobotConfig
from support_robots import small_robot

SIDES = ("left", "right")
TURNS = ("shoulder", "elbow", "wrist", "roll")


def arm_joints(side: str) -> list[str]:
    """The four joints of one arm, from the waist on."""
    return [f"{side}_{name}" for name in TURNS]


def two_arms_urdf() -> str:
    """The URDF. The right arm is the left one's mirror image."""
    return f"""<?xml version="1.0"?>
<robot name="two_arms">
  <link name="base_link">{_part("box", 'size="0.24 0.30 0.06"', "0 0 0.03")}</link>
  <link name="torso">{_part("box", 'size="0.12 0.22 0.40"', "0 0 0.20")}</link>
  <link name="head">{_part("sphere", 'radius="0.07"', "0 0 0.06")}</link>
  <link name="camera_optical"/>
  {_joint("mast", "fixed", "base_link", "camera_optical", "-0.8 0 0.4", "-1.5707963 0 -1.5707963", "")}
  {_joint("waist", "revolute", "base_link", "torso", "0 0 0.06", "0 0 0", "0 0 1")}
  {_joint("neck", "fixed", "torso", "head", "0 0 0.42", "0 0 0", "")}
  {"".join(_arm(side, sign) for side, sign in zip(SIDES, (1, -1), strict=True))}
</robot>"""


def _arm(side: str, sign: int) -> str:
    tube = 'radius="0.035" length="0.24"'
    finger = 'size="0.02 0.012 0.07"'
    return f"""
  <link name="{side}_upper">{_part("cylinder", tube, "0 0 -0.12")}</link>
  <link name="{side}_fore">{_part("cylinder", tube, "0 0 -0.12")}</link>
  <link name="{side}_wrist">{_part("box", 'size="0.05 0.06 0.05"', "0 0 -0.02")}</link>
  <link name="{side}_hand">{_part("box", 'size="0.04 0.10 0.03"', "0 0 -0.03")}</link>
  <link name="{side}_tcp"/>
  <link name="{side}_finger">{_part("box", finger, "0 0 -0.035")}</link>
  <link name="{side}_thumb">{_part("box", finger, "0 0 -0.035")}</link>
  {_joint(f"{side}_shoulder", "revolute", "torso", f"{side}_upper", f"0 {sign * 0.16} 0.36",
          f"{sign * 0.25} 0 0", "0 1 0")}
  {_joint(f"{side}_elbow", "revolute", f"{side}_upper", f"{side}_fore", "0 0 -0.26", "0 -0.6 0", "0 1 0")}
  {_joint(f"{side}_wrist", "revolute", f"{side}_fore", f"{side}_wrist", "0 0 -0.26", "0 0 0", "0 1 0")}
  {_joint(f"{side}_roll", "continuous", f"{side}_wrist", f"{side}_hand", "0 0 -0.04", "0 0 0.1", "0 0 1")}
  {_joint(f"{side}_tool", "fixed", f"{side}_hand", f"{side}_tcp", "0 0 -0.11", "3.14159265 0 0", "")}
  {_joint(f"{side}_grip", "prismatic", f"{side}_hand", f"{side}_finger", "0 0.01 -0.045", "0 0 0", "0 1 0")}
  {_joint(f"{side}_follow", "prismatic", f"{side}_hand", f"{side}_thumb", "0 -0.01 -0.045", "0 0 0", "0 -2 0",
          f'<mimic joint="{side}_grip" multiplier="0.9" offset="0.002"/>')}"""  # fmt: skip


def _part(shape: str, size: str, place: str) -> str:
    grey = '<material name="grey"><color rgba="0.7 0.7 0.72 1"/></material>'
    return f'<visual><origin xyz="{place}"/><geometry><{shape} {size}/></geometry>{grey}</visual>'


def _joint(
    name: str, kind: str, parent: str, child: str, xyz: str, rpy: str, axis: str, more: str = ""
) -> str:
    turns = f'<axis xyz="{axis}"/><limit lower="-3" upper="3" effort="9" velocity="3"/>' if axis else ""
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{xyz}" rpy="{rpy}"/>{turns}{more}</joint>\n'
    )


def two_arms_robot() -> dict[str, Any]:
    """The robot description as a fresh nested mapping: waist, two arms, two grippers."""
    robot = small_robot() | {"name": "two_arms"}
    del robot["units"]
    groups = {"waist": ["waist"], **{f"{side}_arm": arm_joints(side) for side in SIDES}}
    grips = {f"{side}_gripper": [f"{side}_grip"] for side in SIDES}
    robot["state"] = {
        "keys": [*groups, *grips],
        **{key: {"topic": "/joint_states", "joints": joints} for key, joints in (groups | grips).items()},
    }
    robot["action"] = {
        "keys": [*groups, *grips],
        **{
            key: {
                "representation": "joint_position" if key in groups else "scalar",
                "joints": joints,
                "interface": "joint_trajectory" if key in groups else "float64_multi_array",
                "topic": f"/{key}_controller/commands",
            }
            for key, joints in (groups | grips).items()
        },
    }
    turn = {"min": -2.5, "max": 2.5, "velocity": 2.0}
    robot["limits"] = {joint: dict(turn) for joints in groups.values() for joint in joints}
    robot["limits"] |= {f"{side}_grip": {"min": 0.0, "max": 0.04, "velocity": 0.1} for side in SIDES}
    return robot


def two_arms_config() -> RobotConfig:
    """The description, read."""
    return RobotConfig.from_mapping(two_arms_robot())
