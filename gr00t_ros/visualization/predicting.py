# SPDX-License-Identifier: Apache-2.0
"""What a chunk, or the executor's plan, means for the robot: joints over time, paths, and limits exceeded.

Values are SI. Steps that depend on something that was not measured are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import EE_POSE, JOINT_POSITION, JOINT_VELOCITY, SCALAR, TWIST, PoseLimits
from gr00t_ros.rotations import quaternion_to_matrix
from gr00t_ros.visualization.effectors import Effector

Values = NDArray[np.float64]

# rad or m. What lies no further beyond a limit comes from rounding to float32 and back.
ROUNDING = 1e-5
# Two chunks that put an end effector into places this far apart (m) for the same moment do not agree at all:
# half a cube that a small arm picks up. At no distance they agree fully.
NO_AGREEMENT_M = 0.02


@dataclass(frozen=True)
class Excess:
    """A joint or pose group that a chunk takes beyond a limit: the worst step, its value, and the limit.
    ``kind`` is position or velocity; SI."""

    name: str
    kind: str
    step: int
    value: float
    limit: float

    def __str__(self) -> str:
        what = " speed" if self.kind == "velocity" else ""
        return f"{self.name}{what} {self.value:.2f}, limit {self.limit:.2f}"


def joint_positions(
    groups: Iterable[ChunkGroup], step_ns: int, measured: Mapping[str, float]
) -> dict[str, ArrayLike]:
    """Joint positions by name: [T] for those that ``groups`` command, one number for the others measured.

    Velocities are added up from the measured position on: step i moves on from step i - 1 for one step. Where
    the position was not measured the joint is left out.
    """
    found: dict[str, ArrayLike] = dict(measured)
    for group in groups:
        if group.representation in (JOINT_POSITION, SCALAR):
            found.update(zip(group.names, group.values.T, strict=True))
        elif group.representation == JOINT_VELOCITY:
            ways = np.cumsum(group.values, axis=0) * (step_ns / 1e9)
            for name, way in zip(group.names, ways.T, strict=True):
                if name in measured:
                    found[name] = measured[name] + way
    return found


def effector_paths(
    effectors: Sequence[Effector],
    groups: Sequence[ChunkGroup],
    poses: Mapping[str, Values],
) -> list[Values]:
    """The poses [T, 4, 4] of each effector in its frame; T is 1 for one that stays. NaN where unknown.

    ``poses`` are those of links, from ``Kinematics.poses``.
    """
    by_key = {group.key: group for group in groups if group.representation == EE_POSE}
    found = []
    for effector in effectors:
        if effector.link:
            found.append(poses[effector.link])
        elif effector.key in by_key:
            found.append(pose_matrices(by_key[effector.key].values))
        else:
            found.append(np.full((1, 4, 4), np.nan))
    return found


def pose_matrices(poses: ArrayLike) -> Values:
    """Poses [T, 7] (m, quaternion x, y, z, w) as matrices [T, 4, 4]."""
    values = np.asarray(poses, np.float64)
    matrices = np.tile(np.eye(4), (len(values), 1, 1))
    matrices[:, :3, :3] = quaternion_to_matrix(values[:, 3:])
    matrices[:, :3, 3] = values[:, :3]
    return matrices


def twist_path(group: ChunkGroup, step_ns: int) -> Values:
    """Where a frame that moves with the twists of ``group`` [T, D] goes, seen from where it is now:
    positions [T + 1, 3], the first of them 0.

    For a mobile base, whose twist is given in the frame that moves.
    """
    assert group.representation == TWIST
    speeds = dict(zip(group.names, group.values.T, strict=True))
    dt = step_ns / 1e9
    linear, angular = (
        np.stack([speeds.get(f"{kind}_{axis}", np.zeros(len(group.values))) for axis in "xyz"], axis=-1)
        for kind in ("linear", "angular")
    )
    place, turn = np.zeros(3), np.eye(3)
    path = [place]
    for v, w in zip(linear, angular, strict=True):
        half = _turned(w * dt / 2.0)  # the midpoint rule: exact for the way of a steady turn up to w*dt cubed
        place = place + turn @ half @ v * dt
        turn = turn @ half @ half
        path.append(place)
    return np.array(path)


def _turned(rotvec: Values) -> Values:
    angle = float(np.linalg.norm(rotvec))
    if angle == 0.0:
        return np.eye(3)
    axis = rotvec / angle
    return quaternion_to_matrix([*(axis * math.sin(angle / 2.0)), math.cos(angle / 2.0)])


def excesses(chunk: Chunk, robot: RobotConfig) -> list[Excess]:
    """What the executor would bring back inside the robot YAML's limits: positions, and speeds between steps
    of positions. The worst step of each."""
    found = []
    for group in chunk.groups:
        if group.representation == EE_POSE:
            found += _pose_excess(group, robot)
            continue
        if group.representation == TWIST:
            continue  # limits of a twist are lengths, and nothing is where it goes beyond them
        limits = [robot.limits[name] for name in group.names]
        speeds = group.values
        if group.representation != JOINT_VELOCITY:
            low, high = [limit.min for limit in limits], [limit.max for limit in limits]
            found += _worst(group.names, "position", group.values, low, high)
            # The first step's speed depends on where the joint is, which is the executor's to know.
            speeds = np.diff(group.values, axis=0) / (chunk.step_ns / 1e9)
        fastest = np.array([limit.velocity for limit in limits])
        found += _worst(group.names, "velocity", speeds, -fastest, fastest)
    return found


def _worst(names: Sequence[str], kind: str, values: Values, low: ArrayLike, high: ArrayLike) -> list[Excess]:
    """For each column of ``values`` [T, D] that leaves ``low`` to ``high`` [D], the step where it is
    furthest outside."""
    if not len(values):
        return []
    lowest, highest = np.asarray(low, np.float64), np.asarray(high, np.float64)
    beyond = np.maximum(values - highest, lowest - values)
    found = []
    for column in np.flatnonzero(beyond.max(axis=0) > ROUNDING).tolist():
        step = int(np.argmax(beyond[:, column]))
        value = float(values[step, column])
        limit = highest[column] if value > highest[column] else lowest[column]
        found.append(Excess(names[column], kind, step, value, float(limit)))
    return found


def _pose_excess(group: ChunkGroup, robot: RobotConfig) -> list[Excess]:
    limits = robot.group_limits[group.key]
    assert isinstance(limits, PoseLimits)
    names = [f"{group.key} {axis}" for axis in group.names[:3]]
    return _worst(names, "position", group.values[:, :3], limits.min, limits.max)


def agreement(chunk: Chunk, path: Values, before: Chunk | None, path_before: Values | None) -> Values | None:
    """How well the chunk ``before`` agreed with this one on where an end effector will be, 0 to 1 by step
    [T]; None where nothing is known.

    ``path`` and ``path_before`` are poses [T, 4, 4]. The path of the chunk before is taken at the moments at
    which this one's steps are due; steps that it does not reach are NaN. After another instruction two chunks
    are not meant to agree, so nothing is known.
    """
    if before is None or path_before is None or not before.groups:
        return None
    if (before.session, before.instruction) != (chunk.session, chunk.instruction):
        return None
    if len(path) != chunk.horizon or len(path_before) != before.horizon:
        return None
    # In steps of the chunk before, counted from its start.
    due = (chunk.start_ns - before.start_ns) / before.step_ns + np.arange(chunk.horizon) * (
        chunk.step_ns / before.step_ns
    )
    inside = (due >= 0.0) & (due <= before.horizon - 1)
    if not inside.any():
        return None
    low = np.minimum(np.maximum(due, 0.0).astype(int), before.horizon - 1)
    high = np.minimum(low + 1, before.horizon - 1)
    share = (due - low)[:, None]
    expected = path_before[low, :3, 3] * (1.0 - share) + path_before[high, :3, 3] * share
    apart = np.linalg.norm(path[:, :3, 3] - expected, axis=1)
    return np.where(inside, np.maximum(1.0 - apart / NO_AGREEMENT_M, 0.0), np.nan)
