# SPDX-License-Identifier: Apache-2.0
"""The episode recorder as its users meet it: services, bags, marks, warnings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from gr00t_ros.data.bags import Bag
from gr00t_ros.msg import EpisodeEvent
from gr00t_ros.nodes.recorder_parameters import PARAMETERS
from gr00t_ros.recording.audit import BAD, GOOD
from support_processes import REPO, ProcessStarter
from support_recorder import (
    EVENTS,
    INSTRUCTION,
    MODULE,
    NAME,
    KnownRobot,
    Recorder,
    arguments,
    delivered,
    recorder,
)
from support_topics import FRONT, JOINTS

pytestmark = pytest.mark.ros

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recorder, KnownRobot]]:
    output = tmp_path_factory.mktemp("episodes")
    with recorder(output, min_free_space=1.0) as (node, graph, _):
        robot = KnownRobot(graph)
        try:
            yield node, robot
            # What runs at the end is kept.
            assert node.start("the last").success
            robot.more(graph)
            assert node.process.stop() == 0, node.process.output
        finally:
            robot.close()
        last = sorted(output.glob("episode_*"))[-1]
        record = node.record(last.name)
        assert (record.ended_by, record.instruction) == ("shutdown", "the last")
        assert "cut short: the recorder was stopped" in record.audit["reasons"]
        robot.check(last, record)
        assert "Traceback" not in node.process.output


def set_parameter(node: Recorder, name: str, value: object) -> None:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    assert node.graph.call(f"{NAME}/set_parameters", SetParameters, request).results[0].successful


def test_an_episode_byte_for_byte(running: tuple[Recorder, KnownRobot]) -> None:
    node, robot = running
    node.graph.wait_until(lambda: robot.count > 100, "the recorder to find the robot")
    begun = node.start("  pick up the cube ")
    assert begun.success, begun.message
    assert (node.output / f"{begun.episode}.recording").is_dir()
    robot.more(node.graph, 75)
    ended = node.stop()
    assert ended.success, ended.message
    assert ended.message.startswith(f"{begun.episode}: ")
    assert not (node.output / f"{begun.episode}.recording").exists()

    record = node.record(begun.episode)
    robot.check(node.output / begun.episode, record)
    with Bag(node.output / begun.episode) as bag:
        joints = bag.decode(next(bag.messages([JOINTS])))
    assert dict(zip(joints.name, joints.position, strict=True)) == robot.robot.positions
    assert (record.episode, record.robot, record.ended_by) == (begun.episode, "so101", "stop")
    assert (record.instruction, record.label) == ("pick up the cube", "")
    # A machine that stands still for a moment makes gaps; nothing else may be wrong.
    reasons = [reason for reason in record.audit["reasons"] if " gaps over " not in reason]
    assert not [reason for reason in reasons if "lost" not in reason], reasons
    assert record.audit["verdict"] == GOOD or len(reasons) < len(record.audit["reasons"])
    node.process.wait_for(rf"\[INFO\].*{FRONT}: \d+ messages, .* Hz \(at least 20\), longest gap")


def test_instruction_and_marks_are_in_the_bag(running: tuple[Recorder, KnownRobot]) -> None:
    node, robot = running
    # A text of a latched publisher, from before the episode, is what the robot is told.
    publisher = node.graph.publisher(INSTRUCTION, String, LATCHED, subscribers=2)
    publisher.publish(String(data="stack the cubes"))
    delivered(publisher)
    before = len(node.events)
    name = node.start().episode
    robot.more(node.graph, 10)
    publisher.publish(String(data="put them back"))
    delivered(publisher)
    assert node.label("so far so good").success
    robot.more(node.graph, 10)
    assert node.stop().success

    record = node.record(name)
    assert (record.instruction, record.told, record.label) == (
        "stack the cubes", "stack the cubes", "so far so good",
    )  # fmt: skip
    with Bag(node.output / name) as bag:
        texts = [bag.decode(message) for message in bag.messages([INSTRUCTION])]
        marks = [bag.decode(message) for message in bag.messages([EVENTS])]
        first = next(bag.messages())
    assert [text.data for text in texts] == ["stack the cubes", "put them back"]
    assert (first.topic, first.receive_ns) == (EVENTS, record.start_ns)
    kinds = [EpisodeEvent.START, EpisodeEvent.LABEL, EpisodeEvent.STOP]
    assert [mark.event for mark in marks] == kinds
    assert [mark.label for mark in marks] == ["", "so far so good", "so far so good"]
    node.graph.wait_until(lambda: len(node.events) >= before + 3, "the marks on the topic")
    heard = list(node.events)[before:]
    assert [(mark.event, mark.episode, mark.instruction) for mark in heard] == [
        (kind, name, "stack the cubes") for kind in kinds
    ]
    assert heard[0].header.stamp.sec == marks[0].header.stamp.sec
    node.graph.node.destroy_publisher(publisher)


def test_the_parameter_is_an_instruction_too(running: tuple[Recorder, KnownRobot]) -> None:
    node, robot = running
    set_parameter(node, "instruction", "wave")
    name = node.start().episode
    robot.more(node.graph, 5)
    assert node.stop().success
    assert node.record(name).instruction == "wave"
    set_parameter(node, "instruction", " ")
    without = node.start()
    assert (
        without.message == f"{without.episode} begins; without an instruction, which label can still give it"
    )
    robot.more(node.graph, 5)
    assert "no instruction" in node.stop().message
    assert node.record(without.episode).instruction == ""


def test_labels_after_the_end(running: tuple[Recorder, KnownRobot]) -> None:
    node, robot = running
    first = node.start("pick").episode
    robot.more(node.graph, 5)
    assert node.stop().success
    assert node.label("success").episode == first
    second = node.start("pick").episode
    robot.more(node.graph, 5)
    assert node.stop().success
    corrected = node.label(instruction="place", episode=first)
    assert corrected.success, corrected.message
    assert (node.record(first).label, node.record(first).instruction) == ("success", "place")
    assert node.record(second).label == ""
    node.graph.wait_until(lambda: node.events[-1].event == EpisodeEvent.LABEL, "the mark")
    assert (node.events[-1].episode, node.events[-1].instruction) == (first, "place")
    for answer, said in (
        (node.label(), "neither a label nor a corrected instruction"),
        (node.label("success", episode="episode_999999"), "there is no episode episode_999999"),
        (node.label("success", episode="../x"), "is not an episode's name"),
        (node.label(instruction="?"), "expected a text that says what to do"),
    ):
        assert not answer.success
        assert said in answer.message


def test_discarding(running: tuple[Recorder, KnownRobot]) -> None:
    node, robot = running
    first = node.start("pick").episode
    robot.more(node.graph, 5)
    assert node.discard().success
    second = node.start("pick").episode
    assert second > first, "a name is not used again"
    robot.more(node.graph, 5)
    assert node.stop().success
    before = sorted(node.output.iterdir())
    assert node.discard().message == f"{second} is thrown away"
    assert sorted(node.output.iterdir()) == [path for path in before if path.name != second]
    node.graph.wait_until(lambda: node.events[-1].event == EpisodeEvent.DISCARD, "the mark")
    assert node.events[-1].episode == second
    again = node.discard()
    assert not again.success
    assert "no episode is being recorded, and none has been" in again.message


def test_what_is_refused_changes_nothing(running: tuple[Recorder, KnownRobot]) -> None:
    node, robot = running
    ended = node.stop()
    assert (ended.success, ended.message) == (False, "no episode is being recorded")
    assert "expected at most" in node.start("x" * 2000).message
    name = node.start("pick").episode
    again = node.start("place")
    assert not again.success
    assert again.message == f"{name} is being recorded: stop or discard it first"
    robot.more(node.graph, 5)
    assert node.stop().success
    assert node.record(name).instruction == "pick"

    set_parameter(node, "min_free_space", 1e9)
    refused = node.start("pick")
    assert not refused.success
    assert "MB are free on the disk of" in refused.message
    set_parameter(node, "min_free_space", 1.0)


def test_a_silent_camera_is_told_at_once_and_judged_at_the_end(
    running: tuple[Recorder, KnownRobot],
) -> None:
    node, robot = running
    mark = len(node.process.lines)
    name = node.start("pick").episode
    robot.more(node.graph, 10)
    robot.silent.add(FRONT)
    said = rf"video.front: nothing on {FRONT} for \d+\.\d s \(at most 0.2 s\)"
    node.process.wait_for(rf"\[WARN\].*{said}")
    node.graph.wait_until(lambda: node.status()[1].get("silent topics") == FRONT, "the diagnostics")
    status, values = node.status()
    assert status.level == DiagnosticStatus.WARN
    assert (values["episode"], values["instruction"]) == (name, "pick")
    robot.more(node.graph, 100)
    told = [line for line in node.process.lines[mark:] if "nothing on" in line and FRONT in line]
    assert len(told) == 1, told
    robot.silent.clear()
    robot.more(node.graph, 10)
    assert node.stop().success
    audit = node.record(name).audit
    assert audit["verdict"] == BAD
    assert audit["topics"][FRONT]["longest_gap"] > 1.0
    assert any(reason.startswith(f"video.front ({FRONT}): without a message") for reason in audit["reasons"])
    node.graph.wait_until(lambda: node.status()[0].level == DiagnosticStatus.OK, "the end of the warning")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "no robot description: give --ros-args --params-file ROBOT_YAML"),
        (
            ["--ros-args", "-p", "queue_size:=0.1"],
            "parameter queue_size: got 0.1, expected a number from 1",
        ),
        (["FILE"], "parameter output: .*file cannot be made a folder"),
        (["--robot", "so101"], "unknown arguments --robot so101"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, processes: ProcessStarter, line: list[str], said: str) -> None:
    (tmp_path / "file").touch()
    node = processes(MODULE, *(arguments(tmp_path / "file") if line == ["FILE"] else line))
    assert node.wait() == 2
    assert node.lines[-1].startswith("error: ")
    node.wait_for(said)


def test_the_shipped_defaults_are_the_nodes_own() -> None:
    """config/record.yaml names every parameter, with the value that the node has without it."""
    shipped = yaml.safe_load((REPO / "config/record.yaml").read_text())["/**/episode_recorder"]
    assert shipped["ros__parameters"] == {spec.name: spec.default for spec in PARAMETERS}
