# SPDX-License-Identifier: Apache-2.0
"""Engines and the policy node: one that cannot be used neither stops a robot in silence nor drives it, and a
new instruction finds the chunks going on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support_checkpoints import tiny_checkpoint
from support_processes import REPO, Collector, ros_environment
from support_topics import FakeRobot, NodeUnderTest, nanoseconds, so101_node
from support_trusted import Shelf, shelf_for

pytestmark = pytest.mark.ros

RUNNING = 2
SHORT = "wave"
LONG = "pick up every single one of the small green bottles on the left side of the table, one at a time"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of engines after a copy that went wrong."""
    folder = tmp_path_factory.mktemp("engines")
    (folder / "manifest.json").write_text('{"format_version": 1, "checkpoint"')
    (folder / "action.engine").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def node(broken: Path) -> Iterator[tuple[NodeUnderTest, FakeRobot]]:
    parameters = [f"checkpoint:={tiny_checkpoint()}", f"engine:={broken}", "device:=cpu", "rate:=10.0"]
    with so101_node("gr00t_ros.nodes.policy_node", *parameters, "instruction:=wave") as (process, graph):
        robot = FakeRobot(graph)
        yield NodeUnderTest(process, graph, "/gr00t/policy"), robot
        robot.close()


def test_tensorrt_asked_for_by_name_is_refused_and_the_node_lives(
    node: tuple[NodeUnderTest, FakeRobot],
) -> None:
    policy, _ = node
    assert policy.set(backend="tensorrt") == []
    mark = policy.mark()
    assert not policy.change("configure")
    assert policy.state == "unconfigured"
    lines = policy.told(mark)
    assert len(lines) == 1, lines
    assert re.match(r"\[ERROR\].*TensorRT needs a CUDA device", lines[0])
    assert policy.since(mark, "Traceback") == []
    assert policy.alive


def test_auto_goes_on_with_pytorch_and_keeps_saying_why(node: tuple[NodeUnderTest, FakeRobot]) -> None:
    """After the refusal above: putting the parameter back is all it takes."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    from gr00t_ros.msg import ActionChunk, PolicyStatus

    policy, _ = node
    assert policy.set(backend="auto") == []
    mark = policy.mark()
    assert policy.change("configure")
    lines = policy.told(mark)
    assert len(lines) == 1, lines
    assert re.match(r"\[WARN\].*TensorRT engine is not used: TensorRT needs a CUDA device", lines[0])
    chunks = policy.graph.collect("/gr00t/action_chunk", ActionChunk, 10)
    statuses = policy.graph.collect("/gr00t/policy/status", PolicyStatus, 10)
    diagnostics = policy.graph.collect("/diagnostics", DiagnosticArray, 10)
    assert policy.change("activate")
    policy.graph.wait_until(lambda: len(chunks) >= 3, f"chunks; {policy.process.output}")
    policy.graph.wait_until(
        lambda: any(one.status[0].message.startswith("running") for one in list(diagnostics)), "diagnostics"
    )
    running = [one.status[0] for one in list(diagnostics) if one.status[0].message.startswith("running")]
    values = {pair.key: pair.value for pair in running[-1].values}
    assert running[-1].level == DiagnosticStatus.WARN
    assert "needs a CUDA device" in values["TensorRT engine refused"]
    assert values["backend"] == "pytorch on cpu in float32"
    policy.graph.wait_until(lambda: statuses and statuses[-1].state == RUNNING, "a status")
    assert (statuses[-1].backend, statuses[-1].device) == ("pytorch", "cpu")


@pytest.mark.parametrize("text", [LONG, SHORT, "stack the cups"])
def test_a_new_instruction_takes_effect_within_two_chunks(
    node: tuple[NodeUnderTest, FakeRobot], text: str
) -> None:
    from gr00t_ros.msg import ActionChunk, PolicyStatus

    policy, _ = node
    graph = policy.graph
    chunks: Collector = graph.collect("/gr00t/action_chunk", ActionChunk, 10)
    statuses: Collector = graph.collect("/gr00t/policy/status", PolicyStatus, 10)
    graph.wait_until(lambda: len(chunks) >= 3 and len(statuses) >= 1, "chunks")
    # The service answers when the text has been taken.
    assert policy.set(instruction=text) == []
    taken_ns, before = graph.now_ns(), chunks[-1].sequence
    told = len(statuses)
    graph.wait_until(lambda: len(chunks) >= 3 and chunks[-1].sequence >= before + 8, "more chunks")
    graph.wait_until(lambda: len(statuses) >= told + 2, "two statuses")
    sequences = [chunk.sequence for chunk in list(chunks)]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences))), "none is missing"
    first = next(chunk.sequence for chunk in list(chunks) if chunk.instruction == text)
    assert first <= before + 2
    assert all(chunk.instruction == text for chunk in list(chunks) if chunk.sequence >= first)
    newer = [chunk for chunk in list(chunks) if nanoseconds(chunk.header.stamp) > taken_ns]
    assert newer
    assert {chunk.instruction for chunk in newer} == {text}
    assert {status.state for status in list(statuses)} == {RUNNING}
    assert statuses[-1].instruction == text


def test_the_node_ends_in_order(node: tuple[NodeUnderTest, FakeRobot]) -> None:
    policy, _ = node
    assert policy.process.stop() == 0, policy.process.output
    assert policy.since(0, "Traceback") == []


# ---- with engines that open, in a TensorRT that is not there: in this process --------------------


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return shelf_for(monkeypatch)


@pytest.fixture
def configure(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a node and configures it; gives it, its log of warnings, and whether it succeeded."""
    import rclpy

    from gr00t_ros.nodes.policy_node import PolicyNode

    for key, value in ros_environment(domain).items():
        monkeypatch.setenv(key, value)
    nodes: list[PolicyNode] = []

    def make(shelf: Shelf, folder: Path, backend: str = "auto") -> tuple[Any, bool]:
        arguments = ["--ros-args", "--params-file", str(REPO / "config/robots/so101.yaml")]
        for parameter in (
            f"checkpoint:={shelf.checkpoint}",
            f"engine:={folder}",
            f"backend:={backend}",
            "instruction:=go",
        ):
            arguments += ["-p", parameter]
        rclpy.init(args=arguments)
        nodes.append(PolicyNode())
        return nodes[-1], nodes[-1].trigger_configure().name == "SUCCESS"

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()
    if rclpy.ok():
        rclpy.shutdown()


def test_an_engine_that_passes_is_used(shelf: Shelf, tmp_path: Path, configure: Any) -> None:
    node, well = configure(shelf, shelf.write(tmp_path / "engines"))
    assert well, node.problem
    assert node._policy.choice.backend == "tensorrt"
    assert node.trigger_activate().name == "SUCCESS"
    _, _, values = node.diagnose()
    assert values["TensorRT engine refused"] == "no"
    assert values["backend"].startswith("tensorrt on cuda:0 in bfloat16")


def test_a_biased_joint_is_refused_by_the_robots_own_limit(
    shelf: Shelf, tmp_path: Path, configure: Any
) -> None:
    column = shelf.columns("arm").start + 4
    change = shelf.normalised("arm", 4, 0.05)

    def bias(actions: Any) -> Any:
        actions[..., column] -= change * actions[..., column].sign()
        return actions

    shelf.spoil(bias)
    node, well = configure(shelf, shelf.write(tmp_path / "engines"))
    assert well, node.problem
    assert node._policy.choice.backend == "pytorch"
    checked = shelf.runs
    assert node.trigger_activate().name == "SUCCESS"
    level, _, values = node.diagnose()
    assert level >= b"\x01"
    assert "arm wrist_roll: error 0.0" in values["TensorRT engine refused"]
    assert shelf.runs == checked, "nothing but the verification has come from it"


def test_a_refused_engine_asked_for_by_name_leaves_the_node_unconfigured(
    shelf: Shelf, tmp_path: Path, configure: Any
) -> None:
    shelf.spoil(lambda actions: actions * 0)
    node, well = configure(shelf, shelf.write(tmp_path / "engines"), "tensorrt")
    assert not well
    assert "failed its verification" in node.problem
    assert node._policy is None
