# SPDX-License-Identifier: Apache-2.0
"""What holding still is, and what an error of a pose is; nothing is assumed where nothing is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gr00t_model.processing import ActionConfig
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rotations import from_quaternion, rotvec_to_quaternion
from gr00t_ros.training.quantities import Quantities, quantities
from support_evaluation import TAG, processor_for
from support_mobile import mobile_robot
from support_robots import small_robot


def of(
    states: dict[str, int],
    actions: dict[str, int],
    robot: RobotConfig | None = None,
    *configs: ActionConfig,
) -> dict[str, Quantities]:
    processor = processor_for(states, actions, configs=configs)
    columns = {key: tuple(f"{key}_{i}" for i in range(width)) for key, width in actions.items()}
    return quantities(processor.modality(TAG), states, columns, robot)


def state(**values: list[float]) -> dict[str, Any]:
    """{key: [1, T, D]} of two steps; the first one is never what is held."""
    return {key: np.array([[[99.0] * len(v), v]], np.float32) for key, v in values.items()}


# ---- a robot's joints ----------------------------------------------------------------------------


def test_joints_are_held_by_their_names() -> None:
    """The state has them in another order, spread over other keys than the actions."""
    given = small_robot()
    given["state"] = {
        "keys": ["hand", "rest"],
        "hand": {"topic": "/joint_states", "joints": ["gripper", "elbow"], "max_age": 0.1},
        "rest": {"topic": "/joint_states", "joints": ["shoulder"], "max_age": 0.1},
    }
    robot = RobotConfig.from_mapping(given)
    found = of({"hand": 2, "rest": 1}, {"arm": 2, "gripper": 1}, robot)
    now = state(hand=[3.0, 2.0], rest=[1.0])
    assert found["arm"].still(now).tolist() == [1.0, 2.0]
    assert found["gripper"].still(now).tolist() == [3.0]
    assert found["arm"].names == ("shoulder", "elbow")
    assert found["arm"].hold_rule == "the present state of the same joints"


def test_a_joint_without_a_state_is_told() -> None:
    robot = RobotConfig.from_mapping(small_robot())
    arm = of({"gripper": 1}, {"arm": 2, "gripper": 1}, robot)["arm"]
    assert arm.held == (False, False)
    assert np.isnan(arm.still(state(gripper=[1.0]))).all()
    assert "none for shoulder, elbow" in arm.hold_rule


def test_a_state_of_velocities_is_no_position_to_hold() -> None:
    given = small_robot()
    given["state"]["arm"]["field"] = "velocity"
    arm = of({"arm": 2, "gripper": 1}, {"arm": 2, "gripper": 1}, RobotConfig.from_mapping(given))["arm"]
    assert arm.held == (False, False)


def test_units_are_the_robots() -> None:
    given = small_robot()
    given["units"]["elbow"] = {"scale": math.pi / 180, "offset": 0.0, "sign": 1}
    found = of({"arm": 2, "gripper": 1}, {"arm": 2, "gripper": 1}, RobotConfig.from_mapping(given))
    assert found["arm"].units == ("SI", "deg")
    assert found["arm"].si == pytest.approx((1.0, math.pi / 180))
    assert found["gripper"].units == ("dataset",)
    # 0.01 rad, and a hundredth of the gripper's range, 1.2, which is 120 in the dataset.
    assert found["arm"].moving(np.array([0.011, 0.56])).tolist() == [True, False]
    assert found["gripper"].moving(np.array([1.3])).tolist() == [True]
    assert found["gripper"].moving(np.array([1.1])).tolist() == [False]


def test_velocities_stand_still_at_zero_and_poses_where_they_are() -> None:
    robot = RobotConfig.from_mapping(mobile_robot())
    widths = {key: source.width for key, source in robot.state.items()}
    found = of(widths, {key: group.width for key, group in robot.action.items()}, robot)
    assert [key for key, one in found.items() if one.hold_rule == "zero velocity"] != []
    for key, one in found.items():
        group = robot.action[key]
        if group.representation in ("twist", "joint_velocity"):
            assert one.still({}).tolist() == [0.0] * group.width
        if group.representation == "ee_pose":
            assert one.names == ("x", "y", "z", "rotation")
            assert one.units == ("m", "m", "m", "rad")


# ---- poses ---------------------------------------------------------------------------------------


def pose(position: list[float], rotvec: list[float], rotation: str) -> np.ndarray:
    return np.array([*position, *from_quaternion(rotvec_to_quaternion(rotvec), rotation)])


@pytest.mark.parametrize(("form", "rotation"), [("XYZ_ROT6D", "rot6d"), ("XYZ_ROTVEC", "rotvec")])
def test_a_pose_is_wrong_by_a_way_and_by_an_angle(form: str, rotation: str) -> None:
    config = ActionConfig(type="EEF", format=form)
    width = 9 if rotation == "rot6d" else 6
    one = of({"hand": width}, {"hand": width}, None, config)["hand"]
    now = pose([1.0, 2.0, 3.0], [0.0, 0.0, 0.3], rotation)
    turned = pose([1.1, 2.0, 2.8], [0.0, 0.0, 0.5], rotation)
    errors = one.errors(turned[None], now[None])
    np.testing.assert_allclose(errors, [[0.1, 0.0, -0.2, 0.2]], atol=1e-12)
    # A whole turn more is no error, which columns of a rotation vector would not know.
    if rotation == "rotvec":
        around = pose([1.0, 2.0, 3.0], [0.0, 0.0, 0.3 - 2 * math.pi], "rotvec")
        np.testing.assert_allclose(one.errors(around[None], now[None]), 0.0, atol=1e-9)
    held = one.still({"hand": now[None, None].astype(np.float32)})
    np.testing.assert_allclose(one.errors(held[None], now[None]), 0.0, atol=1e-6)
    np.testing.assert_allclose(one.shown(turned[None], now), [[1.1, 2.0, 2.8, 0.2]], atol=1e-12)


def test_a_rotation_that_is_none_is_refused() -> None:
    one = of({"hand": 9}, {"hand": 9}, None, ActionConfig(type="EEF", format="XYZ_ROT6D"))["hand"]
    with pytest.raises(DatasetError, match="action hand: found rotation rows that are zero or parallel"):
        one.errors(np.zeros((1, 9)), np.zeros((1, 9)))


def test_a_pose_of_a_wrong_width_is_refused() -> None:
    with pytest.raises(DatasetError, match="action hand has 7 columns"):
        of({"hand": 7}, {"hand": 7}, None, ActionConfig(type="EEF", format="XYZ_ROT6D"))


def test_a_pose_without_its_state_holds_nothing() -> None:
    config = ActionConfig(type="EEF", format="XYZ_ROTVEC")
    one = of({"joints": 6}, {"hand": 6}, None, config)["hand"]
    assert one.held == (False,) * 4
    assert np.isnan(one.still(state(joints=[0.0] * 6))).all()
    assert "no state key hand" in one.hold_rule


# ---- what a checkpoint alone says ----------------------------------------------------------------


def test_without_a_robot_the_state_of_the_same_key_is_held() -> None:
    found = of({"arm": 2, "hand": 3}, {"arm": 2, "hand": 1, "legs": 2})
    assert found["arm"].still(state(arm=[1.0, 2.0])).tolist() == [1.0, 2.0]
    assert found["hand"].held == (False,), "of another width"
    assert found["legs"].held == (False, False)
    assert found["arm"].units == ("dataset", "dataset")
    assert found["arm"].si == (None, None)


def test_the_state_that_an_action_is_relative_to_is_held() -> None:
    config = ActionConfig(rep="RELATIVE", state_key="joints")
    one = of({"joints": 2}, {"arm": 2}, None, config)["arm"]
    assert one.still(state(joints=[1.0, 2.0])).tolist() == [1.0, 2.0]


def test_a_delta_of_zero_stands_still() -> None:
    joints = of({"arm": 2}, {"arm": 2}, None, ActionConfig(rep="DELTA"))["arm"]
    assert joints.still(state(arm=[1.0, 2.0])).tolist() == [0.0, 0.0]
    config = ActionConfig(rep="DELTA", type="EEF", format="XYZ_ROT6D")
    hand = of({"hand": 9}, {"hand": 9}, None, config)["hand"]
    assert hand.still({}).tolist() == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def test_what_moves_is_told_from_the_widest_of_the_key() -> None:
    one = of({"arm": 3}, {"arm": 3})["arm"]
    assert one.moving(np.array([2.0, 0.03, 0.01])).tolist() == [True, True, False]
    assert one.moving(np.array([9e-4, 1e-4, 0.0])).tolist() == [False] * 3
