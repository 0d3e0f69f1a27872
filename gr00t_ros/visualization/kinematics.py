# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics: from joint positions to where links are, for all steps of a chunk at once.

A joint whose position is not given makes every link below it NaN: what was never measured is drawn nowhere,
not at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_ros.urdf import PRISMATIC
from gr00t_ros.visualization.robot_model import Joint, RobotModel

Values = NDArray[np.float64]

_HERE = np.eye(4)[None]
_HERE.setflags(write=False)  # handed out


class Kinematics:
    """Where the links of ``model`` are. The constant parts are computed once.

    A joint's matrix is a sum of constant ones: of 1, sin q and 1 - cos q where it turns (the formula of
    Rodrigues), of 1 and q where it slides.
    """

    def __init__(self, model: RobotModel) -> None:
        self.model = model
        joints = list(model.above.values())
        self._place = {joint.child: number for number, joint in enumerate(joints)}
        self._chains = {link: [joint.child for joint in model.chain(link)] for link in model.links}
        self._follows = [model.followed(joint) if joint.moves else "" for joint in joints]
        gains = [_gain(model, joint) for joint in joints]
        self._gain = np.array([gain for gain, _ in gains]).reshape(-1, 1)
        self._offset = np.array([offset for _, offset in gains]).reshape(-1, 1)
        parts = np.zeros((4, len(joints), 1, 4, 4))
        self._rest, self._sine, self._rise, self._slide = parts
        for number, joint in enumerate(joints):
            turn = joint.origin[:3, :3]
            self._rest[number, 0] = joint.origin
            if joint.type == PRISMATIC:
                self._slide[number, 0, :3, 3] = turn @ joint.axis
            elif joint.moves:
                x, y, z = joint.axis
                cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
                self._sine[number, 0, :3, :3] = turn @ cross
                self._rise[number, 0, :3, :3] = turn @ cross @ cross

    def poses(self, positions: Mapping[str, ArrayLike], links: Iterable[str]) -> dict[str, Values]:
        """The poses [T, 4, 4] of ``links``, each in the frame ``model.frame_of`` names.

        ``positions`` holds arrays [T] in rad or m by joint name, or single numbers for joints that stay; T is
        1 where there are only those. Joints that follow another one need no position of their own.
        """
        lengths = {np.size(value) for value in positions.values()} - {1}
        if len(lengths) > 1:
            raise ValueError(f"joint positions of different lengths {sorted(lengths)}, expected one length")
        steps = max(lengths, default=1)
        moved = self._matrices(positions, steps)
        known: dict[str, Values] = {}
        found = {}
        for link in links:
            chain = self._chains[link]
            if not chain:
                found[link] = np.broadcast_to(_HERE, (steps, 4, 4))
                continue
            above: Values | None = None
            for child in chain:
                if child not in known:
                    matrix = moved[self._place[child]]
                    # Above the first joint is the frame itself.
                    known[child] = matrix if above is None else above @ matrix
                above = known[child]
            found[link] = known[link]
        return found

    def transforms(self, positions: Mapping[str, float]) -> dict[str, Values]:
        """For every joint whose position is known, by its child: the pose [4, 4] of the child in the parent's
        frame. This is what TF carries."""
        moved = self._matrices(positions, 1)[:, 0]
        return {
            child: moved[number]
            for child, number in self._place.items()
            if not self.model.above[child].is_free and np.isfinite(moved[number]).all()
        }

    def _matrices(self, positions: Mapping[str, ArrayLike], steps: int) -> Values:
        """[J, T, 4, 4] of all joints; NaN for those whose position is not known."""
        values = np.zeros((len(self._follows), steps))
        for number, name in enumerate(self._follows):
            if name:
                values[number] = positions.get(name, np.nan)
        q = (self._gain * values + self._offset)[..., None, None]
        return np.asarray(
            self._rest + np.sin(q) * self._sine + (1.0 - np.cos(q)) * self._rise + q * self._slide, np.float64
        )


def _gain(model: RobotModel, joint: Joint) -> tuple[float, float]:
    """Factor and offset from the position that moves ``joint`` to its own; 0 for one that does not move."""
    if not joint.moves:
        return 0.0, 0.0
    gain, offset, joints = 1.0, 0.0, model.joints
    while joint.mimic is not None:
        leader, multiplier, more = joint.mimic
        offset += gain * more
        gain *= multiplier
        joint = joints[leader]
    return gain, offset
