# SPDX-License-Identifier: Apache-2.0
"""Any stream of chunks: late, early, overlapping, with gaps, several within one hand-over, of any length."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gr00t_ros.chunk import Chunk
from gr00t_ros.interpolation import Curve
from gr00t_ros.robot_types import INTERPOLATIONS, MERGES
from gr00t_ros.timeline import MAX_PLAN_STEPS, Sample, Timeline
from support_chunks import STEP_NS, small_chunk

T0 = 10**15
MS = 1_000_000
# Samples lie beside the steps and the acceptances, which are whole milliseconds: a straight line has no
# velocity at its corners.
BESIDE_NS = 333_700
NEAR_NS = 1_000

STREAMS = st.lists(
    st.fixed_dictionaries(
        {
            "wait_ms": st.sampled_from([0, 1, 7, 20, 60, 150, 400, 900]) | st.integers(0, 300),
            "late": st.integers(-12, 30),  # half steps: its start before now
            "steps": st.integers(1, 20),
            "rough": st.sampled_from([0.0, 0.02, 1.0]),
            "seed": st.integers(0, 1000),
        }
    ),
    min_size=1,
    max_size=8,
)


@dataclass
class Followed:
    """A timeline that is fed a stream, and asked at every 20 ms between its chunks."""

    line: Timeline
    interpolation: str
    now: int = T0
    chunks: list[Chunk] = field(default_factory=list)

    def feed(self, stream: list[dict]) -> None:
        for piece in stream:
            self.run(piece["wait_ms"])
            self.accept(piece)
        self.run(1200)

    def run(self, ms: int) -> None:
        end = self.now + ms * MS
        while self.now < end:
            self.look(self.now + BESIDE_NS)
            self.now = min(self.now + 20 * MS, end)

    def accept(self, piece: dict) -> None:
        generator = np.random.default_rng(piece["seed"])
        start = self.now - piece["late"] * STEP_NS // 2
        t = (start - T0) / 1e9 + np.arange(piece["steps"]) * 0.05
        values = np.stack([np.sin(3 * t), np.cos(2 * t)], axis=1)
        values = values + piece["rough"] * generator.normal(size=(piece["steps"], 2))
        chunk = small_chunk(values, start_ns=start, t_obs_ns=min(start, self.now), sequence=len(self.chunks))
        if chunk.end_ns < self.now:
            return  # refused before it reaches a timeline
        before = self.line.sample(self.now)
        self.line.add(chunk, self.now)
        self.chunks.append(chunk)
        self.accepted(before, self.line.sample(self.now))

    def accepted(self, before: Sample, after: Sample) -> None:
        pass

    def look(self, t_ns: int) -> None:
        raise NotImplementedError

    def curves(self, t_ns: int) -> list[np.ndarray]:
        """Where each chunk that has started is, the ended ones at their end."""
        at = np.array([t_ns])
        return [
            Curve(chunk.groups[0].values, chunk.start_ns, STEP_NS, self.interpolation).at(at)[0][0]
            for chunk in self.chunks
            if chunk.start_ns <= t_ns
        ]


@dataclass
class Checked(Followed):
    jumps: bool = False

    def accepted(self, before: Sample, after: Sample) -> None:
        # Two chunks at the very same moment: nobody has followed the first yet.
        at_once = before.chunk is not None and before.chunk.start_ns == self.now
        if before.status == "active" and not self.jumps and not at_once:
            assert after.status == "active"
            for key in ("arm", "gripper"):
                np.testing.assert_allclose(after.values[key], before.values[key], atol=1e-9)
                np.testing.assert_allclose(after.velocities[key], before.velocities[key], atol=1e-6)

    def look(self, t_ns: int) -> None:
        sample = self.line.sample(t_ns)
        assert len(self.line._pieces) <= 6
        if sample.status != "active":
            assert not sample.values
            assert not sample.velocities
            return
        arm = sample.values["arm"]
        assert np.isfinite(arm).all()
        assert np.isfinite(sample.velocities["arm"]).all()
        assert sample.chunk is not None
        assert 0.0 <= sample.step <= sample.chunk.horizon - 1
        around = np.array(self.curves(t_ns))
        assert (arm >= around.min(axis=0) - 1e-9).all()
        assert (arm <= around.max(axis=0) + 1e-9).all()
        near = [self.line.sample(t_ns + by) for by in (-NEAR_NS, NEAR_NS)]
        if all(other.status == "active" for other in near):
            slope = (near[1].values["arm"] - near[0].values["arm"]) / (2 * NEAR_NS * 1e-9)
            np.testing.assert_allclose(sample.velocities["arm"], slope, atol=1e-3, rtol=1e-4)
        self.look_at_plan(t_ns)

    def look_at_plan(self, t_ns: int) -> None:
        plan = self.line.plan(t_ns)
        assert plan is not None
        values = plan.groups[0].values
        assert 1 <= len(values) <= MAX_PLAN_STEPS
        times = [plan.start_ns + i * plan.step_ns for i in range(len(values))]
        assert times[-1] > t_ns - STEP_NS
        for wanted, found in zip(values, self.line.samples(times), strict=True):
            assert found.status == "active"
            np.testing.assert_allclose(found.values["arm"], wanted, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(stream=STREAMS)
@pytest.mark.parametrize(("merge", "interpolation"), [(m, "cubic") for m in MERGES] + [("blend", "quintic")])
def test_the_target_is_finite_between_the_plans_moves_as_it_says_and_is_told(
    merge: str, interpolation: str, stream: list[dict]
) -> None:
    """And, unless chunks replace each other, goes on from where it is whenever one is accepted."""
    line = Timeline(6, merge=merge, interpolation=interpolation)
    Checked(line, interpolation, jumps=merge == "replace").feed(stream)


SHORT = st.lists(
    st.tuples(
        st.sampled_from([1, 18, 30, 100]),  # ms until it comes
        st.integers(-160, 60),  # ms from then to its start
        st.sampled_from([4, 8]) | st.integers(1, 8),  # steps
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=20, deadline=None)
@given(stream=SHORT)
@example(stream=[(20, -94, 4), (30, 39, 4)])
@example(stream=[(18, -101, 8), (50, 30, 4)])
@pytest.mark.parametrize("merge", MERGES)
def test_short_chunks_with_gaps_are_slowed_down_without_leaving_what_they_plan(
    merge: str, stream: list[tuple[int, int, int]]
) -> None:
    """A chunk that nothing hands over to may be shorter than the way on which it should be braked."""
    line = Timeline(8, merge=merge, accelerations={"arm": np.full(2, 4.0)})
    now, values, tops = T0, 0, [0.0]
    for wait_ms, ahead_ms, steps in stream:
        now, start = now + wait_ms * MS, now + (wait_ms + ahead_ms) * MS
        if start + (steps - 1) * STEP_NS < now:
            continue  # refused before it reaches a timeline
        values += 1
        tops.append(0.1 * (values % 3) * steps)
        way = np.repeat(np.arange(1, steps + 1)[:, None] * (0.1 * (values % 3)), 2, axis=1)
        line.add(small_chunk(way, start_ns=start, t_obs_ns=min(start, now), sequence=values), now)
        for later in range(0, 600 * MS, 23 * MS):
            window = line.window(now + later + np.arange(6) * 20 * MS)
            if window.status not in ("active", "ended"):
                continue
            assert np.isfinite(window.velocities["arm"]).all()
            assert (window.values["arm"] >= -1e-9).all()
            assert (window.values["arm"] <= max(tops) + 1e-9).all()
            assert ((window.pace >= 0.0) & (window.pace <= 1.0)).all()


@settings(max_examples=25, deadline=None)
@given(stream=STREAMS)
@pytest.mark.parametrize("merge", ["blend", "ensemble"])
def test_no_two_targets_are_further_apart_than_their_velocity_says(merge: str, stream: list[dict]) -> None:
    """Also where a hand-over begins or ends, a chunk starts later, an older one ends within the window."""

    class Continuous(Followed):
        last: Sample | None = None
        at: int = 0

        def look(self, t_ns: int) -> None:
            if self.last is None or t_ns - self.at > 20 * MS:
                self.last, self.at = self.line.sample(t_ns), t_ns
            for time in range(self.at + MS, t_ns + 20 * MS, MS):
                if time > self.now + 20 * MS:
                    break
                sample = self.line.sample(time)
                if sample.status == self.last.status == "active" and not self.gap(sample):
                    moved = np.abs(sample.values["arm"] - self.last.values["arm"])
                    speed = np.maximum(np.abs(sample.velocities["arm"]), np.abs(self.last.velocities["arm"]))
                    # The largest acceleration here is about 6 * 12 / 0.05^2; in 1 ms that moves by 0.015.
                    assert (moved <= 1e-3 * speed + 0.03).all()
                self.last, self.at = sample, time

        def accepted(self, before: Sample, after: Sample) -> None:
            self.last = None

        def gap(self, sample: Sample) -> bool:
            """A plan that begins where another has ended begins at once."""
            assert self.last is not None
            assert self.last.chunk is not None
            assert sample.chunk is not None
            return sample.chunk is not self.last.chunk and self.last.chunk.end_ns < sample.chunk.start_ns

    Continuous(Timeline(6, merge=merge, interpolation="cubic"), "cubic").feed(stream)


@settings(max_examples=40, deadline=None)
@given(stream=STREAMS)
def test_replace_is_the_newest_chunk_that_has_started_in_straight_lines(stream: list[dict]) -> None:
    class Plain(Followed):
        def look(self, t_ns: int) -> None:
            sample = self.line.sample(t_ns)
            started = [chunk for chunk in self.chunks if chunk.start_ns <= t_ns]
            later = any(chunk.start_ns > t_ns for chunk in self.chunks[-1:])
            if not started:
                assert sample.status == ("early" if self.chunks else "empty")
            elif t_ns > started[-1].end_ns:
                assert sample.status == ("early" if later else "ended")
            else:
                steps = started[-1].groups[0].values
                place = (t_ns - started[-1].start_ns) / STEP_NS
                wanted = [np.interp(place, range(len(steps)), column) for column in steps.T]
                np.testing.assert_allclose(sample.values["arm"], wanted, atol=1e-12)

    Plain(Timeline(32), "linear").feed(stream)


@settings(max_examples=25, deadline=None)
@given(stream=STREAMS, seed=st.integers(0, 99))
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_many_times_at_once_are_the_same_as_one_by_one(
    interpolation: str, stream: list[dict], seed: int
) -> None:
    class Many(Followed):
        def look(self, t_ns: int) -> None:
            if (t_ns // (20 * MS)) % 7:
                return
            times = np.sort(np.random.default_rng(seed).integers(t_ns, t_ns + 10**9, 9)).tolist()
            for one, many in zip(map(self.line.sample, times), self.line.samples(times), strict=True):
                assert (one.status, one.step, one.chunk) == (many.status, many.step, many.chunk)
                assert one.values.keys() == many.values.keys()
                for key, value in one.values.items():
                    np.testing.assert_allclose(many.values[key], value, atol=1e-12)
                    np.testing.assert_allclose(many.velocities[key], one.velocities[key], atol=1e-9)

    Many(Timeline(6, merge="blend", interpolation=interpolation), interpolation).feed(stream)
