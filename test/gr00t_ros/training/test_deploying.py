# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's robot description names the embodiment that was trained, however it was written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from gr00t_ros.training.deploying import robot_files
from gr00t_ros.training.options import TrainingError
from support_training import recording, recordings

SO101 = robot_file("so101").read_text()
FLOW = yaml.safe_dump(yaml.safe_load(SO101), default_flow_style=True, width=10_000)
FORMS = {
    "block": SO101,
    "flow": FLOW,
    "quoted": SO101.replace("embodiment_tag: new_embodiment", '"embodiment_tag": "new_embodiment"'),
    "commented": "# embodiment_tag: of the checkpoint\n" + SO101,
}


def deployed(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    (found,) = robot_files(recordings(f"{recording()}:trained", robot=str(path))).values()
    return found


@pytest.mark.parametrize("form", FORMS)
def test_the_tag_that_was_trained(tmp_path: Path, form: str) -> None:
    text = deployed(tmp_path, FORMS[form])
    (tmp_path / "robot.yaml").write_text(text)
    found = RobotConfig.from_file(tmp_path / "robot.yaml")
    assert found.embodiment_tag == "trained"
    assert len(re.findall(r": trained\b", text)) == 1
    assert found.state == RobotConfig.from_file(robot_file("so101")).state


def test_one_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    anchored = SO101.replace("embodiment_tag: new_embodiment", "embodiment_tag: &tag new_embodiment")
    with pytest.raises(TrainingError, match=r"mine.yaml: its embodiment_tag cannot be changed to trained"):
        deployed(tmp_path, anchored)
