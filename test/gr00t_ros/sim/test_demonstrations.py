# SPDX-License-Identifier: Apache-2.0
"""What the scripted teacher shows: paths inside the arm's limits that end where they should."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.robot import RobotConfig
from gr00t_ros.sim import demonstrations
from gr00t_ros.sim.scene import JOINTS
from support_processes import REPO

LIMITS = RobotConfig.from_file(REPO / "config/robots/so101.yaml").limits
STEP = 0.05


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_path_keeps_every_limit_and_arrives(seed: int) -> None:
    start = demonstrations.random_start(np.random.default_rng(seed))
    goal = demonstrations.pose(demonstrations.PARKED)
    places, speeds = demonstrations.path(start, goal, STEP)
    assert (places[0] == start).all()
    assert np.abs(places[-1] - goal).max() <= demonstrations.ARRIVED
    assert (speeds[0] == 0).all()
    for column, joint in enumerate(JOINTS):
        limit = LIMITS[joint]
        assert places[:, column].min() >= limit.min
        assert places[:, column].max() <= limit.max
        assert np.abs(speeds[:, column]).max() <= limit.velocity
        assert np.abs(np.diff(speeds[:, column])).max() / STEP <= (limit.acceleration or np.inf)


def test_where_a_joint_is_decides_how_fast_it_goes_once_it_is_under_way() -> None:
    """That is why a policy can learn it from joint positions."""
    goal = demonstrations.pose(demonstrations.PARKED)
    near, far = goal + 0.5, goal + 0.9
    slow, fast = (demonstrations.path(start, goal, 0.005) for start in (near, far))
    for place in (0.1, 0.2, 0.3):
        speeds = [path[1][np.argmin(np.abs(path[0][:, 0] - goal[0] - place)), 0] for path in (slow, fast)]
        assert speeds[0] == pytest.approx(speeds[1], abs=0.02)


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="needs the extra 'demo' (mujoco)")
def test_the_simulated_arm_follows_and_touches_nothing() -> None:
    from gr00t_ros.sim.so101 import SimulatedSO101

    arm = SimulatedSO101(cameras=())
    for _ in range(20):
        arm.step(STEP)
    before = arm.object_positions()
    rng, goal = np.random.default_rng(0), demonstrations.pose(demonstrations.PARKED)
    for _ in range(3):
        start = demonstrations.random_start(rng)
        for begin, end in ((arm.targets(), start), (start, goal)):
            for row in demonstrations.path(begin, end, STEP)[0]:
                arm.set_targets(dict(zip(JOINTS, row, strict=True)))
                arm.step(STEP)
        # The servos sag under the arm's weight.
        assert np.abs(arm.joint_positions() - goal).max() < 0.15
    for name, place in arm.object_positions().items():
        assert np.abs(place - before[name]).max() < 1e-3, name
    arm.close()
