# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves the filter outside the limits of the robot YAML, and what cannot be made safe is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.chunk import Chunk, check_chunk
from gr00t_ros.errors import ChunkRefused, UnsafeCommand
from gr00t_ros.safety import MAX_PERIOD, SafetyFilter
from gr00t_ros.timeline import Timeline
from support_chunks import STEP_NS, small_chunk
from support_robots import small_config

ROBOT = small_config()
ARM = ("shoulder", "elbow")  # limits -1.5..1.5 at 2 rad/s, 8 rad/s^2; -1..2 at 1 rad/s, tracking 0.3
GRIPPER = ("gripper",)  # -0.6..0.6 at 4 rad/s
LOW, HIGH, SPEED = np.array([-1.5, -1.0]), np.array([1.5, 2.0]), np.array([2.0, 1.0])
DT = 0.02
EPS = 1e-9


def test_a_target_within_reach_is_passed_on_exactly() -> None:
    result = SafetyFilter(ROBOT).apply(ARM, [0.03, -0.01], [0.0, 0.0], [0.0, 0.0], DT)
    assert result.values.tolist() == [0.03, -0.01]
    assert result.clipped == ()
    np.testing.assert_allclose(result.velocities, [1.5, -0.5])


def test_positions_are_clipped_and_named() -> None:
    f = SafetyFilter(ROBOT)
    result = f.apply(ARM, [9.0, 0.0], [1.49, 0.0], [1.49, 0.0], DT)
    assert result.values.tolist() == [1.5, 0.0]
    assert result.clipped == ("shoulder (position)",)
    assert f.counters["position"] == 1


def test_speed_is_clipped_per_joint() -> None:
    f = SafetyFilter(ROBOT)
    result = f.apply(ARM, [0.3, -0.3], [0.0, 0.0], [0.0, 0.0], DT)
    np.testing.assert_allclose(result.values, [0.04, -0.02])
    assert result.clipped == ("shoulder (velocity)", "elbow (velocity)")
    assert f.counters["velocity"] == 2


def test_commands_stay_near_the_measured_joint() -> None:
    """A blocked arm: the elbow stands at 0 while the command would run on to 2."""
    f = SafetyFilter(ROBOT)
    command = np.zeros(2)
    for _ in range(200):
        result = f.apply(ARM, [0.0, 2.0], command, [0.0, 0.0], DT)
        command = result.values
    assert command[1] == pytest.approx(0.3)
    assert result.clipped == ("elbow (tracking)",)


def test_a_stalled_period_does_not_catch_up_in_one_jump() -> None:
    result = SafetyFilter(ROBOT).apply(GRIPPER, [0.6], [-0.6], [0.4], 30.0)
    assert result.values[0] <= -0.6 + 4.0 * MAX_PERIOD + EPS


def test_without_elapsed_time_nothing_moves() -> None:
    result = SafetyFilter(ROBOT).apply(ARM, [0.3, 0.3], [0.1, 0.1], [0.1, 0.1], 0.0)
    assert result.values.tolist() == [0.1, 0.1]
    assert result.velocities.tolist() == [0.0, 0.0]


def test_the_first_command_starts_where_the_robot_is() -> None:
    result = SafetyFilter(ROBOT).apply(ARM, [1.0, 1.0], None, [0.8, 0.9], DT)
    np.testing.assert_allclose(result.values, [0.84, 0.92])


def test_a_joint_just_outside_its_limits_is_led_back_and_one_further_outside_is_not_moved() -> None:
    """The first command lies inside: at 1 rad/s the elbow may be 0.025 rad away from it."""
    f = SafetyFilter(ROBOT)
    assert f.apply(ARM, [0.0, 0.0], None, [0.0, -1.024], DT).values[1] >= -1.0
    with pytest.raises(UnsafeCommand, match=r"elbow stands at -1\.026"):
        f.apply(ARM, [0.0, 0.0], None, [0.0, -1.026], DT)
    with pytest.raises(
        UnsafeCommand, match=r"elbow stands at -1.400, outside its limits -1 to 2: move it inside"
    ):
        f.apply(ARM, [0.0, 0.0], None, [0.0, -1.4], DT)
    assert f.counters["refused"] == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((ARM, [math.nan, 0.0], [0.0, 0.0], [0.0, 0.0], DT), "target of shoulder is nan"),
        ((ARM, [0.0, math.inf], [0.0, 0.0], [0.0, 0.0], DT), "target of elbow is inf"),
        ((ARM, [0.0, 0.0], [0.0, math.nan], [0.0, 0.0], DT), "previous command of elbow is nan"),
        ((ARM, [0.0, 0.0], [0.0, 0.0], [math.nan, 0.0], DT), "measured position of shoulder is nan"),
        ((ARM, [0.0, 0.0], None, None, DT), "measured position has shape ()"),
        (
            (ARM, [0.0], [0.0, 0.0], [0.0, 0.0], DT),
            "target has shape (1,), expected one value for each of shoulder",
        ),
        ((ARM, "far", [0.0, 0.0], [0.0, 0.0], DT), "target is 'far', expected 2 numbers"),
        ((("wheel",), [0.0], [0.0], [0.0], DT), "joint 'wheel' has no limits in the robot YAML"),
        ((ARM, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], -0.02), "period is -0.02 s"),
        ((ARM, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], math.nan), "period is nan s"),
    ],
)
def test_what_cannot_be_made_safe_is_refused(arguments: Any, expected: str) -> None:
    f = SafetyFilter(ROBOT)
    with pytest.raises(UnsafeCommand) as error:
        f.apply(*arguments)
    assert expected in str(error.value)
    assert f.counters["refused"] == 1


def test_arguments_are_not_changed_and_results_are_new() -> None:
    target, previous, measured = np.array([9.0, 0.0]), np.zeros(2), np.zeros(2)
    result = SafetyFilter(ROBOT).apply(ARM, target, previous, measured, DT)
    result.values[:] = 5.0
    assert (target.tolist(), previous.tolist(), measured.tolist()) == ([9.0, 0.0], [0.0, 0.0], [0.0, 0.0])


VALUES = st.one_of(st.floats(-3, 3), st.floats(allow_nan=False, allow_infinity=False))
PAIR = st.tuples(VALUES, VALUES)


@settings(max_examples=200, deadline=None)
@given(
    start=st.tuples(st.floats(-1.5, 1.5), st.floats(-1.0, 2.0)),
    periods=st.lists(st.tuples(PAIR, PAIR, st.floats(0, 1)), min_size=1, max_size=30),
    accelerate=st.booleans(),
    feed_forward=st.booleans(),
)
def test_any_targets_and_measurements_give_commands_inside_every_limit(
    start: tuple[float, float], periods: list[tuple[Any, Any, float]], accelerate: bool, feed_forward: bool
) -> None:
    """Whatever is asked and measured, at whatever rate: finite, inside the limits, no faster than allowed,
    and with acceleration limits in force never so fast that the joint could not stop before its limit."""
    f = SafetyFilter(ROBOT)
    previous, velocity = np.array(start), np.zeros(2)
    for target, measured, dt in periods:
        result = f.apply(
            ARM,
            target,
            previous,
            measured,
            dt,
            previous_velocity=velocity if accelerate else None,
            target_velocity=target[::-1] if feed_forward else None,
        )
        assert np.isfinite(result.values).all()
        assert (result.values >= LOW).all()
        assert (result.values <= HIGH).all()
        assert (np.abs(result.values - previous) <= SPEED * min(dt, MAX_PERIOD) + EPS).all()
        if accelerate and dt > 1e-3:
            change = abs(result.velocities[0] - velocity[0])
            assert change <= 8.0 * min(dt, MAX_PERIOD) + 1e-6, "the shoulder's acceleration limit"
            room = HIGH[0] - result.values[0] if result.velocities[0] > 0 else result.values[0] - LOW[0]
            assert result.velocities[0] ** 2 / 16.0 <= room + 1e-6, "it can still stop before its limit"
        if dt > 1e-3:
            previous, velocity = result.values, result.velocities


def test_with_acceleration_limits_a_step_is_reached_without_overshoot() -> None:
    f = SafetyFilter(ROBOT)
    command, velocity, path = np.zeros(1), np.zeros(1), []
    for _ in range(100):
        result = f.apply(("shoulder",), [0.4], command, command, DT, previous_velocity=velocity)
        command, velocity = result.values, result.velocities
        path.append(command[0])
    speeds = np.diff([0.0, *path]) / DT
    assert max(path) <= 0.4 + EPS
    assert path[-1] == pytest.approx(0.4, abs=1e-4)
    assert np.abs(np.diff([0.0, *speeds])).max() <= 8.0 * DT + 1e-6
    assert f.counters["acceleration"] > 0


def test_a_smoothly_moving_target_is_followed_without_lag_when_its_speed_is_known() -> None:
    """Without it the filter must be ready to stop at the target, which costs a lag of v*v/2a; with it,
    nothing."""
    f = SafetyFilter(ROBOT)
    times = np.arange(1, 200) * DT
    command, velocity = np.zeros(1), np.zeros(1)
    worst = 0.0
    for t in times:
        target, speed = 0.5 * (1 - math.cos(2 * t)), math.sin(2 * t)  # at most 1 rad/s and 2 rad/s^2
        result = f.apply(
            ("shoulder",), [target], command, command, DT, previous_velocity=velocity, target_velocity=[speed]
        )
        command, velocity = result.values, result.velocities
        worst = max(worst, abs(command[0] - target))
    assert worst < 1e-3


CHUNKS = st.lists(
    st.fixed_dictionaries(
        {
            "wait": st.integers(0, 12),
            "late": st.integers(-4, 30),
            "values": st.lists(st.floats(-4, 4), min_size=1, max_size=12),
            "sequence": st.integers(0, 8),
            "session": st.integers(1, 2),
            "poison": st.sampled_from([None, None, None, math.nan, math.inf]),
        }
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(stream=CHUNKS, lag=st.floats(0, 0.9))
def test_any_stream_of_chunks_gives_safe_commands_and_ends(stream: list[dict[str, Any]], lag: float) -> None:
    """Checks, timeline and filter together, as the executor uses them: late, early, doubled, poisoned chunks.
    Commands are finite, inside the limits and bounded in speed, and they end when the chunks do."""
    timeline, f = Timeline(4), SafetyFilter(ROBOT)
    now, period = 10**15, round(DT * 1e9)
    command = measured = np.zeros(2)
    last: tuple[int, int] | None = None

    def run(periods: int) -> str:
        nonlocal now, command, measured
        status = "empty"
        for _ in range(periods):
            now += period
            sample = timeline.sample(now)
            status = sample.status
            if status == "active":
                result = f.apply(ARM, sample.values["arm"], command, measured, DT)
                assert np.isfinite(result.values).all()
                assert (result.values >= LOW).all()
                assert (result.values <= HIGH).all()
                assert (np.abs(result.values - command) <= SPEED * DT + EPS).all()
                command = result.values
            measured = measured + (command - measured) * (1 - lag)  # an arm that follows more or less well
        return status

    for piece in stream:
        run(piece["wait"])
        values = np.array(piece["values"])
        if piece["poison"] is not None:
            values[-1] = piece["poison"]
        start = now - piece["late"] * STEP_NS // 2
        chunk: Chunk = small_chunk(
            values,
            start_ns=start,
            t_obs_ns=min(start, now),
            sequence=piece["sequence"],
            session=piece["session"],
        )
        try:
            timeline.add(check_chunk(chunk, ROBOT, now, last))
        except ChunkRefused:
            continue
        last = (chunk.session, chunk.sequence)
        assert np.isfinite(values).all()
    # The longest chunk is 12 steps, 0.6 s, and starts at most 0.1 s ahead.
    assert run(40) in ("empty", "ended")
