# SPDX-License-Identifier: Apache-2.0
"""Chunks carry SI values in their place in time, and only chunks that can be executed are accepted."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.chunk import MAX_HORIZON, Chunk, ChunkGroup, check_chunk, chunk_from_actions
from gr00t_ros.errors import ChunkRefused
from support_chunks import STEP_NS, small_chunk
from support_robots import small_config

MS = 1_000_000
NOW = 1_000_000 * MS
ROBOT = small_config()


def good(**changes: Any) -> Chunk:
    times = {"start_ns": NOW - 100 * MS, "t_obs_ns": NOW - 100 * MS}
    return small_chunk(np.linspace(0.0, 0.5, 16), **{**times, **changes})


def test_actions_become_si_values_due_from_the_observation_on() -> None:
    actions = {
        "gripper": np.full((1, 4, 1), 30.0, np.float32),
        "arm": np.arange(8, dtype=np.float32).reshape(1, 4, 2),
    }
    chunk = chunk_from_actions(
        ROBOT, actions, t_obs_ns=NOW, delta0=2, session=7, sequence=3, instruction="pick", inference_ns=5
    )
    assert (chunk.session, chunk.sequence, chunk.instruction, chunk.inference_ns) == (7, 3, "pick", 5)
    assert (chunk.t_obs_ns, chunk.start_ns, chunk.step_ns) == (NOW, NOW + 2 * STEP_NS, STEP_NS)
    assert (chunk.horizon, chunk.end_ns) == (4, NOW + 5 * STEP_NS)
    arm, gripper = chunk.groups
    assert (arm.key, arm.representation, arm.names) == ("arm", "joint_position", ("shoulder", "elbow"))
    np.testing.assert_array_equal(arm.values, np.arange(8.0).reshape(4, 2))
    np.testing.assert_allclose(gripper.values, -0.01 * 30.0 + 0.5)


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ({"arm": np.zeros((1, 4, 2))}, "action.gripper: missing in the policy's output; it has arm"),
        (
            {"arm": np.zeros((1, 4, 3)), "gripper": np.zeros((1, 4, 1))},
            "found shape (4, 3), expected [1, T, 2]",
        ),
        ({"arm": np.zeros((2, 4, 2)), "gripper": np.zeros((1, 4, 1))}, "found shape (2, 4, 2)"),
        ({"arm": np.zeros((1, 4, 2)), "gripper": np.zeros((1, 5, 1))}, "different numbers of steps"),
    ],
)
def test_actions_of_another_robot_are_refused(actions: dict[str, Any], expected: str) -> None:
    with pytest.raises(ChunkRefused) as error:
        chunk_from_actions(ROBOT, actions, t_obs_ns=NOW)
    assert expected in str(error.value)


def test_a_good_chunk_is_accepted_as_it_is() -> None:
    chunk = good()
    accepted = check_chunk(chunk, ROBOT, NOW, None)
    assert dataclasses.replace(accepted, groups=()) == dataclasses.replace(chunk, groups=())
    for got, given_ in zip(accepted.groups, chunk.groups, strict=True):
        assert got.names == given_.names
        np.testing.assert_array_equal(got.values, given_.values)


def test_groups_and_columns_are_matched_by_name() -> None:
    chunk = good()
    arm, gripper = chunk.groups
    swapped = dataclasses.replace(arm, names=("elbow", "shoulder"), values=arm.values[:, ::-1])
    accepted = check_chunk(dataclasses.replace(chunk, groups=(gripper, swapped)), ROBOT, NOW)
    assert [group.key for group in accepted.groups] == ["arm", "gripper"]
    assert accepted.groups[0].names == ("shoulder", "elbow")
    np.testing.assert_array_equal(accepted.groups[0].values, arm.values)


def changed_group(**changes: Any) -> tuple[ChunkGroup, ...]:
    arm, gripper = good().groups
    return (dataclasses.replace(arm, **changes), gripper)


def with_value(value: float) -> tuple[ChunkGroup, ...]:
    values = np.zeros((16, 2))
    values[3, 1] = value
    return changed_group(values=values)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"session": 0}, "found session 0, older than 1: another start of the policy has taken over"),
        ({"sequence": 5}, "found sequence 5 again, expected a newer chunk"),
        ({"sequence": 4}, "found sequence 4 after 5, expected a newer chunk"),
        ({"step_ns": 0}, "found a step of 0 ms, expected 50 ms"),
        ({"step_ns": -STEP_NS}, "found a step of -50 ms"),
        ({"step_ns": STEP_NS * 2}, "found a step of 100 ms, expected 50 ms"),
        ({"t_obs_ns": 0}, "found a zero stamp"),
        ({"t_obs_ns": NOW + 21 * MS}, "found an observation 0.021 s ahead of now"),
        (
            {"t_obs_ns": NOW - 1001 * MS},
            "found an observation 1.001 s old, expected at most 1 s (max_chunk_age)",
        ),
        (
            {"start_ns": NOW + 1001 * MS},
            "found a start 1.001 s ahead, expected at most 1 s (max_start_ahead)",
        ),
        ({"start_ns": NOW - 751 * MS}, "found only steps of the past, the last 0.001 s ago"),
        ({"instruction": "x" * 10_000}, "found an instruction of 10000 characters, expected at most 1000"),
        ({"groups": good().groups[:1]}, "found groups arm, expected arm, gripper, each once"),
        ({"groups": (*good().groups, good().groups[0])}, "found groups arm, gripper, arm"),
        ({"groups": changed_group(key="base")}, "found groups base, gripper"),
        ({"frozen_steps": 17}, "found 17 frozen steps, expected 0 to 16"),
        ({"groups": changed_group(representation="joint_velocity")}, "found representation 'joint_velocity'"),
        (
            {"groups": changed_group(names=("shoulder", "wrist"))},
            "found joints shoulder, wrist, expected shoulder, elbow",
        ),
        ({"groups": changed_group(names=("shoulder", "shoulder"))}, "found joints shoulder, shoulder"),
        ({"groups": changed_group(names=("shoulder",))}, "found joints shoulder, expected"),
        (
            {"groups": changed_group(values=np.zeros((16, 3)))},
            "found values of shape (16, 3), expected (16, 2)",
        ),
        ({"groups": changed_group(values=np.zeros(16))}, "found values of shape (16,)"),
        (
            {"groups": (good().groups[0], dataclasses.replace(good().groups[1], values=np.zeros((15, 1))))},
            "(15, 1)",
        ),
        ({"groups": with_value(math.nan)}, "action.arm: elbow is nan in step 3, expected a number"),
        ({"groups": with_value(-math.inf)}, "action.arm: elbow is -inf in step 3"),
    ],
)
def test_chunks_that_cannot_be_executed_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ChunkRefused) as error:
        check_chunk(good(**{"sequence": 6, **changes}), ROBOT, NOW, (1, 5))
    assert expected in str(error.value)


@pytest.mark.parametrize("steps", [0, MAX_HORIZON + 1])
def test_the_horizon_is_bounded(steps: int) -> None:
    with pytest.raises(ChunkRefused, match=rf"found {steps} steps, expected 1 to {MAX_HORIZON}"):
        check_chunk(small_chunk(np.zeros((steps, 2)), start_ns=NOW + MS, t_obs_ns=NOW), ROBOT, NOW)


def test_the_edges_of_time_are_accepted() -> None:
    check_chunk(good(t_obs_ns=NOW - 1000 * MS), ROBOT, NOW)
    check_chunk(good(t_obs_ns=NOW + 20 * MS), ROBOT, NOW)
    check_chunk(good(start_ns=NOW + 1000 * MS, t_obs_ns=NOW), ROBOT, NOW)
    check_chunk(good(start_ns=NOW - 750 * MS, t_obs_ns=NOW - 750 * MS), ROBOT, NOW)


def test_a_new_session_starts_its_own_count() -> None:
    check_chunk(good(session=2, sequence=0), ROBOT, NOW, (1, 500))


@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "session": st.integers(-(2**70), 2**70),
            "sequence": st.integers(-(2**70), 2**70),
            "t_obs_ns": st.integers(-(2**70), 2**70),
            "start_ns": st.integers(-(2**70), 2**70),
            "step_ns": st.integers(-(2**70), 2**70),
            "frozen_steps": st.integers(-10, 100),
        },
    )
)
def test_any_header_is_accepted_or_refused_and_never_crashes(fields: dict[str, Any]) -> None:
    try:
        accepted = check_chunk(good(**fields), ROBOT, NOW, (1, 0))
    except ChunkRefused:
        return
    assert accepted.start_ns <= NOW + 1000 * MS
    assert accepted.end_ns >= NOW


def test_a_chunk_without_groups_ends_the_plan_now_if_it_is_newer() -> None:
    last = dataclasses.replace(good(), groups=())
    for off_ns in (0, 21 * MS, 3600_000 * MS, -3600_000 * MS):  # the policy's clock
        stamped = dataclasses.replace(last, t_obs_ns=NOW + off_ns, start_ns=NOW + off_ns)
        accepted = check_chunk(stamped, ROBOT, NOW)
        assert (accepted.horizon, accepted.t_obs_ns, accepted.start_ns) == (0, NOW, NOW)
    with pytest.raises(ChunkRefused, match="again"):
        check_chunk(last, ROBOT, NOW, (last.session, last.sequence))
