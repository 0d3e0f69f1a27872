# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: what of the plan under way goes into the next chunk, and when nothing does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.chunk import chunk_from_actions
from gr00t_ros.rtc import (
    DELIVERY_S,
    MAX_STATUS_AGE_S,
    CommittedPlan,
    LatencyEstimate,
    RealTimeChunking,
    weights,
)
from gr00t_ros.units import to_dataset
from support_planning import ROBOT

STEP = ROBOT.step_ns
STEPS, HORIZON, NUM_STEPS = 16, 20, 4
NOW = 1_000 * 1_000_000_000
WIDTHS = {key: group.width for key, group in ROBOT.action.items()}


def line(start: float, slope: float, steps: int) -> dict[str, np.ndarray]:
    """Every joint of every group on its own straight line, SI."""
    return {
        key: start + slope * np.arange(steps)[:, None] + np.arange(width) / 10
        for key, width in WIDTHS.items()
    }


def plan(steps: int = 12, start_ns: int = NOW, said_ns: int = NOW) -> CommittedPlan:
    return CommittedPlan(said_ns, start_ns, STEP, line(0.2, 0.01, steps))


def observation(t_obs_ns: int = NOW) -> Any:
    return SimpleNamespace(t_obs_ns=t_obs_ns, data={"state": {"of": "this observation"}})


class Encoder:
    """Stands for the processor: puts the groups side by side, remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any]] = []

    def __call__(self, actions: Any, state: Any) -> np.ndarray:
        self.given.append((actions, state))
        assert all(values.dtype == np.float32 for values in actions.values())
        columns = np.concatenate([actions[key] for key in WIDTHS], axis=-1)
        return np.pad(columns, ((0, 0), (0, HORIZON - columns.shape[1]), (0, 3)))


def chunking(latency_s: float | None = 0.1, delta0: int = 0) -> tuple[RealTimeChunking, Encoder]:
    encoder = Encoder()
    made = RealTimeChunking(
        ROBOT, delta0=delta0, steps=STEPS, horizon=HORIZON, num_steps=NUM_STEPS, encode=encoder
    )
    if latency_s is not None:
        made.measure(latency_s - DELIVERY_S)
    return made, encoder


def test_what_will_be_over_is_frozen_and_the_tail_is_free() -> None:
    made, encoder = chunking(latency_s=2.5 * STEP / 1e9)
    made.hear(plan(steps=12))
    guided = made.guide(observation(), NOW)
    assert guided is not None
    assert guided.frozen == 3  # due at 0, 1 and 2 steps
    weight = guided.guidance.weight
    assert weight.shape == (NUM_STEPS, HORIZON)
    assert (weight[:, :3] == 0).all()
    assert (np.diff(weight[0, 2:12]) > 0).all()
    assert (weight[:, 12:] == 1).all()
    guided.guidance.check((1, HORIZON, guided.guidance.prefix.shape[2]), NUM_STEPS)
    # The plan's own values, in dataset units, against the state of this very observation.
    actions, state = encoder.given[0]
    assert state == {"of": "this observation"}
    for key, group in ROBOT.action.items():
        units = [ROBOT.unit(joint) for joint in group.joints]
        wanted = to_dataset(line(0.2, 0.01, 12)[key], units)
        np.testing.assert_allclose(actions[key][0, :12], wanted, rtol=1e-5)
        np.testing.assert_allclose(guided.kept[key], line(0.2, 0.01, 3)[key])


def test_the_plan_is_read_between_its_steps() -> None:
    """A frame comes when it comes; the plan's steps lie on another grid."""
    made, _ = chunking(latency_s=1.2 * STEP / 1e9)
    made.hear(plan(steps=12, start_ns=NOW - 3 * STEP - STEP // 4))
    guided = made.guide(observation(), NOW)
    assert guided is not None
    for key, values in guided.kept.items():
        np.testing.assert_allclose(values, line(0.2 + 0.01 * 3.25, 0.01, 2)[key], atol=1e-9)


def test_what_was_commanded_since_the_frame_is_told_by_the_plans_before() -> None:
    """The newest plan begins where it was told; the frame is older than that."""
    made, _ = chunking(latency_s=4.5 * STEP / 1e9)
    made.hear(CommittedPlan(NOW - STEP, NOW - STEP, STEP, line(0.1, 0.01, 12)))
    made.hear(CommittedPlan(NOW + STEP, NOW + STEP, STEP, line(0.5, 0.02, 12)))
    made.hear(CommittedPlan(NOW + 3 * STEP, NOW + 3 * STEP, STEP, line(0.9, 0.03, 12)))
    guided = made.guide(observation(), NOW + 3 * STEP)
    assert guided is not None
    assert guided.frozen == 5
    for key, values in guided.kept.items():
        offsets = np.arange(WIDTHS[key]) / 10
        told = np.array([0.11, 0.5, 0.52, 0.9, 0.93])
        np.testing.assert_allclose(values, told[:, None] + offsets, atol=1e-9)


def test_nothing_of_a_plan_that_was_given_up_comes_back() -> None:
    made, _ = chunking(latency_s=2.5 * STEP / 1e9)
    made.hear(CommittedPlan(NOW - 5 * STEP, NOW - 5 * STEP, STEP, line(0.9, 0.0, 12)))
    made.hear(None)
    made.hear(plan(start_ns=NOW + STEP))
    guided = made.guide(observation(), NOW)
    assert guided is not None
    for key, values in guided.kept.items():  # before the first plan there is, its first value
        np.testing.assert_allclose(values[:2], np.repeat(line(0.2, 0.01, 1)[key], 2, axis=0))


def test_the_first_action_step_counts_from_the_frame() -> None:
    made, _ = chunking(latency_s=2.5 * STEP / 1e9, delta0=1)
    made.hear(plan(steps=12))
    guided = made.guide(observation(), NOW)
    assert guided is not None
    assert guided.frozen == 2  # due at 1 and 2 steps
    for key, values in guided.kept.items():
        np.testing.assert_allclose(values, line(0.21, 0.01, 2)[key])


def test_a_plan_that_ends_early_freezes_no_more_than_it_has() -> None:
    made, _ = chunking(latency_s=6 * STEP / 1e9)
    made.hear(plan(steps=4))
    guided = made.guide(observation(), NOW)
    assert guided is not None
    assert guided.frozen == 4
    assert (guided.guidance.weight[:, 4:] == 1).all()


@pytest.mark.parametrize(
    ("heard", "latency_s"),
    [
        (None, 0.1),  # the executor executes nothing
        (plan(), None),  # nothing was measured yet: the first chunk stands for itself
        (plan(said_ns=NOW - round((MAX_STATUS_AGE_S + 0.1) * 1e9)), 0.1),  # it has fallen silent
        (plan(said_ns=NOW + round((MAX_STATUS_AGE_S + 0.1) * 1e9)), 0.1),  # the clock was set back
        (plan(start_ns=NOW - 40 * STEP), 0.1),  # over before the chunk would begin
        (plan(start_ns=NOW + 40 * STEP), 0.1),  # begins after the chunk would have ended
        (CommittedPlan(NOW, NOW, STEP, {"other": np.zeros((4, 2))}), 0.1),  # another robot's
    ],
)
def test_without_a_plan_to_join_a_chunk_stands_for_itself(
    heard: CommittedPlan | None, latency_s: float | None
) -> None:
    made, encoder = chunking(latency_s)
    made.hear(plan())  # what was heard before counts no more
    made.hear(heard)
    assert made.guide(observation(), NOW) is None
    assert encoder.given == []


def test_frozen_steps_are_kept_to_the_bit() -> None:
    made, _ = chunking(latency_s=2.5 * STEP / 1e9)
    made.hear(plan())
    guided = made.guide(observation(), NOW)
    assert guided is not None
    actions = {key: np.full((1, STEPS, width), 0.3) for key, width in WIDTHS.items()}
    free = chunk_from_actions(ROBOT, actions, t_obs_ns=NOW)
    joined = guided.join(free)
    assert (joined.frozen_steps, joined.horizon) == (3, STEPS)
    for group, own in zip(joined.groups, free.groups, strict=True):
        np.testing.assert_array_equal(group.values[:3], line(0.2, 0.01, 3)[group.key])
        np.testing.assert_array_equal(group.values[3:], own.values[3:])


def test_latency_is_a_percentile_of_the_recent_past() -> None:
    estimate = LatencyEstimate()
    assert estimate.seconds is None
    for seconds in (float("nan"), -1.0, float("inf")):
        estimate.add(seconds)
    assert estimate.seconds is None
    for _ in range(200):
        estimate.add(0.5)
    for _ in range(46):
        estimate.add(0.1)
    assert 0.1 < estimate.seconds - DELIVERY_S <= 0.5  # the slow ones are still among the last fifty
    for _ in range(50):
        estimate.add(0.1)
    assert estimate.seconds == pytest.approx(0.1 + DELIVERY_S)
    estimate.clear()
    assert estimate.seconds is None


@given(frozen=st.integers(0, 50), more=st.integers(0, 50), tail=st.integers(0, 50))
def test_weights_rise_from_the_plan_to_the_network(frozen: int, more: int, tail: int) -> None:
    covered = frozen + more
    weight = weights(frozen, covered, covered + tail)
    assert weight.dtype == np.float32
    assert ((weight >= 0) & (weight <= 1)).all()
    assert (np.diff(weight) >= 0).all()
    assert (weight[:frozen] == 0).all()
    assert (weight[frozen:covered] < 1).all()
    assert (weight[frozen:covered] > 0).all()
    assert (weight[covered:] == 1).all()
