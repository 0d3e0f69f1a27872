# SPDX-License-Identifier: Apache-2.0
"""The limits of a robot YAML and those of its URDF: the tighter of the two holds.

The executor applies this when it has a URDF; ``check_robot`` reports where the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JointLimits
from gr00t_ros.urdf import UrdfError, UrdfJoint, read_urdf


def within_urdf(robot: RobotConfig, path: str) -> tuple[RobotConfig, list[str]]:
    """``robot`` with the tighter of its limits and those of the URDF file ``path``, and the commanded joints
    whose limits that changed.

    Raises UrdfError for a file that cannot be read or names none of the commanded joints, and
    RobotConfigError as :func:`tighter`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UrdfError(f"{path}: cannot be read ({error}), expected a URDF file") from error
    joints = read_urdf(text, path)
    if not any(joint in joints for joint in robot.joints):
        raise UrdfError(
            f"{path}: holds none of the commanded joints {', '.join(robot.joints)}, expected its URDF"
        )
    limits = tighter(robot.limits, joints, path)
    changed = [name for name in robot.joints if limits[name] != robot.limits[name]]
    return replace(robot, limits=MappingProxyType(limits)), changed


def tighter(
    limits: Mapping[str, JointLimits], urdf: Mapping[str, UrdfJoint], where: str = "URDF"
) -> dict[str, JointLimits]:
    """``limits`` by joint, each no looser than what the URDF says about range and speed (SI).

    A joint that the URDF does not have, or that does not move by a value of its own, keeps its limits.
    ``where`` names the URDF. Raises RobotConfigError for ranges that have no position in common: one of the
    two means another zero or direction, and nothing inside either is safe.
    """
    result = {}
    for name, limit in limits.items():
        joint = urdf.get(name)
        if joint is None or not joint.moves_alone:
            result[name] = limit
            continue
        low = limit.min if joint.lower is None else max(limit.min, joint.lower)
        high = limit.max if joint.upper is None else min(limit.max, joint.upper)
        if not low < high:
            raise RobotConfigError(
                f"limits.{name}: found {limit.min:g} to {limit.max:g}, expected a range inside the "
                f"{joint.lower:g} to {joint.upper:g} of {where}; correct limits, zero position or direction"
            )
        velocity = limit.velocity if joint.velocity is None else min(limit.velocity, joint.velocity)
        result[name] = replace(limit, min=low, max=high, velocity=velocity)
    return result
