# SPDX-License-Identifier: Apache-2.0
"""What a policy sees live and what a dataset holds of the same moment are equal, bit for bit: real
publishers, a subscriber with the policy's ObservationBuilder, and the episode recorder beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from gr00t_ros.data.bag_rows import BagRows
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.rows import Row
from gr00t_ros.observation import ObservationBuilder
from support_messages import modality
from support_processes import RosGraph
from support_recorder import recorder
from support_topics import ARM_COMMANDS, FRONT, GRIPPER_COMMANDS, HEIGHT, JOINTS, ROBOT, WIDTH, WRIST, stamp

pytestmark = pytest.mark.ros

CYCLES, PERIOD_S = 45, 0.025
# Both listeners get everything: what is compared is how it is read, not what best effort loses.
RELIABLE = QoSProfile(depth=50)
MS = 1_000_000


class Live:
    """The policy's ears: every message goes into an ObservationBuilder as it comes."""

    def __init__(self, graph: RosGraph) -> None:
        self._graph, self.taken = graph, 0
        self.builder = ObservationBuilder(ROBOT, modality(list(ROBOT.video), list(ROBOT.state), []))
        for topic, kind in ((FRONT, Image), (WRIST, Image), (JOINTS, JointState)):

            def take(message: Any, topic: str = topic) -> None:
                self.builder.add(topic, message, graph.now_ns())
                self.taken += 1

            graph.node.create_subscription(kind, topic, take, RELIABLE)


def image(stamp_ns: int, rng: np.random.Generator) -> Image:
    pixels = rng.integers(0, 256, HEIGHT * WIDTH * 3, np.uint8)
    message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    message.header.stamp = stamp(stamp_ns)
    message.data.frombytes(pixels.tobytes())
    return message


def joint_state(stamp_ns: int, rng: np.random.Generator) -> JointState:
    names = [str(name) for name in rng.permutation(ROBOT.joints)]
    message = JointState(name=names, position=rng.uniform(-1.0, 1.0, len(names)).tolist())
    message.header.stamp = stamp(stamp_ns)
    return message


def test_a_row_is_what_the_policy_saw(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    with recorder(tmp_path, min_free_space=1.0) as (node, graph, _):
        live = Live(graph)
        publishers = {
            topic: graph.publisher(topic, kind, RELIABLE, subscribers=listeners)
            for topic, kind, listeners in (
                (FRONT, Image, 2),
                (WRIST, Image, 2),
                (JOINTS, JointState, 2),
                (ARM_COMMANDS, JointTrajectory, 1),
            )
        }
        gripper = graph.publisher(GRIPPER_COMMANDS, Float64MultiArray, RELIABLE)
        assert node.start("stack the cubes").success
        seen: dict[int, dict[str, Any]] = {}
        commanded: list[tuple[int, list[float]]] = []
        sent = 0
        for cycle in range(CYCLES):
            now = graph.now_ns()
            # Cameras and joints are stamped apart from each other, and now and then one has nothing new.
            messages = [(FRONT, image(now, rng))]
            if cycle % 7:
                messages.append((WRIST, image(now + int(rng.integers(-9, 3)) * MS, rng)))
            if cycle % 5:
                messages.append((JOINTS, joint_state(now + int(rng.integers(-12, 2)) * MS, rng)))
            rng.shuffle(messages)
            trajectory = JointTrajectory(joint_names=list(ROBOT.action["arm"].joints))
            trajectory.header.stamp = stamp(now - 5 * MS)
            values = rng.uniform(-1.0, 1.0, 5).tolist()
            trajectory.points = [JointTrajectoryPoint(positions=values)]
            commanded.append((now - 5 * MS, values))
            publishers[ARM_COMMANDS].publish(trajectory)
            gripper.publish(Float64MultiArray(data=[0.01 * cycle]))
            for topic, message in messages:
                publishers[topic].publish(message)
            sent += len(messages)
            graph.wait_until(lambda sent=sent: live.taken == sent, "everything to arrive")
            if cycle > 10:  # by then every source has been heard
                time.sleep(0.003)  # stamps of up to 2 ms ahead are past
                observation = live.builder.assemble(graph.now_ns(), "stack the cubes")
                seen[observation.t_obs_ns] = observation.data
            time.sleep(PERIOD_S)
        assert node.stop().success
        [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
        with Bag(folder) as bag:
            reader = BagRows(bag, ROBOT, fps=30.0)
            rows = [row for row in reader if isinstance(row, Row)]
    compared = [row for row in rows if row.t_obs_ns in seen]
    # A row may fall between two frames of one moment that are stamped 1 or 2 ms apart.
    later = [row for row in rows if row.t_obs_ns >= min(seen)]
    assert len(compared) >= 0.8 * len(later)
    assert len(compared) > 15, (len(rows), reader.drops, reader.texts)
    for row in compared:
        data = seen[row.t_obs_ns]
        for key in ROBOT.video:
            np.testing.assert_array_equal(row.video[key], data["video"][key][0, 0])
        for key in ROBOT.state:
            np.testing.assert_array_equal(row.state[key], data["state"][key][0, 0])
        assert row.instruction == data["language"]["annotation.human.task_description"][0][0]
        latest = [values for time_ns, values in commanded if time_ns <= row.t_obs_ns][-1]
        np.testing.assert_array_equal(row.action["arm"], np.array(latest, np.float32))
    assert not reader.refused
