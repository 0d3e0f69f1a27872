# SPDX-License-Identifier: Apache-2.0
"""Of the limits of a robot YAML and of its URDF the tighter ones hold."""

from __future__ import annotations

import pytest

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot_types import JointLimits
from gr00t_ros.tighter_limits import tighter
from gr00t_ros.urdf import UrdfJoint

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
