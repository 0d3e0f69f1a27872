# SPDX-License-Identifier: Apache-2.0
"""What a robot YAML says about cameras that show the same picture on and on."""

from __future__ import annotations

from typing import Any

import pytest

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import DEFAULT_FROZEN_AFTER, REPORT, STOP
from support_robots import small_robot


def described(**camera: Any) -> RobotConfig:
    values = small_robot()
    values["video"]["front"].update(camera)
    return RobotConfig.from_mapping(values)


def test_a_frozen_camera_is_reported_unless_the_file_says_more_or_less() -> None:
    front = described().video["front"]
    assert (front.frozen_after, front.frozen_reaction) == (DEFAULT_FROZEN_AFTER, REPORT)
    front = described(frozen_after=3, frozen_reaction="stop").video["front"]
    assert (front.frozen_after, front.frozen_reaction) == (3.0, STOP)
    assert described(frozen_after=0.0).video["front"].frozen_after == 0.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frozen_after", -0.1),
        ("frozen_after", "long"),
        ("frozen_after", float("inf")),
        ("frozen_reaction", "hold"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(key: str, value: Any) -> None:
    with pytest.raises(RobotConfigError, match=rf"robot\.video\.front\.{key}: found"):
        described(**{key: value})
