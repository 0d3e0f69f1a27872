# SPDX-License-Identifier: Apache-2.0
"""Episodes of the reaching task, drawn from a seed: what lies where, what it looks like, what is asked. No
ROS, no MuJoCo.

Three objects that differ in colour and shape lie in random places before the arm; the instruction names one
of them, which the arm is to touch before any other. In an episode of the kind ``moved`` the named object
moves while the arm is on its way, in one of the kind ``swapped`` the instruction changes to another object.
One seed gives one scene, the same for every kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import SimulationError
from gr00t_ros.sim.expert import PITCH
from gr00t_ros.sim.kinematics import Kinematics
from gr00t_ros.sim.scene import SceneObject

Values = NDArray[np.float64]

STATIC, MOVED, SWAPPED = "static", "moved", "swapped"
KINDS = (STATIC, MOVED, SWAPPED)

# 40 mm each: a dozen pixels in a picture of 140, seen from 0.6 m.
OBJECTS = (
    SceneObject("red_cube", "box", (0.85, 0.10, 0.08, 1.0), 0.020, (0.25, 0.12)),
    SceneObject("blue_ball", "sphere", (0.08, 0.25, 0.85, 1.0), 0.022, (0.29, -0.02)),
    SceneObject("green_cylinder", "cylinder", (0.08, 0.55, 0.20, 1.0), 0.020, (0.22, -0.14)),
)
NAMES = tuple(item.name for item in OBJECTS)
WORDINGS = ("touch the {}", "push the {}", "go to the {}", "reach for the {}", "move to the {}", "tap the {}")

# Where objects lie, from the pan axis: m and rad.
REACH = (0.17, 0.31)
PAN = (-0.75, 0.75)
# Between two objects, centre to centre, m: two fingers and the hand above them have room.
ROOM = 0.095
# How far an object that moves goes, m.
MOVE = (0.08, 0.20)
# Where the tip begins: m from the pan axis, rad, and m above the table.
START_REACH = (0.15, 0.22)
START_PAN = (-0.7, 0.7)
START_HEIGHT = (0.10, 0.13)
# The tip begins at least this far from the object that is named, m: there is a way to see.
FIRST_WAY = 0.12
# And how far each joint may be from the pose that follows, rad.
START_NOISE = 0.06
# The front camera: where it stands and looks, each coordinate moved by at most this noise, m; its vertical
# opening, deg. As much as a camera is off that was taken from its stand and put back.
CAMERA = (0.62, -0.26, 0.46)
CAMERA_TARGET = (0.21, 0.0, 0.02)
CAMERA_NOISE = 0.012
TARGET_NOISE = 0.006
OPENING = (41.0, 42.5)
# Objects stay this far inside the picture, in shares of it.
MARGIN = 0.07
# The lights: how strong, and how far each component of their directions may turn.
BRIGHTNESS = (0.7, 1.25)
LIGHT_TURN = 0.25
# A change comes when the tip has covered this share of its first way.
CHANGE_AT = (0.2, 0.45)
_TRIES = 1000


@dataclass(frozen=True)
class View:
    """The front camera: place and the point it looks at [3] (m), vertical opening (deg)."""

    place: tuple[float, float, float]
    target: tuple[float, float, float]
    opening: float

    def project(self, point: Values, aspect: float = 1.0) -> tuple[float, float]:
        """Where a point [3] (m) is in the picture, from the left and from the top, in shares of its width and
        height; outside of 0..1 it is out of the picture. ``aspect``: width by height. Points lie before the
        camera."""
        back = np.array(self.place) - np.array(self.target)
        back /= np.linalg.norm(back)
        right = np.cross((0.0, 0.0, 1.0), back)
        right /= np.linalg.norm(right)
        up = np.cross(back, right)
        ray = np.asarray(point, np.float64) - np.array(self.place)
        half = math.tan(math.radians(self.opening) / 2.0) * -float(ray @ back)
        return 0.5 + float(ray @ right) / (2.0 * half * aspect), 0.5 - float(ray @ up) / (2.0 * half)


@dataclass(frozen=True)
class Light:
    """``strength`` by which the lamps are multiplied, and what is added to their directions [3]."""

    strength: float
    turn: tuple[float, float, float]


@dataclass(frozen=True)
class Change:
    """What happens when the tip has covered ``share`` of its first way: another text that names ``named``,
    or the named object moves to ``place`` [2] (m)."""

    share: float
    named: str
    instruction: str
    place: tuple[float, float] | None


@dataclass(frozen=True)
class Episode:
    """See the module. ``places``: x, y (m) and turn (rad) of every object; ``start``: joints [6], rad."""

    seed: int
    kind: str
    named: str
    instruction: str
    places: Mapping[str, tuple[float, float, float]]
    start: tuple[float, ...]
    view: View
    light: Light
    change: Change | None


def draw(seed: int, kind: str, kinematics: Kinematics) -> Episode:
    """The episode of a seed and a kind. Raises SimulationError for a kind that does not exist."""
    if kind not in KINDS:
        raise SimulationError(f"episode kind {kind!r}: there are {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    view = View(
        _near(rng, CAMERA, CAMERA_NOISE), _near(rng, CAMERA_TARGET, TARGET_NOISE), rng.uniform(*OPENING)
    )
    strength = rng.uniform(*BRIGHTNESS)
    light = Light(strength, _near(rng, (0.0, 0.0, 0.0), LIGHT_TURN))
    spots: list[Values] = []
    for item in OBJECTS:
        spots.append(_spot(rng, item, spots, view, kinematics))
    places = {
        item.name: (float(spot[0]), float(spot[1]), float(rng.uniform(0.0, math.pi)))
        for item, spot in zip(OBJECTS, spots, strict=True)
    }
    named = NAMES[rng.integers(len(NAMES))]
    instruction = _text(rng, named)
    start = _start(rng, spots[NAMES.index(named)], kinematics)
    # Drawn last, so that kinds differ in nothing else.
    change = None if kind == STATIC else _change(rng, kind, named, instruction, spots, view, kinematics)
    return Episode(seed, kind, named, instruction, places, start, view, light, change)


def _near(
    rng: np.random.Generator, centre: tuple[float, float, float], noise: float
) -> tuple[float, float, float]:
    x, y, z = (float(value + rng.uniform(-noise, noise)) for value in centre)
    return x, y, z


def _text(rng: np.random.Generator, named: str) -> str:
    return WORDINGS[rng.integers(len(WORDINGS))].format(named.replace("_", " "))


def _spot(
    rng: np.random.Generator, item: SceneObject, others: list[Values], view: View, kinematics: Kinematics
) -> Values:
    """A place [2] (m) with room around it, in the picture."""
    for _ in range(_TRIES):
        # Even over the area, not over the radius.
        reach = math.sqrt(rng.uniform(REACH[0] ** 2, REACH[1] ** 2))
        spot = kinematics.point((rng.uniform(*PAN), reach, item.size))
        seen = view.project(spot)
        inside = all(MARGIN <= share <= 1.0 - MARGIN for share in seen)
        if inside and all(np.linalg.norm(spot[:2] - other) >= ROOM for other in others):
            return spot[:2]
    raise SimulationError("no free place for an object was found: the work area is too small for them")


def _start(rng: np.random.Generator, named: Values, kinematics: Kinematics) -> tuple[float, ...]:
    """Joints [6] (rad) with the tip above the table, away from the named object, which lies at ``named``."""
    for _ in range(_TRIES):
        pose = (rng.uniform(*START_PAN), rng.uniform(*START_REACH), rng.uniform(*START_HEIGHT))
        joints = np.array([*kinematics.solve(pose, PITCH), 0.0, 0.1])
        joints = joints + rng.uniform(-START_NOISE, START_NOISE, len(joints))
        if np.linalg.norm(kinematics.point(kinematics.tip(joints))[:2] - named) >= FIRST_WAY:
            return tuple(map(float, joints))
    raise SimulationError("no start away from the named object was found")


def _change(
    rng: np.random.Generator,
    kind: str,
    named: str,
    instruction: str,
    spots: list[Values],
    view: View,
    kinematics: Kinematics,
) -> Change:
    share = float(rng.uniform(*CHANGE_AT))
    if kind == SWAPPED:
        others = [name for name in NAMES if name != named]
        another = others[rng.integers(len(others))]
        return Change(share, another, _text(rng, another), None)
    index = NAMES.index(named)
    others_at = [spot for name, spot in zip(NAMES, spots, strict=True) if name != named]
    place = (float(spots[index][0]), float(spots[index][1]))
    longest = 0.0
    for _ in range(_TRIES):
        spot = _spot(rng, OBJECTS[index], others_at, view, kinematics)
        way = spot - spots[index]
        far = float(np.linalg.norm(way))
        if longest < far <= MOVE[1] and _clear(spots[index], way, others_at):
            longest, place = far, (float(spot[0]), float(spot[1]))
        if longest >= MOVE[0]:
            break
    # One that is crowded by the others goes as far as it can.
    return Change(share, named, instruction, place)


def _clear(begin: Values, way: Values, others: list[Values]) -> bool:
    """Whether the straight way passes every other object with room."""
    return all(
        min(float(np.linalg.norm(begin + share * way - other)) for share in np.linspace(0.0, 1.0, 9)) >= 0.06
        for other in others
    )
