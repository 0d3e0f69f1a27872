# SPDX-License-Identifier: Apache-2.0
"""The launch argument params_file: what it may hold, and that the nodes get it last."""

from __future__ import annotations

from pathlib import Path

import pytest

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.system import policy_programs


def test_both_nodes_read_it_after_the_shipped_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("/**/chunk_executor: {ros__parameters: {rate: 200.0}}")
    for program in policy_programs({"params_file": str(file)}):
        assert program.parameter_files[-1] == file
        assert [path.name for path in program.parameter_files] == ["policy.yaml", "so101.yaml", "mine.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "/**/chunk_executor: {ros__parameters: {enabled: true}}",
        "/gr00t/chunk_executor: {ros__parameters: {enabled: true}}",
        "gr00t: {chunk_executor: {ros__parameters: {enabled: true}}}",
        "chunk_executor: {ros__parameters: {enabled: true}}",
        "/**: {ros__parameters: {enabled: true}}",
        "/gr00t/*: {ros__parameters: {enabled: true}}",
    ],
)
def test_a_launch_argument_in_it_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(Gr00tRosError, match=r"sets enabled .* give enabled:=... to the launch file"):
        policy_programs({"params_file": str(file)})


@pytest.mark.parametrize(
    "text",
    [
        "/**/chunk_executor: {ros__parameters: {rate: 100.0}}",  # the argument rate is the policy's
        "/**: {ros__parameters: {robot: {executor: {merge: replace}}}}",
        "/**/camera: {ros__parameters: {device: /dev/video0}}",  # another node's
    ],
)
def test_what_only_looks_like_a_launch_argument_is_not(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert policy_programs({"params_file": str(file)})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "cannot be read: .*No such file"),
        ("a: [", "cannot be read"),
        ("rate: 200.0", "has no parameters, expected NODE: ros__parameters"),
        ("", "has no parameters"),
    ],
)
def test_a_file_of_no_use_is_refused(tmp_path: Path, text: str | None, match: str) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Gr00tRosError, match=match):
        policy_programs({"params_file": str(file)})
