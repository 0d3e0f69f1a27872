# SPDX-License-Identifier: Apache-2.0
"""The part of a URDF that drawing needs: which link hangs where on which joint, and what it looks like.

Limits are read by ``gr00t_ros.urdf``; masses, collisions and everything else is left alone. Lengths are
metres, angles rad, and transforms 4x4 matrices that take points of the child's frame to the parent's.
"""

from __future__ import annotations

import functools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.urdf import CONTINUOUS, FIXED, PRISMATIC, REVOLUTE, TYPES, UrdfError, read_root

Values = NDArray[np.float64]

MESH, BOX, CYLINDER, SPHERE = "mesh", "box", "cylinder", "sphere"
# An axis shorter than this says nothing about a direction.
_NO_AXIS = 1e-9


@dataclass(frozen=True)
class Joint:
    """One joint: ``origin`` [4, 4] from the child's frame, at position zero, to the parent's; ``axis`` [3] of
    length 1 in the child's frame.

    ``mimic`` is (joint, multiplier, offset) of a joint that follows another one, else None.
    """

    name: str
    type: str
    parent: str
    child: str
    origin: Values
    axis: Values
    mimic: tuple[str, float, float] | None = None

    @property
    def moves(self) -> bool:
        """Whether one number says where it stands."""
        return self.type in (REVOLUTE, CONTINUOUS, PRISMATIC)

    @property
    def is_free(self) -> bool:
        """Whether no joint state says where it stands (floating, planar): below it another frame begins."""
        return not self.moves and self.type != FIXED


@dataclass(frozen=True)
class Visual:
    """One visible part of a link: ``size`` [3] is the scale of a mesh, or the edges of a box, diameters and
    length of a cylinder, diameters of a sphere, in m. ``origin`` [4, 4] is in the link's frame."""

    link: str
    shape: str
    size: tuple[float, float, float]
    origin: Values
    mesh: str = ""


@dataclass(frozen=True)
class RobotModel:
    """A robot: links in order of the tree, from the root on, and the joint above each but the root.

    ``above`` and ``frames`` (:meth:`frame_of`) are keyed by link, ``root`` is the one that hangs on no joint.
    """

    name: str
    root: str
    links: tuple[str, ...]
    above: Mapping[str, Joint]
    visuals: tuple[Visual, ...] = ()
    children: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    frames: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def joints(self) -> Mapping[str, Joint]:
        """All joints by name, in order of the tree."""
        return {joint.name: joint for link in self.links if (joint := self.above.get(link)) is not None}

    @functools.cached_property
    def drawable(self) -> tuple[tuple[int, Visual], ...]:
        """The visuals that a viewer can draw, with their numbers: all but meshes that say no place to
        find them at."""
        return tuple(
            (number, part)
            for number, part in enumerate(self.visuals)
            if part.shape != MESH or "://" in part.mesh
        )

    def chain(self, link: str) -> tuple[Joint, ...]:
        """The joints above ``link``, from its frame (:meth:`frame_of`) down."""
        found: list[Joint] = []
        joint = self.above.get(link)
        while joint is not None and not joint.is_free:
            found.append(joint)
            joint = self.above.get(joint.parent)
        return tuple(reversed(found))

    def frame_of(self, link: str) -> str:
        """The link in whose frame joint states alone say where ``link`` is: the root, or the one below a
        floating or planar joint."""
        return self.frames[link]

    def followed(self, joint: Joint) -> str:
        """The name of the joint whose position moves ``joint``: itself, or the one that it mimics."""
        seen: set[str] = set()
        joints = self.joints
        while joint.mimic is not None and joint.name not in seen:
            seen.add(joint.name)
            joint = joints[joint.mimic[0]]
        return joint.name

    def below(self, links: Iterable[str]) -> tuple[str, ...]:
        """``links`` and every link that hangs on them, in order of the tree."""
        moved = set(links)
        for link in self.links:
            joint = self.above.get(link)
            if joint is not None and joint.parent in moved:
                moved.add(link)
        return tuple(link for link in self.links if link in moved)


def read_model(text: str, where: str = "/robot_description") -> RobotModel:
    """The model that a URDF describes; ``where`` names its origin in messages.

    Raises UrdfError for text that is no URDF, and for links and joints that do not make one tree.
    """
    root = read_root(text, where)
    links = [_name(element, "link", where) for element in root.findall("link")]
    if not links:
        raise UrdfError(f"{where}: found no link, expected a robot")
    if len(set(links)) != len(links):
        twice = next(link for link in links if links.count(link) > 1)
        raise UrdfError(f"{where}: found link {twice!r} twice, expected each once")
    joints = [_joint(element, where) for element in root.findall("joint")]
    _check_joints(joints, set(links), where)
    above = {joint.child: joint for joint in joints}
    roots = [link for link in links if link not in above]
    if len(roots) != 1:
        found = ", ".join(roots) or "none"
        raise UrdfError(f"{where}: found links without a joint above them: {found}; expected exactly one")
    children: dict[str, tuple[str, ...]] = {}
    for joint in joints:
        children[joint.parent] = (*children.get(joint.parent, ()), joint.child)
    order = [roots[0]]
    for link in order:  # grows while it is walked
        order.extend(children.get(link, ()))
    if len(order) != len(links):
        loose = sorted(set(links) - set(order))
        raise UrdfError(f"{where}: found links in a loop: {', '.join(loose)}; expected a tree")
    frames = {roots[0]: roots[0]}
    for link in order[1:]:
        joint = above[link]
        frames[link] = link if joint.is_free else frames[joint.parent]
    return RobotModel(
        name=root.get("name", ""),
        root=roots[0],
        links=tuple(order),
        above={link: above[link] for link in order[1:]},
        visuals=tuple(_visuals(root, where)),
        children=children,
        frames=frames,
    )


def _check_joints(joints: list[Joint], links: set[str], where: str) -> None:
    names = {joint.name: joint for joint in joints}
    if len(names) != len(joints):
        raise UrdfError(f"{where}: found a joint name twice, expected each once")
    children: set[str] = set()
    for joint in joints:
        for link in (joint.parent, joint.child):
            if link not in links:
                raise UrdfError(f"{where}: joint {joint.name!r}: found link {link!r}, which does not exist")
        if joint.child in children:
            raise UrdfError(f"{where}: link {joint.child!r}: found two joints above it, expected one")
        children.add(joint.child)
        seen, leader = {joint.name}, joint
        while leader.mimic is not None:
            target = leader.mimic[0]
            if target not in names or target in seen:
                raise UrdfError(f"{where}: joint {joint.name!r}: found that it mimics {target!r}, expected "
                                "another joint that stands by itself")  # fmt: skip
            seen.add(target)
            leader = names[target]


def _joint(element: ElementTree.Element, where: str) -> Joint:
    name = _name(element, "joint", where)
    where = f"{where}: joint {name!r}"
    kind = element.get("type", "")
    if kind not in TYPES:
        raise UrdfError(f"{where}: found type {kind!r}, expected one of {', '.join(TYPES)}")
    ends = []
    for tag in ("parent", "child"):
        end = element.find(tag)
        link = "" if end is None else end.get("link", "")
        if not link:
            raise UrdfError(f"{where}: found no <{tag} link=...>")
        ends.append(link)
    axis = np.array([1.0, 0.0, 0.0])  # the format's default
    given = element.find("axis")
    if given is not None and kind in (REVOLUTE, CONTINUOUS, PRISMATIC):
        axis = _numbers(given, "xyz", 3, where, "1 0 0")
        length = float(np.linalg.norm(axis))
        if length < _NO_AXIS:
            raise UrdfError(f"{where}: found an axis of length 0, expected a direction")
        axis = axis / length
    mimic = element.find("mimic")
    follows = None
    if mimic is not None:
        multiplier = _numbers(mimic, "multiplier", 1, where, "1")
        offset = _numbers(mimic, "offset", 1, where, "0")
        follows = (mimic.get("joint", ""), float(multiplier[0]), float(offset[0]))
    return Joint(name, kind, ends[0], ends[1], _origin(element, where), axis, follows)


def _visuals(root: ElementTree.Element, where: str) -> Iterable[Visual]:
    for link in root.findall("link"):
        name = link.get("name", "")
        for visual in link.findall("visual"):
            inside = f"{where}: link {name!r}"
            geometry = visual.find("geometry")
            part = None if geometry is None else next(iter(geometry), None)
            if part is None:
                continue
            origin = _origin(visual, inside)
            if part.tag == MESH:
                scale = _numbers(part, "scale", 3, inside, "1 1 1")
                yield Visual(name, MESH, _triple(scale), origin, part.get("filename", ""))
            elif part.tag == BOX:
                yield Visual(name, BOX, _triple(_numbers(part, "size", 3, inside)), origin)
            elif part.tag in (CYLINDER, SPHERE):
                wide = 2.0 * float(_numbers(part, "radius", 1, inside)[0])
                long = float(_numbers(part, "length", 1, inside)[0]) if part.tag == CYLINDER else wide
                yield Visual(name, part.tag, (wide, wide, long), origin)
            # What else a dialect allows (a capsule) is left out of the picture.


def _name(element: ElementTree.Element, what: str, where: str) -> str:
    name = element.get("name", "")
    if not name:
        raise UrdfError(f"{where}: found a {what} without a name")
    return name


def _origin(element: ElementTree.Element, where: str) -> Values:
    origin = element.find("origin")
    matrix = np.eye(4)
    if origin is not None:
        matrix[:3, :3] = rpy_matrix(*_numbers(origin, "rpy", 3, where, "0 0 0"))
        matrix[:3, 3] = _numbers(origin, "xyz", 3, where, "0 0 0")
    return matrix


def rpy_matrix(roll: float, pitch: float, yaw: float) -> Values:
    """The rotation [3, 3] about the fixed axes x, then y, then z (rad), as URDF writes it."""
    cr, sr = math.cos(roll), math.sin(roll)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def _numbers(
    element: ElementTree.Element, attribute: str, count: int, where: str, default: str | None = None
) -> Values:
    text = element.get(attribute, default)
    if text is None:
        raise UrdfError(f"{where}: found no {attribute} in <{element.tag}>")
    try:
        values = np.array([float(part) for part in text.split()])
    except ValueError:
        hint = "; run xacro on the file first" if "$" in text else ""
        raise UrdfError(f"{where}: found {attribute}={text!r}, expected numbers{hint}") from None
    if len(values) != count or not np.isfinite(values).all():
        raise UrdfError(f"{where}: found {attribute}={text!r}, expected {count} finite numbers")
    return values


def _triple(values: Values) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
