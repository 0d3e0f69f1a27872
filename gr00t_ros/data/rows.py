# SPDX-License-Identifier: Apache-2.0
"""What passes from a recording's reader to a dataset's writer: rows, and which columns they have.

The reader (``converting.py``) makes rows from messages, the writer (``lerobot_writing.py``) makes files from
rows; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.robot import RobotConfig


@dataclass(frozen=True)
class Row:
    """One frame of an episode that is being converted. Its arrays must not be changed.

    Attributes:
        stamp_ns: the row's place on the episode's grid, start + k / fps, in recording time.
        t_obs_ns: stamp of the newest camera frame that it uses.
        video: {video key: uint8 [H, W, 3] RGB}.
        state: {state key: float32 [D]}, dataset units.
        action: {action key: float32 [D]}, dataset units.
        instruction: the task's text.
    """

    stamp_ns: int
    t_obs_ns: int
    video: Mapping[str, NDArray[np.uint8]]
    state: Mapping[str, NDArray[np.float32]]
    action: Mapping[str, NDArray[np.float32]]
    instruction: str


@dataclass(frozen=True)
class Layout:
    """Which columns a dataset of one robot has, in the order of its YAML.

    ``video`` are the camera keys in the order the network sees them; ``state`` and ``action`` are (key, names
    of its columns). ``fps`` is rows per second.
    """

    robot_type: str
    fps: float
    video: tuple[str, ...]
    state: tuple[tuple[str, tuple[str, ...]], ...]
    action: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def from_robot(cls, robot: RobotConfig, fps: float) -> Layout:
        """The layout of what ``robot`` records at ``fps`` rows per second."""
        return cls(
            robot_type=robot.name,
            fps=fps,
            video=tuple(robot.video),
            state=tuple((key, source.joints) for key, source in robot.state.items()),
            action=tuple((key, group.columns) for key, group in robot.action.items()),
        )
