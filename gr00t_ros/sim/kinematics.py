# SPDX-License-Identifier: Apache-2.0
"""Where the SO-101's fingertips are for given joints, and back, in closed form. No MuJoCo at run time.

Above its pan joint the arm is a chain of three links in a vertical plane, which pan turns about a vertical
axis: with the hand's pitch given, two links and the law of cosines are left. Lengths and angles are read from
the robot model once, so that nothing here has to be measured by hand. Used by ``expert.py`` and
``reaching.py``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import SimulationError
from gr00t_ros.sim.scene import JOINTS

Values = NDArray[np.float64]

# The joints of the chain, in its order, and the point between the fingertips.
_CHAIN = ("upper_arm", "lower_arm", "wrist")
_TIP = "gripperframe"
# So much shorter than stretched the arm stays, m: the last millimetres cost large turns.
_BENT = 0.005


@dataclass(frozen=True)
class Link:
    """A link in the arm's plane: length (m) and its angle above the horizontal (rad) at joint angle zero."""

    length: float
    angle: float

    @classmethod
    def between(cls, begin: Values, end: Values) -> Link:
        """From one joint to the next, both [2] (reach, height)."""
        reach, height = end - begin
        return cls(float(math.hypot(reach, height)), float(math.atan2(height, reach)))


@dataclass(frozen=True)
class Kinematics:
    """``axis`` [2] (m): where the pan axis stands on the table; ``shoulder`` [2]: reach and height of the
    lift joint, from that axis; ``links``: upper arm, lower arm, hand.

    A pose of the tip is (pan, reach, height): rad, m from the pan axis, m above the table. The hand's pitch
    is how far it points below the horizontal: the sum of lift, elbow and wrist flex.
    """

    axis: tuple[float, float]
    shoulder: tuple[float, float]
    links: tuple[Link, Link, Link]

    @classmethod
    def of(cls, model: Any) -> Kinematics:
        """From a compiled model of ``scene.build_scene``."""
        import mujoco

        data = mujoco.MjData(model)
        for name in JOINTS:
            data.qpos[model.joint(name).qposadr[0]] = 0.0
        mujoco.mj_kinematics(model, data)
        axis = data.body("shoulder").xpos
        places = [*(data.body(name).xpos for name in _CHAIN), data.site(_TIP).xpos]
        # The links lie beside the plane through the axis, which changes neither reach nor height in it.
        plane = [np.array([place[0] - axis[0], place[2]]) for place in places]
        upper, lower, hand = (Link.between(*pair) for pair in itertools.pairwise(plane))
        reach, height = map(float, plane[0])
        return cls((float(axis[0]), float(axis[1])), (reach, height), (upper, lower, hand))

    def tip(self, joints: Sequence[float] | Values) -> tuple[float, float, float]:
        """The pose of the tip for joint positions [6], rad."""
        reach, height = self.shoulder
        turned = 0.0
        for link, joint in zip(self.links, joints[1:4], strict=True):
            turned += float(joint)
            reach += link.length * math.cos(link.angle - turned)
            height += link.length * math.sin(link.angle - turned)
        return float(joints[0]), reach, height

    def point(self, pose: tuple[float, float, float]) -> Values:
        """The place [3] (m, base frame) of a tip's pose. Positive pan turns to the right, seen from above."""
        pan, reach, height = pose
        x, y = self.axis
        return np.array([x + reach * math.cos(pan), y - reach * math.sin(pan), height])

    def pose(self, point: Sequence[float] | Values) -> tuple[float, float, float]:
        """The tip's pose at a place [3], m in the base frame."""
        x, y = float(point[0]) - self.axis[0], float(point[1]) - self.axis[1]
        return math.atan2(-y, x), math.hypot(x, y), float(point[2])

    def within_reach(self, pose: tuple[float, float, float], pitch: float) -> tuple[float, float, float]:
        """The pose itself, or the nearest one that the arm reaches with this pitch of the hand (rad)."""
        pan, reach, height = pose
        upper, lower, _ = self.links
        x, z = self._wrist(pose, pitch)
        far = math.hypot(x, z)
        bounds = abs(upper.length - lower.length) + _BENT, upper.length + lower.length - _BENT
        share = min(max(far, bounds[0]), bounds[1]) / max(far, 1e-9)
        return pan, reach + (share - 1.0) * x, height + (share - 1.0) * z

    def _wrist(self, pose: tuple[float, float, float], pitch: float) -> tuple[float, float]:
        """Reach and height of the wrist joint from the lift joint, m."""
        _, reach, height = pose
        turned = self.links[2].angle - pitch
        x = reach - self.links[2].length * math.cos(turned) - self.shoulder[0]
        return x, height - self.links[2].length * math.sin(turned) - self.shoulder[1]

    def solve(self, pose: tuple[float, float, float], pitch: float) -> Values:
        """Pan, lift, elbow and wrist flex [4] (rad) that bring the tip there, elbow up.

        Raises SimulationError for a place that is out of reach with this pitch.
        """
        pan, reach, height = pose
        upper, lower, _ = self.links
        x, z = self._wrist(pose, pitch)
        far = math.hypot(x, z)
        bend = (upper.length**2 + lower.length**2 - far**2) / (2.0 * upper.length * lower.length)
        if not -1.0 <= bend <= 1.0:
            raise SimulationError(
                f"the tip cannot be {reach:.3f} m from the pan axis at height {height:.3f} m with pitch "
                f"{pitch:.2f} rad: the two links reach {abs(upper.length - lower.length):.3f} to "
                f"{upper.length + lower.length:.3f} m, {far:.3f} m are asked for"
            )
        inside = math.acos(bend)
        rise = math.acos((upper.length**2 + far**2 - lower.length**2) / (2.0 * upper.length * far))
        upper_angle = math.atan2(z, x) + rise
        lower_angle = upper_angle - (math.pi - inside)
        lift = upper.angle - upper_angle
        elbow = lower.angle - lower_angle - lift
        return np.array([pan, lift, elbow, pitch - lift - elbow])
