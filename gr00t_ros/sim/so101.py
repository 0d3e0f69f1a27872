# SPDX-License-Identifier: Apache-2.0
"""A simulated SO-101 arm with two cameras: what stands in for the robot in the demo and in tests. No ROS.

Used by ``nodes/so101_sim.py``, and by anything that wants to step a robot without topics. Joint positions are
radians with the model's zero (the middle of each joint's range), the gripper's included: it opens from -0.17
to 1.75 rad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import SimulationError
from gr00t_ros.sim.rendering import CameraRenderer, choose_renderer
from gr00t_ros.sim.scene import CAMERAS, JOINTS, MESH_CELL, OBJECTS, TIMESTEP, SceneObject, build_scene

# Above the table, fingers down, both cameras see the objects.
START_POSE = {
    "shoulder_pan": 0.0,
    "shoulder_lift": -0.6,
    "elbow_flex": 0.7,
    "wrist_flex": 0.9,
    "wrist_roll": 0.0,
    "gripper": 0.6,
}
# An object below this height (m) has fallen off the table and is put back.
_LOST_HEIGHT = -0.1


class SimulatedSO101:
    """The arm, a table with objects, and position servos. One thread at a time may use it.

    cameras: which of ``front`` and ``wrist`` ``render`` may be asked for. width, height: of their pictures,
    in pixels. seed: places the objects; the same seed gives the same scene and, with the same targets, the
    same motion. mesh_cell: how coarse the robot's meshes are, m, see ``scene``.

    ``touched`` names the objects that the arm has touched since the last reset, in that order.
    """

    joint_names: tuple[str, ...] = JOINTS

    def __init__(
        self,
        *,
        cameras: Sequence[str] = CAMERAS,
        width: int = 320,
        height: int = 240,
        seed: int = 0,
        shadows: bool = False,
        objects: tuple[SceneObject, ...] = OBJECTS,
        start: Mapping[str, float] = START_POSE,
        mesh_cell: float = MESH_CELL,
    ) -> None:
        for camera in cameras:
            if camera not in CAMERAS:
                raise SimulationError(f"camera {camera!r}: the simulated SO-101 has {' and '.join(CAMERAS)}")
        try:
            # Also without cameras: mujoco decides at its import, and a later simulation may want pictures.
            choose_renderer()
        except SimulationError:
            if cameras:
                raise
        try:
            import mujoco
        except ImportError as error:
            raise SimulationError(
                f"mujoco cannot be imported ({error}): pip install '.[demo]' in the clone"
            ) from error
        self._mujoco = mujoco
        self.cameras, self.width, self.height = tuple(cameras), width, height
        self._shadows = shadows
        self._start = dict(START_POSE) | dict(start)
        self._objects = objects
        self._model = build_scene(objects, seed, mesh_cell)
        # The default buffer is 640 wide; larger pictures need a larger one.
        self._model.vis.global_.offwidth = max(width, 1)
        self._model.vis.global_.offheight = max(height, 1)
        # Multisampling doubles the time of a picture; who pays for shadows gets smooth edges as well.
        self._model.vis.quality.offsamples = 4 if shadows else 0
        self._data = mujoco.MjData(self._model)
        model = self._model
        self._joints = np.array([model.joint(name).qposadr[0] for name in JOINTS])
        self._speeds = np.array([model.joint(name).dofadr[0] for name in JOINTS])
        self._actuators = np.array([model.actuator(name).id for name in JOINTS])
        self._object_of = {int(model.geom(item.name).id): item.name for item in objects}
        robot = model.body("base").rootid[0]
        self._of_robot = model.body_rootid[model.geom_bodyid] == robot
        self.touched: list[str] = []
        self._renderer: CameraRenderer | None = None
        self.reset()

    def reset(self) -> None:
        """Everything back at its start, at rest."""
        self._mujoco.mj_resetData(self._model, self._data)
        start = np.array([self._start[name] for name in JOINTS])
        self._data.qpos[self._joints] = start
        self._data.ctrl[self._actuators] = start
        self.touched.clear()
        self._mujoco.mj_forward(self._model, self._data)

    def settle(self) -> None:
        """Makes everything that follows from positions fit them, after ``data`` was written to."""
        self._mujoco.mj_forward(self._model, self._data)

    @property
    def model(self) -> Any:
        """The compiled ``mujoco.MjModel``: what stands where and looks how may be changed, sizes may not."""
        return self._model

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData`` that ``step`` advances."""
        return self._data

    def restart(self, joints: NDArray[np.float64]) -> None:
        """``reset`` with the arm at rest at ``joints`` [6], rad."""
        self._start = dict(zip(JOINTS, map(float, joints), strict=True))
        self.reset()

    @property
    def time(self) -> float:
        """Simulated seconds since the start."""
        return float(self._data.time)

    def joint_limits(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest position of each joint, rad."""
        return {
            name: (float(low), float(high))
            for name in JOINTS
            for low, high in (self._model.actuator(name).ctrlrange,)
        }

    def joint_positions(self) -> NDArray[np.float64]:
        """Measured positions [6], rad, in the order of ``joint_names``."""
        return np.array(self._data.qpos[self._joints])

    def joint_velocities(self) -> NDArray[np.float64]:
        """Measured velocities [6], rad/s."""
        return np.array(self._data.qvel[self._speeds])

    def targets(self) -> NDArray[np.float64]:
        """What the servos were last told [6], rad."""
        return np.array(self._data.ctrl[self._actuators])

    def set_targets(self, targets: Mapping[str, float]) -> None:
        """Sets the servos' targets, rad; joints that are not named keep theirs. The servos clip to their
        range.

        Raises SimulationError for a joint that does not exist and for a value that is not finite.
        """
        for name, value in targets.items():
            if name not in JOINTS:
                raise SimulationError(f"joint {name!r}: the SO-101 has {', '.join(JOINTS)}")
            if not np.isfinite(value):
                raise SimulationError(f"joint {name}: target {value} is not finite")
        for name, value in targets.items():
            self._data.ctrl[self._actuators[JOINTS.index(name)]] = value

    def step(self, dt: float) -> None:
        """Advances the physics by ``dt`` seconds (a multiple of the 2 ms step, at least one)."""
        for _ in range(max(1, round(dt / TIMESTEP))):
            self._mujoco.mj_step(self._model, self._data)
            self._notice_touches()
        self._put_back_lost_objects()

    def _notice_touches(self) -> None:
        if len(self.touched) == len(self._objects):
            return
        for first, second in self._data.contact.geom.tolist():
            for geom, other in ((first, second), (second, first)):
                name = self._object_of.get(geom)
                if name is not None and self._of_robot[other] and name not in self.touched:
                    self.touched.append(name)

    def _put_back_lost_objects(self) -> None:
        for item in self._objects:
            joint = self._data.joint(item.name)
            if joint.qpos[2] < _LOST_HEIGHT:
                joint.qpos[:3] = (*item.position, item.size + 0.05)
                joint.qvel[:] = 0.0

    def object_positions(self) -> dict[str, NDArray[np.float64]]:
        """Where the objects are: centre [3] in metres, base frame."""
        return {item.name: np.array(self._data.joint(item.name).qpos[:3]) for item in self._objects}

    def snapshot(self) -> NDArray[np.float64]:
        """The state a renderer in another thread needs (a copy of qpos)."""
        return np.array(self._data.qpos)

    def renderer(self) -> CameraRenderer:
        """A new renderer for the calling thread; give it ``snapshot()``s. The caller closes it in the same
        thread.
        """
        return CameraRenderer(self._model, self.width, self.height, self._shadows)

    def render(self, camera: str) -> NDArray[np.uint8]:
        """The picture [H, W, 3] RGB of ``camera`` now. Always call from the same thread."""
        if camera not in self.cameras:
            raise SimulationError(f"camera {camera!r} was not asked for; this simulation has {self.cameras}")
        if self._renderer is None:
            self._renderer = self.renderer()
        return self._renderer.render(self.snapshot(), (camera,))[0]

    def close(self) -> None:
        """Ends what ``render`` started, in the same thread."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
