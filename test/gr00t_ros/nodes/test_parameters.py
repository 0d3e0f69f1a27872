# SPDX-License-Identifier: Apache-2.0
"""What a node says about its parameters, and about wrong ones, before it does anything."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import yaml

from support_processes import REPO, ProcessStarter, RosGraph
from support_robots import small_robot
from support_topics import NodeUnderTest

pytestmark = pytest.mark.ros

NODES = ("policy", "chunk_executor")


def specs(node: str) -> dict:
    from gr00t_ros.nodes import chunk_executor, policy_node
    from gr00t_ros.nodes.lifecycle import AUTOSTART

    declared = policy_node.PARAMETERS if node == "policy" else chunk_executor.PARAMETERS
    return {spec.name: spec for spec in (AUTOSTART, *declared)}


@pytest.mark.parametrize("node", NODES)
def test_the_shipped_defaults_are_the_nodes_own(node: str) -> None:
    """config/policy.yaml names every parameter, with the value that the node has without it."""
    shipped = yaml.safe_load((REPO / "config/policy.yaml").read_text())[f"/**/{node}"]["ros__parameters"]
    assert shipped == {name: spec.default for name, spec in specs(node).items()}


@pytest.mark.parametrize("node", NODES)
def test_every_parameter_is_described_with_unit_and_range(node: str) -> None:
    for name, spec in specs(node).items():
        descriptor = spec.descriptor()
        assert descriptor.description, name
        if isinstance(spec.default, float):
            assert spec.unit, name
            assert descriptor.floating_point_range, name
        assert spec.check(spec.default) == spec.default


def test_a_whole_number_is_taken_where_a_real_one_is_expected() -> None:
    value = specs("chunk_executor")["rate"].check(100)
    assert value == 100.0
    assert isinstance(value, float)


def test_on_and_off_are_taken_as_yaml_reads_them() -> None:
    """``real_time:=on`` on a command line arrives as true."""
    real_time = specs("chunk_executor")["real_time"]
    assert (real_time.check(True), real_time.check(False), real_time.check("auto")) == ("on", "off", "auto")
    assert specs("policy")["compile"].check(True) == "on"


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("chunk_executor", "rate", "fast"),
        ("chunk_executor", "rate", True),
        ("chunk_executor", "rate", 5.0),
        ("chunk_executor", "rate", float("nan")),
        ("chunk_executor", "lookahead", 1.5),
        ("chunk_executor", "enabled", 1),
        ("chunk_executor", "real_time", "always"),
        ("policy", "backend", True),
        ("policy", "num_steps", -1),
        ("policy", "seed", 1.5),
        ("policy", "instruction", "x" * 10_000),
    ],
)
def test_a_wrong_value_is_refused_by_name(node: str, name: str, value: object) -> None:
    from gr00t_ros.nodes.parameters import ParameterError

    with pytest.raises(ParameterError, match=f"parameter {name}: ") as caught:
        specs(node)[name].check(value)
    assert "expected" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_wrong_parameter_at_the_start_is_one_line_and_exit_code_2(processes: ProcessStarter) -> None:
    node = processes("gr00t_ros.nodes.chunk_executor", "--ros-args", "-p", "rate:=fast")
    assert node.wait() == 2
    assert len(node.lines) == 1, node.output
    assert "parameter rate: got 'fast', expected a number from 10 to 1000 Hz" in node.lines[0]


def test_a_whole_number_is_also_taken_while_the_node_runs(processes: ProcessStarter, graph: RosGraph) -> None:
    from rcl_interfaces.srv import DescribeParameters, GetParameters

    process = processes("gr00t_ros.nodes.chunk_executor")
    node = NodeUnderTest(process, graph, "/chunk_executor")
    assert node.set(rate=60) == []
    request = GetParameters.Request(names=["rate"])
    value = graph.call("/chunk_executor/get_parameters", GetParameters, request).values[0]
    assert (value.type, value.double_value) == (3, 60.0)
    described = graph.call(
        "/chunk_executor/describe_parameters", DescribeParameters, DescribeParameters.Request(names=["rate"])
    )
    assert described.descriptors[0].type == 3, "tools still see a real number"
    assert "range" in node.set(rate=5)[0]
    assert len(node.set(enabled=1)) == 1


def test_an_unknown_argument_is_one_line_and_exit_code_2(processes: ProcessStarter) -> None:
    node = processes("gr00t_ros.nodes.chunk_executor", "--rate", "50")
    assert node.wait() == 2
    assert len(node.lines) == 1, node.output
    assert "--rate" in node.lines[0]


def test_help_needs_no_robot(processes: ProcessStarter) -> None:
    for name in ("policy_node", "chunk_executor"):
        node = processes(f"gr00t_ros.nodes.{name}", "--help")
        assert node.wait() == 0
        assert "node" in node.output


def test_a_misspelt_parameter_is_pointed_out_and_a_wrong_robot_refused(
    processes: ProcessStarter, tmp_path: Path
) -> None:
    robot = small_robot()
    robot["limits"]["elbow"]["max"] = -5.0
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"robot": robot}}}))
    node = processes(
        *("gr00t_ros.nodes.chunk_executor", "--ros-args", "--params-file", str(file)),
        *("-p", "loookahead:=0.3", "-p", "rate:=50", "-p", "autostart:=true"),
    )
    node.wait_for("did you mean 'lookahead'")
    node.wait_for(r"\[ERROR\].*robot\.limits\.elbow\.max: found -5\.0, expected more than min")
    assert len([line for line in node.lines if re.search(r"\[(WARN|ERROR)\]", line)]) == 2, node.output
    assert node.stop(signal.SIGTERM) == 0, node.output
