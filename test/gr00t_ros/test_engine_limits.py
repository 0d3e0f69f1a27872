# SPDX-License-Identifier: Apache-2.0
"""The robot YAML's limits of an engine's error, in dataset units and in the order of the columns."""

from __future__ import annotations

import numpy as np

from gr00t_ros.engine_limits import engine_limits, joint_names
from gr00t_ros.robot import RobotConfig
from gr00t_ros.units import to_si
from support_robots import shipped, small_config, small_robot


def test_the_default_is_three_hundredths_in_si() -> None:
    robot = small_config()
    limits = engine_limits(robot)
    np.testing.assert_allclose(limits["arm"], [0.03, 0.03])
    # The gripper's dataset is in percent, counted the other way round, with an offset: 3 percent are 0.03.
    np.testing.assert_allclose(limits["gripper"], [3.0])
    unit = [robot.unit("gripper")]
    np.testing.assert_allclose(abs(to_si([50.0 + limits["gripper"][0]], unit) - to_si([50.0], unit)), 0.03)
    assert joint_names(robot) == {"arm": ("shoulder", "elbow"), "gripper": ("gripper",)}


def test_a_joints_own_limit_comes_first() -> None:
    values = small_robot()
    values["verification"] = {"max_joint_error": 0.01}
    values["limits"]["elbow"]["max_engine_error"] = 0.2
    values["limits"]["gripper"]["max_engine_error"] = 0.5
    limits = engine_limits(RobotConfig.from_mapping(values))
    np.testing.assert_allclose(limits["arm"], [0.01, 0.2])
    np.testing.assert_allclose(limits["gripper"], [50.0])


def test_every_commanded_column_of_a_shipped_robot_has_one() -> None:
    for name in ("so101", "gr1"):
        robot = shipped(name)
        limits = engine_limits(robot)
        assert {key: len(values) for key, values in limits.items()} == {
            key: group.width for key, group in robot.action.items()
        }
        assert all((values > 0).all() for values in limits.values())
