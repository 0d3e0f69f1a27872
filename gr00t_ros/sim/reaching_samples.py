# SPDX-License-Identifier: Apache-2.0
"""Demonstrations of the reaching task straight from the simulator, as arrays. No ROS.

The same scenes, expert and kicks as ``nodes/so101_teacher.py`` plays through topics, for tests and for trying
networks out. What users train on is recorded (``docs/tutorials``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.sim.expert import Expert
from gr00t_ros.sim.reaching import RUNNING, ReachingTask
from gr00t_ros.sim.scene import JOINTS

Values = NDArray[np.float64]

# Of the policy and of the dataset, Hz.
RATE = 10.0
# Shown after the touch, s: a chunk that ends there holds on.
AFTERWARDS_S = 0.4
# Kicks: how often one begins (per second), how long it lasts (s) and how fast it drives each joint (rad/s,
# standard deviation). A policy errs downwards too, and what it never saw at the table's height it cannot
# leave: so they go as low as LOWEST (m) over the table. Near the named object (m, along the table) only those
# above the flying height go on: they are to be recovered from, not to touch it.
KICKS_PER_S = 1.0
KICK_S = (0.2, 0.5)
KICK_SPEED = (0.2, 0.8)
KICK_ABOVE = 0.075
KICK_AWAY = 0.07
LOWEST = 0.015
# The servos are told anew this often, s, as by a controller that interpolates.
_SERVO = 0.01


@dataclass(frozen=True)
class Sample:
    """One demonstration, T frames at ``RATE``.

    frames uint8 [T, H, W, 3]; state float32 [T, 6] measured joints, rad; action float32 [T, 6] the clean
    command for one step later; where float32 [T, 2] the named object in the picture (``where_named``);
    instruction [T] texts; named [T] names; outcome: of the episode.
    """

    frames: NDArray[np.uint8]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    where: NDArray[np.float32]
    instruction: tuple[str, ...]
    named: tuple[str, ...]
    outcome: str


class Kicks:
    """Random pushes to the executed command, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._left_s = 0.0
        self._speed = np.zeros(len(JOINTS))

    def next(self, height: float, away: float, step: float) -> Values:
        """What is added to the command [6] (rad) in a step (s), the tip being at ``height`` (m) and ``away``
        (m, along the table) from the named object."""
        drawn = self._rng.uniform() < KICKS_PER_S * step
        speed = self._rng.uniform(*KICK_SPEED) * self._rng.normal(0.0, 1.0, len(JOINTS))
        lasts = self._rng.uniform(*KICK_S)
        if drawn and self._left_s <= 0.0:
            self._speed, self._left_s = speed, lasts
        allowed = height > (LOWEST if away > KICK_AWAY else KICK_ABOVE)
        if self._left_s <= 0.0 or not allowed:
            self._left_s = 0.0
            return np.zeros(len(JOINTS))
        self._left_s -= step
        return self._speed * step


def generate(
    task: ReachingTask, seed: int, kind: str = "static", *, kicks: bool = True, pictures: bool = True
) -> Sample:
    """The expert's demonstration of one episode."""
    task.begin(seed, kind)
    expert = Expert(task.kinematics, task.arm.targets())
    pushes = Kicks(seed)
    step = 1.0 / RATE
    rows: list[tuple[NDArray[np.uint8], Values, Values, tuple[float, float], str, str]] = []
    afterwards = round(AFTERWARDS_S * RATE)
    while afterwards >= 0:
        afterwards -= task.outcome != RUNNING
        picture = task.arm.render("front") if pictures else np.zeros((0, 0, 3), np.uint8)
        state, where = task.arm.joint_positions(), task.where_named()
        named, instruction = task.named, task.instruction
        before = expert.command
        clean, _ = expert.follow(*task.target(), step)
        rows.append((picture, state, clean, where, instruction, named))
        if kicks:
            expert.executed(clean + pushes.next(*expert.place(before, task.target()[0]), step))
        for targets in _between(before, expert.command, step):
            task.arm.set_targets(dict(zip(JOINTS, targets, strict=True)))
            task.step(_SERVO)
    frames, states, actions, places, texts, names = zip(*rows, strict=True)
    return Sample(
        np.stack(frames),
        np.stack(states).astype(np.float32),
        np.stack(actions).astype(np.float32),
        np.array(places, np.float32),
        texts,
        names,
        task.outcome,
    )


def _between(begin: Values, end: Values, step: float) -> Iterator[Values]:
    count = max(1, round(step / _SERVO))
    for number in range(1, count + 1):
        yield begin + (end - begin) * number / count
