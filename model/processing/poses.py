# SPDX-License-Identifier: Apache-2.0
"""End-effector poses: between the stored layouts and 4x4 transforms.

Layouts along the last axis: ``XYZ_ROT6D`` is position (3) and the first two matrix *rows* (6); ``XYZ_ROTVEC``
is position (3) and a rotation vector (3, radians). Rows are made orthonormal in order, first row kept (Zhou
et al., "On the continuity of rotation representations in neural networks", CVPR 2019, there with columns).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gr00t_model.errors import Gr00tError

Array = NDArray[np.float64]

WIDTHS = {"XYZ_ROT6D": 9, "XYZ_ROTVEC": 6}

# Rows shorter than this, or closer to parallel, do not say which way a gripper points.
SMALLEST_ROW = 1e-6
# Below this angle (radians) sin(a/2)/a is taken from its series: the closed form loses digits.
SMALL_ANGLE = 1e-3


def relative(actions: Array, states: Array, layout: str | None, *, action: str, state: str) -> Array:
    """Actions [..., D] as they are seen from states (of a shape that fits): ``inv(T_state) @ T_action`` for
    poses of a layout, differences for what is none (None).

    Args:
        action, state: what they are called in a message.

    Raises:
        Gr00tError: a pose has no orientation; names which.
    """
    if layout is None:
        return actions - states
    anchor = to_transforms(states, layout, state)
    return from_transforms(invert(anchor) @ to_transforms(actions, layout, action), layout)


def to_transforms(poses: Array, layout: str, name: str = "a pose") -> Array:
    """Poses [..., 9] or [..., 6] to transforms [..., 4, 4].

    Raises:
        Gr00tError: the rotation rows are zero or parallel; ``name`` is what they are called.
    """
    try:
        rotation = (
            rows_to_matrices(poses[..., 3:]) if layout == "XYZ_ROT6D" else rotvecs_to_matrices(poses[..., 3:])
        )
    except Gr00tError as error:
        raise Gr00tError(f"{name} has {error}") from None
    transforms = np.zeros((*poses.shape[:-1], 4, 4))
    transforms[..., :3, :3] = rotation
    transforms[..., :3, 3] = poses[..., :3]
    transforms[..., 3, 3] = 1.0
    return transforms


def from_transforms(transforms: Array, layout: str) -> Array:
    """Transforms [..., 4, 4] to poses [..., 9] or [..., 6]."""
    rotation = transforms[..., :3, :3]
    if layout == "XYZ_ROT6D":
        tail = rotation[..., :2, :].reshape(*rotation.shape[:-2], 6)
    else:
        tail = matrices_to_rotvecs(rotation)
    return np.concatenate([transforms[..., :3, 3], tail], axis=-1)


def invert(transforms: Array) -> Array:
    """Inverse of rigid transforms [..., 4, 4]."""
    inverse = np.zeros_like(transforms)
    rotation = np.swapaxes(transforms[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ transforms[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def rows_to_matrices(rows: Array) -> Array:
    """Two matrix rows [..., 6] to rotation matrices [..., 3, 3]."""
    first = _unit(rows[..., :3])
    second = rows[..., 3:]
    second = _unit(second - (first * second).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def rotvecs_to_matrices(rotvecs: Array) -> Array:
    """Rotation vectors [..., 3] (radians) to matrices [..., 3, 3], through quaternions."""
    angle = np.linalg.norm(rotvecs, axis=-1, keepdims=True)
    small = angle < SMALL_ANGLE
    scale = np.where(small, 0.5 - angle**2 / 48.0, np.sin(angle / 2) / np.where(small, 1.0, angle))
    x, y, z = np.moveaxis(rotvecs * scale, -1, 0)
    w = np.cos(angle / 2)[..., 0]
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrices_to_rotvecs(matrices: Array) -> Array:
    """Rotation matrices [..., 3, 3] to rotation vectors [..., 3] (radians, length at most pi)."""
    m = matrices
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Four times the outer product of the quaternion (w, x, y, z) with itself; the row with the largest
    # diagonal entry is the quaternion times a number that is far from zero (Shepperd, "Quaternion from
    # rotation matrix", 1978).
    outer = np.empty((*trace.shape, 4, 4))
    outer[..., 0, 0] = 1 + trace
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        outer[..., i + 1, i + 1] = 1 + 2 * m[..., i, i] - trace
        outer[..., 0, i + 1] = outer[..., i + 1, 0] = m[..., k, j] - m[..., j, k]
        outer[..., i + 1, j + 1] = outer[..., j + 1, i + 1] = m[..., i, j] + m[..., j, i]
    best = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    quaternion = np.take_along_axis(outer, best[..., None, None], axis=-2)[..., 0, :]
    quaternion = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    small = angle < SMALL_ANGLE
    return quaternion[..., 1:] * np.where(small, 2 + angle**2 / 12, angle / np.where(small, 1.0, sine))


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    # A NaN length passes here on purpose: non-finite values have their own message where they enter.
    if (length < SMALLEST_ROW).any():
        raise Gr00tError(
            "no orientation: its two rotation rows are zero or parallel, expected two different directions"
        )
    return vectors / length
