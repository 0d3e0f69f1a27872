# SPDX-License-Identifier: Apache-2.0
"""Chunks of velocities, twists and poses join the plan under way, told in the checkpoint's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gr00t_ros.chunk import check_chunk, chunk_from_actions
from gr00t_ros.group_values import to_checkpoint
from gr00t_ros.observation import Observation
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rotations import between, from_quaternion, slerp
from gr00t_ros.rtc import DELIVERY_S, CommittedPlan, RealTimeChunking
from support_mobile import STEP_NS, mobile_chunk, mobile_robot

NOW = 1_000_000_000_000


def test_the_plan_goes_to_the_network_in_its_own_columns_and_its_frozen_steps_stay() -> None:
    values = mobile_robot()
    values["units"] = {"wheel": {"scale": 0.5, "offset": 3.0, "sign": -1}, "tool_x": {"scale": 0.001}}
    robot = RobotConfig.from_mapping(values)
    told = mobile_chunk(robot, NOW - STEP_NS // 2, 0, turn=(0.2, 0.5, -2.0))
    given: list[Mapping[str, Any]] = []

    def encode(actions: Mapping[str, Any], state: Mapping[str, Any]) -> np.ndarray:
        given.append(actions)
        return np.concatenate([actions[key] for key in robot.action], axis=-1)

    chunking = RealTimeChunking(robot, delta0=0, steps=16, horizon=16, num_steps=2, encode=encode)
    chunking.measure(2.5 * STEP_NS / 1e9 - DELIVERY_S)
    groups = {group.key: group.values for group in told.groups}
    chunking.hear(CommittedPlan(NOW, told.start_ns, STEP_NS, groups))
    guided = chunking.guide(Observation(data={"state": {}}, t_obs_ns=NOW, instruction="x", stamps={}), NOW)
    assert guided is not None
    assert guided.frozen == 3
    # Half a step further on: what is wanted of the tool lies between two steps.
    pose = groups["tool"]
    wanted = slerp(pose[:3, 3:], pose[1:4, 3:], np.full(3, 0.5))
    np.testing.assert_allclose(between(wanted, guided.kept["tool"][:, 3:]), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(guided.kept["tool"][:, 3:], axis=1), 1.0, atol=1e-12)
    assert given[0]["tool"].shape == (1, 16, 9)
    np.testing.assert_allclose(given[0]["tool"][0, :3, 0], 400.0, rtol=1e-5, err_msg="mm, as the checkpoint")
    np.testing.assert_allclose(given[0]["tool"][0, :3, 3:], from_quaternion(wanted, "rot6d"), atol=1e-3)
    np.testing.assert_allclose(given[0]["arm"][0, :15], np.tile([0.1, -2.0], (15, 1)), rtol=1e-6)
    # The network's chunk takes the frozen steps, and is one motion with them.
    network = {key: to_checkpoint(robot, group, groups[key])[None] for key, group in robot.action.items()}
    joined = guided.join(chunk_from_actions(robot, network, t_obs_ns=NOW))
    accepted = check_chunk(joined, robot, NOW)
    assert accepted.frozen_steps == 3
    tool = accepted.groups[2].values
    np.testing.assert_allclose(tool[:3], guided.kept["tool"], atol=1e-9)
    assert np.linalg.norm(between(tool[:-1, 3:], tool[1:, 3:]), axis=1).max() < 0.3
