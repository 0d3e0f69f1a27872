# SPDX-License-Identifier: Apache-2.0
"""What record.launch.py starts, and that each of its arguments has an effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from gr00t_ros.errors import Gr00tRosError, RobotConfigError
from gr00t_ros.system import RECORD_ARGUMENTS, record_programs


def test_one_recorder_with_the_profile_for_cameras() -> None:
    [program] = record_programs({})
    assert (program.name, program.executable, program.namespace) == (
        "episode_recorder", "episode_recorder", "/gr00t",
    )  # fmt: skip
    assert [path.name for path in program.parameter_files] == ["record.yaml", "so101.yaml"]
    assert program.environment
    assert program.parameters["output"] == str(Path.cwd() / "episodes")
    assert not record_programs({"dds_profile": ""})[0].environment


def test_every_argument_reaches_the_program(tmp_path: Path) -> None:
    """A launch argument that nothing reads would be a promise without effect."""
    values = {"true": "false", "false": "true"}
    plain = record_programs({})
    for argument in RECORD_ARGUMENTS:
        if argument.name not in ("robot", "dds_profile", "params_file"):
            assert record_programs({argument.name: values.get(argument.default, "other")}) != plain, argument
    assert record_programs({"robot": "gr1"}) != plain
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**/episode_recorder: {ros__parameters: {min_free_space: 10.0}}")
    assert record_programs({"params_file": str(mine)})[0].parameter_files[-1] == mine


def test_mistakes_are_told(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**/episode_recorder: {ros__parameters: {all_topics: true}}")
    for arguments, said in (
        ({"params_file": str(mine)}, r"sets all_topics .* give all_topics:=... to the launch file"),
        ({"write_bags": "perhaps"}, "argument write_bags is 'perhaps', expected true or false"),
        ({"bags": "here"}, "unknown argument bags; known are robot, output"),
    ):
        with pytest.raises(Gr00tRosError, match=said):
            record_programs(arguments)
    with pytest.raises(RobotConfigError, match="robot 'so999' is neither"):
        record_programs({"robot": "so999"})
