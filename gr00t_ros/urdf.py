# SPDX-License-Identifier: Apache-2.0
"""Joint limits out of a URDF: position range and velocity of each joint, and nothing else of the robot model.

Used to hold the limits of a robot YAML against those that the robot's maker wrote down. Values are SI, as
URDF has them: rad and rad/s, m and m/s for sliding joints.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

from gr00t_ros.errors import Gr00tRosError

# Robots have a few hundred joints and their files a few megabytes; what is larger is something else.
MAX_BYTES = 50_000_000

REVOLUTE, CONTINUOUS, PRISMATIC, FIXED = "revolute", "continuous", "prismatic", "fixed"
TYPES = (REVOLUTE, CONTINUOUS, PRISMATIC, FIXED, "floating", "planar")


class UrdfError(Gr00tRosError):
    """A robot model cannot be read: the text says where and what was expected."""


@dataclass(frozen=True)
class UrdfJoint:
    """What a URDF says about one joint. None where it says nothing.

    ``lower`` and ``upper`` are None for joints without a range (continuous, fixed, floating, planar) and
    where both attributes are left out. ``velocity`` is None where it is left out or 0, which exporters write
    for "unknown". ``mimics`` names the joint that this one follows.
    """

    name: str
    type: str
    lower: float | None = None
    upper: float | None = None
    velocity: float | None = None
    mimics: str = ""

    @property
    def moves_alone(self) -> bool:
        """Whether one value commands this joint: it has one axis, and follows no other joint."""
        return self.type in (REVOLUTE, CONTINUOUS, PRISMATIC) and not self.mimics


def read_urdf(text: str, where: str = "URDF") -> Mapping[str, UrdfJoint]:
    """The joints of a URDF by name, in its order.

    ``where`` names the file or topic in messages. Raises UrdfError for text that is no URDF, a joint without
    name or of an unknown type, a name given twice, and limits that are no numbers or the wrong way round.
    """
    root = read_root(text, where)
    joints: dict[str, UrdfJoint] = {}
    # Only direct children: transmissions and ros2_control blocks have <joint> elements of their own.
    for element in root.findall("joint"):
        joint = _joint(element, where)
        if joint.name in joints:
            raise UrdfError(f"{where}: found joint {joint.name!r} twice, expected each once")
        joints[joint.name] = joint
    return joints


def read_root(text: str, where: str = "URDF") -> ElementTree.Element:
    """The ``<robot>`` element of a URDF. Raises UrdfError for text that is no URDF."""
    if len(text) > MAX_BYTES:
        raise UrdfError(f"{where}: found {len(text)} characters, expected a URDF of at most {MAX_BYTES}")
    # Entities can grow a small file without bound, and no URDF needs them.
    if "<!ENTITY" in text:
        raise UrdfError(f"{where}: found an XML entity declaration, expected plain URDF")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: characters that UTF-8 does not know
        raise UrdfError(f"{where}: not XML ({error}), expected a URDF") from error
    if root.tag != "robot":
        raise UrdfError(f"{where}: found the XML element <{root.tag}>, expected <robot>")
    return root


def _joint(element: ElementTree.Element, where: str) -> UrdfJoint:
    name, kind = element.get("name", ""), element.get("type", "")
    if not name:
        raise UrdfError(f"{where}: found a joint without a name")
    where = f"{where}: joint {name!r}"
    if kind not in TYPES:
        raise UrdfError(f"{where}: found type {kind!r}, expected one of {', '.join(TYPES)}")
    mimic = element.find("mimic")
    mimics = "" if mimic is None else mimic.get("joint", "")
    limit = element.find("limit")
    if limit is None:
        return UrdfJoint(name, kind, mimics=mimics)
    velocity = _number(limit, "velocity", where)
    if velocity is not None and velocity < 0.0:
        raise UrdfError(f"{where}: found velocity {velocity:g}, expected 0 or more")
    lower = upper = None
    if kind in (REVOLUTE, PRISMATIC):
        lower, upper = _number(limit, "lower", where), _number(limit, "upper", where)
        if lower is not None or upper is not None:
            # The format's default for the one that is left out.
            lower, upper = lower or 0.0, upper or 0.0
            if lower > upper:
                raise UrdfError(f"{where}: found limits {lower:g} to {upper:g}, expected lower <= upper")
    return UrdfJoint(name, kind, lower, upper, velocity or None, mimics)


def _number(element: ElementTree.Element, attribute: str, where: str) -> float | None:
    text = element.get(attribute)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        hint = "; run xacro on the file first" if "$" in text else ""
        raise UrdfError(f"{where}: found {attribute}={text!r}, expected a number{hint}") from None
    if not math.isfinite(value):
        raise UrdfError(f"{where}: found {attribute}={text!r}, expected a finite number")
    return value
