# SPDX-License-Identifier: Apache-2.0
"""Definitions from the files of installed packages, whoever made them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gr00t_ros.errors import RecordingError
from gr00t_ros.recording.definitions import Definitions, installed_prefixes

SHARE = Path(sys.prefix) / "share"


def package(prefix: Path, name: str, **files: str) -> None:
    folder = prefix / "share" / name / "msg"
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)


def test_a_custom_message_with_all_that_is_in_it(tmp_path: Path) -> None:
    for name, text in (
        ("std_msgs", {"Header__msg": "builtin_interfaces/Time stamp\nstring frame_id\n"}),
        ("builtin_interfaces", {"Time__msg": "int32 sec\nuint32 nanosec\n"}),
        ("mine", {
            "Hand__msg": "std_msgs/Header header # when\nFinger[] fingers\nFinger[2] thumbs\n",
            "Finger__msg": "uint8 LONG=3\nfloat64[3] tip\nstring<=9 name\n",
        }),
    ):  # fmt: skip
        package(tmp_path, name, **text)
    found = Definitions([tmp_path / "empty", tmp_path]).of("mine/msg/Hand")
    assert found.has_header
    for part in (
        "MSG: mine/Finger",
        "MSG: std_msgs/Header",
        "MSG: builtin_interfaces/Time",
        "float64[3] tip",
    ):
        assert part in found.text
    assert found.digest.startswith("RIHS01_")


def test_only_a_leading_header_is_one(tmp_path: Path) -> None:
    package(tmp_path, "mine", A__msg="int32 header\n", B__msg="", C__msg="int32 a\nint32 b\n")
    definitions = Definitions([tmp_path])
    assert not any(definitions.of(f"mine/msg/{name}").has_header for name in "ABC")


def test_a_type_that_is_not_installed_or_not_readable_is_told(tmp_path: Path) -> None:
    package(tmp_path, "mine", Broken__msg="float64 [[[\n", Lacking__msg="other/Thing thing\n")
    definitions = Definitions([tmp_path])
    for name, said in (
        ("other/msg/Thing", "message type other/msg/Thing is not installed .* install other"),
        ("mine/msg/Lacking", "message type other/msg/Thing is not installed"),
        ("mine/msg/Broken", "message type mine/msg/Broken: its definition cannot be read"),
    ):
        with pytest.raises(RecordingError, match=said):
            definitions.of(name)


@pytest.mark.ros
@pytest.mark.parametrize(
    "name",
    ["sensor_msgs/msg/Image", "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory",
     "gr00t_ros/msg/EpisodeEvent", "std_msgs/msg/String"],
)  # fmt: skip
def test_hashes_are_those_of_the_installed_types(name: str) -> None:
    """rosidl writes each type's hash beside its definition."""
    described = SHARE / f"{name}.json"
    if not described.is_file():
        pytest.skip(f"{described} is not there: this ROS 2 has no hashes")
    hashes = {h["type_name"]: h["hash_string"] for h in json.loads(described.read_text())["type_hashes"]}
    assert Definitions(installed_prefixes()).of(name).digest == hashes[name]
