# SPDX-License-Identifier: Apache-2.0
"""The limits of a robot YAML against the robot's own: its URDF, and where its joints stand now."""

from __future__ import annotations

from collections.abc import Mapping

from gr00t_ros.findings import Finding, fail, ok, warn
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JointLimits
from gr00t_ros.safety import MAX_OUTSIDE_S
from gr00t_ros.urdf import CONTINUOUS, UrdfJoint

# Further apart than this (rad, m, rad/s) two limits differ; less is rounding to the digits of a file.
SAME = 1e-4


def check_measured(robot: RobotConfig, positions: Mapping[str, float]) -> list[Finding]:
    """Whether the commanded joints stand inside their limits. ``positions`` are finite, in rad or m.

    The first command for a joint just outside lies at its limit; one further out stops the executor.
    """
    part, findings = "limits", []
    for joint in robot.joints:
        if joint not in positions:
            continue
        position, limit = positions[joint], robot.limits[joint]
        outside = max(limit.min - position, position - limit.max)
        if outside <= 0.0:
            continue
        found = f"{joint} stands at {position:.4g}, {outside:.2g} outside"
        expected = f"{limit.min:g} to {limit.max:g}"
        if outside > min(limit.velocity * MAX_OUTSIDE_S, limit.max_tracking_error):
            remedy = "move it inside by hand, or correct limits or calibration"
            findings.append(fail(f"limits.{joint}", found, expected, remedy))
        else:
            findings.append(warn(f"limits.{joint}", found, expected, "it would be led back in at start"))
    measured = sum(joint in positions for joint in robot.joints)
    if not findings and measured:
        findings.append(ok(part, f"{measured} joints stand inside", "measured positions inside the limits"))
    return findings


def check_urdf(robot: RobotConfig, joints: Mapping[str, UrdfJoint], where: str) -> list[Finding]:
    """The YAML's limits against the URDF's; ``where`` names the URDF. The tighter of two limits is named."""
    findings: list[Finding] = []
    tighter = {"robot YAML": 0, "URDF": 0}
    for name in robot.joints:
        part, joint = f"limits.{name}", joints.get(name)
        if joint is None:
            remedy = "correct the joint's name, or check its limits by hand"
            findings.append(warn(part, f"not in the URDF of {where}", "each commanded joint", remedy))
        elif not joint.moves_alone:
            what = f"follows {joint.mimics}" if joint.mimics else f"is {joint.type}"
            text, remedy = f"{name} {what} in the URDF", "command the joint that it follows, or none"
            findings.append(fail(part, text, "a joint that one value commands", remedy))
        else:
            findings += _compare(part, robot.limits[name], joint, tighter)
    if not findings:
        text = (
            f"{len(robot.joints)} joints; tighter: {', '.join(f'{k} {v}' for k, v in tighter.items() if v)}"
        )
        findings.append(ok("limits", text.removesuffix("; tighter: "), f"no looser than the URDF of {where}"))
    return findings


def _compare(part: str, limit: JointLimits, joint: UrdfJoint, tighter: dict[str, int]) -> list[Finding]:
    """What to tell about one joint; counts in ``tighter`` whose limit is the tighter one."""
    findings = []
    pairs: list[tuple[str, float, float]] = []  # what, YAML's looseness against the URDF's, SI
    if joint.lower is not None and joint.upper is not None:
        if limit.min > joint.upper or limit.max < joint.lower:
            text = f"{limit.min:g} to {limit.max:g} lies outside the URDF's range"
            remedy = "correct limits, zero position or direction: the two mean different angles"
            return [fail(part, text, f"{joint.lower:g} to {joint.upper:g}", remedy)]
        pairs += [
            ("min", joint.lower, joint.lower - limit.min),
            ("max", joint.upper, limit.max - joint.upper),
        ]
    elif joint.type != CONTINUOUS:
        remedy = "take the range from the data sheet"
        findings.append(warn(part, "the URDF gives no range", "lower and upper", remedy))
    if joint.velocity is not None:
        pairs.append(("velocity", joint.velocity, limit.velocity - joint.velocity))
    for what, theirs, looser in pairs:
        ours = getattr(limit, what)
        if looser > SAME:
            tighter["URDF"] += 1
            text = f"{what} {ours:g} is looser than the URDF's, which is tighter"
            remedy = f"set {what} to {theirs:g} or tighter in the robot YAML"
            findings.append(warn(part, text, f"{what} {theirs:g}", remedy))
        elif looser < -SAME:
            tighter["robot YAML"] += 1
    return findings
