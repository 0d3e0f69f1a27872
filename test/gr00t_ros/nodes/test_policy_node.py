# SPDX-License-Identifier: Apache-2.0
"""The policy node over real DDS: good input gives the policy's chunks, bad input one line and no chunk."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from support_checkpoints import tiny_checkpoint
from support_processes import Collector, RosGraph
from support_topics import FRONT, JOINTS, ROBOT, WRIST, FakeRobot, NodeUnderTest, nanoseconds, so101_node

pytestmark = pytest.mark.ros

INACTIVE, WAITING, RUNNING, FAULT = range(4)
SEED = 11
TASK = "pick up the block"


@dataclass
class Bench:
    """The active policy node, a robot that publishes, and all chunks ever sent."""

    node: NodeUnderTest
    graph: RosGraph
    robot: FakeRobot
    chunks: Collector
    status: Collector

    def more(self, count: int = 1) -> Any:
        """The newest chunk after ``count`` further ones."""
        goal = len(self.chunks) + count
        self.graph.wait_until(lambda: len(self.chunks) >= goal, f"{count} chunks; {self.node.process.output}")
        return self.chunks[-1]

    def dry(self, seconds: float = 0.6) -> bool:
        """Whether no chunk comes, once what is being computed is out."""
        time.sleep(0.3)
        before = len(self.chunks)
        time.sleep(seconds)
        return len(self.chunks) == before

    def until(self, state: int, word: str = "") -> None:
        self.graph.wait_until(
            lambda: self.status and self.status[-1].state == state and word in self.status[-1].reason,
            f"state {state} with {word!r}; the last status is {self.status[-1] if self.status else None}",
        )

    def say(self, text: str, latched: bool = False, heard_by: int = 1) -> Any:
        """Publishes an instruction; returns the publisher, which must live on for a latched one."""
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from std_msgs.msg import String

        qos = QoSProfile(depth=1)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        publisher = self.graph.publisher("/gr00t/instruction", String, qos, heard_by)
        publisher.publish(String(data=text))
        return publisher


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    from gr00t_ros.msg import ActionChunk, PolicyStatus

    parameters = [f"checkpoint:={tiny_checkpoint()}", f"seed:={SEED}"]
    parameters += ["rate:=10", "device:=cpu", "autostart:=true"]
    # These pictures never change, and that is told elsewhere.
    parameters += [f"robot.video.{key}.frozen_after:=0.0" for key in ("front", "wrist")]
    with so101_node("gr00t_ros.nodes.policy_node", *parameters) as (process, graph):
        chunks = graph.collect("/gr00t/action_chunk", ActionChunk, 10)
        status = graph.collect("/gr00t/policy/status", PolicyStatus, 10)
        robot = FakeRobot(graph)
        process.wait_for("loaded", 120.0)
        yield Bench(NodeUnderTest(process, graph, "/gr00t/policy"), graph, robot, chunks, status)
        robot.close()


@pytest.fixture
def bench(running: Bench) -> Bench:
    """As ``running``, with everything well and chunks flowing."""
    running.robot.restore()
    if not running.status or running.status[-1].instruction != TASK:
        running.node.set(instruction="")
        running.node.set(instruction=TASK)
    running.more(2)
    running.until(RUNNING)
    return running


def test_chunks_flow_and_say_where_they_come_from(bench: Bench) -> None:
    chunk = bench.more()
    assert chunk.session > 0
    assert chunk.sequence > 0
    assert chunk.instruction == TASK
    assert [group.key for group in chunk.groups] == ["arm", "gripper"]
    assert chunk.horizon * chunk.groups[0].width == len(chunk.groups[0].values)
    assert nanoseconds(chunk.start) == nanoseconds(chunk.header.stamp)
    assert nanoseconds(chunk.step) == ROBOT.step_ns
    bench.graph.wait_until(lambda: bench.status[-1].chunks > 3, "a status")
    status = bench.status[-1]
    assert (status.backend, status.device, status.precision) == ("pytorch", "cpu", "float32")
    assert status.session == chunk.session
    assert 0.0 < status.inference_time < status.total_time
    assert status.observation_age > 0.0


def test_sequences_count_up_and_no_frame_is_used_twice(bench: Bench) -> None:
    bench.more(5)
    chunks = [chunk for chunk in list(bench.chunks) if chunk.session == bench.chunks[-1].session]
    assert [chunk.sequence for chunk in chunks] == list(
        range(chunks[0].sequence, chunks[0].sequence + len(chunks))
    )
    stamps = [nanoseconds(chunk.header.stamp) for chunk in chunks]
    assert stamps == sorted(set(stamps))


def test_a_chunk_is_what_the_policy_computes_offline(bench: Bench) -> None:
    """Same checkpoint, picture, state and seed, and the stamp in the message: the same numbers."""
    from gr00t_model import Gr00tPolicy

    chunk = bench.more()
    policy = Gr00tPolicy(tiny_checkpoint(), ROBOT.embodiment_tag, device="cpu")
    state = {
        key: np.array([[[bench.robot.positions[joint] for joint in source.joints]]], np.float32)
        for key, source in ROBOT.state.items()
    }
    observation = {
        "video": {
            "front": bench.robot.pictures[FRONT][None, None],
            "wrist": bench.robot.pictures[WRIST][None, None],
        },
        "state": state,
        "language": {key: [[TASK]] for key in policy.modality["language"].modality_keys},
    }
    stamp = nanoseconds(chunk.header.stamp)
    actions, _ = policy.get_action(observation, t_obs_ns=stamp, seed=SEED)
    for group in chunk.groups:
        got = np.array(group.values).reshape(chunk.horizon, group.width)
        np.testing.assert_allclose(got, actions[group.key][0], atol=1e-4)
    other, _ = policy.get_action(observation, t_obs_ns=stamp + 1, seed=SEED)
    assert np.abs(other["arm"] - actions["arm"]).max() > 1e-3, (
        "the noise must matter, or this test sees nothing"
    )


def short_data(topic: str, message: Any) -> Any:
    del message.data[100:]
    return message


def odd_encoding(topic: str, message: Any) -> Any:
    message.encoding = "yuv999"
    return message


def no_stamp(topic: str, message: Any) -> Any:
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    return message


def future_stamp(topic: str, message: Any) -> Any:
    message.header.stamp.sec += 100
    return message


@pytest.mark.parametrize(
    ("spoil", "word"),
    [(short_data, "bytes"), (odd_encoding, "yuv999"), (no_stamp, "zero stamp"), (future_stamp, "ahead")],
)
def test_a_bad_image_is_one_line_and_no_chunk(bench: Bench, spoil: Any, word: str) -> None:
    mark = bench.node.mark()
    bench.robot.spoil_image = lambda topic, message: spoil(topic, message) if topic == WRIST else message
    lines = bench.node.told(mark, settle_s=0.8)
    assert len(lines) == 1, lines
    assert word in lines[0]
    assert "wrist" in lines[0]
    assert bench.dry()
    bench.until(WAITING, word)
    assert bench.node.alive
    bench.robot.restore()
    bench.more()


def nan_position(message: Any) -> Any:
    message.position[2] = math.nan
    return message


def no_elbow(message: Any) -> Any:
    where = list(message.name).index("elbow_flex")
    del message.name[where], message.position[where]
    return message


def short_positions(message: Any) -> Any:
    del message.position[3:]
    return message


@pytest.mark.parametrize(
    ("spoil", "word"),
    [(nan_position, "nan"), (no_elbow, "elbow_flex"), (short_positions, "3 values of position")],
)
def test_bad_joint_states_are_one_line_and_no_chunk(bench: Bench, spoil: Any, word: str) -> None:
    mark = bench.node.mark()
    bench.robot.spoil_joints = spoil
    lines = bench.node.told(mark, settle_s=0.8)
    assert len(lines) == 1, lines
    assert word in lines[0]
    assert JOINTS in lines[0] or "state." in lines[0]
    assert bench.dry()
    bench.until(WAITING, word)
    bench.robot.restore()
    bench.more()


@pytest.mark.parametrize(
    ("text", "word"), [("", "empty"), ("x" * 10_000, "10000 characters")], ids=["empty", "ten thousand"]
)
def test_an_unusable_instruction_is_one_line_and_no_chunk(bench: Bench, text: str, word: str) -> None:
    mark = bench.node.mark()
    publisher = bench.say(text)
    lines = bench.node.told(mark, settle_s=0.8)
    assert len(lines) == 1, lines
    assert word in lines[0]
    assert len(lines[0]) < 400
    assert bench.dry()
    assert (bench.chunks[-1].horizon, bench.chunks[-1].instruction) == (0, TASK), "the robot comes to rest"
    bench.until(WAITING, word)
    assert bench.status[-1].instruction == ""
    bench.graph.node.destroy_publisher(publisher)


def test_silent_cameras_are_one_line_and_no_chunk(bench: Bench) -> None:
    mark = bench.node.mark()
    bench.robot.spoil_image = lambda topic, message: None
    lines = bench.node.told(mark, settle_s=0.8)
    assert len(lines) == 1, lines
    assert "/camera/" in lines[0]
    assert bench.dry()
    bench.until(WAITING, "old")
    skipped = dict(zip(bench.status[-1].skip_causes, bench.status[-1].skip_counts, strict=True))
    assert bench.status[-1].skipped == sum(skipped.values())


def test_a_plain_instruction_is_heard_at_once(bench: Bench) -> None:
    publisher = bench.say("wave")
    bench.graph.wait_until(lambda: bench.chunks[-1].instruction == "wave", "the new instruction")
    bench.graph.node.destroy_publisher(publisher)


def test_a_new_activation_is_a_new_session_that_hears_latched_instructions(bench: Bench) -> None:
    old = bench.more()
    assert bench.node.change("deactivate")
    assert bench.dry()
    assert bench.chunks[-1].horizon == 0, "the robot comes to rest"
    bench.until(INACTIVE)
    assert bench.node.set(instruction="") == []
    latched = bench.say("stack the cups", latched=True, heard_by=0)
    mark = bench.node.mark()
    assert bench.node.change("activate")
    bench.graph.wait_until(
        lambda: bench.chunks[-1].session > old.session and bench.chunks[-1].instruction == "stack the cups",
        "a chunk of the new session with the latched instruction",
    )
    new = [chunk for chunk in list(bench.chunks) if chunk.session == bench.chunks[-1].session]
    assert new[0].sequence == 0
    assert bench.node.since(mark, "incompatible QoS") == []
    bench.graph.node.destroy_publisher(latched)


def test_an_instruction_by_parameter_is_heard_at_once(bench: Bench) -> None:
    assert bench.node.set(instruction="open the drawer") == []
    bench.graph.wait_until(lambda: bench.chunks[-1].instruction == "open the drawer", "the new instruction")
    assert len(bench.node.set(instruction="y" * 10_000)) == 1
    assert bench.more().instruction == "open the drawer", "a refused parameter changes nothing"


def test_a_clock_jump_is_one_line_and_chunks_go_on(bench: Bench) -> None:
    """Simulated time that is reset."""
    begin, offset = time.monotonic_ns(), 1_000_000_000_000
    plain = bench.robot.now_ns
    try:
        bench.robot.now_ns = lambda: time.monotonic_ns() - begin + offset
        bench.robot.clock = True
        assert bench.node.set(use_sim_time=True) == []
        bench.graph.wait_until(lambda: bench.chunks[-1].header.stamp.sec < 2000, "chunks in simulated time")
        time.sleep(0.3)
        mark = bench.node.mark()
        offset += 500_000_000_000
        bench.graph.wait_until(lambda: 1400 < bench.chunks[-1].header.stamp.sec < 2000, "chunks after a jump")
        assert len(bench.node.told(mark, "jumped forward")) == 1
        offset -= 700_000_000_000
        bench.graph.wait_until(lambda: bench.chunks[-1].header.stamp.sec < 1000, "chunks after a reset")
        assert bench.node.since(mark, "ERROR") == []
    finally:
        bench.robot.now_ns, bench.robot.clock = plain, False
        bench.node.set(use_sim_time=False)
    bench.graph.wait_until(lambda: bench.chunks[-1].header.stamp.sec > 1_000_000, "chunks in real time")


def test_diagnostics_follow_the_state(bench: Bench) -> None:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    diagnostics = bench.graph.collect("/diagnostics", DiagnosticArray, 10)

    def level(expected: bytes) -> bool:
        return bool(diagnostics) and diagnostics[-1].status[0].level == expected

    bench.graph.wait_until(lambda: level(DiagnosticStatus.OK), "all well")
    bench.robot.spoil_image = lambda topic, message: None
    bench.graph.wait_until(lambda: level(DiagnosticStatus.WARN), "a warning")
    assert "camera" in diagnostics[-1].status[0].message


def test_it_ends_in_order_while_it_works(bench: Bench) -> None:
    assert bench.node.process.stop() == 0, bench.node.process.output
    assert bench.node.since(0, "Traceback") == []
