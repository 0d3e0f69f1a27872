# SPDX-License-Identifier: Apache-2.0
"""A robot of velocities, a twist and a pose under the executor's rules: what is sent, and how it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import MessageError
from gr00t_ros.execution import Execution, State
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rotations import between, rotvec_to_quaternion
from support_mobile import HOME, mobile_chunk, mobile_config, mobile_robot

ROBOT = mobile_config()
PERIOD_NS = 20_000_000
DT = 0.02
START_NS = 1_000_000_000_000


class Rig:
    """An executor and a robot that does what it is told; all commands are kept and their limits checked."""

    def __init__(self, robot: RobotConfig = ROBOT) -> None:
        self.execution = Execution(robot, period_s=DT, lookahead_s=0.2, hold_s=0.3)
        self.now_ns = START_NS
        self.arm, self.tool = np.zeros(2), HOME.copy()
        self.velocity = {"arm": np.zeros(2), "base": np.zeros(2)}
        self.told: list[dict[str, GroupCommand]] = []
        self.joints = self.pose = True
        self.last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self.sequence = -1

    def chunk(self, **what: Any) -> Any:
        self.sequence += 1
        return mobile_chunk(ROBOT, self.now_ns, self.sequence, **{"begin": self.tool, **what})

    def offer(self, **what: Any) -> None:
        self.execution.offer(self.chunk(**what), self.now_ns)

    def step(self, periods: int = 1, faults: Any = ()) -> None:
        for _ in range(periods):
            self.now_ns += PERIOD_NS
            now = self.now_ns
            if self.joints:
                self.execution.measure(["wheel", "lift"], [self.arm[1], self.arm[0]], now, now)
            if self.pose:
                self.execution.measure_pose("tool", "base_link", self.tool, now, now)
            commands = {command.group.key: command for command in self.execution.step(now, now, faults)}
            self.told.append(commands)
            self.check(commands)
            self.arm = self.arm + self.velocity["arm"] * DT
            assert -0.5 - 1e-6 <= self.arm[0] <= 0.5 + 1e-6

    def check(self, commands: dict[str, GroupCommand]) -> None:
        if not commands:
            assert not any(v.any() for v in self.velocity.values()), "silent while a velocity runs on"
            self.last = None
            return
        arm, base = commands["arm"].velocities[0], commands["base"].velocities[0]
        assert (np.abs(arm) <= [0.8 + 1e-9, 3.0 + 1e-9]).all()
        assert (np.abs(arm - self.velocity["arm"]) <= np.array([4.0, 10.0]) * DT + 1e-9).all()
        assert (np.abs(base) <= [0.5 + 1e-9, 1.5 + 1e-9]).all()
        assert (np.abs(base - self.velocity["base"]) <= np.array([1.0, 3.0]) * DT + 1e-9).all()
        self.velocity = {"arm": arm, "base": base}
        pose = commands["tool"].positions[0]
        assert (pose[:3] >= [0.2 - 1e-9, -0.3 - 1e-9, 0.1 - 1e-9]).all()
        assert (pose[:3] <= [0.6 + 1e-9, 0.3 + 1e-9, 0.6 + 1e-9]).all()
        before, linear, angular = self.last or (self.tool, np.zeros(3), np.zeros(3))
        moved, turned = (pose[:3] - before[:3]) / DT, between(before[3:], pose[3:]) / DT
        assert np.linalg.norm(moved) <= 0.3 + 1e-6
        assert np.linalg.norm(turned) <= 1.5 + 1e-6
        assert np.linalg.norm(moved - linear) <= 1.5 * DT + 1e-6
        assert np.linalg.norm(turned - angular) <= 6.0 * DT + 1e-6
        self.last = pose, moved, turned
        self.tool = pose

    def until_silent(self) -> None:
        for _ in range(200):
            self.step()
            if not self.told[-1]:
                return
        raise AssertionError("still sending")


def test_a_plan_is_followed_and_each_kind_holds_in_its_own_way() -> None:
    rig = Rig()
    rig.step(3)
    assert rig.execution.state == State.WAITING
    assert not any(rig.told)
    rig.offer()
    rig.step(18)
    assert rig.execution.state == State.EXECUTING
    np.testing.assert_allclose(rig.velocity["arm"], [0.1, 1.0], atol=1e-9)
    np.testing.assert_allclose(rig.velocity["base"], [0.2, 0.4], atol=1e-9)
    rig.until_silent()
    assert rig.execution.state == State.HOLDING
    last = [told for told in rig.told if told][-1]
    assert last["arm"].velocities.tolist() == [[0.0, 0.0]]
    assert last["base"].velocities.tolist() == [[0.0, 0.0]]
    zeros = [told for told in rig.told if told and not told["base"].velocities.any()]
    assert len(zeros) >= 0.3 / DT, "zero is sent for the hold time"
    end = rig.chunk(begin=HOME).groups[2].values[-1]
    np.testing.assert_allclose(last["tool"].positions[0, :3], end[:3], atol=0.01)
    assert np.linalg.norm(between(end[3:], last["tool"].positions[0, 3:])) < 0.05
    held = [told["tool"].positions[0] for told in rig.told if told][-8:]
    assert all((pose == held[0]).all() for pose in held)


@pytest.mark.parametrize("lost", ["joints", "pose"])
def test_without_a_measurement_nothing_moves_and_what_moves_is_braked(lost: str) -> None:
    rig = Rig()
    setattr(rig, lost, False)
    rig.offer()
    rig.step(3)
    assert not any(rig.told)
    missing = {
        "joints": "no position of lift, wheel on /joint_states yet",
        "pose": "no pose of tool on /tool/pose yet",
    }
    assert rig.execution.reason == missing[lost]
    setattr(rig, lost, True)
    rig.step(15)
    assert rig.velocity["base"].any()
    setattr(rig, lost, False)
    rig.step(12)
    stale = {"joints": "joint states are stale: lift", "pose": "the pose of tool on /tool/pose is stale"}
    assert rig.execution.reason.startswith(stale[lost])
    rig.until_silent()


def test_a_pose_in_another_frame_or_that_is_none_does_not_count() -> None:
    rig = Rig()
    for frame, pose, expected in (
        ("world", HOME, "in frame 'world', expected 'base_link'"),
        ("base_link", np.zeros(7), "a quaternion of length 0"),
        ("base_link", np.full(7, np.nan), "expected finite numbers"),
    ):
        with pytest.raises(MessageError, match=expected):
            rig.execution.measure_pose("tool", frame, pose, START_NS, START_NS)
    with pytest.raises(MessageError, match="the stamp is zero"):
        rig.execution.measure_pose("tool", "base_link", HOME, 0, START_NS)
    with pytest.raises(MessageError, match=r"stamped 1\.000 s ahead"):
        rig.execution.measure_pose("tool", "base_link", HOME, START_NS + 10**9, START_NS)
    assert rig.execution.counters.joint_states_refused == 5


def test_a_joint_comes_to_rest_before_its_limit_also_with_old_measurements() -> None:
    rig = Rig()
    seen: list[float] = []
    for i in range(100):
        if i % 20 == 0:
            rig.offer(arm=(0.8, 0.0), way=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), steps=40)
        # Joint states come every 0.18 s, which is just often enough.
        rig.joints = i % 9 == 0
        rig.step()
        seen.append(float(rig.arm[0]))
    assert rig.execution.state == State.EXECUTING
    assert max(seen) > 0.4
    assert rig.execution.clips["position"] > 0


def test_the_first_motion_begins_at_the_measured_pose() -> None:
    rig = Rig()
    rig.tool = np.concatenate([[0.45, 0.1, 0.25], rotvec_to_quaternion([0.3, 0.0, 0.0])])
    rig.offer(begin=HOME, steps=60)
    begin = rig.tool
    rig.step()
    first = rig.told[-1]["tool"].positions[0]
    np.testing.assert_allclose(first[:3], begin[:3], atol=1e-3)
    assert np.linalg.norm(between(begin[3:], first[3:])) < 1e-2
    rig.step(80)
    plan = rig.execution.plan(rig.now_ns)
    assert plan is not None
    share = (rig.now_ns - plan.start_ns) / plan.step_ns
    values = plan.groups[2].values
    wanted = values[0, :3] + share * (values[1, :3] - values[0, :3])
    np.testing.assert_allclose(rig.tool[:3], wanted, atol=2e-3)


def test_the_last_pose_is_kept_after_silence_unless_somebody_moved_the_tool() -> None:
    for moved in (False, True):
        rig = Rig()
        rig.offer()
        rig.until_silent()
        last = rig.tool
        if moved:
            rig.tool = np.concatenate([last[:3] - [0.1, 0.0, 0.05], last[3:]])
        begin = rig.tool
        rig.step(5)
        rig.last = None
        rig.offer(begin=begin)
        rig.step()
        np.testing.assert_allclose(rig.told[-1]["tool"].positions[0, :3], begin[:3], atol=1e-3)


def test_stop_and_start_never_leave_a_velocity_running() -> None:
    """A start while it brakes still ends with zero: the check of the rig sees that."""
    rig = Rig()
    rig.offer(base=(0.5, 1.5), arm=(0.5, 3.0))
    rig.step(25)
    assert rig.velocity["base"][0] > 0.3
    rig.execution.stop("a test")
    rig.step(2)
    rig.execution.start()
    rig.until_silent()
    assert rig.execution.state == State.WAITING
    assert not rig.execution.moving


def test_a_clock_that_stands_does_not_let_a_velocity_run_on() -> None:
    rig = Rig()
    rig.offer(base=(0.5, 0.0))
    rig.step(25)
    mono_ns, base = rig.now_ns, rig.velocity["base"]
    for _ in range(200):
        mono_ns += PERIOD_NS
        commands = rig.execution.step(rig.now_ns, mono_ns)
        if not commands:
            break
        now = next(c for c in commands if c.group.key == "base").velocities[0]
        assert np.abs(now - base)[0] <= 1.0 * DT + 1e-9
        base = now
    assert not commands
    assert base.tolist() == [0.0, 0.0]


def test_an_empty_chunk_ends_all_motion() -> None:
    rig = Rig()
    rig.offer(steps=60)
    rig.step(25)
    end = replace(rig.chunk(), groups=())
    rig.execution.offer(end, rig.now_ns)
    rig.until_silent()
    assert rig.execution.reason == "the policy ended its plan"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("velocity", {"base": (2.0, 0.0)}),
        ("position", {"way": (0.0, 0.0, 1.0), "steps": 60}),
        ("acceleration", {"base": "jumps"}),
    ],
)
def test_a_plan_that_exceeds_a_limit_stops_where_the_yaml_says_so(kind: str, what: Any) -> None:
    values = mobile_robot()
    values["executor"] = {**values["executor"], "violations": {kind: "stop"}}
    rig = Rig(RobotConfig.from_mapping(values))
    rig.offer(steps=60, way=(0.0, 0.0, 0.02), turn=(0.0, 0.0, 0.1))
    rig.step(30)
    assert rig.execution.state == State.EXECUTING, "what is inside the limits goes on"
    if what.get("base") == "jumps":
        chunk = rig.chunk(steps=60, way=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0))
        chunk.groups[1].values[25:] = 0.5
        rig.execution.offer(chunk, rig.now_ns)
    else:
        rig.offer(**{"steps": 16, "way": (0.0, 0.0, 0.0), "turn": (0.0, 0.0, 0.0), **what})
    rig.step(80)
    assert rig.execution.state == State.STOPPED
    assert f"exceeds the {kind} limit of" in rig.execution.reason
    rig.until_silent()


SPEED = st.floats(-5.0, 5.0)
WAY = st.tuples(*[st.floats(-0.5, 0.5)] * 3)
TURN = st.tuples(*[st.floats(-3.0, 3.0)] * 3)


@settings(max_examples=20, deadline=None)
@given(
    plans=st.lists(
        st.tuples(
            st.tuples(SPEED, SPEED),
            st.tuples(SPEED, SPEED),
            WAY,
            TURN,
            st.integers(2, 20),  # steps
            st.integers(1, 25),  # periods until the next
            st.sampled_from(["", "", "", "joints", "pose", "stop", "start", "flip"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_comes_every_limit_is_kept_and_all_ends_at_rest(plans: Any) -> None:
    """The rig checks limits, position limits and that nothing runs on in silence, in every period."""
    rig = Rig()
    rig.step()
    for arm, base, way, turn, steps, periods, what in plans:
        rig.joints, rig.pose = what != "joints", what != "pose"
        if what == "stop":
            rig.execution.stop("a test")
        if what == "start":
            rig.execution.start()
        if rig.execution.state != State.STOPPED:
            chunk = rig.chunk(arm=arm, base=base, way=way, turn=turn, steps=steps)
            if what == "flip":
                tool = chunk.groups[2]
                sign = np.array([1, 1, 1, -1, -1, -1, -1])
                chunk = replace(chunk, groups=(*chunk.groups[:2], replace(tool, values=tool.values * sign)))
            rig.execution.offer(chunk, rig.now_ns)
        rig.step(periods)
    rig.until_silent()
    assert np.isfinite(rig.tool).all()


def test_a_steady_turn_across_chunks_has_no_rush() -> None:
    """New plans of the same turn, with the quaternion's sign changing from one to the next."""
    rig = Rig()
    rates = []
    for sequence in range(14):
        angle = 0.1 * sequence
        begin = np.concatenate([HOME[:3], rotvec_to_quaternion([0.0, 0.0, angle])])
        if sequence % 2:
            begin = begin * [1, 1, 1, -1, -1, -1, -1]
        rig.offer(begin=begin, way=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.75))
        for _ in range(5):
            before = rig.tool
            rig.step()
            rates.append(float(np.linalg.norm(between(before[3:], rig.tool[3:]))) / DT)
    assert max(rates[40:]) < 1.05
    assert min(rates[40:]) > 0.95


@pytest.mark.parametrize("trouble", ["nobody hears the tool", "the tool's commands are late"])
def test_a_velocity_follows_its_plan_whatever_becomes_of_another_groups_commands(trouble: str) -> None:
    rig = Rig()
    rig.step()
    plan = rig.chunk(steps=60, way=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0))
    base = np.zeros((60, 2))
    base[:16, 0] = 0.4  # m/s for 0.8 s, then it is to stand
    groups = tuple(replace(g, values=base) if g.key == "base" else g for g in plan.groups)
    rig.execution.offer(replace(plan, groups=groups), rig.now_ns)
    rig.step(30)
    assert rig.velocity["base"][0] == pytest.approx(0.4)
    for _ in range(40):
        if trouble == "nobody hears the tool":
            rig.execution.unheard(["tool"])
            rig.step()
            rig.last = None
        else:
            rig.step()
            rig.execution.unsent(["tool"])
            rig.tool = rig.last[0] if rig.last else rig.tool
    assert rig.execution.state == State.EXECUTING
    np.testing.assert_allclose(rig.velocity["base"], 0.0, atol=1e-9)
