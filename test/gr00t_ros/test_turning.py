# SPDX-License-Identifier: Apache-2.0
"""Poses on the timeline: slerp between steps, one motion across hand-overs, whatever a quaternion's sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.robot_types import BLEND, CUBIC, ENSEMBLE, LINEAR, POSE_COLUMNS, QUINTIC
from gr00t_ros.rotations import angular_velocity, between, multiply, rotvec_to_quaternion, slerp
from gr00t_ros.timeline import ACTIVE, Timeline

STEP_NS = 50_000_000
MS = 1_000_000
SMALL = st.tuples(*[st.floats(-0.5, 0.5)] * 3).map(np.array)
ANY = st.tuples(*[st.floats(-3.0, 3.0)] * 3).map(np.array)


def turned(start: Any, turns: Any) -> np.ndarray:
    """Quaternions [T, 4]: ``start`` (a rotation vector), turned on by each of ``turns``."""
    found = [rotvec_to_quaternion(start)]
    for turn in turns:
        found.append(multiply(rotvec_to_quaternion(turn), found[-1]))
    return np.stack(found)


def chunk(quaternions: np.ndarray, start_ns: int = 0, sequence: int = 0) -> Chunk:
    values = np.concatenate([np.zeros((len(quaternions), 3)), quaternions], axis=1)
    group = ChunkGroup("tool", "ee_pose", POSE_COLUMNS, values, "base", "", "quaternion")
    return Chunk(1, sequence, "", start_ns, start_ns, STEP_NS, (group,))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(between(a, b)))


def speeds(timeline: Timeline, times: Any) -> tuple[np.ndarray, np.ndarray]:
    """Quaternions and angular velocities at ``times``."""
    samples = timeline.samples([int(t) for t in times])
    assert {sample.status for sample in samples} == {ACTIVE}
    rotations = np.stack([sample.values["tool"][3:] for sample in samples])
    rates = np.stack([sample.velocities["tool"][3:] for sample in samples])
    np.testing.assert_allclose(np.linalg.norm(rotations, axis=1), 1.0, atol=1e-9)
    return rotations, angular_velocity(rotations, rates)


@settings(max_examples=25, deadline=None)
@given(start=ANY, turn=ANY, share=st.floats(0.0, 1.0))
def test_two_steps_are_joined_by_slerp_however_far_they_are_apart(
    start: Any, turn: Any, share: float
) -> None:
    steps = turned(start, [turn])
    for interpolation in (LINEAR, CUBIC, QUINTIC):
        timeline = Timeline(interpolation=interpolation)
        timeline.add(chunk(steps))
        t_ns = round(share * STEP_NS)
        found, velocity = speeds(timeline, [t_ns])
        assert angle(found[0], slerp(steps[0], steps[1], t_ns / STEP_NS)) < 1e-7
        if t_ns < STEP_NS:
            np.testing.assert_allclose(velocity[0], between(*steps) / 0.05, atol=1e-6)


@pytest.mark.parametrize("interpolation", [LINEAR, CUBIC, QUINTIC])
def test_a_steady_turn_stays_steady(interpolation: str) -> None:
    timeline = Timeline(interpolation=interpolation)
    turn = np.array([0.1, -0.05, 0.2])
    timeline.add(chunk(turned([0.3, 2.0, -1.0], [turn] * 7)))
    _, velocity = speeds(timeline, range(0, 7 * STEP_NS, MS))
    np.testing.assert_allclose(velocity, np.tile(turn / 0.05, (len(velocity), 1)), atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(start=ANY, turns=st.lists(SMALL, min_size=3, max_size=6), quintic=st.booleans())
def test_the_angular_velocity_is_the_derivative_and_has_no_jumps(
    start: Any, turns: Any, quintic: bool
) -> None:
    timeline = Timeline(interpolation=QUINTIC if quintic else CUBIC)
    steps = turned(start, turns)
    timeline.add(chunk(steps))
    for i, step in enumerate(steps):
        found, _ = speeds(timeline, [i * STEP_NS])
        assert angle(found[0], step) < 1e-9
    dt = 1000
    edges = np.arange(1, len(steps) - 1) * STEP_NS
    times = np.sort(np.concatenate([edges - dt, edges, edges + dt, np.arange(3, len(turns) * 50) * MS]))
    times = times[times < len(turns) * STEP_NS - dt]
    _, velocity = speeds(timeline, times)
    before, after = timeline.samples((times - dt).tolist()), timeline.samples((times + dt).tolist())
    moved = [between(a.values["tool"][3:], b.values["tool"][3:]) for a, b in zip(before, after, strict=True)]
    np.testing.assert_allclose(velocity, np.stack(moved) / (2e-9 * dt), atol=2e-2)
    for edge in edges:
        _, sides = speeds(timeline, [edge - 1, edge + 1])
        np.testing.assert_allclose(sides[0], sides[1], atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    start=ANY,
    apart=st.lists(SMALL, min_size=2, max_size=3),
    turn=SMALL,
    flips=st.lists(st.booleans(), min_size=2, max_size=3),
    merge=st.sampled_from([BLEND, ENSEMBLE]),
)
def test_hand_overs_are_continuous_and_stay_between_the_plans(
    start: Any, apart: Any, turn: Any, flips: Any, merge: str
) -> None:
    """Plans a good way apart, with quaternions of either sign: no jump, no long way round, no rush."""
    timeline = Timeline(8, merge=merge, interpolation=CUBIC, blend_time_s=0.2)
    first = turned(start, [turn / 4] * 15)
    timeline.add(chunk(first), 0)
    plans = [first]
    path = []
    now = 0
    for sequence, (offset, flip) in enumerate(zip(apart, flips, strict=False), 1):
        path += [timeline.sample(t) for t in range(now, sequence * 100 * MS, 2 * MS)]
        now = sequence * 100 * MS
        other = multiply(rotvec_to_quaternion(offset), first) * (-1.0 if flip else 1.0)
        plans.append(other)
        timeline.add(chunk(other, 0, sequence), now)
    path += [timeline.sample(t) for t in range(now, 600 * MS, 2 * MS)]
    rotations = np.stack([sample.values["tool"][3:] for sample in path])
    moved = np.linalg.norm(between(rotations[:-1], rotations[1:]), axis=1) / 0.002
    # The plans' own speed, and at most three hand-overs of 1.9 times the distance over the time.
    furthest = 2 * max(float(np.linalg.norm(offset)) for offset in apart)
    assert moved.max() <= np.linalg.norm(turn) / 0.2 * 1.5 + 3 * 2.5 * furthest / 0.2 + 1e-6
    rates = np.stack([sample.velocities["tool"][3:] for sample in path])
    velocity = angular_velocity(rotations, rates)
    middle = between(rotations[:-2], rotations[2:]) / 0.004
    np.testing.assert_allclose(velocity[1:-1], middle, atol=0.3)
    # In the end the newest plan is followed.
    if merge == BLEND:
        assert angle(path[-1].values["tool"][3:], slerp(plans[-1][11], plans[-1][12], 0.96)) < 1e-3


def test_opposite_plans_have_no_mean_and_the_newest_is_taken() -> None:
    timeline = Timeline(8, merge=BLEND, blend_time_s=0.2)
    timeline.add(chunk(turned([0.0, 0.0, 0.0], [[0.0, 0.0, 0.0]] * 9)), 0)
    # Next to the older plan where it begins, on its far side by the middle of the hand-over.
    away = turned([0.0, 0.0, 3.0], [[0.0, 0.0, 0.5]] * 9)
    timeline.add(chunk(away, 0, 1), 1)
    for sample in timeline.samples(range(1, 400 * MS, MS)):
        assert np.isfinite(sample.values["tool"]).all()
        assert abs(np.linalg.norm(sample.values["tool"][3:]) - 1.0) < 1e-9
