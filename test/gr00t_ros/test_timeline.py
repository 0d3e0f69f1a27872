# SPDX-License-Identifier: Apache-2.0
"""The timeline gives each point in time its place in the newest chunk, and nothing where no chunk holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.timeline import MAX_PLAN_STEPS, Timeline
from support_chunks import STEP_NS, small_chunk

T0 = 10**15


def test_an_empty_timeline_says_so() -> None:
    sample = Timeline(4).sample(T0)
    assert (sample.status, dict(sample.values)) == ("empty", {})
    assert Timeline(4).plan(T0) is None


def test_steps_are_met_exactly_and_joined_by_straight_lines() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk([[0.0, 1.0], [0.5, 1.0], [0.25, 0.0]], [[0.0], [0.1], [0.2]], start_ns=T0))
    at_step = timeline.sample(T0 + STEP_NS)
    assert at_step.status == "active"
    assert at_step.step == 1.0
    np.testing.assert_array_equal(at_step.values["arm"], [0.5, 1.0])
    between = timeline.sample(T0 + STEP_NS * 3 // 2)
    np.testing.assert_allclose(between.values["arm"], [0.375, 0.5])
    np.testing.assert_allclose(between.values["gripper"], [0.15])
    np.testing.assert_allclose(between.velocities["arm"], [-0.25 / 0.05, -1.0 / 0.05])
    assert between.step == pytest.approx(1.5)


def test_before_the_start_and_after_the_end_there_is_nothing_to_follow() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk([0.1, 0.2, 0.3], start_ns=T0))
    assert timeline.sample(T0 - 1).status == "early"
    last = timeline.sample(T0 + 2 * STEP_NS)
    assert last.status == "active"
    assert last.values["arm"][0] == 0.3
    assert last.velocities["arm"][0] == 0.0
    ended = timeline.sample(T0 + 2 * STEP_NS + 1)
    assert (ended.status, dict(ended.values), dict(ended.velocities)) == ("ended", {}, {})
    assert ended.chunk is not None


def test_late_steps_are_skipped() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.arange(16.0), start_ns=T0))
    assert timeline.sample(T0 + 7 * STEP_NS).values["arm"][0] == 7.0


def test_a_newer_chunk_replaces_at_once_when_it_has_started() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.zeros(16), start_ns=T0))
    timeline.add(small_chunk(np.ones(4), start_ns=T0 + 2 * STEP_NS, sequence=1))
    assert timeline.sample(T0 + 3 * STEP_NS).values["arm"][0] == 1.0
    assert timeline.sample(T0 + 6 * STEP_NS).status == "ended", "the older chunk does not come back"


def test_a_newer_chunk_that_starts_later_waits_while_the_older_is_followed() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.zeros(16), start_ns=T0))
    timeline.add(small_chunk(np.ones(16), start_ns=T0 + 4 * STEP_NS, t_obs_ns=T0, sequence=1))
    assert timeline.sample(T0 + 3 * STEP_NS).values["arm"][0] == 0.0
    assert timeline.sample(T0 + 4 * STEP_NS).values["arm"][0] == 1.0


def test_a_newer_chunk_takes_the_place_of_one_that_would_start_after_it() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.zeros(16), start_ns=T0 + 4 * STEP_NS, t_obs_ns=T0))
    timeline.add(small_chunk(np.ones(16), start_ns=T0 + 2 * STEP_NS, t_obs_ns=T0, sequence=1))
    assert timeline.sample(T0 + 10 * STEP_NS).values["arm"][0] == 1.0


def test_a_gap_between_two_chunks_is_early_not_ended() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk([0.0, 0.0], start_ns=T0))
    timeline.add(small_chunk([1.0, 1.0], start_ns=T0 + 8 * STEP_NS, t_obs_ns=T0, sequence=1))
    assert timeline.sample(T0 + 4 * STEP_NS).status == "early"


def test_clear_forgets() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.zeros(16), start_ns=T0))
    timeline.clear()
    assert timeline.sample(T0).status == "empty"


def test_a_flood_of_later_chunks_neither_grows_nor_drops_what_is_followed() -> None:
    """The chunk under way stays until its successor starts, however many newer ones are waiting."""
    timeline = Timeline(4)
    timeline.add(small_chunk(np.zeros(200), start_ns=T0))
    for i in range(1, 1000):
        now = T0 + i * STEP_NS // 50
        timeline.add(
            small_chunk(np.full(200, float(i)), start_ns=now + 4 * STEP_NS, t_obs_ns=now, sequence=i)
        )
        assert timeline.sample(now).status == "active"
        assert len(timeline._pieces) <= 4
    # The newest that had started four steps before the end of the flood, give or take those that had to go.
    assert timeline.sample(now + 4 * STEP_NS).values["arm"][0] == 999.0


def test_the_plan_is_what_will_be_sampled() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.arange(16.0), start_ns=T0))
    now = T0 + 5 * STEP_NS + 1000
    plan = timeline.plan(now)
    assert plan is not None
    assert (plan.start_ns, plan.step_ns) == (T0 + 5 * STEP_NS, STEP_NS)
    assert [group.key for group in plan.groups] == ["arm", "gripper"]
    assert plan.groups[0].names == ("shoulder", "elbow")
    np.testing.assert_array_equal(plan.groups[0].values[:, 0], np.arange(5.0, 16.0))
    assert timeline.plan(T0 + 15 * STEP_NS) is not None
    assert timeline.plan(T0 + 15 * STEP_NS + 1) is None


def test_the_plan_before_the_start_begins_with_it() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk([1.0, 2.0], start_ns=T0))
    plan = timeline.plan(T0 - 3 * STEP_NS)
    assert plan is not None
    assert plan.start_ns == T0
    np.testing.assert_array_equal(plan.groups[0].values[:, 0], [1.0, 2.0])


def test_the_plan_joins_the_chunk_under_way_with_the_one_that_follows() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.zeros(16), start_ns=T0))
    timeline.add(small_chunk(np.ones(4), start_ns=T0 + 3 * STEP_NS, t_obs_ns=T0, sequence=1))
    plan = timeline.plan(T0 + STEP_NS)
    assert plan is not None
    np.testing.assert_array_equal(plan.groups[0].values[:, 0], [0, 0, 1, 1, 1, 1])


def test_a_long_plan_is_told_in_part() -> None:
    timeline = Timeline(4)
    timeline.add(small_chunk(np.arange(1024.0), start_ns=T0))
    plan = timeline.plan(T0 + 5 * STEP_NS)
    assert plan is not None
    assert plan.start_ns == T0 + 5 * STEP_NS
    np.testing.assert_array_equal(plan.groups[0].values[:, 0], np.arange(5.0, 5.0 + MAX_PLAN_STEPS))
    # Before a start that is further away than that, it is the beginning all the same.
    plan = timeline.plan(T0 - 2 * MAX_PLAN_STEPS * STEP_NS)
    assert plan is not None
    assert plan.start_ns == T0
    assert len(plan.groups[0].values) == MAX_PLAN_STEPS


@settings(max_examples=100)
@given(
    starts=st.lists(st.tuples(st.integers(-10, 40), st.integers(1, 20)), min_size=1, max_size=8),
    now=st.integers(-20, 80),
    offset=st.integers(0, STEP_NS - 1),
)
def test_the_plan_equals_the_samples_and_values_stay_between_their_steps(
    starts: list[tuple[int, int]], now: int, offset: int
) -> None:
    timeline = Timeline(4)
    generator = np.random.default_rng(0)
    for sequence, (start, horizon) in enumerate(starts):
        values = generator.uniform(-1, 1, (horizon, 2))
        timeline.add(small_chunk(values, start_ns=T0 + start * STEP_NS, t_obs_ns=T0, sequence=sequence))
    t = T0 + now * STEP_NS + offset
    plan, sample = timeline.plan(t), timeline.sample(t)
    if sample.status == "active":
        assert sample.chunk is not None
        steps = sample.chunk.groups[0].values
        low, high = steps[int(sample.step)], steps[min(int(sample.step) + 1, len(steps) - 1)]
        inside = (sample.values["arm"] >= np.minimum(low, high) - 1e-12).all()
        assert inside
        assert (sample.values["arm"] <= np.maximum(low, high) + 1e-12).all()
    if plan is not None:
        for i, row in enumerate(plan.groups[0].values):
            later = timeline.sample(plan.start_ns + i * plan.step_ns)
            np.testing.assert_array_equal(later.values["arm"], row)
        assert plan.start_ns + (len(plan.groups[0].values) - 1) * plan.step_ns >= t


def test_chunks_are_not_changed() -> None:
    timeline = Timeline(4)
    chunk = small_chunk([1.0, 2.0], start_ns=T0)
    before = [group.values.copy() for group in chunk.groups]
    timeline.add(dataclasses.replace(chunk))
    timeline.sample(T0 + STEP_NS // 2).values["arm"][:] = 99.0
    timeline.sample(T0 + STEP_NS).values["arm"][:] = 99.0
    for group, values in zip(chunk.groups, before, strict=True):
        np.testing.assert_array_equal(group.values, values)


def test_at_least_one_chunk_must_fit() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        Timeline(0)
