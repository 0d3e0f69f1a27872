# SPDX-License-Identifier: Apache-2.0
"""What is put into the picture: ways made, grippers, sticks where nothing else is known, words."""

import numpy as np
import pytest

from gr00t_ros.chunk import Chunk, chunk_group
from gr00t_ros.urdf import UrdfError
from gr00t_ros.visualization import drawing, shapes
from gr00t_ros.visualization.grippers import gripper_joints, told
from gr00t_ros.visualization.scene import Scene
from gr00t_ros.visualization.trail import MAX_POINTS, Trail
from support_robots import shipped, small_config
from support_two_arms import two_arms_config, two_arms_urdf

NS = 1_000_000_000
STEP_NS = 50_000_000


def scene(**options) -> Scene:
    found = Scene(two_arms_config(), **options)
    found.set_model(two_arms_urdf())
    return found


def still(found: Scene, steps: int = 6, **changes: np.ndarray) -> Chunk:
    """A chunk in which the robot stays at 0, but for ``changes`` by action key."""
    groups = tuple(
        chunk_group(config, changes.get(key, np.zeros((steps, len(config.names)))))
        for key, config in found.robot.action.items()
    )
    return Chunk(1, 0, "stay", 10 * NS, 10 * NS, STEP_NS, groups)


def kinds(found: Scene, name: str) -> list[shapes.Shape]:
    return [shape for shape in found.shapes(10 * NS, 0.0) if shape.key[0] == name]


def test_no_two_shapes_have_the_same_key() -> None:
    found = scene(draw_robot=True)
    found.measure(found.robot.joints, [0.1] * len(found.robot.joints), 10 * NS)
    found.take_chunk(still(found, left_arm=np.linspace(0.0, 3.0, 6)[:, None] * np.ones(4)))
    keys = [shape.key for shape in found.shapes(10 * NS, 0.0)]
    assert len(keys) == len(set(keys)) > 30


def test_an_arm_whose_waist_is_unknown_is_nowhere() -> None:
    found = scene()
    chunk = still(found)
    found.take_chunk(chunk)
    assert kinds(found, "steps"), "the chunk commands every joint"
    bare = Scene(two_arms_config())
    bare.set_model(two_arms_urdf().replace('name="waist"', 'name="column"'))
    bare.take_chunk(still(bare))
    assert not kinds(bare, "steps")
    assert "the robot model has no joint waist of waist" in bare.missing(10 * NS)
    assert "no joint states on /joint_states" in bare.missing(10 * NS)
    bare.measure(["column"], [0.3], 10 * NS)
    bare.take_chunk(still(bare))
    assert len(kinds(bare, "steps")) == 2


def test_other_topics_with_joint_states_leave_the_way_that_was_made() -> None:
    """Messages that know nothing of the arm, and some of the arm that are a little older."""
    found = scene()
    joints = found.robot.joints
    for tick in range(20):
        stamp_ns = 10 * NS + tick * NS // 10
        found.measure(joints, [0.05 * tick] * len(joints), stamp_ns)
        found.measure(["other"], [float(tick)], stamp_ns - NS // 20)
        found.measure(joints[:1], [0.05 * tick], stamp_ns - NS // 50)
    assert all(len(trail.stamps_ns) > 15 for trail in found.trails.values())
    assert found.missing(12 * NS) == []
    found.measure(["other"], [0.0], 20 * NS)
    assert found.missing(20 * NS) == ["joint states on /joint_states are 8.1 s old"]
    found.measure(joints, [0.0] * len(joints), 5 * NS)
    assert all(trail.stamps_ns == [5 * NS] for trail in found.trails.values()), "time began anew"


def test_old_joint_states_are_said_to_be_old() -> None:
    found = scene()
    found.measure(found.robot.joints, [0.0] * len(found.robot.joints), 10 * NS)
    assert found.missing(10 * NS) == []
    assert found.missing(14 * NS) == ["joint states on /joint_states are 4.0 s old"]


def test_without_anything_to_see_a_robot_is_sticks() -> None:
    found = Scene(two_arms_config())
    urdf = two_arms_urdf()
    for shape in ("box", "cylinder", "sphere"):
        urdf = urdf.replace(f"<{shape} ", '<mesh filename="beside/me.stl" ')
    found.set_model(urdf)
    found.take_chunk(still(found))
    [ghost] = kinds(found, "ghost")
    assert ghost.kind == shapes.LINES
    pieces = ghost.points.reshape(-1, 2, 3)
    assert len(pieces) == len(found.model.below(["torso"])) - 1
    # At zero the torso stands upright: head and neck are one above the other.
    assert any(np.allclose(piece, [[0, 0, 0.06], [0, 0, 0.48]]) for piece in pieces)


def test_a_model_that_cannot_be_read_leaves_the_one_before() -> None:
    found = scene()
    model = found.model
    with pytest.raises(UrdfError, match="not XML"):
        found.set_model("<robot")
    assert found.model is model


def test_a_long_list_of_limits_is_cut() -> None:
    found = scene()
    beyond = {key: np.full((6, 4), 3.0) for key in ("left_arm", "right_arm")}
    found.take_chunk(still(found, **beyond))
    lines = found.lines(10 * NS, 0.0)
    assert sum(line.startswith("beyond its limit: ") for line in lines) == 4
    assert "and 4 more beyond their limits" in lines
    assert len(kinds(found, "limits")) == 2 * 8


def test_lines_are_as_wide_as_chunks_agree() -> None:
    path = np.tile(np.eye(4), (5, 1, 1))
    path[:, 0, 3] = np.arange(5)
    sure = np.array([1.0, 0.0, np.nan, 0.6, 1.0])
    lines = [s for s in drawing.predicted(2, "base", path, 0, sure, 1.0) if s.key[0] == "predicted"]
    found = {shape.scale[0]: shape.points[::2, 0].tolist() for shape in lines}
    # A piece is as sure as its end: the one to step 1 thinnest, to 2 unknown, to 3 wide, to 4 widest.
    assert found == {0.003: [0.0], 0.006: [1.0], 0.010: [2.0], 0.014: [3.0]}
    assert [shape.key for shape in lines] == [("predicted", 8 + width) for width in range(4)]
    assert drawing.predicted(0, "base", np.full((5, 4, 4), np.nan), 0, None, 1.0) == []


def test_a_trail_is_short_in_time_and_number() -> None:
    trail = Trail(seconds=10.0)

    def pose(x: float) -> np.ndarray:
        matrix = np.eye(4)
        matrix[0, 3] = x
        return matrix

    for i in range(20):
        trail.add(i * NS, pose(0.01 * i))
    trail.add(20 * NS, pose(0.01 * 19))  # has not moved
    trail.add(20 * NS, np.full((4, 4), np.nan))
    assert len(trail.poses) == len(trail.stamps_ns) == 20
    trail.forget(20 * NS)
    assert trail.stamps_ns == [i * NS for i in range(10, 20)]
    trail.add(3 * NS, pose(1.0))  # a simulation that was reset
    assert trail.stamps_ns == [3 * NS]
    for i in range(2 * MAX_POINTS):
        trail.add(4 * NS + i, pose(float(i)))
    assert len(trail.poses) == MAX_POINTS


def test_grippers_are_known_by_name_and_kind() -> None:
    assert gripper_joints(small_config()) == ["gripper"]
    assert gripper_joints(shipped("so101")) == ["gripper"]
    assert gripper_joints(two_arms_config()) == ["left_grip", "right_grip"]
    assert gripper_joints(shipped("gr1")) == [], "a hand of six joints is not open by so many percent"
    robot = small_config()  # from -0.6 to 0.6
    assert told(robot, "gripper", {"gripper": 0.0}, {}) == "gripper 50% open"
    assert told(robot, "gripper", {}, {"gripper": 0.6}) == "gripper ? to 100% open"
    assert told(robot, "gripper", {}, {}) == ""
