# SPDX-License-Identifier: Apache-2.0
"""Rotations: between the three forms that checkpoints use, and the mathematics of turning from one to
another.

Quaternions are (x, y, z, w) as in ``geometry_msgs``, of length 1; q and -q are the same rotation. ``rot6d``
is the first two rows of the rotation matrix; a rotation vector is axis times angle in rad. Everything works
on the last axis, with any axes before it. Inside the package a rotation is a quaternion; the other forms are
converted where they come in (states, chunks) and go out (the network's).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

# Below this angle (rad) sin(x)/x and its like come from their series, which is then exact to the last bit.
_SMALL_ANGLE = 1e-4
# A quaternion shorter than this, and rows of a matrix shorter than this or this near to parallel, say nothing
# about where something points.
_NO_DIRECTION = 1e-6


def quaternion_to_matrix(quaternion: ArrayLike) -> Values:
    """Unit quaternions [..., 4] to rotation matrices [..., 3, 3]."""
    x, y, z, w = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(matrix: Values) -> Values:
    """Rotation matrices [..., 3, 3] to unit quaternions [..., 4].

    From four times the outer product of the quaternion with itself: its row with the largest diagonal entry
    is the quaternion times a number far from 0 (Shepperd, "Quaternion from rotation matrix", 1978).
    """
    trace = matrix[..., 0, 0] + matrix[..., 1, 1] + matrix[..., 2, 2]
    outer = np.empty((*trace.shape, 4, 4))
    outer[..., 3, 3] = 1.0 + trace
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        outer[..., i, i] = 1.0 + 2.0 * matrix[..., i, i] - trace
        outer[..., 3, i] = outer[..., i, 3] = matrix[..., k, j] - matrix[..., j, k]
        outer[..., i, j] = outer[..., j, i] = matrix[..., i, j] + matrix[..., j, i]
    best = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    row = np.take_along_axis(outer, best[..., None, None], axis=-2)[..., 0, :]
    return np.asarray(row / np.linalg.norm(row, axis=-1, keepdims=True), np.float64)


def quaternion_to_rotvec(quaternion: ArrayLike) -> Values:
    """Unit quaternions [..., 4] to rotation vectors [..., 3], with an angle of at most pi."""
    q = np.asarray(quaternion, np.float64)
    q = np.where(q[..., 3:] < 0.0, -q, q)
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., 3:])
    small = angle < _SMALL_ANGLE
    return np.asarray(q[..., :3] * np.where(small, 2.0 + angle**2 / 12.0, angle / np.where(small, 1.0, sine)))


def rotvec_to_quaternion(rotvec: ArrayLike) -> Values:
    """Rotation vectors [..., 3] of any length to unit quaternions [..., 4]."""
    vector = np.asarray(rotvec, np.float64)
    half = np.linalg.norm(vector, axis=-1, keepdims=True) / 2.0
    small = half < _SMALL_ANGLE
    scale = np.where(small, 0.5 - half**2 / 12.0, np.sin(half) / np.where(small, 1.0, 2.0 * half))
    return np.concatenate([vector * scale, np.cos(half)], axis=-1)


def from_quaternion(quaternion: ArrayLike, rotation: str) -> Values:
    """Unit quaternions [..., 4] as ``quaternion`` [..., 4], ``rot6d`` [..., 6] or ``rotvec`` [..., 3]."""
    q = np.asarray(quaternion, np.float64)
    if rotation == "quaternion":
        return q
    if rotation == "rot6d":
        return quaternion_to_matrix(q)[..., :2, :].reshape(*q.shape[:-1], 6)
    if rotation == "rotvec":
        return quaternion_to_rotvec(q)
    raise ValueError(f"rotation {rotation!r}, expected quaternion, rot6d or rotvec")


def to_quaternion(values: ArrayLike, rotation: str) -> Values:
    """``quaternion`` [..., 4] of any length, ``rot6d`` [..., 6] or ``rotvec`` [..., 3], all finite, to unit
    quaternions [..., 4].

    A network gives neither unit quaternions nor orthonormal rows: rows are made orthonormal in order, the
    first one kept (Zhou et al., "On the continuity of rotation representations in neural networks", 2019).
    Raises ValueError for values that say nothing about a direction.
    """
    given = np.asarray(values, np.float64)
    if rotation == "quaternion":
        return _unit(given, "a quaternion of length 0")
    if rotation == "rotvec":
        return rotvec_to_quaternion(given)
    if rotation != "rot6d":
        raise ValueError(f"rotation {rotation!r}, expected quaternion, rot6d or rotvec")
    what = "rotation rows that are zero or parallel"
    first = _unit(given[..., :3], what)
    second = given[..., 3:]
    second = _unit(second - (first * second).sum(axis=-1, keepdims=True) * first, what)
    return matrix_to_quaternion(np.stack([first, second, np.cross(first, second)], axis=-2))


def multiply(a: ArrayLike, b: ArrayLike) -> Values:
    """The rotation b, then a: products of quaternions [..., 4]."""
    ax, ay, az, aw = np.moveaxis(np.asarray(a, np.float64), -1, 0)
    bx, by, bz, bw = np.moveaxis(np.asarray(b, np.float64), -1, 0)
    return np.stack(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        axis=-1,
    )


def conjugate(quaternion: ArrayLike) -> Values:
    """The opposite rotations [..., 4]."""
    return np.asarray(quaternion, np.float64) * (-1.0, -1.0, -1.0, 1.0)


def between(a: ArrayLike, b: ArrayLike) -> Values:
    """The rotation vectors [..., 3] of the shortest turns from a to b, in the frame in which a and b are
    given: ``multiply(rotvec_to_quaternion(between(a, b)), a)`` is b."""
    return quaternion_to_rotvec(multiply(b, conjugate(a)))


def slerp(a: ArrayLike, b: ArrayLike, share: ArrayLike) -> Values:
    """The rotations [..., 4] on the shortest way from a to b, at ``share`` (0..1) of its angle."""
    turn = between(a, b) * np.asarray(share, np.float64)[..., None]
    return multiply(rotvec_to_quaternion(turn), a)


def continuous(quaternions: Values) -> Values:
    """Quaternions [T, 4] with signs such that each is next to the one before: no step takes the long way."""
    dots = (quaternions[1:] * quaternions[:-1]).sum(axis=-1)
    signs = np.cumprod(np.where(dots < 0.0, -1.0, 1.0))
    return np.concatenate([quaternions[:1], quaternions[1:] * signs[:, None]])


def angular_velocity(quaternion: Values, rate: Values) -> Values:
    """Angular velocities [..., 3] (rad/s, in the frame in which the rotation is given) of unit quaternions
    [..., 4] that change by ``rate`` [..., 4] a second."""
    return 2.0 * multiply(rate, conjugate(quaternion))[..., :3]


def _unit(vectors: Values, what: str) -> Values:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if (length < _NO_DIRECTION).any():
        raise ValueError(f"found {what}, expected a direction")
    return np.asarray(vectors / length, np.float64)
