# SPDX-License-Identifier: Apache-2.0
"""The chunk executor over real DDS: whatever comes in, every command that leaves is recorded and checked."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gr00t_ros.chunk import Chunk
from support_executor import ARM, EXECUTING, HOLDING, STOPPED, WAITING, Bench, executor_bench
from support_processes import REPO
from support_topics import ROBOT, nanoseconds

pytestmark = pytest.mark.ros

LOOKAHEAD_S = 0.2
HOLD_S = 0.5


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    # Without any joint state at first: a chunk alone moves nothing.
    with executor_bench("enabled:=true", joints=False) as bench:
        yield bench


@pytest.fixture
def bench(running: Bench) -> Bench:
    """As ``running``, with a robot that follows its commands."""
    running.rest()
    running.graph.wait_until(lambda: running.state != STOPPED, "start")
    return running


def test_the_process_is_light() -> None:
    code = (
        "import sys, gr00t_ros.nodes.chunk_executor as n; print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr


def test_it_is_silent_without_a_policy_and_without_joint_states(running: Bench) -> None:
    assert running.state == WAITING
    running.send(running.plan(0.1))
    running.graph.wait_until(lambda: running.status[-1].chunks_accepted == 1, "the chunk")
    assert running.quiet(1.0)
    assert running.sent == 0
    assert "/joint_states" in running.status[-1].reason
    running.robot.restore()
    assert running.quiet(1.0)
    assert running.sent == 0


def test_a_chunk_becomes_commands_in_time(bench: Bench) -> None:
    chunk, steps = bench.plan(0.2, steps=32), range(32)
    bench.send(chunk)
    bench.until(EXECUTING)
    status = bench.status[-1]
    assert (status.session, status.sequence) == (chunk.session, chunk.sequence)
    assert [group.key for group in status.plan] == ["arm", "gripper"]
    assert status.plan_horizon * len(ARM) == len(status.plan[0].values)
    assert status.period == pytest.approx(0.02)
    bench.until(HOLDING, "ended")
    held = bench.arm[-1]
    np.testing.assert_allclose(held.points[-1].positions, chunk.groups[0].values[-1], atol=1e-6)
    assert list(held.joint_names) == list(ARM)
    # A motion begins where the arm is measured, goes over to its plan, and slows down at its end. In between
    # each command is the chunk at its time: a point is due at stamp + time_from_start.
    motion = [m for m in list(bench.arm) if nanoseconds(m.header.stamp) >= chunk.t_obs_ns]
    blend_ns = round(ROBOT.executor.blend_time * 1e9)
    joined, slows = nanoseconds(motion[0].header.stamp) + blend_ns, chunk.end_ns - blend_ns
    checked = 0
    for message in motion:
        ahead = next(point for point in message.points if nanoseconds(point.time_from_start) > 0)
        due = nanoseconds(message.header.stamp) + nanoseconds(ahead.time_from_start)
        if joined < due < slows:
            place = (due - chunk.start_ns) / chunk.step_ns
            expected = [np.interp(place, steps, column) for column in chunk.groups[0].values.T]
            # Of the way over to the plan some um are left in the period in which it ends.
            np.testing.assert_allclose(ahead.positions, expected, atol=1e-4)
            checked += 1
    assert checked > 20
    assert bench.quiet(0.6 + HOLD_S) or bench.quiet(0.3)


def test_a_plan_beyond_the_limits_is_clipped_and_counted(bench: Bench) -> None:
    before = bench.status[-1].commands_clipped
    bench.send(bench.plan(np.full((16, 5), 50.0), gripper=-20.0))
    bench.until(EXECUTING)
    bench.until(HOLDING)
    assert bench.status[-1].commands_clipped > before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_chunk_that_is_not_finite_stops_until_start(bench: Bench, value: float) -> None:
    bench.send(bench.plan(0.1))
    bench.until(EXECUTING)
    mark = bench.node.mark()
    bench.send(bench.plan(np.full((16, 5), value)))
    bench.until(STOPPED, "not finite")
    assert len(bench.node.told(mark, "not finite")) == 1
    bench.graph.wait_until(bench.quiet, "silence")
    bench.send(bench.plan(0.1))
    assert bench.quiet()
    assert bench.state == STOPPED
    bench.call("start")
    bench.until(WAITING)
    bench.send(bench.plan(0.1))
    bench.until(EXECUTING)


FAR_NS = 30_000_000_000
# What the log says, and a chunk of which that must be said.
SPOILED: list[tuple[str, Callable[[Chunk], Chunk]]] = [
    ("30.0.. s old", lambda c: replace(c, t_obs_ns=c.t_obs_ns - FAR_NS, start_ns=c.start_ns - FAR_NS)),
    ("observation 2.* s ahead", lambda c: replace(c, t_obs_ns=c.t_obs_ns + FAR_NS)),
    ("start 2.* s ahead", lambda c: replace(c, start_ns=c.start_ns + FAR_NS)),
    ("steps of the past", lambda c: replace(c, start_ns=c.start_ns - FAR_NS)),
    ("expected .*wrist_roll", lambda c: with_arm(c, names=ARM[:4], values=c.groups[0].values[:, :4])),
    ("elbow_flux", lambda c: with_arm(c, names=("elbow_flux", *ARM[1:]))),
    ("twist", lambda c: with_arm(c, representation="twist")),
    ("found groups arm,", lambda c: replace(c, groups=c.groups[:1])),
    ("step of 10 ms", lambda c: replace(c, step_ns=10_000_000)),
    ("sequence 0 after", lambda c: replace(c, sequence=0)),
]


def with_arm(chunk: Chunk, **changes: Any) -> Chunk:
    return replace(chunk, groups=(replace(chunk.groups[0], **changes), *chunk.groups[1:]))


def test_a_bad_chunk_is_refused_in_one_line_and_nothing_moves(bench: Bench) -> None:
    bench.send(bench.plan(0.0))  # so that there is an accepted sequence to be older than
    bench.until(EXECUTING)
    bench.graph.wait_until(lambda: bench.quiet(0.3), "silence")
    for pattern, spoil in SPOILED:
        mark, refused = bench.node.mark(), bench.status[-1].chunks_refused
        for _ in range(3):
            bench.send(spoil(bench.plan(0.1)))
            time.sleep(0.05)
        lines = bench.node.told(mark, "chunk refused")
        assert len(lines) == 1, lines
        assert re.search(pattern, lines[0]), lines
        bench.graph.wait_until(
            lambda before=refused: bench.status[-1].chunks_refused > before, f"a refusal of {pattern}"
        )
        assert bench.quiet(0.1), pattern
    # A group whose numbers do not fill its steps cannot even be read.
    mark = bench.node.mark()
    message = bench.send(bench.plan(0.1))
    message.groups[0].width = 4
    message.sequence += 1
    bench.sequence += 1
    bench.graph.wait_until(lambda: bench.state == EXECUTING, "the good one")
    bench.chunks.publish(message)
    assert len(bench.node.told(mark, "holds 80 values")) == 1


def test_an_older_session_is_refused_while_a_newer_one_plans(bench: Bench) -> None:
    bench.send(bench.plan(0.1, steps=60))
    bench.until(EXECUTING)
    mark = bench.node.mark()
    bench.send(replace(bench.plan(0.1), session=0))
    assert len(bench.node.told(mark, "session 0, older")) == 1


def test_stop_and_start(bench: Bench) -> None:
    bench.send(bench.plan(0.3, steps=40))
    bench.until(EXECUTING)
    assert bench.call("stop").success
    bench.until(STOPPED, "executor/stop")
    bench.graph.wait_until(bench.quiet, "silence")
    assert not any(bench.arm[-1].points[-1].velocities)
    bench.send(bench.plan(0.1))
    assert bench.quiet()
    assert bench.call("start").success
    bench.until(WAITING)
    assert bench.quiet(), "a plan from before the stop"


def test_lost_joint_states_stop_the_motion(bench: Bench) -> None:
    bench.send(bench.plan(0.6, steps=60))
    bench.until(EXECUTING)
    bench.robot.spoil_joints = lambda message: None
    bench.until(HOLDING, "stale")
    bench.graph.wait_until(bench.quiet, "silence")
    last = bench.arm[-1]
    assert len(last.points) == 1
    assert not any(last.points[0].velocities)
    bench.robot.restore()
    bench.until(EXECUTING)


def nan_position(message: Any) -> Any:
    message.position[2] = math.nan
    return message


def no_elbow(message: Any) -> Any:
    where = list(message.name).index("elbow_flex")
    del message.name[where], message.position[where]
    return message


@pytest.mark.parametrize(
    ("spoil", "line", "reason"),
    [(nan_position, "elbow_flex.*nan", "stale"), (no_elbow, "stale: elbow_flex", "elbow_flex")],
)
def test_bad_joint_states_stop_the_motion(bench: Bench, spoil: Any, line: str, reason: str) -> None:
    bench.send(bench.plan(0.6, steps=60))
    bench.until(EXECUTING)
    mark = bench.node.mark()
    bench.robot.spoil_joints = spoil
    bench.until(HOLDING, reason)
    assert len(bench.node.told(mark, line)) == 1
    bench.graph.wait_until(bench.quiet, "silence")
    assert bench.node.alive


def test_a_restarted_policy_takes_over_and_the_old_one_is_refused(bench: Bench) -> None:
    bench.send(bench.plan(0.1))
    bench.until(EXECUTING)
    old = bench.session
    bench.session, bench.sequence = old + 1, -1
    chunk = bench.plan(0.1)
    bench.send(chunk)
    bench.graph.wait_until(lambda: bench.status[-1].session == old + 1, "the new session")
    assert bench.status[-1].sequence == 0
    refused = bench.status[-1].chunks_refused
    bench.send(replace(chunk, session=old, sequence=1000))
    bench.graph.wait_until(lambda: bench.status[-1].chunks_refused == refused + 1, "a refusal")
    assert bench.status[-1].session == old + 1


def test_a_flood_of_chunks_does_not_matter(bench: Bench) -> None:
    for _ in range(300):
        bench.send(bench.plan(0.05))
    bench.until(EXECUTING)
    mark = bench.node.mark()
    for _ in range(300):
        bench.send(bench.plan(np.full((3, 5), 0.1), steps=3))
        bench.sequence -= 1
    bench.sequence += 1
    time.sleep(0.3)
    assert len(bench.node.since(mark)) <= 3


def test_a_clock_jump_holds_and_what_follows_is_executed(bench: Bench) -> None:
    """Simulated time that is reset, while a plan runs."""
    begin, offset = time.monotonic_ns(), 1_000_000_000_000
    plain = bench.robot.now_ns
    here = bench.graph.now_ns

    def simulated() -> int:
        return time.monotonic_ns() - begin + offset

    try:
        bench.robot.now_ns, bench.robot.clock = simulated, True
        bench.graph.now_ns = simulated  # type: ignore[method-assign]
        assert bench.node.set(use_sim_time=True) == []
        bench.until(WAITING if bench.state == WAITING else HOLDING)
        time.sleep(0.3)
        bench.execute()
        offset -= 500_000_000_000
        bench.until(HOLDING, "jumped back by")
        bench.graph.wait_until(bench.quiet, "silence")
        bench.execute()
        mark = bench.node.mark()
        offset += 10_000_000_000
        bench.until(HOLDING, "jumped forward by")
        assert len(bench.node.told(mark, "jumped")) == 1
    finally:
        bench.graph.now_ns = here  # type: ignore[method-assign]
        bench.robot.now_ns, bench.robot.clock = plain, False
        bench.node.set(use_sim_time=False)
    time.sleep(0.5)
    bench.rest()
    bench.execute()


def test_deactivated_it_is_silent_and_forgets(bench: Bench) -> None:
    bench.send(bench.plan(0.3, steps=60))
    bench.until(EXECUTING)
    assert bench.node.change("deactivate")
    assert bench.quiet(0.4)
    assert bench.node.change("activate")
    assert bench.quiet(0.4), "a plan from before the pause"
    bench.send(bench.plan(0.1))
    bench.until(EXECUTING)


def test_diagnostics_follow_the_state(bench: Bench) -> None:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    diagnostics = bench.graph.collect("/diagnostics", DiagnosticArray, 10)
    bench.call("stop")
    bench.graph.wait_until(
        lambda: diagnostics and diagnostics[-1].status[0].level == DiagnosticStatus.ERROR, "an error"
    )
    status = diagnostics[-1].status[0]
    assert status.hardware_id == "so101"
    assert "stopped" in status.message
    assert {value.key for value in status.values} >= {"commands sent", "chunks refused", "late periods"}


def test_every_command_that_was_ever_sent_is_safe(running: Bench) -> None:
    """Over all that the tests above did to it."""
    assert len(running.arm) > 300
    low = np.array([ROBOT.limits[joint].min for joint in ARM]) - 1e-9
    high = np.array([ROBOT.limits[joint].max for joint in ARM]) + 1e-9
    speed = np.array([ROBOT.limits[joint].velocity for joint in ARM])
    for message in list(running.arm):
        assert list(message.joint_names) == list(ARM)
        positions = np.array([point.positions for point in message.points])
        velocities = np.array([point.velocities for point in message.points])
        due = [nanoseconds(point.time_from_start) for point in message.points]
        assert np.isfinite(positions).all()
        assert np.isfinite(velocities).all()
        assert (positions >= low).all()
        assert (positions <= high).all()
        assert (np.abs(velocities) <= speed + 1e-6).all()
        assert due == sorted(set(due))
        assert due[0] >= 0
        assert due[-1] <= round(LOOKAHEAD_S * 1e9)
        assert not velocities[-1].any()
    limit = ROBOT.limits["gripper"]
    values = np.array([message.data for message in running.gripper])
    assert values.shape[1] == 1
    assert np.isfinite(values).all()
    assert values.min() >= limit.min - 1e-9
    assert values.max() <= limit.max + 1e-9


def test_it_ends_in_order(running: Bench) -> None:
    assert running.node.process.stop() == 0, running.node.process.output
    assert running.node.since(0, "Traceback") == []
