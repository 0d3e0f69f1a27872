# SPDX-License-Identifier: Apache-2.0
"""Whatever is asked of a lifecycle node, in whatever order, it answers and lives on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support_processes import REPO, ProcessStarter, RosGraph
from support_topics import NodeUnderTest

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
