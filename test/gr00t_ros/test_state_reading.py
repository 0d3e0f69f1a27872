# SPDX-License-Identifier: Apache-2.0
"""States are read by joint name; a message that lacks something is refused with what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.errors import MessageError
from gr00t_ros.robot_types import StateSource
from gr00t_ros.rotations import from_quaternion, quaternion_to_matrix, quaternion_to_rotvec
from gr00t_ros.state_reading import JointReader, reader_for, stamp_ns
from support_messages import array, joint_state, pose


def read_joints(msg: Any, joints: Sequence[str], field: str = "position") -> np.ndarray:
    values = JointReader(tuple(joints), field, "joint_states")(msg)
    assert values is not None
    return values


def test_stamps_in_nanoseconds() -> None:
    assert stamp_ns(SimpleNamespace(sec=2, nanosec=5)) == 2_000_000_005


@given(order=st.permutations(["a", "b", "c", "d"]))
def test_joints_are_matched_by_name_in_any_order(order: list[str]) -> None:
    values = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    msg = joint_state({name: values[name] for name in order})
    assert read_joints(msg, ["c", "a"]).tolist() == [3.0, 1.0]


def test_a_reader_follows_a_changed_order() -> None:
    read = JointReader(("a", "b"), "position", "state.arm")
    for msg in (joint_state({"a": 1.0, "b": 2.0}), joint_state({"x": 9.0, "b": 2.0, "a": 1.0})):
        values = read(msg)
        assert values is not None
        assert values.tolist() == [1.0, 2.0]


def test_a_message_about_other_joints_is_none_of_this_readers_business() -> None:
    assert JointReader(("a", "b"), "position", "state.arm")(joint_state({"x": 1.0})) is None


def test_a_missing_joint_is_named_with_what_the_message_has() -> None:
    with pytest.raises(MessageError, match=r"state.arm: joint b missing; the message has a, x"):
        JointReader(("a", "b"), "position", "state.arm")(joint_state({"a": 1.0, "x": 2.0}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_joint_is_named_and_others_do_not_matter(value: float) -> None:
    with pytest.raises(MessageError, match=rf"b is {value} in position, expected finite values"):
        read_joints(joint_state({"a": 1.0, "b": value}), ["a", "b"])
    assert read_joints(joint_state({"a": 1.0, "b": value}), ["a"]).tolist() == [1.0]


def test_fields_shorter_than_names_are_refused() -> None:
    msg = joint_state({"a": 1.0, "b": 2.0}, position=[1.0])
    with pytest.raises(MessageError, match=r"found 1 values of position for 2 names"):
        read_joints(msg, ["a"])
    with pytest.raises(MessageError, match=r"found 0 values of velocity for 2 names"):
        read_joints(msg, ["a"], "velocity")


def test_a_joint_given_twice_is_refused() -> None:
    msg = SimpleNamespace(name=["a", "b", "a"], position=[1.0, 2.0, 3.0])
    with pytest.raises(MessageError, match="found a more than once"):
        read_joints(msg, ["a", "b"])


def test_arrays_are_read_by_place() -> None:
    source = StateSource("f", "/f", ("f_0", "f_1"), "float64_multi_array", indices=(2, 0), array_width=3)
    read = reader_for(source)
    values = read(array([1.0, 2.0, 3.0]))
    assert values is not None
    assert values.tolist() == [3.0, 1.0]
    with pytest.raises(MessageError, match=r"state.f: found an array of 4 values, expected 3"):
        read(array([1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(MessageError, match=r"f_0 is nan in data"):
        read(array([1.0, 2.0, math.nan]))
    loose = reader_for(StateSource("f", "/f", ("f_0",), "float64_multi_array", indices=(2,)))
    with pytest.raises(MessageError, match="found an array of 2 values, expected more than 2"):
        loose(array([1.0, 2.0]))


HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ("quaternion", [0.0, 0.0, HALF, HALF]),
        ("rot6d", [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]),
        ("rotvec", [0.0, 0.0, math.pi / 2]),
    ],
)
def test_poses_are_position_then_rotation(rotation: str, expected: list[float]) -> None:
    """A quarter turn about z: the first two matrix rows are (0 -1 0) and (1 0 0)."""
    names = tuple(str(i) for i in range(3 + len(expected)))
    source = StateSource("eef", "/pose", names, "pose", rotation=rotation, frame_id="base")
    read = reader_for(source)
    values = read(pose([1.0, 2.0, 3.0], [0.0, 0.0, HALF, HALF]))
    assert values is not None
    np.testing.assert_allclose(values, [1.0, 2.0, 3.0, *expected], atol=1e-12)
    with pytest.raises(MessageError, match=r"found a pose in frame 'camera', expected 'base'"):
        read(pose([1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0], frame_id="camera"))
    with pytest.raises(MessageError, match=r"found a quaternion of length 0, expected 1"):
        read(pose([1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]))
    with pytest.raises(MessageError, match=r"state.eef: y is nan in position"):
        read(pose([1.0, math.nan, 3.0], [0.0, 0.0, 0.0, 1.0]))


@given(seed=st.integers(0, 10_000))
def test_rotation_forms_describe_one_rotation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    quaternion = generator.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
    matrix = quaternion_to_matrix(quaternion)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    vector = quaternion_to_rotvec(quaternion)
    angle = float(np.linalg.norm(vector))
    assert angle <= math.pi + 1e-12
    # Rodrigues' formula from the vector gives the matrix again.
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rodrigues = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    np.testing.assert_allclose(rodrigues, matrix, atol=1e-9)
    np.testing.assert_allclose(from_quaternion(quaternion, "rot6d"), matrix[:2].reshape(6))


def test_no_rotation_is_no_vector() -> None:
    assert quaternion_to_rotvec([0.0, 0.0, 0.0, 1.0]).tolist() == [0.0, 0.0, 0.0]
    assert quaternion_to_rotvec([0.0, 0.0, 0.0, -1.0]).tolist() == [0.0, 0.0, 0.0]
