# SPDX-License-Identifier: Apache-2.0
"""What the real node publishes, shown by a real RViz: all that docs/how-to/see.md names is in the picture.

``SEE_PICTURES=docs/images python -m pytest test/gr00t_ros/nodes/test_rviz.py`` makes the pictures of that
page anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support_processes import REPO, ProcessStarter, RosGraph
from support_rviz import MISSING, fields, not_seen, rviz_picture
from support_two_arms import arm_joints, two_arms_config, two_arms_robot, two_arms_urdf

pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Path as PathMessage
from sensor_msgs.msg import JointState
from visualization_msgs.msg import MarkerArray

from gr00t_ros.chunk import Chunk, chunk_group
from gr00t_ros.errors import SimulationError
from gr00t_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.conversions import chunk_msg, duration_msg, group_msgs, time_msg
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rotations import matrix_to_quaternion
from gr00t_ros.visualization.description import read_description
from gr00t_ros.visualization.kinematics import Kinematics
from gr00t_ros.visualization.robot_model import read_model

pytestmark = pytest.mark.ros
STEPS, STEP_S = 16, 0.05
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Show:
    """A robot in motion: ``measured`` gives its joints at a time (s), ``planned`` a chunk from then on."""

    config: RobotConfig
    robot_file: Path
    urdf: Path
    instruction: str
    frozen: int
    measured: Callable[[float], dict[str, float]]
    planned: Callable[[float], Values]
    view: dict[str, Any]

    def chunk(self, at_s: float, now_ns: int, sequence: int) -> Chunk:
        values = self.planned(at_s)
        groups = tuple(chunk_group(group, values[key]) for key, group in self.config.action.items())
        return Chunk(1, sequence, self.instruction, now_ns, now_ns, 50_000_000, groups, self.frozen)


def ahead(frozen: int) -> np.ndarray:
    """From 0 at the last kept step to 1 at the end [T, 1]."""
    return np.clip((np.arange(STEPS) - frozen) / (STEPS - 1 - frozen), 0.0, 1.0)[:, None]


def so101(folder: Path) -> Show:
    from gr00t_ros.sim.scene import robot_model_path

    try:
        urdf = robot_model_path().with_suffix(".urdf")
    except SimulationError:
        pytest.skip("the SO-101's URDF comes with the extra 'demo'")
    file = REPO / "config/robots/so101.yaml"
    config = RobotConfig.from_file(file)

    def arm(t: Any) -> np.ndarray:
        t = np.asarray(t, np.float64)
        ways = (0.55 - 0.25 * t, -1.1 + 0.2 * t, 0.75 - 0.05 * t, 0.8 + 0.05 * np.sin(2 * t), -0.2 + 0.1 * t)
        return np.stack(ways, axis=-1)

    def planned(t: float) -> Values:
        way = arm(t + STEP_S * np.arange(STEPS)) + ahead(4) ** 1.5 * [-0.7, 0.75, -0.75, 0.55, 0.3]
        # Beyond a limit at the end.
        way[:, 3] += 0.42 * np.clip((np.arange(STEPS) - 9) / 6, 0, 1) ** 2
        return {"arm": way, "gripper": np.linspace(0.25, 1.4, STEPS)[:, None]}

    def measured(t: float) -> dict[str, float]:
        return dict(zip(config.joints, (*arm(t).tolist(), 0.2 + 0.1 * np.sin(t)), strict=True))

    view = {"Distance": 0.95, "Focal Point": {"X": 0.14, "Y": 0, "Z": 0.27}, "Pitch": 0.3, "Yaw": 1.15}
    return Show(config, file, urdf, "touch the red cube", 4, measured, planned, view)


def two_arms(folder: Path) -> Show:
    file, urdf = folder / "robot.yaml", folder / "robot.urdf"
    file.write_text(json.dumps({"/**": {"ros__parameters": {"robot": two_arms_robot()}}}))
    urdf.write_text(two_arms_urdf())

    def arms(t: Any) -> tuple[np.ndarray, np.ndarray]:
        t = np.asarray(t, np.float64)
        left = np.stack((-0.1 - 0.15 * t, -0.5 - 0.1 * t, -0.2 * t, 0.2 * t), axis=-1)
        right = np.stack((-0.3 - 0.1 * np.sin(t), -0.3 - 0.2 * t, 0.2 + 0.1 * t, -0.2 * t), axis=-1)
        return left, right

    def planned(t: float) -> Values:
        left, right = arms(t + STEP_S * np.arange(STEPS))
        return {
            "waist": 0.05 * t + 0.02 * np.arange(STEPS)[:, None],
            "left_arm": left + ahead(3) * [-0.7, -0.4, 0.5, 0.3],
            "right_arm": right + ahead(3) ** 2 * [0.5, -2.0, 0.4, 0.5],
            "left_gripper": np.linspace(0.02, 0.04, STEPS)[:, None],
            "right_gripper": np.linspace(0.035, 0.01, STEPS)[:, None],
        }

    def measured(t: float) -> dict[str, float]:
        found = {"waist": 0.05 * t, "left_grip": 0.02, "right_grip": 0.035}
        for side, values in zip(("left", "right"), arms(t), strict=True):
            found |= dict(zip(arm_joints(side), values.tolist(), strict=True))
        return found

    view = {"Distance": 2.05, "Focal Point": {"X": 0.1, "Y": 0, "Z": 0.5}, "Pitch": 0.3, "Yaw": 0.75}
    text = "hand the cup from left to right"
    return Show(two_arms_config(), file, urdf, text, 3, measured, planned, view)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"RViz off screen needs {', '.join(MISSING)}")
@pytest.mark.parametrize("make", [so101, two_arms])
def test_rviz_shows_all_of_it(
    make: Callable[[Path], Show], processes: ProcessStarter, graph: RosGraph, tmp_path: Path
) -> None:
    show = make(tmp_path)
    node = processes(
        "gr00t_ros.nodes.action_visualizer", "--ros-args", "--params-file", str(show.robot_file),
        "-p", f"urdf:={show.urdf}",
    )  # fmt: skip
    arrays = graph.collect("/gr00t/markers", MarkerArray, 10, maxlen=20)
    paths = graph.collect("/gr00t/executed_path", PathMessage, 10, maxlen=1)
    node.wait_for("ready")
    joints = graph.publisher("/joint_states", JointState)
    chunks = graph.publisher("/gr00t/action_chunk", ActionChunk, 1)
    executor = graph.publisher("/gr00t/executor/status", ExecutorStatus, 1)
    policy = graph.publisher("/gr00t/policy/status", PolicyStatus, 1)
    ticks = iter(range(10**6))
    wanted = {"predicted", "steps", "frozen", "committed", "executed", "axes", "ghost", "limits", "gripper"}

    def all_drawn() -> bool:
        tick = next(ticks)
        at_s, now_ns = STEP_S * tick, graph.now_ns()
        here = show.measured(at_s)
        message = JointState(name=list(here), position=list(here.values()))
        message.header.stamp = time_msg(now_ns)
        joints.publish(message)
        if tick % 4 == 0:
            chunk = show.chunk(at_s, now_ns, tick)
            chunks.publish(chunk_msg(chunk))
            status = ExecutorStatus(state=ExecutorStatus.EXECUTING, commands_sent=10 * tick + 10)
            status.commands_clipped, status.plan_horizon = 3 * tick, 8
            status.plan_start, status.plan_step = time_msg(now_ns), duration_msg(50_000_000)
            # What is left of the chunk before, which went elsewhere.
            before = show.chunk(at_s - 4 * STEP_S, now_ns, tick).groups
            status.plan = group_msgs([replace(group, values=group.values[4:12]) for group in before])
            executor.publish(status)
            running = PolicyStatus(state=PolicyStatus.RUNNING, chunks=tick + 1)
            running.inference_time, running.observation_age = 0.045, 0.08
            policy.publish(running)
        graph.wait_until(lambda: graph.now_ns() - now_ns > STEP_S * 1e9, "the next step")
        return tick >= 60 and wanted <= {marker.ns for marker in arrays[-1].markers}

    graph.wait_until(all_drawn, f"{wanted} to be drawn")
    shown, way, here = arrays[-1], paths[-1], show.measured(STEP_S * (next(ticks) - 1))
    assert node.stop() == 0, node.output

    text = read_description(show.urdf)
    stage = {"description": text, "markers": fields(shown)["markers"], "path": fields(way)}
    stage["transforms"] = [fields(one) for one in transforms(text, here)]
    picture = rviz_picture(tmp_path, stage, show.view)
    if folder := os.environ.get("SEE_PICTURES"):
        cv2.imwrite(str(Path(folder) / f"see_{make.__name__}.png"), picture)
    assert not_seen(picture) == []


def transforms(urdf: str, positions: dict[str, float]) -> list[TransformStamped]:
    """TF of the robot at these joints."""
    kinematics, found = Kinematics(read_model(urdf)), []
    for child, pose in kinematics.transforms(positions).items():
        one = TransformStamped(child_frame_id=child)
        one.header.frame_id = kinematics.model.above[child].parent
        place, turn = one.transform.translation, one.transform.rotation
        place.x, place.y, place.z = pose[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = matrix_to_quaternion(pose[:3, :3]).tolist()
        found.append(one)
    return found


@pytest.mark.parametrize("name", ["so101", "two_arms"])
def test_the_pictures_of_the_docs_show_all_of_it(name: str) -> None:
    picture = cv2.imread(str(REPO / f"docs/images/see_{name}.png"))
    assert not_seen(picture) == []
    assert not_seen(np.full_like(picture, 40)), "nothing is seen where nothing is"
