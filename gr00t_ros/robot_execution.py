# SPDX-License-Identifier: Apache-2.0
"""The executor's section of a robot YAML: when it stops trusting what it sees, and how it follows chunks.

Used by ``robot.RobotConfig`` alone. Every refusal is a RobotConfigError that names the key path, the value
found and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping

from gr00t_ros.robot_sections import Section
from gr00t_ros.robot_types import (
    BLEND,
    CUBIC,
    DEFAULT_BLEND_TIME,
    DEFAULT_ENSEMBLE_DECAY,
    DEFAULT_MAX_CHUNK_AGE,
    DEFAULT_MAX_JOINT_STATE_AGE,
    DEFAULT_MAX_START_AHEAD,
    INTERPOLATIONS,
    JOINT_STATE,
    MERGES,
    ExecutorConfig,
    StateSource,
)

# A hand-over that takes longer than the age at which a chunk is refused would follow plans that are too old.
MAX_BLEND_TIME = 1.0
# Weights that differ by a factor of e a step leave one chunk; beyond that there is nothing to tell apart.
MAX_ENSEMBLE_DECAY = 1.0


def read_executor(section: Section, state: Mapping[str, StateSource]) -> ExecutorConfig:
    """Thresholds of the executor; the topic of measured joints follows from the state section where it
    can."""
    measured = sorted({s.topic for s in state.values() if s.type == JOINT_STATE and s.field == "position"})
    if not section.has("joint_state_topic") and len(measured) != 1:
        found = ", ".join(measured) or "none"
        section.fail(
            "joint_state_topic",
            f"the JointState topic that holds every commanded joint (the state section names {found})",
        )
    blend_time = section.number(
        "blend_time", "the time in s in which a newer chunk takes over", DEFAULT_BLEND_TIME, above=0.0
    )
    if blend_time > MAX_BLEND_TIME:
        section.fail("blend_time", f"a time of at most {MAX_BLEND_TIME:g} s: until then an older plan counts")
    decay = section.number(
        "ensemble_decay", "how much less a newer chunk counts, per step", DEFAULT_ENSEMBLE_DECAY
    )
    if abs(decay) > MAX_ENSEMBLE_DECAY:
        section.fail("ensemble_decay", f"between -{MAX_ENSEMBLE_DECAY:g} and {MAX_ENSEMBLE_DECAY:g} per step")
    config = ExecutorConfig(
        joint_state_topic=section.topic("joint_state_topic", measured[0] if measured else None),
        max_joint_state_age=section.number(
            "max_joint_state_age", "a time in s", DEFAULT_MAX_JOINT_STATE_AGE, above=0.0
        ),
        max_chunk_age=section.number("max_chunk_age", "a time in s", DEFAULT_MAX_CHUNK_AGE, above=0.0),
        max_start_ahead=section.number("max_start_ahead", "a time in s", DEFAULT_MAX_START_AHEAD, above=0.0),
        merge=section.text("merge", "how a newer chunk takes over", BLEND, MERGES),
        blend_time=blend_time,
        interpolation=section.text("interpolation", "the curve between two steps", CUBIC, INTERPOLATIONS),
        ensemble_decay=decay,
    )
    section.done()
    return config
