# SPDX-License-Identifier: Apache-2.0
"""Whatever is asked of a lifecycle node, in whatever order, it answers and lives on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support_processes import REPO, ProcessStarter, RosGraph
from support_topics import NodeUnderTest, nanoseconds

pytestmark = pytest.mark.ros

ROBOT_ARGUMENTS = ("--ros-args", "--params-file", str(REPO / "config/robots/so101.yaml"))


def executor(processes: ProcessStarter, graph: RosGraph, *arguments: str) -> NodeUnderTest:
    process = processes("gr00t_ros.nodes.chunk_executor", *ROBOT_ARGUMENTS, *arguments)
    return NodeUnderTest(process, graph, "/chunk_executor")


def test_an_impossible_transition_is_refused_and_the_node_works_on(
    processes: ProcessStarter, graph: RosGraph
) -> None:
    node = executor(processes, graph)
    for state, impossible, way_on in (
        ("unconfigured", ("activate", "deactivate", "cleanup"), "configure"),
        ("inactive", ("configure", "deactivate"), "activate"),
        ("active", ("configure", "activate", "cleanup"), "deactivate"),
    ):
        assert node.state == state
        for transition in impossible:
            assert not node.change(transition), (state, transition)
            assert node.state == state
        assert node.change(way_on)
    assert node.process.stop() == 0, node.process.output
    assert node.since(0, "Traceback") == []


WAITING, STOPPED = 0, 3


def test_stop_means_stay_stopped_whatever_the_lifecycle_does(
    processes: ProcessStarter, graph: RosGraph
) -> None:
    from std_srvs.srv import Trigger

    from gr00t_ros.msg import ExecutorStatus

    node = executor(processes, graph, "-p", "enabled:=true")
    status = graph.collect("/executor/status", ExecutorStatus, 10)

    def call(name: str) -> tuple[bool, str]:
        answer = graph.call(f"/executor/{name}", Trigger)
        return answer.success, answer.message

    def walk(*transitions: str) -> int:
        """The state of the executor at the end."""
        for transition in transitions:
            assert node.change(transition)
        now = graph.now_ns()
        graph.wait_until(
            lambda: status and nanoseconds(status[-1].header.stamp) > now, "a status after the walk"
        )
        return int(status[-1].state)

    assert call("stop") == (True, "stopped until executor/start")  # not even configured
    assert walk("configure", "activate") == STOPPED
    assert status[-1].reason == "stopped by executor/stop"
    assert call("start")[0]
    assert walk("deactivate", "activate") == WAITING
    assert call("stop")[0]
    assert walk("deactivate", "cleanup", "configure", "activate") == STOPPED
    assert node.change("deactivate")
    success, message = call("start")
    assert not success
    assert "activate the node" in message
    assert walk("activate") == STOPPED
    assert call("start")[0]
    assert walk("deactivate", "cleanup", "configure", "activate") == WAITING
    # That the parameter kept it still is no stop: the parameter decides again.
    assert node.change("deactivate")
    assert node.change("cleanup")
    assert node.set(enabled=False) == []
    assert walk("configure", "activate") == STOPPED
    assert node.change("deactivate")
    assert node.change("cleanup")
    assert node.set(enabled=True) == []
    assert walk("configure", "activate") == WAITING


def test_without_enabled_every_activation_waits_for_a_start(
    processes: ProcessStarter, graph: RosGraph
) -> None:
    """A lifecycle manager that activates again must not move a robot that was started once."""
    from std_srvs.srv import Trigger

    from gr00t_ros.msg import ExecutorStatus

    node = executor(processes, graph)
    status = graph.collect("/executor/status", ExecutorStatus, 10)

    def until(state: int, reason: str = "") -> None:
        now = graph.now_ns()

        def seen() -> bool:
            last = status[-1] if status else None
            fresh = last is not None and nanoseconds(last.header.stamp) > now
            return fresh and last.state == state and reason in last.reason

        graph.wait_until(seen, f"state {state} {reason}")

    disabled = "disabled until executor/start"
    assert node.change("configure")
    assert node.change("activate")
    until(STOPPED, disabled)
    assert graph.call("/executor/start", Trigger).success
    until(WAITING)
    assert node.change("deactivate")
    assert node.change("activate")
    until(STOPPED, disabled)
    # A stop is not taken for that: it says why.
    assert graph.call("/executor/stop", Trigger).success
    assert node.change("deactivate")
    assert node.change("activate")
    until(STOPPED, "stopped by executor/stop")


@pytest.mark.parametrize("module", ["chunk_executor", "so101_sim"])
@pytest.mark.parametrize(
    "arguments", [("--params-file", "/nowhere.yaml"), ("-p", "a b"), ("-r", ":=")], ids=["file", "-p", "-r"]
)
def test_wrong_ros_arguments_are_one_line_and_exit_code_2(
    processes: ProcessStarter, module: str, arguments: tuple[str, ...]
) -> None:
    node = processes(f"gr00t_ros.nodes.{module}", "--ros-args", *arguments)
    assert node.wait() == 2, node.output
    assert "Traceback" not in node.output
    assert len([line for line in node.lines if line.startswith("error: wrong ROS arguments")]) == 1


def test_a_params_file_that_is_no_yaml_is_one_line_and_exit_code_2(
    processes: ProcessStarter, tmp_path: Path
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("/**: {ros__parameters: [")
    node = processes("gr00t_ros.nodes.chunk_executor", "--ros-args", "--params-file", str(file))
    assert node.wait() == 2, node.output
    assert "Traceback" not in node.output
    assert len([line for line in node.lines if line.startswith("error: ")]) == 1
