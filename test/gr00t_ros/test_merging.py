# SPDX-License-Identifier: Apache-2.0
"""A newer chunk takes over without a jump, within a bounded time, and never leads where neither plan does."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from gr00t_ros.chunk import Chunk
from gr00t_ros.timeline import Timeline
from support_chunks import STEP_NS, small_chunk
from support_robots import small_config

T0 = 10**15
MS = 1_000_000
WINDOW_NS = 200 * MS


def still(
    value: float, *, start_ns: int, steps: int = 40, t_obs_ns: int | None = None, sequence: int = 0
) -> Chunk:
    """A plan that stands at one place, so that the weights can be read off."""
    t_obs_ns = start_ns if t_obs_ns is None else t_obs_ns
    return small_chunk(np.full(steps, value), start_ns=start_ns, t_obs_ns=t_obs_ns, sequence=sequence)


def timeline(merge: str = "blend", **options: object) -> Timeline:
    return Timeline(8, merge=merge, interpolation="cubic", **options)  # type: ignore[arg-type]


def arm(line: Timeline, t_ns: int) -> float:
    return float(line.sample(t_ns).values["arm"][0])


def speed(line: Timeline, t_ns: int) -> float:
    return float(line.sample(t_ns).velocities["arm"][0])


def weight(u: float) -> float:
    return u**3 * (10 - 15 * u + 6 * u * u)


def test_a_blend_begins_when_the_chunk_is_accepted_and_ends_in_its_time() -> None:
    line = timeline()
    line.add(still(0.0, start_ns=T0), T0)
    now = T0 + 333 * MS
    line.add(still(1.0, start_ns=now - 150 * MS, sequence=1), now)
    for after_ms in (0, 20, 77, 100, 150, 199, 200, 300):
        u = min(after_ms / 200, 1.0)
        assert arm(line, now + after_ms * MS) == pytest.approx(weight(u), abs=1e-12)
        assert speed(line, now + after_ms * MS) == pytest.approx(30 * u * u * (1 - u) ** 2 / 0.2, abs=1e-9)
    assert line.sample(now).status == "active"


def test_the_blend_time_is_the_settings() -> None:
    line = timeline(blend_time_s=0.1)
    line.add(still(0.0, start_ns=T0), T0)
    line.add(still(1.0, start_ns=T0, sequence=1), T0 + STEP_NS)
    assert arm(line, T0 + STEP_NS + 50 * MS) == pytest.approx(0.5)
    assert arm(line, T0 + STEP_NS + 100 * MS) == 1.0


def test_a_chunk_that_starts_later_takes_over_from_its_start() -> None:
    line = timeline()
    line.add(still(0.0, start_ns=T0), T0)
    start = T0 + 4 * STEP_NS
    line.add(still(1.0, start_ns=start, t_obs_ns=T0, sequence=1), T0 + STEP_NS)
    assert arm(line, start) == 0.0
    assert arm(line, start + WINDOW_NS // 2) == pytest.approx(0.5)
    assert arm(line, start + WINDOW_NS) == 1.0


def test_both_plans_move_on_during_a_blend() -> None:
    line = timeline()
    old, new = np.arange(40) * 0.01, 0.3 - np.arange(40) * 0.02
    line.add(small_chunk(old, start_ns=T0), T0)
    now = T0 + 6 * STEP_NS
    line.add(small_chunk(new, start_ns=now, sequence=1), now)
    at, u = now + 100 * MS, 0.5
    a, b = 0.01 * 8, 0.3 - 0.02 * 2
    assert arm(line, at) == pytest.approx(0.5 * (a + b))
    assert speed(line, at) == pytest.approx(0.5 * (0.2 - 0.4) + 30 * u * u * (1 - u) ** 2 / 0.2 * (b - a))


def test_a_hand_over_is_over_before_the_older_plan_ends() -> None:
    line = timeline()
    line.add(still(0.0, start_ns=T0, steps=11), T0)
    now = T0 + 8 * STEP_NS
    line.add(still(1.0, start_ns=now, sequence=1), now)  # the older one has 100 ms left
    assert arm(line, now + 50 * MS) == pytest.approx(0.5)
    assert arm(line, now + 100 * MS) == 1.0


def test_an_older_plan_about_to_end_is_held_for_a_quarter_of_the_blend_time() -> None:
    line = timeline()
    line.add(small_chunk(np.linspace(0.0, 0.5, 6), start_ns=T0), T0)
    now = T0 + 5 * STEP_NS - 10 * MS
    line.add(still(1.0, start_ns=now, sequence=1), now)
    assert arm(line, now + 30 * MS) == pytest.approx(0.5 + 0.5 * weight(0.6))
    assert arm(line, now + 50 * MS) == 1.0


def test_a_chunk_that_ends_within_its_blend_is_held_until_that_is_over() -> None:
    line = timeline()
    line.add(still(0.0, start_ns=T0), T0)
    now = T0 + 10 * STEP_NS
    line.add(still(1.0, start_ns=now - 2 * STEP_NS, steps=4, sequence=1), now)
    assert arm(line, now + 150 * MS) == pytest.approx(weight(0.75))
    assert line.sample(now + WINDOW_NS).values["arm"][0] == 1.0
    assert line.sample(now + WINDOW_NS + 1).status == "ended", "the older chunk does not come back"


def test_a_third_chunk_within_the_window_starts_from_the_target_as_it_is() -> None:
    line = timeline()
    line.add(still(0.0, start_ns=T0), T0)
    second, third = T0 + 300 * MS, T0 + 400 * MS
    line.add(still(1.0, start_ns=second, sequence=1), second)
    before = line.sample(third)
    ahead = arm(line, third + 20 * MS)
    line.add(still(-1.0, start_ns=third, sequence=2), third)
    after = line.sample(third)
    assert after.values["arm"][0] == pytest.approx(before.values["arm"][0], abs=1e-12)
    assert after.velocities["arm"][0] == pytest.approx(before.velocities["arm"][0], abs=1e-12)
    # Shortly after, the first hand-over goes on, with the small weight of the second.
    assert arm(line, third + 20 * MS) == pytest.approx(ahead + weight(0.1) * (-1.0 - ahead))
    assert arm(line, third + WINDOW_NS) == -1.0


@pytest.mark.parametrize("merge", ["blend", "ensemble"])
def test_after_the_end_of_a_plan_the_new_one_counts_at_once(merge: str) -> None:
    """The robot may stand elsewhere by then; the motion starts from there."""
    line = timeline(merge)
    line.add(still(0.0, start_ns=T0, steps=5), T0)
    now = T0 + 4 * STEP_NS + 1
    line.add(still(1.0, start_ns=now - STEP_NS, sequence=1), now)
    assert arm(line, now) == 1.0
    assert speed(line, now) == 0.0


def test_a_restarted_policy_takes_over_from_the_plan_under_way_like_any_other() -> None:
    line = timeline()
    line.add(still(0.0, start_ns=T0), T0)
    now = T0 + 6 * STEP_NS
    line.add(dataclasses.replace(still(1.0, start_ns=now), session=2), now)
    assert arm(line, now + 100 * MS) == pytest.approx(0.5)


def test_chunks_with_other_columns_are_not_mixed() -> None:
    line = timeline()
    line.add(still(0.0, start_ns=T0), T0)
    now = T0 + 6 * STEP_NS
    other = still(1.0, start_ns=now, sequence=1)
    groups = tuple(
        dataclasses.replace(group, names=group.names[::-1], values=group.values[:, ::-1])
        for group in other.groups
    )
    line.add(dataclasses.replace(other, groups=groups), now)
    assert line.sample(now + 1).values["arm"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("merge", ["blend", "ensemble"])
@pytest.mark.parametrize("ahead_ms", [-150, 0, 120])
def test_a_flood_neither_grows_nor_jumps_and_newer_chunks_do_take_over(merge: str, ahead_ms: int) -> None:
    """A thousand chunks a second, each for another place."""
    line = timeline(merge)
    line.add(still(0.0, start_ns=T0 - 150 * MS, steps=100), T0 - 150 * MS)
    generator = np.random.default_rng(0)
    seen: list[float] = []
    last = 0.0
    for i in range(1, 600):
        now = T0 + i * MS
        start, t_obs = now + ahead_ms * MS, min(now, now + ahead_ms * MS)
        value = float(generator.uniform(1.0, 2.0))
        before = arm(line, now)
        line.add(still(value, start_ns=start, t_obs_ns=t_obs, steps=100, sequence=i), now)
        assert arm(line, now) == pytest.approx(before, abs=1e-12)
        assert len(line._pieces) <= 8
        assert all(len(piece.members) < 8 for piece in line._pieces)
        assert abs(before - last) <= 2.0 * 1.875 / 0.2 * 1e-3 * 3, "three hand-overs at once at their fastest"
        seen, last = [*seen, before], before
    assert 1.0 <= seen[-1] <= 2.0
    assert max(seen[:400]) >= 1.0, "a newer chunk must take over although the next is already there"
    end = T0 + 600 * MS + (max(ahead_ms, 0) + 400) * MS
    if merge == "blend":
        assert arm(line, end) == pytest.approx(value), "in the end the newest"


def expected_mean(values: list[float], ages: list[float], decay: float) -> float:
    """``ages``: by how many steps an observation is newer than the oldest."""
    weights = [math.exp(-decay * age) for age in ages]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


@pytest.mark.parametrize("decay", [0.01, 0.0, 0.5, -0.3])
def test_an_ensemble_is_the_mean_with_the_documented_weights(decay: float) -> None:
    """Positive decay: the oldest counts most, as in the original."""
    line = timeline("ensemble", ensemble_decay=decay)
    for sequence, step in enumerate((0, 6, 16)):
        now = T0 + step * STEP_NS
        line.add(still(float(sequence), start_ns=now, steps=80, sequence=sequence), now)
        if sequence == 1:
            assert arm(line, now + 4 * STEP_NS) == pytest.approx(expected_mean([0, 1], [0, 6], decay))
    assert arm(line, T0 + 25 * STEP_NS) == pytest.approx(expected_mean([0, 1, 2], [0, 6, 16], decay))


def test_a_chunk_leaves_an_ensemble_smoothly_and_the_newest_is_where_it_ends() -> None:
    line = timeline("ensemble", ensemble_decay=0.0)
    line.add(still(0.0, start_ns=T0, steps=17), T0)  # ends at 16
    now = T0 + 4 * STEP_NS
    line.add(still(1.0, start_ns=now, steps=17, sequence=1), now)  # ends at 20
    assert arm(line, T0 + 10 * STEP_NS) == pytest.approx(0.5)
    assert arm(line, T0 + 14 * STEP_NS) == pytest.approx(1.0 / (1.0 + weight(0.5)))
    assert arm(line, T0 + 16 * STEP_NS) == 1.0
    assert line.sample(T0 + 20 * STEP_NS + 1).status == "ended"


def test_an_older_chunk_that_lasts_longer_ends_with_the_newest() -> None:
    line = timeline("ensemble", ensemble_decay=0.0)
    line.add(still(0.0, start_ns=T0, steps=100), T0)
    now = T0 + 4 * STEP_NS
    line.add(still(1.0, start_ns=now, steps=17, sequence=1), now)
    end = now + 16 * STEP_NS
    assert arm(line, end) == 1.0
    assert line.sample(end + 1).status == "ended"


@pytest.mark.parametrize("decay", [1.0, -1.0])
def test_the_steepest_weights_stay_finite(decay: float) -> None:
    line = timeline("ensemble", ensemble_decay=decay)
    line.add(still(0.0, start_ns=T0, steps=1024), T0)
    now = T0 + 1000 * STEP_NS
    line.add(still(1.0, start_ns=now, steps=100, sequence=1), now)
    for step in range(100):
        assert 0.0 <= arm(line, now + step * STEP_NS) <= 1.0


@pytest.mark.parametrize("merge", ["blend", "ensemble"])
def test_the_plan_is_what_will_be_commanded_hand_over_included(merge: str) -> None:
    """What real-time chunking freezes must be what the robot does."""
    line = timeline(merge)
    line.add(still(0.0, start_ns=T0), T0)
    now = T0 + 6 * STEP_NS + 7 * MS
    line.add(still(1.0, start_ns=now - 130 * MS, sequence=1), now)
    plan = line.plan(now)
    assert plan is not None
    assert plan.start_ns <= now < plan.start_ns + STEP_NS
    values = plan.groups[0].values[:, 0]
    assert 0.0 < values[2] < values[3] < (1.0 if merge == "blend" else 0.5)
    for i, value in enumerate(values):
        assert arm(line, plan.start_ns + i * STEP_NS) == pytest.approx(value, abs=1e-12)


def test_the_plan_reaches_back_to_now_although_what_came_before_is_forgotten() -> None:
    line = timeline(blend_time_s=0.01)
    line.add(still(0.0, start_ns=T0), T0)
    now = T0 + 6 * STEP_NS + 20 * MS
    line.add(still(1.0, start_ns=T0, sequence=1), now)
    line.add(still(1.0, start_ns=T0, sequence=2), now + 15 * MS)
    plan = line.plan(now + 15 * MS)
    assert plan is not None
    assert plan.start_ns == T0 + 6 * STEP_NS


def test_the_executors_timeline_has_the_robots_settings_and_limits() -> None:
    robot = small_config()
    line = Timeline.of(robot, 8)
    line.add(small_chunk(np.r_[0.0, 0.0, np.full(20, 1.0)], start_ns=T0), T0)
    now = T0 + 5 * STEP_NS
    high = robot.limits["shoulder"].max
    # A turn whose top lies between two steps that are at the limit.
    line.add(small_chunk([0.0, 0.9, 1.4, high, high, 1.4, 0.9, 0.0, 0.0], start_ns=now, sequence=1), now)
    assert arm(line, now) == 1.0
    tops = [arm(line, now + WINDOW_NS + i * MS) for i in range(100)]
    assert max(tops) <= high + 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge": "mix"}, "merge is 'mix', expected one of replace, blend, ensemble"),
        ({"interpolation": "spline"}, "interpolation is 'spline', expected one of linear, cubic, quintic"),
        ({"merge": "blend", "blend_time_s": 0.0}, "expected more than 0"),
        ({"merge": "blend", "max_chunks": 4}, "expected at least 5"),
    ],
)
def test_settings_of_a_timeline_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Timeline(**{"max_chunks": 8, **options})
