# SPDX-License-Identifier: Apache-2.0
"""A scripted teacher for the simulated SO-101: from anywhere in front of it to its parking pose. No ROS.

``nodes/so101_teacher.py`` plays these paths through the arm's controllers while the recorder records, which
gives newcomers episodes to train on without an arm. How fast each joint moves depends only on where it is, so
a policy that sees joint positions can learn the task from few episodes, and what it learned shows in the
arm.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.sim.scene import JOINTS
from gr00t_ros.sim.so101 import START_POSE

INSTRUCTION = "park the arm"
# Folded back above its base, out of the cameras' view of the table, the gripper nearly closed; rad.
PARKED = {
    "shoulder_pan": 0.0,
    "shoulder_lift": -1.4,
    "elbow_flex": 1.3,
    "wrist_flex": 0.6,
    "wrist_roll": 0.0,
    "gripper": 0.1,
}
# How far from START_POSE an episode may begin, rad: the fingers stay above the table everywhere in there.
SPREAD = {
    "shoulder_pan": 1.2,
    "shoulder_lift": 0.3,
    "elbow_flex": 0.3,
    "wrist_flex": 0.5,
    "wrist_roll": 1.2,
    "gripper": 0.4,
}
# Each joint covers its remaining way with this time constant, s, at no more than this speed, rad/s (half of
# the robot description's limit), which it reaches at this acceleration, rad/s^2 (half of it as well).
TIME_CONSTANT = 0.4
SPEED = 1.0
ACCELERATION = 5.0
# A joint this close to its goal has arrived, rad: what a servo's own error is.
ARRIVED = 0.01
# The law is integrated in steps of this length, s, so that the acceleration limit shapes the start.
_FINE = 0.005


def random_start(rng: np.random.Generator) -> NDArray[np.float64]:
    """Where an episode begins: positions [6], rad, in the order of the simulator's joints."""
    return np.array([START_POSE[name] + rng.uniform(-SPREAD[name], SPREAD[name]) for name in JOINTS])


def pose(positions: Mapping[str, float]) -> NDArray[np.float64]:
    """A named pose as [6], rad, in the order of the simulator's joints."""
    return np.array([positions[name] for name in JOINTS])


def path(
    start: NDArray[np.float64], goal: NDArray[np.float64], step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The way from rest at ``start`` to ``goal`` [D]: positions and velocities [N, D] every ``step`` seconds.

    The first row is the start; at the last one every joint has arrived.
    """
    substeps = max(1, round(step / _FINE))
    fine = step / substeps
    place, speed = np.array(start, np.float64), np.zeros(len(start))
    places, speeds = [place.copy()], [speed.copy()]
    while (np.abs(goal - place) > ARRIVED).any():
        for _ in range(substeps):
            wanted = np.clip((goal - place) / TIME_CONSTANT, -SPEED, SPEED)
            speed = speed + np.clip(wanted - speed, -ACCELERATION * fine, ACCELERATION * fine)
            place = place + speed * fine
        places.append(place.copy())
        speeds.append(speed.copy())
    return np.stack(places), np.stack(speeds)
