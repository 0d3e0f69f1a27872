# SPDX-License-Identifier: Apache-2.0
"""State messages to columns: JointState by joint name, Float64MultiArray by place, PoseStamped by axis.

The observation builder owns one reader for each state source. (The executor reads its measured joints itself:
they may come in several messages, and it asks only for those that it commands.) Values are SI, as messages
carry them; units come later. All readers raise MessageError naming the source and the joint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import MessageError
from gr00t_ros.robot_types import FLOAT64_MULTI_ARRAY, POSE, StateSource
from gr00t_ros.rotations import from_quaternion

Values = NDArray[np.float64]
# A reader gives the source's columns [D], or None when the message is about other joints altogether.
Reader = Callable[[Any], "Values | None"]

# How far a quaternion's norm may be from 1: room for values rounded to two digits, none for an all-zero
# default.
_QUATERNION_TOLERANCE = 0.02


def stamp_ns(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def reader_for(source: StateSource) -> Reader:
    """The reader of a state source."""
    name = f"state.{source.key}"
    if source.type == FLOAT64_MULTI_ARRAY:
        return lambda msg: _read_array(msg, source, name)
    if source.type == POSE:
        return lambda msg: _read_pose(msg, source, name)
    return JointReader(source.joints, source.field, name)


class JointReader:
    """Reads named joints from JointState messages; remembers where they were, since the order rarely changes.

    A message with none of the joints is about another part of the robot (several publishers may share a
    topic) and gives None. One that has some of them and lacks others is refused.
    """

    def __init__(self, joints: tuple[str, ...], field: str, source: str) -> None:
        self._joints, self._field, self._source = joints, field, source
        self._names: list[str] | None = None
        self._places: NDArray[np.intp] | None = None

    def __call__(self, msg: Any) -> Values | None:
        """Columns [D] in SI, or None."""
        names = list(msg.name)
        if names != self._names:
            self._places = self._find(names)
            self._names = names
        if self._places is None:
            return None
        field = getattr(msg, self._field)
        if len(field) != len(names):
            raise MessageError(
                f"{self._source}: found {len(field)} values of {self._field} for {len(names)} names, "
                "expected one each"
            )
        values = np.asarray(field, np.float64)[self._places]
        refuse_non_finite(values, self._joints, self._source, self._field)
        return values

    def _find(self, names: list[str]) -> NDArray[np.intp] | None:
        place = {name: i for i, name in enumerate(names)}
        found = [joint for joint in self._joints if joint in place]
        if not found:
            return None
        if len(found) != len(self._joints):
            raise _missing(self._source, [joint for joint in self._joints if joint not in place], names)
        if len(place) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise MessageError(
                f"{self._source}: found {', '.join(twice)} more than once, expected each joint once"
            )
        return np.array([place[joint] for joint in self._joints], np.intp)


def _read_array(msg: Any, source: StateSource, name: str) -> Values:
    size = len(msg.data)
    wanted = source.array_width
    if wanted is not None and size != wanted:
        raise MessageError(f"{name}: found an array of {size} values, expected {wanted}")
    if size <= max(source.indices):
        raise MessageError(
            f"{name}: found an array of {size} values, expected more than {max(source.indices)}"
        )
    values = np.asarray(msg.data, np.float64)[list(source.indices)]
    refuse_non_finite(values, source.joints, name, "data")
    return values


def _read_pose(msg: Any, source: StateSource, name: str) -> Values:
    position, quaternion = pose_of(msg, source.frame_id, name)
    quaternion /= np.linalg.norm(quaternion)
    return np.concatenate([position, from_quaternion(quaternion, source.rotation)])


def pose_of(msg: Any, frame_id: str, name: str) -> tuple[Values, Values]:
    """Position [3] and quaternion [4] (x, y, z, w; of length 1 but for rounding) of a PoseStamped.

    Raises MessageError for another frame than ``frame_id`` (empty: any is right), and for values that are no
    pose.
    """
    if frame_id and msg.header.frame_id != frame_id:
        raise MessageError(f"{name}: found a pose in frame {msg.header.frame_id!r}, expected {frame_id!r}")
    position, orientation = msg.pose.position, msg.pose.orientation
    xyz = np.array([position.x, position.y, position.z], np.float64)
    quaternion = np.array([orientation.x, orientation.y, orientation.z, orientation.w], np.float64)
    refuse_non_finite(xyz, ("x", "y", "z"), name, "position")
    refuse_non_finite(quaternion, ("x", "y", "z", "w"), name, "orientation")
    norm = float(np.linalg.norm(quaternion))
    if abs(norm - 1.0) > _QUATERNION_TOLERANCE:
        raise MessageError(f"{name}: found a quaternion of length {norm:.3g}, expected 1")
    return xyz, quaternion


def refuse_non_finite(values: Values, names: Sequence[str], source: str, field: str) -> None:
    """Raises MessageError with the names of the values [D] that are no numbers."""
    if not np.isfinite(values).all():
        wrong = [
            f"{name} is {value}" for name, value in zip(names, values, strict=True) if not np.isfinite(value)
        ]
        raise MessageError(f"{source}: {', '.join(wrong)} in {field}, expected finite values")


def _missing(source: str, joints: Sequence[str], names: Sequence[str]) -> MessageError:
    return MessageError(
        f"{source}: joint{'s' if len(joints) > 1 else ''} {', '.join(joints)} missing; the message has "
        f"{', '.join(names) or 'no joints'}. Correct the robot YAML or the publisher"
    )
