# SPDX-License-Identifier: Apache-2.0
"""The limits of a robot YAML: how far and how fast whatever is commanded may go.

Joints have theirs under their names, twists and poses under the key of their action group. Used by
``robot.RobotConfig`` alone. Every refusal is a RobotConfigError that names the key path, the value found and
what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from gr00t_ros.robot_parsing import ENGINE_ERROR
from gr00t_ros.robot_sections import Section
from gr00t_ros.robot_types import (
    ANGULAR_COLUMNS,
    DEFAULT_MAX_ANGLE,
    DEFAULT_MAX_DISTANCE,
    DEFAULT_MAX_TRACKING_ERROR,
    EE_POSE,
    JOINT_VELOCITY,
    LINEAR_COLUMNS,
    ActionGroupConfig,
    GroupLimits,
    JointLimits,
    PoseLimits,
    TwistLimits,
)

_UNIT = {"linear": "m/s", "angular": "rad/s"}


def read_limits(
    section: Section, known: Iterable[str], action: Mapping[str, ActionGroupConfig]
) -> tuple[dict[str, JointLimits], dict[str, GroupLimits]]:
    """Limits by joint name, and of twists and poses by action key; whatever is commanded needs them.

    ``known`` are the joints of the description, commanded or not.
    """
    groups = [key for key, group in action.items() if not group.joints]
    section.done(also=(*known, *groups))
    driven = {j for group in action.values() if group.representation == JOINT_VELOCITY for j in group.joints}
    for group in action.values():
        for joint in group.joints:
            if not section.has(joint):
                needs = "velocity and acceleration" if joint in driven else "min, max and velocity"
                section.fail(joint, f"{needs}: a joint without limits is not commanded")
    joints = {
        name: _joint(section.section(name, "min, max and velocity"), velocity=name in driven)
        for name in section.names_given()
        if name not in groups
    }
    limits: dict[str, GroupLimits] = {}
    for key in groups:
        part = section.section(
            key, f"limits of this {action[key].representation}: without them it is not commanded"
        )
        limits[key] = _pose(part) if action[key].representation == EE_POSE else _twist(part, action[key])
        part.done()
    return joints, limits


def _joint(part: Section, *, velocity: bool) -> JointLimits:
    """``velocity``: commanded by velocity. Then it must be known how it brakes, and a wheel has no ends."""
    low, high = -math.inf, math.inf
    if not velocity or part.has("min") or part.has("max"):
        low = part.number("min", "the lowest position in rad or m")
        high = part.number("max", "the highest position in rad or m")
        if not low < high:
            part.fail("max", f"more than min, which is {low:g}")
    speed = part.number("velocity", "the highest speed in rad/s or m/s", above=0.0)
    acceleration = None
    if velocity or part.has("acceleration"):
        acceleration = part.number("acceleration", "the highest acceleration in rad/s^2 or m/s^2", above=0.0)
    jerk = None
    if not velocity and part.has("jerk"):
        jerk = part.number("jerk", "the fastest change of acceleration in rad/s^3 or m/s^3", above=0.0)
        if acceleration is None:
            part.fail("acceleration", "the highest acceleration, where jerk is limited")
    error = DEFAULT_MAX_TRACKING_ERROR
    if not velocity:  # where a velocity leads has no distance from the measured position
        error = part.number(
            "max_tracking_error",
            "how far a command may be from the measured position, in rad or m",
            DEFAULT_MAX_TRACKING_ERROR,
            above=0.0,
        )
    engine_error = _engine_error(part)
    part.done()
    return JointLimits(low, high, speed, acceleration, error, engine_error, jerk)


def _twist(part: Section, group: ActionGroupConfig) -> TwistLimits:
    values: dict[str, float] = {}
    for kind, columns in (("linear", LINEAR_COLUMNS), ("angular", ANGULAR_COLUMNS)):
        if any(column in columns for column in group.twist):
            values |= _speeds(part, kind)
    return TwistLimits(**values, max_engine_error=_engine_error(part))


def _pose(part: Section) -> PoseLimits:
    low = _corner(part, "min")
    high = _corner(part, "max")
    if not all(a < b for a, b in zip(low, high, strict=True)):
        part.fail("max", f"more than min, which is {list(low)}, on every axis")
    return PoseLimits(
        min=low,
        max=high,
        **_speeds(part, "linear"),
        **_speeds(part, "angular"),
        max_distance=part.number(
            "max_distance",
            "how far in m a command may be from the measured pose",
            DEFAULT_MAX_DISTANCE,
            above=0.0,
        ),
        max_angle=_angle(part),
        max_engine_error=_engine_error(part),
    )


def _speeds(part: Section, kind: str) -> dict[str, float]:
    unit = _UNIT[kind]
    return {
        f"{kind}_velocity": part.number(f"{kind}_velocity", f"the highest {kind} speed in {unit}", above=0.0),
        f"{kind}_acceleration": part.number(
            f"{kind}_acceleration", f"the highest {kind} acceleration in {unit}^2", above=0.0
        ),
    }


def _corner(part: Section, name: str) -> tuple[float, float, float]:
    """One corner of the box in which a pose may be commanded."""
    expected = "a corner of the box that poses stay in: x, y and z in m, in the group's frame"
    values = part.items(name, expected)
    if len(values) != 3 or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        part.fail(name, f"{expected} (three numbers)")
    try:
        x, y, z = map(float, values)
    except OverflowError:
        part.fail(name, f"{expected} (finite)")
    if not all(map(math.isfinite, (x, y, z))):
        part.fail(name, f"{expected} (finite)")
    return x, y, z


def _angle(part: Section) -> float:
    expected = "by what angle in rad a command may be turned from the measured pose"
    angle = part.number("max_angle", expected, DEFAULT_MAX_ANGLE, above=0.0)
    if angle > math.pi:
        part.fail("max_angle", f"{expected}, at most pi")
    return angle


def _engine_error(part: Section) -> float | None:
    return part.number("max_engine_error", ENGINE_ERROR, above=0.0) if part.has("max_engine_error") else None
