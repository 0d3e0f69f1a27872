# SPDX-License-Identifier: Apache-2.0
"""Numbers that mean different things are never put together: datasets of one embodiment, and a dataset and
the robot that is named for it, or the difference is said."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gr00t_ros.errors import DatasetError
from gr00t_ros.share import robot_file
from support_network import edit_json
from support_training import base, prepared, recording, recordings

Change = Callable[[str], str]
SO101 = robot_file("so101").read_text()
ARM = "joints: [shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll]"
TURNED = "joints: [shoulder_lift, shoulder_pan, elbow_flex, wrist_flex, wrist_roll]"


def same(text: str) -> str:
    return text


def dataset(folder: Path, change: Change | None = same) -> Path:
    """The recording with a robot description of its own, changed; None for none."""
    shutil.copytree(recording(), folder)
    if change is not None:
        text = change(SO101)
        assert change is same or text != SO101
        (folder / "meta/robot.yaml").write_text(text)
    return folder


def in_degrees(text: str) -> str:
    import yaml

    content = yaml.safe_load(text)
    robot = content["/**"]["ros__parameters"]["robot"]
    robot.setdefault("units", {})["wrist_roll"] = {"scale": math.pi / 90, "offset": 0.0, "sign": 1}
    return yaml.safe_dump(content)


def without_a_camera(text: str) -> str:
    return text.replace("keys: [front, wrist]", "keys: [front]").replace("wrist: {topic: /camera", "# {")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(ARM, TURNED), r"state arm was shoulder_pan, .* and is shoulder_lift, sh"),
        (in_degrees, r"the unit of wrist_roll was .* and is 0\.0349066 x value \+ 0"),
    ],
)
def test_two_days_with_a_robot_description_that_was_changed_in_between(
    tmp_path: Path, change: Change, message: str
) -> None:
    monday, tuesday = dataset(tmp_path / "monday"), dataset(tmp_path / "tuesday", change)
    with pytest.raises(DatasetError, match=rf"tuesday does not go together with .*monday.*{message}"):
        recordings(monday, tuesday)
    assert len(recordings(monday, f"{tuesday}:other")) == 2
    assert len(recordings(monday, dataset(tmp_path / "wednesday"))) == 2


def test_keys_and_representations_are_one_embodiment_s(tmp_path: Path) -> None:
    """Where the base knows the embodiment its own configuration is taken, whatever the datasets say."""
    monday = dataset(tmp_path / "monday")
    fewer, plain = dataset(tmp_path / "fewer", without_a_camera), dataset(tmp_path / "plain", None)
    with pytest.raises(DatasetError, match=r"cameras were front, wrist and are front; convert both with one"):
        prepared(monday, fewer)
    with pytest.raises(DatasetError, match=r"actions were arm relative, .* and are arm absolute, gr"):
        prepared(monday, plain)
    assert prepared(monday, plain, base=str(base()))[0].tags


def test_without_descriptions_names_must_be_the_same(tmp_path: Path) -> None:
    turned, unnamed = dataset(tmp_path / "turned", None), dataset(tmp_path / "unnamed", None)

    def rename(names: list[str]) -> Callable[[dict], None]:  # type: ignore[type-arg]
        return lambda info: info["features"]["action"]["names"].update(motors=names)

    joints = ["shoulder_lift", "shoulder_pan", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    edit_json(turned / "meta/info.json", rename(joints))
    edit_json(unnamed / "meta/info.json", rename([]))
    with pytest.raises(DatasetError, match=r"action arm was shoulder_pan, .* and is shoulder_lift, shoulder"):
        recordings(recording(), turned)
    assert len(recordings(recording(), unnamed)) == 2
    # Both are read by name in the order of the robot that is given for them.
    assert len(recordings(recording(), turned, robot="so101")) == 2
    described = dataset(tmp_path / "described")
    with pytest.raises(DatasetError, match="turned does not go together"):
        recordings(described, turned)
    assert len(recordings(described, recording())) == 2


def test_a_robot_that_is_named_reads_a_dataset_as_its_own_does(tmp_path: Path) -> None:
    (tmp_path / "turned.yaml").write_text(SO101.replace(ARM, TURNED))
    (tmp_path / "degrees.yaml").write_text(in_degrees(SO101))
    own = dataset(tmp_path / "own")
    assert recordings(own, robot="so101")
    with pytest.raises(DatasetError, match=r"degrees.yaml reads it otherwise than its own meta/robot.*unit"):
        recordings(own, robot=str(tmp_path / "degrees.yaml"))
    # The dataset names its joints, so another order is no mistake; without names it is.
    assert recordings(own, robot=str(tmp_path / "turned.yaml"))
    edit_json(own / "meta/info.json", lambda info: info["features"]["action"]["names"].update(motors=[]))
    with pytest.raises(DatasetError, match=r"turned.yaml reads it otherwise .*: action arm was shoulder_pan"):
        recordings(own, robot=str(tmp_path / "turned.yaml"))
