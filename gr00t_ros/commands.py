# SPDX-License-Identifier: Apache-2.0
"""What one action group is told in one period, before it becomes a message. No ROS types.

``execution`` makes these, ``nodes/conversions`` turns them into what the group's controller takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.robot_types import ActionGroupConfig


@dataclass(frozen=True)
class GroupCommand:
    """What one action group is told now: positions [P, D] (rad, m), velocities [P, D] and when each point
    is due, in seconds from now [P].

    Streaming interfaces get one point, due now. A trajectory gets several and always ends at rest.

    ``begin`` is where its controller stands now, position and velocity [D], while it is under way: a
    trajectory that says so is followed by its stamps alone. Without, joint_trajectory_controller goes to the
    first point from a state that is one of its updates off, at every message.
    """

    group: ActionGroupConfig
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]
    times_s: NDArray[np.float64]
    begin: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def single_point(group: ActionGroupConfig, position: NDArray[np.float64], due_s: float) -> GroupCommand:
    """A command of one point [D], at rest, due in ``due_s``."""
    return GroupCommand(group, position[None], np.zeros((1, group.width)), np.array([due_s]))
