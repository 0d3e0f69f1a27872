# SPDX-License-Identifier: Apache-2.0
"""The executor's section of a robot YAML: when it stops trusting what it sees, and how it follows chunks.

Used by ``robot.RobotConfig`` alone. Every refusal is a RobotConfigError that names the key path, the value
found and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from gr00t_ros.faults import Reaction
from gr00t_ros.robot_sections import Section
from gr00t_ros.robot_types import (
    BLEND,
    CLIP,
    CUBIC,
    DEFAULT_BLEND_TIME,
    DEFAULT_ENSEMBLE_DECAY,
    DEFAULT_MAX_CHUNK_AGE,
    DEFAULT_MAX_JOINT_STATE_AGE,
    DEFAULT_MAX_START_AHEAD,
    INTERPOLATIONS,
    JOINT_STATE,
    MERGES,
    REFUSE,
    STOP,
    ExecutorConfig,
    StateSource,
    ViolationsConfig,
    WatchdogConfig,
    WatchdogsConfig,
)

# A hand-over that takes longer than the age at which a chunk is refused would follow plans that are too old.
MAX_BLEND_TIME = 1.0
# Weights that differ by a factor of e a step leave one chunk; beyond that there is nothing to tell apart.
MAX_ENSEMBLE_DECAY = 1.0
# What barks only after this long (s) guards nothing.
MAX_WATCHDOG_AFTER = 60.0
# Without these two nobody knows where the robot is, or what time it is: to go on to the end of the plan, as
# `hold` does, is not an answer to that.
AT_LEAST_STOP = ("joint_state_age", "clock")


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
    joint_state_age = section.number(
        "max_joint_state_age", "a time in s", DEFAULT_MAX_JOINT_STATE_AGE, above=0.0
    )
    watchdogs = _read_watchdogs(
        section.section("watchdogs", "thresholds and reactions", required=False),
        joint_state_age if section.has("max_joint_state_age") else None,
    )
    config = ExecutorConfig(
        joint_state_topic=section.topic("joint_state_topic", measured[0] if measured else None),
        max_joint_state_age=watchdogs.joint_state_age.after,
        max_chunk_age=section.number("max_chunk_age", "a time in s", DEFAULT_MAX_CHUNK_AGE, above=0.0),
        max_start_ahead=section.number("max_start_ahead", "a time in s", DEFAULT_MAX_START_AHEAD, above=0.0),
        merge=section.text("merge", "how a newer chunk takes over", BLEND, MERGES),
        blend_time=blend_time,
        interpolation=section.text("interpolation", "the curve between two steps", CUBIC, INTERPOLATIONS),
        ensemble_decay=decay,
        watchdogs=watchdogs,
        violations=_read_violations(
            section.section("violations", "what is done about limits that a plan exceeds", required=False)
        ),
    )
    section.done()
    return config


def _read_violations(section: Section) -> ViolationsConfig:
    """``violations: {velocity: stop, ...}``; what is left out is clipped, and stops where it is no number."""
    kinds = {
        kind: section.text(kind, f"what is done about a plan that exceeds a {kind} limit", CLIP, (CLIP, STOP))
        for kind in ("position", "velocity", "acceleration", "tracking")
    }
    not_finite = section.text(
        "not_finite", "what is done about values that are no numbers", STOP, (STOP, REFUSE)
    )
    section.done()
    return ViolationsConfig(**kinds, not_finite=not_finite)


def _read_watchdogs(section: Section, max_joint_state_age: float | None) -> WatchdogsConfig:
    """``watchdogs: {policy_heartbeat: {after: 1.0, reaction: hold}, ...}``; what is left out has its default.

    ``max_joint_state_age`` is the older name of ``joint_state_age.after``, None where it is not given.
    """
    defaults = WatchdogsConfig()
    if max_joint_state_age is not None:
        defaults = replace(
            defaults, joint_state_age=replace(defaults.joint_state_age, after=max_joint_state_age)
        )
    found: dict[str, WatchdogConfig] = {}
    for name in (field.name for field in fields(WatchdogsConfig)):
        default: WatchdogConfig = getattr(defaults, name)
        part = section.section(name, "after and reaction", required=False)
        after = part.number("after", "the time in s after which it reports", default.after, above=0.0)
        if after > MAX_WATCHDOG_AFTER:
            part.fail(
                "after", f"a time of at most {MAX_WATCHDOG_AFTER:g} s: later than that it guards nothing"
            )
        if name == "clock" and after > defaults.clock.after:
            part.fail("after", f"at most {defaults.clock.after:g} s: beyond that no stamp can be trusted")
        if name == "joint_state_age" and max_joint_state_age not in (None, after):
            part.fail(
                "after", f"the same as executor.max_joint_state_age, {max_joint_state_age:g}, or only one"
            )
        reactions = [r.name.lower() for r in Reaction if name not in AT_LEAST_STOP or r > Reaction.HOLD]
        reaction = part.text("reaction", "what is done about it", default.reaction.name.lower(), reactions)
        part.done()
        found[name] = WatchdogConfig(after, Reaction[reaction.upper()])
    section.done()
    return WatchdogsConfig(**found)
