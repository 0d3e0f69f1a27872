# SPDX-License-Identifier: Apache-2.0
"""Rotations in the three forms that checkpoints use, from the quaternion that ROS messages carry.

Quaternions are (x, y, z, w) as in ``geometry_msgs``; ``rot6d`` is the first two rows of the rotation matrix;
a rotation vector is axis times angle in rad. Used by the observation builder for pose sources.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Below this angle (rad) sin(x)/x is 1 to the last bit of a double.
_SMALL_ANGLE = 1e-8


def quaternion_to_matrix(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Unit quaternion [4] to rotation matrix [3, 3]."""
    x, y, z, w = np.asarray(quaternion, np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_to_rotvec(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Unit quaternion [4] to rotation vector [3], with an angle of at most pi."""
    q = np.asarray(quaternion, np.float64)
    if q[3] < 0:
        q = -q
    sine = float(np.linalg.norm(q[:3]))
    angle = 2.0 * float(np.arctan2(sine, q[3]))
    return q[:3] * (angle / sine if angle > _SMALL_ANGLE else 2.0)


def from_quaternion(quaternion: ArrayLike, rotation: str) -> NDArray[np.float64]:
    """Unit quaternion [4] as ``quaternion`` [4], ``rot6d`` [6] or ``rotvec`` [3]."""
    if rotation == "quaternion":
        return np.asarray(quaternion, np.float64)
    if rotation == "rot6d":
        return quaternion_to_matrix(quaternion)[:2].reshape(6)
    if rotation == "rotvec":
        return quaternion_to_rotvec(quaternion)
    raise ValueError(f"rotation {rotation!r}, expected quaternion, rot6d or rotvec")
