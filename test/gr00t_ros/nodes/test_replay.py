# SPDX-License-Identifier: Apache-2.0
"""Recordings as live topics: the right values, one stamp a moment, the recorded pace, never a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support_datasets import BAG_START_NS, CAMERAS, JOINTS, grey, row_of, states, write_bag, write_dataset
from support_processes import ProcessStarter, RosGraph

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String

from gr00t_ros.images import decode_image
from gr00t_ros.nodes.replay_sources import restamped

pytestmark = pytest.mark.ros

NODE = "gr00t_ros.nodes.replay"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ROWS = 25

ROBOT = """
/**:
  ros__parameters:
    robot:
      name: so101
      embodiment_tag: new_embodiment
      step_rate: 20.0
      video:
        keys: [CAMERAS]
        front: {topic: /camera/front/image_raw}
        wrist: {topic: /camera/wrist/image_raw/compressed}
      state:
        keys: [arm, gripper]
        arm: {topic: /joint_states, joints: [shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll]}
        gripper: {topic: /joint_states, joints: [gripper]}
      action:
        keys: [arm, gripper]
        arm:
          representation: joint_position
          joints: [shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll]
          interface: joint_trajectory
          topic: /arm_controller/joint_trajectory
        gripper:
          representation: scalar
          joints: [gripper]
          interface: float64_multi_array
          topic: /gripper_controller/commands
      units: {gripper: {scale: 0.01, offset: -0.15, sign: 1}}
      instruction: {topic: /gr00t/instruction}
      limits:
"""


def robot_yaml(folder: Path, cameras: tuple[str, ...] = CAMERAS) -> Path:
    limits = "".join(f"        {joint}: {{min: -3.0, max: 3.0, velocity: 2.0}}\n" for joint in JOINTS)
    text = ROBOT.replace("CAMERAS", ", ".join(cameras))
    if "wrist" not in cameras:
        text = "".join(line for line in text.splitlines(True) if "wrist/image" not in line)
    path = folder / "robot.yaml"
    path.write_text(text + limits)
    return path


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def test_an_episode_becomes_topics(tmp_path: Path, processes: ProcessStarter, graph: RosGraph) -> None:
    dataset, log = write_dataset(tmp_path / "data"), tmp_path / "log.jsonl"
    joints = graph.collect("/joint_states", JointState, qos=100)
    front = graph.collect("/camera/front/image_raw", Image)
    wrist = graph.collect("/camera/wrist/image_raw/compressed", CompressedImage)
    instruction = graph.collect("/gr00t/instruction", String, qos=LATCHED)
    commands = graph.collect("/gripper_controller/commands", Float64MultiArray)
    actions = graph.collect("/recorded/actions", JointState, qos=100)
    node = processes(
        NODE, str(dataset), "--robot", str(robot_yaml(tmp_path)), "--episode", "1", "--wait", "30",
        "--log", str(log), "--actions",
    )  # fmt: skip
    assert node.wait() == 0, node.output
    assert f"replay: {ROWS} frames in " in node.lines[-1]

    # The log, the joint states and the pictures of a row carry one stamp; stamps keep the recorded distances.
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    stamps = [row["stamp_ns"] for row in rows]
    assert [row["frame"] for row in rows] == list(range(ROWS))
    np.testing.assert_allclose(np.diff(stamps), 50_000_000, atol=100)
    assert [stamp_ns(message) for message in joints] == stamps
    assert 0 < graph.now_ns() - stamps[-1] < 60 * 10**9

    raw = states(1, ROWS).astype(np.float64)
    positions = np.array([message.position for message in joints])
    assert list(joints[0].name) == list(JOINTS)
    np.testing.assert_allclose(positions[:, :5], raw[:, :5])
    np.testing.assert_allclose(positions[:, 5], raw[:, 5] * 0.01 - 0.15)
    np.testing.assert_allclose([m.position[0] for m in actions], raw[:, 0] + 0.5, rtol=1e-6)
    for messages in (front, wrist):
        assert len(messages) > ROWS // 2, "sensor QoS may lose a frame, not many"
        for message in messages:
            row = stamps.index(stamp_ns(message))
            assert row_of(decode_image(message), row) == row
    # Joint states of a stamp are there before its pictures.
    seen = dict(zip(map(stamp_ns, joints), joints.received_ns, strict=True))
    late = [seen[stamp_ns(m)] - t for m, t in zip(front, front.received_ns, strict=True)]
    assert np.median(late) < 0
    assert [message.data for message in instruction] == ["task 1"]
    assert not commands, "a recording must never command a robot"


def test_recorded_time_with_a_clock_and_a_part_of_the_episode(
    tmp_path: Path, processes: ProcessStarter, graph: RosGraph
) -> None:
    dataset, log = write_dataset(tmp_path / "data", version="v3.0"), tmp_path / "log.jsonl"
    clock = graph.collect("/clock", Clock, qos=1000)
    front = graph.collect("/camera/front/image_raw", Image)
    node = processes(
        NODE, str(dataset), "--episode", "1", "--clock", "--start", "0.5", "--duration", "0.5", "--rate", "2",
        "--wait", "30", "--log", str(log), "--loop",
        "--ros-args", "--params-file", str(robot_yaml(tmp_path, ("front",))),
    )  # fmt: skip
    graph.wait_until(lambda: len(front) >= 25, "25 pictures")
    assert node.stop() == 0, node.output
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    # Episode time 0.5 s is 1.5 s of recorded time: a zero stamp means no time. Repetitions go on in time.
    assert [row["frame"] for row in rows[:22]] == [*range(10, 20), *range(10, 20), 10, 11]
    expected = 1_500_000_000 + 50_000_000 * np.arange(len(rows))
    np.testing.assert_allclose([row["stamp_ns"] for row in rows], expected, atol=100)
    times = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    assert times == sorted(times)
    assert len(set(times)) > 2 * len(rows), "the clock must go on between frames"
    assert {stamp_ns(m) // 1000 for m in front} <= {row["stamp_ns"] // 1000 for row in rows}


def test_a_bag_becomes_topics(tmp_path: Path, processes: ProcessStarter, graph: RosGraph) -> None:
    bag = write_bag(tmp_path / "bag", rows=20)
    joints = graph.collect("/joint_states", JointState, qos=100)
    front = graph.collect("/camera/front/image_raw", Image)
    instruction = graph.collect("/gr00t/instruction", String, qos=LATCHED)
    commands = graph.collect("/gripper_controller/commands", Float64MultiArray)
    recorded = graph.collect("/recorded/gripper_controller/commands", Float64MultiArray, qos=100)
    robot = robot_yaml(tmp_path, ("front",))
    before = graph.now_ns()
    node = processes(NODE, str(bag), "--robot", str(robot), "--wait", "30", "--actions")
    assert node.wait() == 0, node.output
    np.testing.assert_array_equal([m.position for m in joints], states(0, 20).astype(np.float64))
    stamps = [stamp_ns(message) for message in joints]
    assert before < stamps[0] < graph.now_ns()
    np.testing.assert_allclose(np.diff(stamps), 50_000_000, atol=1000)
    for message in front:
        row = stamps.index(stamp_ns(message))
        assert int(decode_image(message)[0, 0, 0]) == grey(row)
    assert len(front) > 10
    assert [message.data for message in instruction] == ["task 0"]
    assert len(recorded) == 20
    assert not commands, "a recording must never command a robot"


def test_stamps_are_moved_inside_the_encoding() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    message = JointState(name=["a"], position=[1.5])
    assert restamped(serialize_message(message), lambda t: t + 1) == serialize_message(message), (
        "zero stays zero"
    )
    message.header.stamp.sec, message.header.stamp.nanosec = BAG_START_NS // 10**9, 999_999_999
    moved = deserialize_message(restamped(serialize_message(message), lambda t: t + 2), JointState)
    assert stamp_ns(moved) == BAG_START_NS + 10**9 + 1
    assert (list(moved.name), list(moved.position)) == (["a"], [1.5])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["DATA"], "no robot description: give --robot"),
        (["DATA", "--robot", "so102"], "robot 'so102' is neither"),
        (["DATA", "--robot", "YAML", "--episode", "7"], "no episode 7; the dataset has 0 to 1"),
        (["DATA", "--robot", "YAML", "--start", "99"], "nothing between 99 and inf s"),
        (["DATA/meta", "--robot", "YAML"], "expected the folder of a LeRobot dataset or of a rosbag2"),
        (
            ["BAG", "--robot", "YAML"],
            "no topic /camera/wrist/image_raw/compressed, which the robot so101 needs",
        ),
        (["DATA", "--robot", "YAML", "--wait", "0.2"], "nobody listens to /camera/front/image_raw"),
    ],
)
def test_mistakes_end_it_with_one_line(
    tmp_path: Path, processes: ProcessStarter, arguments: list[str], said: str
) -> None:
    places = {"YAML": str(robot_yaml(tmp_path))}
    if any("DATA" in argument for argument in arguments):
        places["DATA"] = str(write_dataset(tmp_path / "data", lengths=(3, 3)))
    else:
        places["BAG"] = str(write_bag(tmp_path / "bag", rows=3))
    for word, place in places.items():
        arguments = [argument.replace(word, place) for argument in arguments]
    node = processes(NODE, *arguments)
    assert node.wait() == 2
    assert node.lines[-1].startswith("error: ")
    assert said in node.lines[-1], node.output
