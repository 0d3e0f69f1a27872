# SPDX-License-Identifier: Apache-2.0
"""Camera traffic gets the shipped Fast DDS profile, unless a user has chosen his own way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gr00t_ros import dds, share
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.system import POLICY_ARGUMENTS, demo_programs, policy_programs

PROFILE = share.config_file("dds/fastdds.xml")
OLD, NEW = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
WAYS = (OLD, NEW, "FASTDDS_BUILTIN_TRANSPORTS", "ROS_LOCALHOST_ONLY")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine that runs the tests, and no Fast DDS found."""
    for name in (*WAYS, "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    # In this module alone: the shipped files are looked for below the real one.
    monkeypatch.setattr(dds, "sys", SimpleNamespace(prefix=str(tmp_path / "nothing")))


def prefix_with(folder: Path, library: str) -> str:
    path = folder / library
    path.parent.mkdir(parents=True)
    path.touch()
    return str(folder)


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("lib/libfastrtps.so", {OLD}),  # Humble, Jazzy
        ("lib/x86_64-linux-gnu/libfastrtps.so", {OLD}),
        ("lib/libfastdds.so", {NEW}),  # Kilted
        ("lib/libddsc.so", {OLD, NEW}),  # not found: whichever it reads
    ],
)
def test_the_variable_is_the_one_that_the_installed_fast_dds_reads(
    tmp_path: Path, library: str, expected: set[str]
) -> None:
    prefixes = f"{tmp_path / 'overlay'}:{prefix_with(tmp_path / 'ros', library)}"
    found = dds.environment("shipped", {"AMENT_PREFIX_PATH": prefixes})
    assert set(found) == expected
    assert set(found.values()) == {str(PROFILE)}


@pytest.mark.parametrize("name", WAYS)
def test_what_the_user_has_set_stands(name: str) -> None:
    assert dds.environment("shipped", {name: "1"}) == {}


@pytest.mark.parametrize("value", ["", "0"])
def test_a_variable_that_says_nothing_is_none_of_the_users(value: str) -> None:
    assert dds.environment("shipped", dict.fromkeys(WAYS[2:], value)) != {}


def test_a_file_that_is_named_is_used_whatever_is_set(tmp_path: Path) -> None:
    own = tmp_path / "own.xml"
    own.touch()
    assert set(dds.environment(str(own), {OLD: "/another.xml"}).values()) == {str(own)}
    with pytest.raises(Gr00tRosError, match=r"dds_profile: file '.*nowhere.xml' does not exist, expected"):
        dds.environment(str(tmp_path / "nowhere.xml"), {})


def test_an_empty_text_means_none() -> None:
    assert dds.environment("", {}) == {}


def environments(programs: list) -> dict[str, bool]:
    return {program.name: bool(program.environment) for program in programs}


def test_programs_with_camera_traffic_get_it() -> None:
    assert environments(policy_programs({})) == {"policy": True, "chunk_executor": False}
    assert environments(policy_programs({"dds_profile": ""})) == {"policy": False, "chunk_executor": False}
    assert environments(demo_programs({"checkpoint": "x"})) == {
        "so101_sim": True,
        "policy": True,
        "chunk_executor": False,
        "demo_monitor": True,
    }
    assert not any(environments(demo_programs({"checkpoint": "x", "dds_profile": ""})).values())


def test_the_executor_starts_disabled_unless_it_is_asked_for() -> None:
    def executor(**arguments: str) -> object:
        return policy_programs(arguments)[1].parameters["enabled"]

    assert executor() is False
    assert executor(enabled="true") is True
    assert {p.name: p for p in demo_programs({"checkpoint": "x"})}["chunk_executor"].parameters["enabled"]
    with pytest.raises(Gr00tRosError, match="argument dry_run is 'perhaps', expected true or false"):
        executor(dry_run="perhaps")


def test_every_argument_reaches_a_program() -> None:
    """A launch argument that nothing reads would be a promise without effect."""
    values = {"true": "false", "false": "true", "0": "7", "0.0": "3.5", "": "some"}
    plain = policy_programs({})
    for argument in POLICY_ARGUMENTS:
        if argument.name in ("robot", "dds_profile", "params_file"):
            continue
        changed = policy_programs({argument.name: values.get(argument.default, "other")})
        assert changed != plain, argument.name
