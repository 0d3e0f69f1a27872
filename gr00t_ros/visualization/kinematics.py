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
    """Where the links of ``model`` are. The constant parts are computed once."""

    def __init__(self, model: RobotModel) -> None:
        self.model = model
        self._joints = {joint.child: _Motion(model, joint) for joint in model.above.values()}
        self._chains = {link: [(j.parent, j.child) for j in model.chain(link)] for link in model.links}

    def poses(self, positions: Mapping[str, ArrayLike], links: Iterable[str]) -> dict[str, Values]:
        """The poses [T, 4, 4] of ``links``, each in the frame ``model.frame_of`` names.

        ``positions`` holds arrays [T] in rad or m by joint name, or single numbers for joints that stay; T is
        1 where there are only those. Joints that follow another one need no position of their own.
        """
        lengths = {np.size(value) for value in positions.values()} - {1}
        if len(lengths) > 1:
            raise ValueError(f"joint positions of different lengths {sorted(lengths)}, expected one length")
        steps = max(lengths, default=1)
        given = {name: np.asarray(value, np.float64).reshape(-1) for name, value in positions.items()}
        known: dict[str, Values] = {}
        unknown = np.array([np.nan])
        for link in links:
            chain = self._chains[link]
            known.setdefault(chain[0][0] if chain else link, _HERE)
            for parent, child in chain:
                if child not in known:
                    motion = self._joints[child]
                    known[child] = known[parent] @ motion.matrices(given.get(motion.follows, unknown))
        if steps == 1:
            return {link: known[link] for link in links}
        return {link: np.broadcast_to(known[link], (steps, 4, 4)) for link in links}

    def transforms(self, positions: Mapping[str, float]) -> dict[str, Values]:
        """For every joint whose position is known, by its child: the pose [4, 4] of the child in the parent's
        frame. This is what TF carries."""
        found = {}
        for joint in self.model.above.values():
            motion = self._joints[joint.child]
            if not joint.is_free and (not joint.moves or motion.follows in positions):
                here = np.array([positions.get(motion.follows, np.nan)])
                found[joint.child] = motion.matrices(here)[0]
        return found


class _Motion:
    """A joint's matrix as a sum of constant ones: of 1, q (sliding) or of 1, sin q, 1 - cos q (turning; the
    formula of Rodrigues)."""

    def __init__(self, model: RobotModel, joint: Joint) -> None:
        self.follows = model.followed(joint)
        self._gain, self._offset = 1.0, 0.0
        joints, link = model.joints, joint
        while link.mimic is not None:
            leader, multiplier, offset = link.mimic
            self._offset += self._gain * offset
            self._gain *= multiplier
            link = joints[leader]
        self._moves, self._slides = joint.moves, joint.type == PRISMATIC
        self._rest = joint.origin
        self._first, self._second = np.zeros((4, 4)), np.zeros((4, 4))
        if self._slides:
            self._first[:3, 3] = joint.origin[:3, :3] @ joint.axis
        elif self._moves:
            x, y, z = joint.axis
            cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
            self._first[:3, :3] = joint.origin[:3, :3] @ cross
            self._second[:3, :3] = joint.origin[:3, :3] @ cross @ cross

    def matrices(self, position: Values) -> Values:
        """[T, 4, 4] for positions [T], or [1, 4, 4] for a joint that does not move."""
        if not self._moves:
            return self._rest[None]
        q = (self._gain * position + self._offset)[:, None, None]
        if self._slides:
            return self._rest + q * self._first
        return self._rest + np.sin(q) * self._first + (1.0 - np.cos(q)) * self._second
