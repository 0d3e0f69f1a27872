# SPDX-License-Identifier: Apache-2.0
"""The scripted expert in a policy's place: chunks of what it would command, from the state it is shown.

It checks the chain behind a policy: what it does not reach through the executor, no policy can. It is told by
the simulator where the named object is, and looks at no picture. Used by ``bench/closed_loop.py`` and tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gr00t_model.processing import ModalityConfig
from gr00t_ros.robot import RobotConfig
from gr00t_ros.sim.expert import Expert
from gr00t_ros.sim.reaching import ReachingTask

# As long as the chunks of the networks that are trained on this task.
HORIZON = 16


class ExpertPolicy:
    """For ``task``, in the keys of ``robot``; takes the place of ``Gr00tPolicy`` in ``lock_step``."""

    def __init__(self, robot: RobotConfig, task: ReachingTask, horizon: int = HORIZON) -> None:
        self._robot, self._task, self.horizon = robot, task, horizon
        used = tuple(
            key for key, source in robot.state.items() if set(source.joints) <= set(task.arm.joint_names)
        )
        now = (0,)
        self.modality: dict[str, ModalityConfig] = {
            "video": ModalityConfig(now, tuple(robot.video)),
            "state": ModalityConfig(now, used),
            "action": ModalityConfig(tuple(range(horizon)), tuple(robot.action)),
            "language": ModalityConfig(now, ("task",)),
        }

    def get_action(
        self, observation: Mapping[str, Any], *, t_obs_ns: int, seed: int, guidance: Any = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Row k of each group [1, T, D], rad: the command for k + 1 steps after the observation, as the
        converter writes a trajectory's."""
        arm = self._task.arm
        measured: dict[str, float] = {}
        for key, values in observation["state"].items():
            measured |= dict(zip(self._robot.state[key].joints, map(float, values[0, -1]), strict=True))
        expert = Expert(self._task.kinematics, np.array([measured[joint] for joint in arm.joint_names]))
        expert.speed = arm.joint_velocities()
        target, step = self._task.target(), 1.0 / self._robot.step_rate
        rows = np.stack([expert.follow(*target, step)[0] for _ in range(self.horizon)])
        columns = {
            key: [arm.joint_names.index(joint) for joint in group.joints]
            for key, group in self._robot.action.items()
        }
        return {key: rows[None][..., place] for key, place in columns.items()}, {"timing": {}}
