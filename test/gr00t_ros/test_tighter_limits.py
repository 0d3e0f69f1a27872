# SPDX-License-Identifier: Apache-2.0
"""Of the limits of a robot YAML and of its URDF the tighter ones hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot_types import JointLimits
from gr00t_ros.tighter_limits import tighter, within_urdf
from gr00t_ros.urdf import UrdfError, UrdfJoint
from support_robots import shipped

YAML = JointLimits(-1.0, 2.0, 3.0, acceleration=5.0, jerk=50.0)


@pytest.mark.parametrize(
    ("joint", "expected"),
    [
        (UrdfJoint("a", "revolute", -2.0, 1.5, 4.0), (-1.0, 1.5, 3.0)),
        (UrdfJoint("a", "revolute", -0.5, 3.0, 2.0), (-0.5, 2.0, 2.0)),
        (UrdfJoint("a", "continuous", None, None, 1.0), (-1.0, 2.0, 1.0)),
        (UrdfJoint("a", "prismatic", -0.5, 0.5), (-0.5, 0.5, 3.0)),
        (UrdfJoint("a", "revolute", -0.1, 0.1, 1.0, mimics="b"), (-1.0, 2.0, 3.0)),
        (UrdfJoint("a", "fixed"), (-1.0, 2.0, 3.0)),
        (UrdfJoint("other", "revolute", -0.1, 0.1, 1.0), (-1.0, 2.0, 3.0)),
    ],
)
def test_the_tighter_of_each_limit_holds(joint: UrdfJoint, expected: tuple[float, float, float]) -> None:
    got = tighter({"a": YAML}, {joint.name: joint})["a"]
    assert (got.min, got.max, got.velocity) == expected
    assert (got.acceleration, got.jerk, got.max_tracking_error) == (5.0, 50.0, YAML.max_tracking_error)


def test_ranges_without_a_common_position_are_refused() -> None:
    with pytest.raises(RobotConfigError, match=r"found -1 to 2, expected .* 2.5 to 3 of robot.urdf"):
        tighter({"a": YAML}, {"a": UrdfJoint("a", "revolute", 2.5, 3.0)}, "robot.urdf")


def test_a_urdf_file_bounds_the_robot(tmp_path: Path) -> None:
    robot, path = shipped("so101"), tmp_path / "robot.urdf"
    path.write_text(
        '<robot name="so101"><link name="a"/><link name="b"/>'
        '<joint name="elbow_flex" type="revolute"><parent link="a"/><child link="b"/>'
        '<limit lower="-1" upper="9" velocity="1.5" effort="1"/></joint></robot>'
    )
    bounded, changed = within_urdf(robot, str(path))
    assert changed == ["elbow_flex"]
    limit, before = bounded.limits["elbow_flex"], robot.limits["elbow_flex"]
    assert (limit.min, limit.max, limit.velocity) == (-1.0, before.max, 1.5)
    assert bounded.limits["gripper"] == robot.limits["gripper"]


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot be read"), ("<robot name='x'/>", "none of the commanded joints")]
)
def test_a_urdf_of_no_use_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "robot.urdf"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UrdfError, match=words):
        within_urdf(shipped("so101"), str(path))
