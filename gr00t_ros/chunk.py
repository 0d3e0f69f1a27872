# SPDX-License-Identifier: Apache-2.0
"""Action chunks in plain Python: what a policy's output means on the robot, and whether to accept one.

The policy makes a ``Chunk`` from decoded actions with ``chunk_from_actions``: SI values, placed in time. The
executor checks each chunk that arrives with ``check_chunk`` before it reaches the timeline.
``nodes/conversions.py`` turns chunks into messages and back; nothing here knows ROS types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import ChunkRefused
from gr00t_ros.group_values import from_checkpoint, to_quaternions
from gr00t_ros.observation import MAX_INSTRUCTION_CHARS
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import (
    EE_POSE,
    POSITION_COLUMNS,
    QUATERNION,
    ROTATION_COLUMNS,
    ActionGroupConfig,
)
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS

# Rows of the network's table of action positions: no checkpoint can predict more steps.
MAX_HORIZON = 1024
# A step may differ from the robot YAML's by rounding, not by more: another step means another YAML.
STEP_TOLERANCE = 0.01


@dataclass(frozen=True)
class ChunkGroup:
    """One action key over all steps: ``values`` float64 [T, D], absolute, SI; ``names`` [D] are joints, or
    the columns of a twist or pose.

    Frames belong to poses and twists, ``rotation`` to poses, and are empty otherwise. It is ``quaternion`` in
    every chunk that the package makes or has checked; others may send ``rot6d`` or ``rotvec``.
    """

    key: str
    representation: str
    names: tuple[str, ...]
    values: NDArray[np.float64]
    frame_id: str = ""
    child_frame: str = ""
    rotation: str = ""


@dataclass(frozen=True)
class Chunk:
    """What the policy intends: step i of every group is due at ``start_ns + i * step_ns``. All times in
    nanoseconds.

    ``session`` is larger at each start of the policy, ``sequence`` counts up within it. ``t_obs_ns`` is the
    stamp of the newest camera frame used, ``frozen_steps`` the leading steps kept from the committed plan.
    """

    session: int
    sequence: int
    instruction: str
    t_obs_ns: int
    start_ns: int
    step_ns: int
    groups: tuple[ChunkGroup, ...]
    frozen_steps: int = 0
    inference_ns: int = 0

    @property
    def horizon(self) -> int:
        """Number of steps T; 0 without groups."""
        return len(self.groups[0].values) if self.groups else 0

    @property
    def end_ns(self) -> int:
        """When the last step is due."""
        return self.start_ns + (self.horizon - 1) * self.step_ns


def chunk_from_actions(
    robot: RobotConfig,
    actions: Mapping[str, Any],
    *,
    t_obs_ns: int,
    delta0: int = 0,
    session: int = 0,
    sequence: int = 0,
    instruction: str = "",
    frozen_steps: int = 0,
    inference_ns: int = 0,
) -> Chunk:
    """The chunk for decoded actions ``{key: [1, T, D] or [T, D]}`` in dataset units.

    ``delta0`` is the checkpoint's first action delta index: step 0 is due that many steps after ``t_obs_ns``.
    Raises ChunkRefused when keys, widths or lengths do not fit the robot; values are not looked at.
    """
    groups = []
    for key, config in robot.action.items():
        if key not in actions:
            raise ChunkRefused(
                f"action.{key}: missing in the policy's output; it has {', '.join(actions) or 'none'}"
            )
        values = np.asarray(actions[key], np.float64)
        if values.ndim == 3 and len(values) == 1:
            values = values[0]
        if values.ndim != 2 or values.shape[1] != config.width:
            raise ChunkRefused(f"action.{key}: found shape {values.shape}, expected [1, T, {config.width}]")
        try:
            si = from_checkpoint(robot, config, values)
        except ValueError as error:
            raise ChunkRefused(f"action.{key}: {error}") from error
        groups.append(chunk_group(config, si))
    lengths = {group.key: len(group.values) for group in groups}
    if len(set(lengths.values())) > 1:
        raise ChunkRefused(f"action: found different numbers of steps {lengths}, expected one number")
    return Chunk(
        session=session,
        sequence=sequence,
        instruction=instruction,
        t_obs_ns=t_obs_ns,
        start_ns=t_obs_ns + delta0 * robot.step_ns,
        step_ns=robot.step_ns,
        groups=tuple(groups),
        frozen_steps=frozen_steps,
        inference_ns=inference_ns,
    )


def chunk_group(config: ActionGroupConfig, values: NDArray[np.float64]) -> ChunkGroup:
    """The group ``config`` of a chunk: ``values`` [T, ``len(config.names)``], SI, rotations as
    quaternions."""
    rotation = QUATERNION if config.representation == EE_POSE else ""
    return ChunkGroup(
        config.key,
        config.representation,
        config.names,
        values,
        frame_id=config.frame_id,
        child_frame=config.child_frame,
        rotation=rotation,
    )


def check_chunk(chunk: Chunk, robot: RobotConfig, now_ns: int, last: tuple[int, int] | None = None) -> Chunk:
    """Accept a chunk at node time ``now_ns``: returns it with groups and columns in the robot YAML's order.

    ``last`` is (session, sequence) of the newest chunk accepted before. A chunk without groups ends the plan,
    and does so now: only its order is looked at, not when it was stamped. Raises ChunkRefused with the reason
    for a chunk that is out of order, misplaced in time, too old, misshaped, not of this robot, or not finite.
    """
    _check_order(chunk, last)
    if len(chunk.instruction) > MAX_INSTRUCTION_CHARS:
        raise ChunkRefused(
            f"found an instruction of {len(chunk.instruction)} characters, expected at most "
            f"{MAX_INSTRUCTION_CHARS}"
        )
    if not chunk.groups:
        # A clock that is off must not keep the robot from being stopped.
        return replace(chunk, t_obs_ns=now_ns, start_ns=now_ns)
    keys = [group.key for group in chunk.groups]
    if len(set(keys)) != len(keys) or set(keys) != set(robot.action):
        raise ChunkRefused(
            f"found groups {', '.join(keys) or 'none'}, expected {', '.join(robot.action)}, each once"
        )
    horizon = chunk.horizon
    if not 1 <= horizon <= MAX_HORIZON:
        raise ChunkRefused(f"found {horizon} steps, expected 1 to {MAX_HORIZON}")
    if not 0 <= chunk.frozen_steps <= horizon:
        raise ChunkRefused(f"found {chunk.frozen_steps} frozen steps, expected 0 to {horizon}")
    _check_time(chunk, robot, now_ns)
    by_key = {group.key: group for group in chunk.groups}
    return replace(
        chunk,
        groups=tuple(_checked_group(by_key[key], config, horizon) for key, config in robot.action.items()),
    )


def not_finite(chunk: Chunk) -> str:
    """An empty text, or a sentence about the first value that is no number."""
    for group in chunk.groups:
        if not np.isfinite(group.values).all():
            step, column = np.argwhere(~np.isfinite(group.values))[0]
            name = group.names[column] if column < len(group.names) else f"column {column}"
            return (
                f"the chunk holds values that are not finite: action.{group.key}, {name} is "
                f"{group.values[step, column]} in step {step}"
            )
    return ""


def _check_order(chunk: Chunk, last: tuple[int, int] | None) -> None:
    if last is None:
        return
    session, sequence = last
    if chunk.session < session:
        raise ChunkRefused(
            f"found session {chunk.session}, older than {session}: another start of the policy has taken over"
        )
    if chunk.session == session and chunk.sequence <= sequence:
        what = "again" if chunk.sequence == sequence else f"after {sequence}"
        raise ChunkRefused(f"found sequence {chunk.sequence} {what}, expected a newer chunk")


def _check_time(chunk: Chunk, robot: RobotConfig, now_ns: int) -> None:
    if chunk.step_ns <= 0 or abs(chunk.step_ns - robot.step_ns) > STEP_TOLERANCE * robot.step_ns:
        raise ChunkRefused(
            f"found a step of {chunk.step_ns / 1e6:g} ms, expected {robot.step_ns / 1e6:g} ms (step_rate in "
            "the robot YAML)"
        )
    if chunk.t_obs_ns <= 0:
        raise ChunkRefused("found a zero stamp, expected the time of the observation")
    age = (now_ns - chunk.t_obs_ns) / 1e9
    if chunk.t_obs_ns > now_ns + FUTURE_TOLERANCE_NS:
        raise ChunkRefused(f"found an observation {-age:.3f} s ahead of now: check the clocks")
    if age > robot.executor.max_chunk_age:
        raise ChunkRefused(
            f"found an observation {age:.3f} s old, expected at most {robot.executor.max_chunk_age:g} s "
            "(max_chunk_age)"
        )
    ahead = (chunk.start_ns - now_ns) / 1e9
    if ahead > robot.executor.max_start_ahead:
        raise ChunkRefused(
            f"found a start {ahead:.3f} s ahead, expected at most {robot.executor.max_start_ahead:g} s "
            "(max_start_ahead)"
        )
    if chunk.end_ns < now_ns:
        raise ChunkRefused(
            f"found only steps of the past, the last {(now_ns - chunk.end_ns) / 1e9:.3f} s ago"
        )


def _checked_group(group: ChunkGroup, config: ActionGroupConfig, horizon: int) -> ChunkGroup:
    """The group with its columns in the YAML's order."""
    where = f"action.{group.key}"
    if group.representation != config.representation:
        raise ChunkRefused(
            f"{where}: found representation {group.representation!r}, expected {config.representation!r}"
        )
    names = _expected_names(group, config, where)
    if sorted(group.names) != sorted(names):
        what = "joints" if config.joints else "columns"
        raise ChunkRefused(
            f"{where}: found {what} {', '.join(group.names) or 'none'}, expected {', '.join(names)}"
        )
    values = np.asarray(group.values, np.float64)
    if values.shape != (horizon, len(names)):
        raise ChunkRefused(
            f"{where}: found values of shape {values.shape}, expected ({horizon}, {len(names)})"
        )
    if not np.isfinite(values).all():
        step, column = np.argwhere(~np.isfinite(values))[0]
        raise ChunkRefused(
            f"{where}: {group.names[column]} is {values[step, column]} in step {step}, expected a number"
        )
    if group.names != names:
        values = values[:, [group.names.index(name) for name in names]]
    if config.representation != EE_POSE:
        return replace(group, names=names, values=values)
    try:
        values = to_quaternions(values, group.rotation)
    except ValueError as error:
        raise ChunkRefused(f"{where}: {error}") from error
    return chunk_group(config, values)


def _expected_names(group: ChunkGroup, config: ActionGroupConfig, where: str) -> tuple[str, ...]:
    """The columns that a group must have; those of a pose depend on how it gives the rotation. Frames are
    looked at too: numbers of another frame are another place."""
    if config.joints:
        return config.names
    for what, found, expected in (
        ("frame_id", group.frame_id, config.frame_id),
        ("child_frame", group.child_frame, config.child_frame),
    ):
        if found != expected:
            raise ChunkRefused(f"{where}: found {what} {found!r}, expected {expected!r}")
    if config.representation != EE_POSE:
        return config.names
    if group.rotation not in ROTATION_COLUMNS:
        raise ChunkRefused(
            f"{where}: found rotation {group.rotation!r}, expected one of {', '.join(ROTATION_COLUMNS)}"
        )
    return (*POSITION_COLUMNS, *ROTATION_COLUMNS[group.rotation])
