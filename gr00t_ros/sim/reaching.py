# SPDX-License-Identifier: Apache-2.0
"""The reaching task on the simulated SO-101: touch the object that the instruction names, and no other first.

``ReachingTask`` owns a simulated arm, puts an episode of ``reaching_episodes`` before it and measures what
comes of it: the first object that any part of the arm touches decides. No ROS; ``nodes/so101_sim.py`` puts it
on topics, ``bench/closed_loop.py`` steps it by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.sim.kinematics import Kinematics
from gr00t_ros.sim.reaching_episodes import OBJECTS, Episode, draw
from gr00t_ros.sim.so101 import SimulatedSO101
from gr00t_ros.system import REACHING_PICTURE

Values = NDArray[np.float64]

# Pictures are 140 pixels wide, in which cells of this size (m) cannot be told from finer ones.
MESH_CELL = 0.005
# How an episode stands.
RUNNING, SUCCESS, WRONG, LATE = "running", "success", "wrong object", "time limit"
# Seconds from the beginning, or from the change, within which the object is to be touched: the expert takes
# one to three.
TIME_LIMIT = 6.0
# An object that moves is pushed to its new place at this speed, m/s.
PUSH_SPEED = 0.3
# Looks at what is to be changed are this far apart, s.
_TICK = 0.01
# Of simulated time, which is a sum of many steps, s.
_ROUNDING = 1e-6


class ReachingTask:
    """One arm and one episode at a time. One thread may use it; ``arm`` is for reading and for commands.

    Attributes:
        named: the object that is to be touched now. instruction: the text that says so.
        changed_s: when the change of the episode came, seconds since its beginning; None before.
        touched_s: when the first object was touched; None before.
    """

    def __init__(
        self,
        *,
        cameras: tuple[str, ...] = ("front",),
        width: int = REACHING_PICTURE,
        height: int = REACHING_PICTURE,
        shadows: bool = False,
    ) -> None:
        self.arm = SimulatedSO101(
            cameras=cameras, width=width, height=height, shadows=shadows, objects=OBJECTS, mesh_cell=MESH_CELL
        )
        self.kinematics = Kinematics.of(self.arm.model)
        self._aspect = width / height
        model = self.arm.model
        self._lights = (model.light_diffuse.copy(), model.light_dir.copy())
        self._ambient = model.vis.headlight.ambient.copy()
        self.begin(0)

    def begin(self, seed: int, kind: str = "static") -> Episode:
        """Puts the episode of ``seed`` and ``kind`` before the arm, which is at rest at its start."""
        self.episode = episode = draw(seed, kind, self.kinematics)
        self._dress(episode)
        self.arm.restart(np.array(episode.start))
        for item in OBJECTS:
            x, y, turn = episode.places[item.name]
            self._place(item.name, x, y, turn)
        self.arm.settle()
        self.named, self.instruction = episode.named, episode.instruction
        self.changed_s: float | None = None
        self.touched_s: float | None = None
        self._outcome = RUNNING
        self._first_way = self._way()
        self._begun_s = self.arm.time
        return episode

    @property
    def time(self) -> float:
        """Seconds since the episode began."""
        return self.arm.time - self._begun_s

    @property
    def touched(self) -> str:
        """The object that the arm touched first; an empty text before."""
        return self.arm.touched[0] if self.arm.touched else ""

    @property
    def outcome(self) -> str:
        """``running``, ``success``, ``wrong object`` or ``time limit``; once it is decided it stays."""
        return self._outcome

    def _judge(self) -> str:
        if self.touched:
            return SUCCESS if self.touched == self._asked else WRONG
        left = TIME_LIMIT - (self.time - (self.changed_s or 0.0))
        return RUNNING if left > _ROUNDING else LATE

    def step(self, dt: float) -> None:
        """Advances by ``dt`` seconds, with what the episode has in store."""
        end = self.arm.time + dt
        while (left := end - self.arm.time) > 1e-9:
            tick = min(_TICK, left)
            self._change(tick)
            self.arm.step(tick)
            if self.touched and self.touched_s is None:
                self.touched_s = self.time
            if self._outcome == RUNNING:
                self._outcome = self._judge()

    def target(self) -> tuple[Values, float]:
        """The named object: its centre [3] and the height of its top, m."""
        centre = self.arm.object_positions()[self.named]
        size = next(item.size for item in OBJECTS if item.name == self.named)
        return centre, float(centre[2] + size)

    def where_named(self) -> tuple[float, float]:
        """Where the centre of the named object is in the front camera's picture: from the left and from the
        top, in shares of its width and height; within 0..1 while the object is on the mat."""
        return self.episode.view.project(self.target()[0], self._aspect)

    def close(self) -> None:
        """Ends the renderer, in the thread that used it."""
        self.arm.close()

    # An object that was touched before the instruction changed counts for the old one.

    @property
    def _asked(self) -> str:
        change = self.episode.change
        after = (
            change is not None and self.changed_s is not None and (self.touched_s or 0.0) >= self.changed_s
        )
        return change.named if change is not None and after else self.episode.named

    def _way(self) -> float:
        """From the tip to the named object, m."""
        joints = self.arm.joint_positions()
        tip = self.kinematics.point(self.kinematics.tip(joints))
        return float(np.linalg.norm(self.target()[0] - tip))

    def _change(self, dt: float) -> None:
        change = self.episode.change
        if change is None:
            return
        if self.changed_s is None:
            if self.touched or self._way() > (1.0 - change.share) * self._first_way:
                return
            self.changed_s = self.time
            self.named, self.instruction = change.named, change.instruction
        if change.place is not None:
            self._push(np.array(change.place), PUSH_SPEED * dt)

    def _push(self, goal: Values, most: float) -> None:
        """Brings the named object nearer to its new place [2], by at most ``most`` metres."""
        joint = self.arm.data.joint(self.named)
        way = goal - joint.qpos[:2]
        far = float(np.linalg.norm(way))
        if self.touched or far < 1e-4:
            return
        joint.qpos[:2] += way * min(1.0, most / far)
        joint.qvel[:] = 0.0

    def _place(self, name: str, x: float, y: float, turn: float) -> None:
        joint = self.arm.data.joint(name)
        size = next(item.size for item in OBJECTS if item.name == name)
        joint.qpos[:] = (x, y, size + 0.0005, np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2))
        joint.qvel[:] = 0.0

    def _dress(self, episode: Episode) -> None:
        """Camera and lights as the episode has them; nothing is compiled anew."""
        model = self.arm.model
        camera = model.camera("front").id
        model.cam_pos[camera] = episode.view.place
        model.cam_fovy[camera] = episode.view.opening
        model.body_pos[model.body("front_target").id] = episode.view.target
        diffuse, direction = self._lights
        model.light_diffuse[:] = diffuse * episode.light.strength
        turned = direction + np.array(episode.light.turn)
        model.light_dir[:] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        model.vis.headlight.ambient[:] = self._ambient * episode.light.strength
