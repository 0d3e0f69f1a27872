# SPDX-License-Identifier: Apache-2.0
"""The arm's geometry in closed form against MuJoCo's, and there and back."""

from __future__ import annotations

import numpy as np
import pytest

from gr00t_ros.errors import SimulationError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.sim.expert import CRUISE, PITCH
from gr00t_ros.sim.kinematics import Kinematics
from gr00t_ros.sim.reaching_episodes import PAN, REACH
from gr00t_ros.sim.scene import JOINTS
from gr00t_ros.sim.so101 import SimulatedSO101
from support_processes import REPO
from support_simulator import NEEDS_SIMULATOR

pytestmark = NEEDS_SIMULATOR


@pytest.fixture(scope="module")
def arm() -> SimulatedSO101:
    return SimulatedSO101(cameras=(), mesh_cell=0.02)


def test_the_tip_is_where_the_simulator_has_it(arm: SimulatedSO101) -> None:
    kinematics, rng = Kinematics.of(arm.model), np.random.default_rng(0)
    for _ in range(20):
        joints = np.append(rng.uniform(-0.8, 0.8, 4), (0.0, 0.3))
        arm.restart(joints)
        expected = arm.data.site("gripperframe").xpos
        np.testing.assert_allclose(kinematics.point(kinematics.tip(joints)), expected, atol=1e-4)


def test_the_whole_work_area_is_within_every_joint_s_limits(arm: SimulatedSO101) -> None:
    kinematics, limits = (
        Kinematics.of(arm.model),
        RobotConfig.from_file(REPO / "config/robots/so101.yaml").limits,
    )
    for reach in np.linspace(*REACH, 6):
        for height in np.linspace(0.02, CRUISE + 0.02, 6):
            for pan in PAN:
                pose = (pan, float(reach), float(height))
                joints = kinematics.solve(pose, PITCH)
                np.testing.assert_allclose(kinematics.tip(np.append(joints, (0.0, 0.0))), pose, atol=1e-9)
                np.testing.assert_allclose(kinematics.pose(kinematics.point(pose)), pose, atol=1e-9)
                assert joints[1:].sum() == pytest.approx(PITCH)
                for name, value in zip(JOINTS[:4], joints, strict=True):
                    # Room for kicks and for a policy's error.
                    assert limits[name].min + 0.05 <= value <= limits[name].max - 0.05, (name, pose)


def test_the_nearest_place_within_reach_is_reached(arm: SimulatedSO101) -> None:
    kinematics = Kinematics.of(arm.model)
    inside = (0.3, 0.25, 0.05)
    assert kinematics.within_reach(inside, PITCH) == pytest.approx(inside, abs=1e-12)
    for pose in ((0.3, 0.6, 0.1), (0.3, 0.1, 0.9), (-0.2, 0.3, 0.2), (0.0, 0.11, 0.255), (0.0, -0.5, -0.5)):
        nearest = kinematics.within_reach(pose, PITCH)
        joints = kinematics.solve(nearest, PITCH)
        np.testing.assert_allclose(kinematics.tip(np.append(joints, (0.0, 0.0))), nearest, atol=1e-9)
        assert nearest[0] == pose[0]
        assert np.hypot(nearest[1] - pose[1], nearest[2] - pose[2]) > 0.0


def test_a_place_out_of_reach_is_refused_with_the_numbers(arm: SimulatedSO101) -> None:
    with pytest.raises(SimulationError, match=r"0\.600 m from the pan axis.*the two links reach"):
        Kinematics.of(arm.model).solve((0.0, 0.6, 0.1), PITCH)
