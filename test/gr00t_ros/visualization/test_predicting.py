# SPDX-License-Identifier: Apache-2.0
"""What a chunk means: joints and end effectors over time, limits that it leaves, agreement with the last."""

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.chunk import ChunkGroup
from gr00t_ros.visualization.effectors import find_effectors
from gr00t_ros.visualization.predicting import (
    NO_AGREEMENT_M,
    Excess,
    agreement,
    effector_paths,
    excesses,
    joint_positions,
    twist_path,
)
from support_chunks import STEP_NS, small_chunk
from support_mobile import HOME, mobile_chunk, mobile_config
from support_robots import small_config


def test_commanded_joints_move_and_measured_ones_stay() -> None:
    chunk = small_chunk(np.linspace(0.0, 1.0, 4), start_ns=1)
    found = joint_positions(chunk.groups, STEP_NS, {"shoulder": 9.0, "neck": 0.3})
    np.testing.assert_allclose(found["shoulder"], np.linspace(0.0, 1.0, 4))
    assert found["neck"] == 0.3
    assert set(found) == {"shoulder", "elbow", "gripper", "neck"}


def test_velocities_are_added_up_from_where_the_joint_is() -> None:
    groups = mobile_chunk(mobile_config(), 1, 0, arm=(0.1, 1.0), steps=4).groups
    found = joint_positions(groups, STEP_NS, {"lift": 0.2})
    np.testing.assert_allclose(found["lift"], 0.2 + 0.1 * 0.05 * np.arange(1, 5))
    assert "wheel" not in found, "a joint that was never measured is nowhere"


def test_pose_groups_are_their_own_path() -> None:
    robot = mobile_config()
    effectors, _ = find_effectors(robot, None)
    groups = mobile_chunk(robot, 1, 0, way=(0.0, 0.0, 0.1), turn=(0.0, 0.0, np.pi / 2)).groups
    [path] = effector_paths(effectors, groups, {})
    np.testing.assert_allclose(path[0, :3, 3], HOME[:3], atol=1e-12)
    np.testing.assert_allclose(path[-1, :3, 3], HOME[:3] + np.array([0.0, 0.0, 0.1]), atol=1e-12)
    np.testing.assert_allclose(path[-1, :3, 0], [0.0, 1.0, 0.0], atol=1e-12)
    [nowhere] = effector_paths(effectors, (), {})
    assert np.isnan(nowhere).all()


def test_a_base_that_turns_steadily_goes_in_a_circle() -> None:
    speed, turn, steps = 0.5, 0.8, 20
    values = np.tile([speed, turn], (steps, 1))
    group = ChunkGroup("base", "twist", ("linear_x", "angular_z"), values, "base_link")
    path = twist_path(group, STEP_NS)
    angle = turn * 0.05 * np.arange(steps + 1)
    circle = speed / turn * np.stack([np.sin(angle), 1.0 - np.cos(angle), 0.0 * angle], axis=1)
    np.testing.assert_allclose(path, circle, atol=1e-4)


def test_positions_and_speeds_beyond_the_limits_are_found_with_the_worst_step() -> None:
    # Limits: shoulder 1.5 rad and 2 rad/s, elbow 2 rad and 1 rad/s.
    arm = np.array([[1.4, 0.0], [1.45, 0.0], [1.7, 0.04], [1.6, 0.08]])
    found = excesses(small_chunk(arm, start_ns=1), small_config())
    assert found == [
        Excess("shoulder", "position", 2, 1.7, 1.5),
        Excess("shoulder", "velocity", 1, pytest.approx(5.0), 2.0),
    ]
    assert list(map(str, found)) == ["shoulder 1.70, limit 1.50", "shoulder speed 5.00, limit 2.00"]
    low = excesses(small_chunk(np.array([[-1.5, -1.2], [-1.5, -1.2]]), start_ns=1), small_config())
    assert low == [Excess("elbow", "position", 0, -1.2, -1.0)]
    assert excesses(small_chunk([1.5, 1.5], start_ns=1), small_config()) == []


def test_velocity_and_pose_groups_have_their_limits_too() -> None:
    robot = mobile_config()
    chunk = mobile_chunk(robot, 1, 0, arm=(0.9, 1.0), way=(0.0, 0.5, 0.0))
    assert [(found.name, found.kind, found.limit) for found in excesses(chunk, robot)] == [
        ("lift", "velocity", 0.8),
        ("tool y", "position", 0.3),
    ]


def path_of(places: np.ndarray) -> np.ndarray:
    path = np.tile(np.eye(4), (len(places), 1, 1))
    path[:, :3, 3] = places
    return path


def test_agreement_compares_the_same_moments() -> None:
    steps = np.arange(8)
    line = np.stack([0.01 * steps, 0.0 * steps, 0.0 * steps], axis=1)
    before = small_chunk(0.0 * steps, start_ns=STEP_NS)
    # One and a half steps later along the same line: nothing has changed.
    chunk = replace(before, sequence=1, start_ns=STEP_NS * 5 // 2)
    same = agreement(chunk, path_of(line + np.array([0.015, 0.0, 0.0])), before, path_of(line))
    np.testing.assert_allclose(same[:6], 1.0, atol=1e-9)
    assert np.isnan(same[6:]).all(), "the chunk before says nothing about the last steps"
    aside = agreement(
        chunk, path_of(line + np.array([0.015, NO_AGREEMENT_M / 4, 0.0])), before, path_of(line)
    )
    np.testing.assert_allclose(aside[:6], 0.75, atol=1e-9)
    far = agreement(chunk, path_of(line + np.array([0.015, 1.0, 0.0])), before, path_of(line))
    np.testing.assert_array_equal(far[:6], 0.0)


def test_nothing_is_known_of_agreement_where_there_should_be_none() -> None:
    chunk = small_chunk(np.zeros(4), start_ns=STEP_NS)
    path = path_of(np.zeros((4, 3)))
    assert agreement(chunk, path, None, None) is None
    assert agreement(chunk, path, replace(chunk, instruction="another"), path) is None
    assert agreement(chunk, path, replace(chunk, session=7), path) is None
    assert agreement(chunk, path, replace(chunk, start_ns=-100 * STEP_NS), path) is None
    assert agreement(chunk, path_of(np.zeros((1, 3))), chunk, path) is None
