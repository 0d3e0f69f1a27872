# SPDX-License-Identifier: Apache-2.0
"""A policy node that cannot work says so in one line, stays alive, and works once that is put right."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import support_checkpoints as checkpoints
from support_messages import grey_image, joint_state, modality
from support_planning import FakePolicy
from support_processes import REPO, ProcessStarter, RosGraph, ros_environment
from support_topics import FRONT, JOINTS, ROBOT, WRIST, NodeUnderTest, so101_node

pytestmark = pytest.mark.ros

ARM = list(ROBOT.action["arm"].joints)
GOOD: dict[str, Any] = {
    "device": "cpu",
    "precision": "auto",
    "backend": "auto",
    "robot__embodiment_tag": "new_embodiment",
    "robot__video__keys": ["front", "wrist"],
    "robot__state__arm__joints": ARM,
    "robot__action__arm__joints": ARM,
    "robot__limits__shoulder_pan__velocity": 2.0,
}


@pytest.fixture(scope="module")
def process() -> Iterator[NodeUnderTest]:
    """One process for all mistakes: what follows a mistake must not depend on it."""
    with so101_node("gr00t_ros.nodes.policy_node") as (process, graph):
        yield NodeUnderTest(process, graph, "/gr00t/policy")


@pytest.fixture
def node(process: NodeUnderTest) -> Iterator[NodeUnderTest]:
    """The process, unconfigured again after a test that failed halfway."""
    yield process
    if process.alive and process.state == "inactive":
        process.change("cleanup")


MISTAKES = [
    pytest.param({"checkpoint": ""}, r"parameter checkpoint is empty", id="no checkpoint"),
    pytest.param({"checkpoint": "/nowhere/at/all"}, r"/nowhere/at/all", id="missing checkpoint"),
    pytest.param({"checkpoint": checkpoints.foreign_checkpoint}, r"foreign", id="foreign checkpoint"),
    pytest.param(
        {"checkpoint": checkpoints.truncated_checkpoint}, r"model\.safetensors", id="truncated shard"
    ),
    pytest.param(
        {"robot__embodiment_tag": "libero_panda"}, r"libero_panda.*new_embodiment", id="unknown embodiment"
    ),
    pytest.param(
        {"checkpoint": checkpoints.checkpoint_without_statistics},
        r"new_embodiment.*statistics",
        id="embodiment without statistics",
    ),
    pytest.param(
        {"checkpoint": checkpoints.checkpoint_with_short_network},
        r"delta_indices have 16 steps, its horizon only 10",
        id="network too short",
    ),
    pytest.param(
        {"robot__video__keys": ["front", "wrist", "top"]}, r"robot\.video\.top", id="unknown camera"
    ),
    pytest.param({"robot__video__keys": ["front"]}, r"video\.\w*wrist|wrist", id="missing camera"),
    pytest.param({"robot__action__arm__joints": [*ARM[:4], "wrist_rol"]}, r"wrist_rol", id="unknown joint"),
    pytest.param({"robot__state__arm__joints": ARM[:4]}, r"state\.arm.*4.*5", id="state too narrow"),
    pytest.param({"robot__limits__shoulder_pan__velocity": -1.0}, r"shoulder_pan\.velocity", id="bad limit"),
    pytest.param({"device": "cuda:7"}, r"cuda:7", id="no such device"),
    pytest.param({"precision": "float16"}, r"float16", id="no such precision"),
]


@pytest.mark.parametrize(("change", "pattern"), MISTAKES)
def test_a_mistake_is_one_line_and_the_node_lives(
    node: NodeUnderTest, change: dict[str, str | Callable[[], Path]], pattern: str
) -> None:
    values = {**GOOD, "checkpoint": str(checkpoints.tiny_checkpoint())}
    values |= {key: str(value()) if callable(value) else value for key, value in change.items()}
    assert node.set(**values) == []
    mark = node.mark()
    assert not node.change("configure")
    assert node.state == "unconfigured"
    lines = node.told(mark)
    assert len(lines) == 1, lines
    assert lines[0].startswith("[ERROR]")
    assert re.search(pattern, lines[0]), lines
    assert node.since(mark, "Traceback") == []
    assert node.alive


def test_the_mistake_put_right_the_node_configures(node: NodeUnderTest) -> None:
    assert node.set(**GOOD, checkpoint=str(checkpoints.tiny_checkpoint())) == []
    mark = node.mark()
    assert node.change("configure")
    assert node.state == "inactive"
    assert node.since(mark) == []
    refused = node.set(checkpoint="/elsewhere")
    assert len(refused) == 1
    assert "configure" in refused[0]
    assert node.change("cleanup")


@pytest.mark.parametrize(("letterbox", "word"), [("never", "off"), ("always", "on"), ("auto", "on")])
def test_the_letterbox_is_as_asked_for(node: NodeUnderTest, letterbox: str, word: str) -> None:
    assert node.set(**GOOD, checkpoint=str(checkpoints.tiny_checkpoint()), letterbox=letterbox) == []
    mark = node.mark()
    assert node.change("configure")
    assert len(node.told(mark, f"letterbox {word}")) == 1
    assert node.change("cleanup")


def test_weights_that_were_never_trained_are_a_loud_warning(node: NodeUnderTest) -> None:
    assert node.set(**GOOD, checkpoint=str(checkpoints.untrained_checkpoint())) == []
    mark = node.mark()
    assert node.change("configure")
    lines = node.told(mark)
    assert len(lines) == 1, lines
    assert "UNTRAINED WEIGHTS" in lines[0]
    assert "new_embodiment" in lines[0]
    assert node.change("cleanup")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"instruction": "x" * 10_000}, "1000"),
        ({"rate": -1.0}, "rate"),
        ({"num_steps": 101}, "num_steps"),
        ({"chekpoint": "x"}, "did you mean 'checkpoint'"),
        ({"device": 3}, "type"),
        ({"letterbox": "square"}, "auto, always, never"),
    ],
    ids=["instruction", "rate", "num_steps", "misspelt", "type", "letterbox"],
)
def test_a_bad_parameter_is_refused_with_a_reason(node: NodeUnderTest, values: dict, word: str) -> None:
    reasons = node.set(**values)
    assert len(reasons) == 1
    assert word in reasons[0]


def test_the_node_ends_in_order(node: NodeUnderTest) -> None:
    assert node.process.stop() == 0, node.process.output
    assert node.since(0, "Traceback") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_that_is_loading(processes: ProcessStarter, number: int) -> None:
    arguments = ["--ros-args"]
    for file in ("config/policy.yaml", "config/robots/so101.yaml"):
        arguments += ["--params-file", str(REPO / file)]
    arguments += ["-p", f"checkpoint:={checkpoints.tiny_checkpoint()}", "-p", "autostart:=true"]
    process = processes("gr00t_ros.nodes.policy_node", *arguments)
    process.wait_for("loading")
    assert process.stop(number) == 0, process.output
    assert "loaded" not in process.output
    assert "Traceback" not in process.output


def test_no_session_begins_while_an_inference_of_the_last_one_runs(
    domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, since no network is slow enough on demand."""
    import rclpy

    from gr00t_ros.nodes.policy_node import PolicyNode
    from gr00t_ros.planning import Planner

    policy: Any = FakePolicy()
    policy.release.clear()
    policy.modality = modality(["front", "wrist"], ["arm", "gripper"], ["arm", "gripper"])
    policy.choice = SimpleNamespace(backend="fake", device="cpu", precision="float32", refused="")
    policy.notes, policy.horizon, policy.num_steps = [], 16, 4
    policy.config, policy.encode_plan = SimpleNamespace(action_horizon=16), None
    policy.directory, policy.untrained = "nowhere", False
    policy.processor = SimpleNamespace(letterbox=True)
    monkeypatch.setattr(PolicyNode, "_load", lambda self, robot: policy)
    monkeypatch.setattr("gr00t_ros.planning.JOIN_TIMEOUT_S", 0.05)
    arguments = ["--ros-args", "-p", "checkpoint:=x", "-p", "instruction:=go"]
    for key, value in ros_environment(domain).items():
        monkeypatch.setenv(key, value)
    rclpy.init(args=[*arguments, "--params-file", str(REPO / "config/robots/so101.yaml")])
    node = PolicyNode()
    try:
        assert node.trigger_configure().name == "SUCCESS"
        assert node.trigger_activate().name == "SUCCESS"
        planner = node._planner
        assert isinstance(planner, Planner)
        now = node.now_ns()
        planner.add(JOINTS, joint_state(dict.fromkeys(ROBOT.joints, 0.0), now))
        for topic in (FRONT, WRIST):
            planner.add(topic, grey_image(9, now))
        RosGraph.wait_until(lambda: policy.seen, "an inference")
        node.trigger_deactivate()
        assert node.trigger_activate().name == "FAILURE"
        assert "still runs" in node.problem
        policy.release.set()
        RosGraph.wait_until(lambda: not planner.busy, "its end")
        assert node.trigger_activate().name == "SUCCESS"
        assert node._planner is not planner
    finally:
        policy.release.set()
        node.close()
        node.destroy_node()
        rclpy.shutdown()


def test_an_override_of_one_topic_stays_with_it(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """rclpy writes overrides into the profile that it is given."""
    import rclpy
    from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data

    from gr00t_ros.nodes.policy_node import PolicyNode

    policy: Any = FakePolicy()
    policy.modality = modality(["front", "wrist"], ["arm", "gripper"], ["arm", "gripper"])
    policy.choice = SimpleNamespace(backend="fake", device="cpu", precision="float32", refused="")
    policy.notes, policy.directory, policy.untrained = [], "nowhere", False
    policy.processor = SimpleNamespace(letterbox=True)
    monkeypatch.setattr(PolicyNode, "_load", lambda self, robot: policy)
    arguments = ["--ros-args", "-p", "checkpoint:=x", "-p", "real_time_chunking:=false"]
    for topic in (FRONT, JOINTS):
        arguments += ["-p", f"qos_overrides.{topic}.subscription.reliability:=reliable"]
    for key, value in ros_environment(domain).items():
        monkeypatch.setenv(key, value)
    rclpy.init(args=[*arguments, "--params-file", str(REPO / "config/robots/so101.yaml")])
    node = PolicyNode()
    try:
        assert node.trigger_configure().name == "SUCCESS"
        assert node.trigger_activate().name == "SUCCESS"
        asked = {s.topic_name: s.qos_profile.reliability for s in node._inputs}
        assert asked[FRONT] == asked[JOINTS] == ReliabilityPolicy.RELIABLE
        assert asked[WRIST] == ReliabilityPolicy.BEST_EFFORT
        assert qos_profile_sensor_data.reliability == ReliabilityPolicy.BEST_EFFORT
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()
