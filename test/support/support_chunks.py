# SPDX-License-Identifier: Apache-2.0
"""Action chunks for tests of the timeline, the checks and the executor: for ``support_robots``' robot."""

from __future__ import annotations

from typing import Any

import numpy as np

from gr00t_ros.chunk import Chunk, ChunkGroup

STEP_NS = 50_000_000


def small_chunk(
    arm: Any,
    gripper: Any | None = None,
    *,
    start_ns: int,
    t_obs_ns: int | None = None,
    session: int = 1,
    sequence: int = 0,
    **changes: Any,
) -> Chunk:
    """A chunk from SI values: arm [T, 2] or [T] (elbow still at 0), gripper [T, 1] or none (still at 0)."""
    arm = np.asarray(arm, np.float64)
    if arm.ndim == 1:
        arm = np.stack([arm, np.zeros_like(arm)], axis=1)
    gripper = np.zeros((len(arm), 1)) if gripper is None else np.asarray(gripper, np.float64)
    fields: dict[str, Any] = {
        "session": session,
        "sequence": sequence,
        "instruction": "pick",
        "t_obs_ns": start_ns if t_obs_ns is None else t_obs_ns,
        "start_ns": start_ns,
        "step_ns": STEP_NS,
        "groups": (
            ChunkGroup("arm", "joint_position", ("shoulder", "elbow"), arm),
            ChunkGroup("gripper", "scalar", ("gripper",), gripper),
        ),
    }
    return Chunk(**{**fields, **changes})
