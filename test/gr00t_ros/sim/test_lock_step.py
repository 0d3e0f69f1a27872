# SPDX-License-Identifier: Apache-2.0
"""The chain from picture to servo in simulated time: it works, it repeats, and its disturbances disturb."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import MERGES
from gr00t_ros.sim.expert_policy import ExpertPolicy
from gr00t_ros.sim.lock_step import Conditions, LockStep, Run
from gr00t_ros.sim.reaching import LATE, SUCCESS, ReachingTask
from gr00t_ros.sim.reaching_episodes import KINDS, STATIC, SWAPPED
from support_processes import REPO
from support_simulator import NEEDS_SIMULATOR

pytestmark = NEEDS_SIMULATOR

ROBOT = RobotConfig.from_file(REPO / "config/robots/so101_reach.yaml")


@pytest.fixture(scope="module")
def task() -> ReachingTask:
    return ReachingTask(width=32, height=32)


class Watched(ExpertPolicy):
    """Remembers what it was shown."""

    def __init__(self, task: ReachingTask) -> None:
        super().__init__(ROBOT, task)
        self.shown: list[Any] = []
        self.times: list[int] = []

    def get_action(self, observation: Any, **options: Any) -> Any:
        self.shown.append(observation)
        self.times.append(options["t_obs_ns"])
        return super().get_action(observation, **options)


def run(task: ReachingTask, conditions: Conditions, seed: int = 2, kind: str = STATIC) -> tuple[Run, Watched]:
    policy = Watched(task)
    return LockStep(ROBOT, policy, task, conditions).run(seed, kind), policy


@pytest.mark.parametrize("mode", MERGES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_expert_succeeds_through_the_executor(task: ReachingTask, mode: str, kind: str) -> None:
    result, _ = run(task, Conditions(mode=mode), MERGES.index(mode), kind)
    assert result.outcome == SUCCESS
    assert (result.refused, result.stops) == (0, 0)
    assert (result.changed_s is None) == (kind == STATIC)


def test_the_same_seed_is_the_same_run(task: ReachingTask) -> None:
    conditions = Conditions(mode="blend", latency_s=0.15, drop=0.2, noise=4.0, seed=3)
    runs = [run(task, conditions, kind=SWAPPED) for _ in range(2)]
    first, second = (replace(result, inference_s=[]) for result, _ in runs)
    assert first == second
    for one, other in zip(runs[0][1].shown, runs[1][1].shown, strict=True):
        np.testing.assert_array_equal(one["video"]["front"], other["video"]["front"])
        np.testing.assert_array_equal(one["state"]["arm"], other["state"]["arm"])
        assert one["language"] == other["language"]


def test_chunks_come_every_interval_and_take_their_latency(task: ReachingTask) -> None:
    _, policy = run(task, Conditions(interval=4))
    assert set(np.diff(policy.times)) == {400_000_000}
    late, policy = run(task, Conditions(interval=1, latency_s=0.25))
    # One inference at a time; the next one takes the newest frame that there is when the chunk is out.
    assert set(np.diff(policy.times)) == {200_000_000, 300_000_000}
    assert late.outcome == SUCCESS


def test_the_policy_sees_what_the_camera_loses_and_adds(task: ReachingTask) -> None:
    _, clean = run(task, Conditions(interval=1))
    _, noisy = run(task, Conditions(interval=1, noise=10.0))
    difference = noisy.shown[0]["video"]["front"].astype(float) - clean.shown[0]["video"]["front"]
    assert 5.0 < difference.std() < 11.0, "clipped where the picture is black or white"
    _, dropped = run(task, Conditions(interval=1, drop=0.5))
    assert np.diff(dropped.times).max() > 100_000_000


def test_without_pictures_nothing_moves(task: ReachingTask) -> None:
    result, policy = run(task, Conditions(drop=1.0))
    assert (result.outcome, result.chunks, policy.shown) == (LATE, 0, [])


def test_a_chunk_that_is_too_old_is_refused_and_counted(task: ReachingTask) -> None:
    result, _ = run(task, Conditions(latency_s=ROBOT.executor.max_chunk_age + 0.2))
    assert result.outcome == LATE
    assert result.refused == result.chunks > 0 or result.refused == result.chunks - 1
