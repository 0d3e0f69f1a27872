# SPDX-License-Identifier: Apache-2.0
"""A chunk's rotations as a curve in time, and what becomes of them where two chunks are mixed.

Between two steps the rotation is ``q(u) = q_i * exp(u r_i) * exp(c(u))``, u from 0 to 1, in quaternions: the
shortest arc from one step to the next at a steady speed (slerp; r_i is its rotation vector, seen from the
body that turns), and a correction c in the tangent space that is 0 at both steps. Unrolling the turns gives
``s_i = r_0 + ... + r_(i-1)``, three ordinary columns, so the curve s(t) through them is ``interpolation``'s,
and ``c(u) = s(t) - s_i - u r_i``. With ``linear`` it is 0 and the curve is slerp. With the others the angular
velocity at a step is ds/dt on both sides of it, hence continuous, and a steady turn stays slerp.

Chunks are mixed (``merging``) as quaternions of which each is next to the other, component by component with
the same weights as positions, and the mean is brought back to length 1. For two chunks that lies on the
shortest arc between them, and it is as smooth in time as the weights are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.rotations import between, conjugate, multiply, rotvec_to_quaternion

Values = NDArray[np.float64]

# A mean of quaternions that is shorter than this says nothing: its chunks point in opposite directions.
LEAST_LENGTH = 0.1
# Below this angle (rad) the coefficients below come from their series.
_SMALL_ANGLE = 1e-3


def unrolled(quaternions: Values) -> Values:
    """Quaternions [T, 4] to the turns from the first on, added up: [T, 4], the last column 0."""
    columns = np.zeros_like(quaternions)
    # In the frame of the body, which is where the next turn is added.
    turns = between(conjugate(quaternions[:-1]), conjugate(quaternions[1:]))
    np.cumsum(-turns, axis=0, out=columns[1:, :3])
    return columns


def rolled(
    quaternions: Values, steps: Values, rises: Values, path: Values, rates: Values, u: Values, per_s: float
) -> tuple[Values, Values]:
    """Quaternions [K, 4] and their change per second at K places of an unrolled curve.

    ``quaternions`` [K, 4] and ``steps`` [K, 3] are those of the step before, ``rises`` [K, 3] lead to the
    next one; ``path`` and ``rates`` [K, 3] are s(t) and ds/dt, ``u`` [K] the place between the two steps, of
    which there are ``per_s`` in a second.
    """
    turn = u[:, None] * rises
    correction = path - steps - turn
    rotation = multiply(multiply(quaternions, rotvec_to_quaternion(turn)), rotvec_to_quaternion(correction))
    # d/dt of exp(u r) exp(c): the first turn seen after the second, and the right Jacobian of the second.
    angle = np.linalg.norm(correction, axis=-1, keepdims=True)
    small = angle < _SMALL_ANGLE
    safe = np.where(small, 1.0, angle)
    sine = np.where(small, 1.0 - angle**2 / 6.0, np.sin(safe) / safe)
    cosine = np.where(small, 0.5 - angle**2 / 24.0, (1.0 - np.cos(safe)) / safe**2)
    cubic = np.where(small, 1.0 / 6.0 - angle**2 / 120.0, (safe - np.sin(safe)) / safe**3)
    steady = rises * per_s
    rest = rates - steady
    once, twice = np.cross(correction, steady), np.cross(correction, rest)
    body = steady - sine * once + cosine * np.cross(correction, once)
    body += rest - cosine * twice + cubic * np.cross(correction, twice)
    change = multiply(rotation, np.concatenate([0.5 * body, np.zeros((len(body), 1))], axis=-1))
    return rotation, change


def brought_back(means: Values, changes: Values, newest: tuple[Values, Values]) -> tuple[Values, Values]:
    """Means of quaternions [K, 4] and their change per second, at length 1; ``newest`` is taken, as
    quaternions and change, where chunks that point in opposite directions leave nothing of a mean."""
    length = np.linalg.norm(means, axis=-1, keepdims=True)
    nothing = length < LEAST_LENGTH
    means, changes = np.where(nothing, newest[0], means), np.where(nothing, newest[1], changes)
    length = np.where(nothing, 1.0, length)
    unit = means / length
    return unit, (changes - unit * (unit * changes).sum(axis=-1, keepdims=True)) / length
