# SPDX-License-Identifier: Apache-2.0
"""The real node: what it publishes, looked at through a viewer; what is missing is said, what is old goes.

One process and one robot for each group of promises. Where a path should be is computed here by MuJoCo.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from gr00t_ros.chunk import Chunk, chunk_group
from gr00t_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.conversions import chunk_msg, duration_msg, group_msgs, time_msg
from gr00t_ros.robot import RobotConfig
from gr00t_ros.visualization.kinematics import Kinematics
from gr00t_ros.visualization.robot_model import read_model
from support_mobile import HOME, mobile_chunk, mobile_config, mobile_robot
from support_processes import NodeProcess, ProcessStarter, RosGraph
from support_two_arms import arm_joints, two_arms_config, two_arms_robot, two_arms_urdf
from support_viewer import Viewer

pytestmark = pytest.mark.ros

# Long enough (2 s, after the second by which it may start ahead) to look at on a machine that stalls.
STEPS, STEP_NS = 40, 50_000_000
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Watched:
    """The visualizer of one robot, with everything that it hears and a viewer that sees it."""

    def __init__(
        self, processes: ProcessStarter, graph: RosGraph, folder: Path, robot: dict[str, Any], *more: str
    ) -> None:
        self.graph, self.config = graph, RobotConfig.from_mapping(robot)
        file = folder / "robot.yaml"
        # JSON is YAML without aliases, which rcl does not read.
        file.write_text(json.dumps({"/**": {"ros__parameters": {"robot": robot}}}))
        self.viewer = Viewer(eye=(2.2, 1.2, 1.2), target=(0.0, 0.0, 0.4))
        self.node: NodeProcess = processes(
            "gr00t_ros.nodes.action_visualizer", "--ros-args", "--params-file", str(file), *more
        )
        graph.node.create_subscription(MarkerArray, "/gr00t/markers", self.viewer.take, 10)
        self.path = graph.collect("/gr00t/executed_path", PathMessage, 10)
        self.predicted = graph.collect("/gr00t/predicted_joint_states", JointState, 10)
        self.node.wait_for("ready")
        self.joints = graph.publisher("/joint_states", JointState)
        self.chunks = graph.publisher("/gr00t/action_chunk", ActionChunk, 1)
        self.executor = graph.publisher("/gr00t/executor/status", ExecutorStatus, 1)
        self.policy = graph.publisher("/gr00t/policy/status", PolicyStatus, 1)
        self.wait(lambda: self.viewer.named("status"), "a status text")
        self._sequence = 0

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        try:
            self.graph.wait_until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\ntext: {self.text}\noutput: {self.node.output}") from None

    def until(self, publish: Callable[[], Any], condition: Callable[[], Any], what: str) -> None:
        """Publishes again and again, as sensors do, until ``condition``: any one message may be lost."""

        def asked() -> bool:
            publish()
            time.sleep(0.05)
            return bool(condition())

        self.wait(asked, what)

    @property
    def text(self) -> str:
        return "\n".join(marker.text for marker in self.viewer.named("status"))

    def measure(self, positions: dict[str, float]) -> None:
        message = JointState(name=list(positions), position=list(positions.values()))
        message.header.stamp = time_msg(self.graph.now_ns())
        self.joints.publish(message)

    def send(self, groups: dict[str, Any], frozen: int = 0) -> Chunk:
        """A chunk that starts far enough ahead to last while it is looked at."""
        now_ns = self.graph.now_ns()
        actions = self.config.action.items()
        parts = tuple(chunk_group(config, np.asarray(groups[key], np.float64)) for key, config in actions)
        self._sequence += 1
        chunk = Chunk(
            1, self._sequence, "hand over the cup", now_ns, now_ns + 9 * 10**8, STEP_NS, parts, frozen
        )
        self.chunks.publish(chunk_msg(chunk))
        return chunk


def pose_of(positions: dict[str, float], link: str) -> np.ndarray:
    """Where a link of the two-armed robot is; test_kinematics holds this against MuJoCo."""
    return Kinematics(read_model(two_arms_urdf())).poses(positions, [link])[link][0]


HERE = {
    "waist": 0.1, "left_shoulder": -0.3, "left_elbow": -0.5, "left_wrist": 0.1, "left_roll": 0.2,
    "right_shoulder": -0.2, "right_elbow": -0.4, "right_wrist": 0.0, "right_roll": 0.1,
    "left_grip": 0.01, "right_grip": 0.03,
}  # fmt: skip


def two_arm_chunk(reach: float = -0.6, roll: float = 0.2) -> dict[str, np.ndarray]:
    """Both arms rise; the left gripper opens."""
    share = np.linspace(0.0, 1.0, STEPS)[:, None]
    left = np.array([HERE[joint] for joint in arm_joints("left")]) + share * [reach, -0.3, 0.1, roll]
    right = np.array([HERE[joint] for joint in arm_joints("right")]) + share * [-0.4, 0.2, 0.1, 0.0]
    return {
        "waist": np.full((STEPS, 1), HERE["waist"]),
        "left_arm": left,
        "right_arm": right,
        "left_gripper": 0.01 + 0.03 * share,
        "right_gripper": np.full((STEPS, 1), HERE["right_grip"]),
    }


def at(groups: dict[str, np.ndarray], step: int) -> dict[str, float]:
    """The joints at one step of a chunk."""
    config = two_arms_config()
    return {
        joint: float(groups[key][step, column])
        for key, group in config.action.items()
        for column, joint in enumerate(group.joints)
    }


@pytest.fixture
def two_arms(processes: ProcessStarter, graph: RosGraph, tmp_path: Path) -> Watched:
    urdf = tmp_path / "robot.urdf"
    urdf.write_text(two_arms_urdf())
    return Watched(processes, graph, tmp_path, two_arms_robot(), "-p", f"urdf:={urdf}")


def test_what_the_policy_intends_is_seen_where_it_will_be(two_arms: Watched) -> None:
    watched, viewer = two_arms, two_arms.viewer
    assert "no joint states on /joint_states" in watched.text
    assert "policy not heard" in watched.text
    assert "executor not heard" in watched.text
    description = watched.graph.collect("/robot_description", String, LATCHED)
    watched.wait(lambda: description, "the robot model on /robot_description")
    assert read_model(description[0].data).links == read_model(two_arms_urdf()).links

    watched.until(
        lambda: watched.measure(HERE),
        lambda: "no joint states" not in watched.text,
        "joint states to be heard",
    )
    groups = two_arm_chunk(roll=2.6)
    chunk = watched.send(groups, frozen=3)
    watched.wait(lambda: viewer.named("predicted"), "a predicted path")
    picture = viewer.picture()
    for side in ("left", "right"):
        for step in range(0, STEPS, 3):
            place = pose_of(at(groups, step), f"{side}_tcp")[:3, 3]
            color = viewer.color_at(picture, place).astype(int)
            assert color.sum() > 250, f"nothing bright at step {step} of the {side} arm: {color}"
    # Early steps are yellow, late ones violet; kept steps are white.
    start, end = (pose_of(at(groups, step), "left_tcp")[:3, 3] for step in (0, STEPS - 1))
    assert viewer.color_at(picture, start).min() > 200, "the first step is kept from the plan: white"
    points = {marker.id: marker for marker in viewer.named("steps")}
    assert len(points[0].points) == STEPS
    assert points[0].colors[0].g > 0.8 > 0.4 > points[0].colors[-1].g
    assert points[0].colors[-1].b > 0.6
    last = points[0].points[-1]
    np.testing.assert_allclose([last.x, last.y, last.z], end, atol=1e-9)
    assert [len(marker.points) for marker in viewer.named("frozen")] == [3, 3]
    assert {marker.header.frame_id for marker in dict(viewer.markers).values()} == {"base_link"}

    ghosts = {marker.id: marker for marker in viewer.named("ghost")}
    model = read_model(two_arms_urdf())
    shown = {model.visuals[number].link for number in ghosts}
    assert shown == set(model.below(["torso"])) - {"left_tcp", "right_tcp"}, "all that the waist moves"
    number = next(i for i, part in enumerate(model.visuals) if part.link == "left_finger")
    finger = pose_of(at(groups, STEPS - 1), "left_finger") @ model.visuals[number].origin
    place = ghosts[number].pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], finger[:3, 3], atol=1e-9)
    assert 0.1 < ghosts[number].color.a < 0.6, "a ghost is seen through"

    # The left roll ends at 2.8 rad, its limit is 2.5.
    assert "beyond its limit: left_roll 2.80, limit 2.50" in watched.text
    [red] = [marker for marker in viewer.named("limits") if not marker.text]
    hand = pose_of(at(groups, STEPS - 1), "left_hand")[:3, 3]
    place = red.pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], hand, atol=1e-9)
    assert "left_grip 25% to 100% open" in watched.text
    assert [marker.text for marker in viewer.named("gripper")][1] == "right_grip 75% to 75% open"
    assert '"hand over the cup"' in watched.text
    assert f"3 of {STEPS} steps kept from the plan" in watched.text

    watched.wait(lambda: watched.predicted, "the joints at the chunk's end")
    said = dict(zip(watched.predicted[-1].name, watched.predicted[-1].position, strict=True))
    assert said == pytest.approx(at(groups, STEPS - 1))

    camera_sees_it(watched, groups)

    # What the executor is committed to, and clips.
    status = ExecutorStatus(state=ExecutorStatus.EXECUTING, commands_sent=10, plan_horizon=STEPS)
    status.plan_start, status.plan_step = time_msg(chunk.start_ns), duration_msg(STEP_NS)
    status.plan = group_msgs(chunk.groups)
    watched.executor.publish(status)
    watched.wait(lambda: len(viewer.named("committed")) == 2, "the committed plan of both arms")
    status.commands_sent, status.commands_clipped = 20, 4
    watched.executor.publish(status)
    watched.policy.publish(PolicyStatus(state=PolicyStatus.WAITING, reason="no picture from front"))
    watched.wait(lambda: "executor executing, clips 4 of 10 commands" in watched.text, "clipped commands")
    watched.wait(lambda: "policy waiting: no picture from front" in watched.text, "the policy's reason")
    watched.wait(lambda: "executor not heard" in watched.text, "the executor to be missed")
    assert not viewer.named("committed"), "a silent executor is committed to nothing that is known"

    assert watched.node.stop() == 0, watched.node.output
    watched.wait(lambda: not viewer.markers, "an empty view after the end")


def camera_sees_it(watched: Watched, groups: dict[str, np.ndarray]) -> None:
    """The camera behind the robot: a grey picture comes out with text, and the left arm's path on it."""
    places = [pose_of(at(groups, step), "left_tcp")[:3, 3] for step in (STEPS // 2, STEPS - 1)]
    graph = watched.graph
    overlays = graph.collect("/gr00t/overlay/front", Image, 10, maxlen=1)
    pictures = graph.publisher("/camera/front/image_raw", Image)
    infos = graph.publisher("/camera/front/camera_info", CameraInfo)
    info = CameraInfo(k=[300.0, 0.0, 160.0, 0.0, 300.0, 120.0, 0.0, 0.0, 1.0])
    picture = Image(height=240, width=320, encoding="rgb8", step=960, data=bytes([90]) * 230400)
    picture.header.frame_id = "camera_optical"

    def publish() -> None:
        if not watched.viewer.named("predicted"):
            watched.send(groups, frozen=3)  # its time is over
        infos.publish(info)
        pictures.publish(picture)

    def shown() -> bool:
        if not overlays:
            return False
        drawn = np.frombuffer(overlays[-1].data, np.uint8).reshape(240, 320, 3)
        if not (drawn[:40] > 200).all(axis=-1).any():
            return False  # the text
        for place in places:
            # The camera stands at (-0.8, 0, 0.4) and looks along x.
            forward, left, up = place - [-0.8, 0.0, 0.4]
            x, y = round(160 - 300 * left / forward), round(120 - 300 * up / forward)
            if np.ptp(drawn[y - 1 : y + 2, x - 1 : x + 2].astype(int), axis=-1).max() < 60:
                return False  # grey, as nothing of the path is
        return True

    watched.until(publish, shown, "the path in the camera's picture")


def test_the_next_chunk_replaces_and_the_end_removes(two_arms: Watched) -> None:
    watched, viewer = two_arms, two_arms.viewer
    watched.until(
        lambda: watched.measure(HERE), lambda: "25% open" in watched.text, "joint states to be heard"
    )
    first = two_arm_chunk(roll=2.6)
    watched.send(first)
    watched.wait(lambda: viewer.named("limits"), "a limit that is exceeded")
    second = two_arm_chunk(reach=-1.0)
    watched.send(second)
    watched.wait(lambda: not viewer.named("limits"), "the limit to be gone")
    ends = {marker.id: marker.points[-1] for marker in viewer.named("steps")}
    place = pose_of(at(second, STEPS - 1), "left_tcp")[:3, 3]
    np.testing.assert_allclose([ends[0].x, ends[0].y, ends[0].z], place, atol=1e-9)
    assert len(ends) == 2, "one path an arm, not one a chunk"
    # Where the two agree, at their beginning, the line is wider than where they do not.
    widths = {marker.id % 4: marker.scale.x for marker in viewer.named("predicted")}
    assert len(set(widths.values())) > 1, "two different chunks agree everywhere the same"

    # A chunk that cannot be drawn is told once and changes nothing.
    bad = ActionChunk(session=1, sequence=50, horizon=3)
    for _ in range(3):
        watched.chunks.publish(bad)
    watched.node.wait_for("chunk not drawn: found 3 steps without groups")
    unfit = chunk_msg(watched_chunk(watched, second, np.nan))
    watched.chunks.publish(unfit)
    watched.node.wait_for("chunk not drawn: action.left_arm: left_shoulder is nan in step 0")
    assert viewer.named("predicted")

    # Without groups a chunk ends the plan, and what was predicted goes.
    end = ActionChunk(session=1, sequence=60)
    end.header.stamp = time_msg(watched.graph.now_ns())
    watched.chunks.publish(end)
    names = ("predicted", "steps", "frozen", "axes", "ghost", "limits", "gripper")
    watched.wait(lambda: not any(viewer.named(name) for name in names), "everything predicted to be gone")
    # A chunk whose time is over goes by itself.
    watched.send(second)
    watched.wait(lambda: viewer.named("predicted"), "a path again")
    watched.wait(lambda: not viewer.named("predicted"), "the path to be gone after its last step")
    assert watched.node.output.count("chunk not drawn: found 3 steps") == 1
    assert watched.node.stop(signal.SIGTERM) == 0, watched.node.output


def watched_chunk(watched: Watched, groups: dict[str, np.ndarray], value: float) -> Chunk:
    """A chunk whose left arm has one value replaced."""
    now_ns = watched.graph.now_ns()
    changed = {key: np.array(values) for key, values in groups.items()}
    changed["left_arm"][0, 0] = value
    parts = tuple(chunk_group(config, changed[key]) for key, config in watched.config.action.items())
    return Chunk(1, 55, "hand over the cup", now_ns, now_ns, STEP_NS, parts)


def test_the_way_that_was_made_is_kept_and_a_model_may_come_late(
    processes: ProcessStarter, graph: RosGraph, tmp_path: Path
) -> None:
    options = ("-p", "end_effectors:=right_tcp, left_tcp", "-p", "draw_robot:=true")
    watched = Watched(processes, graph, tmp_path, two_arms_robot(), *options)
    viewer = watched.viewer
    assert "no robot model: no path of waist, left_arm, right_arm" in watched.text
    description = graph.publisher("/robot_description", String, LATCHED)
    for wrong in ("<robot", '<robot><link name="a"/></robot>'):
        description.publish(String(data=wrong))
        watched.node.wait_for("robot model not used: .*(not XML|is no link of the robot model)")
    description.publish(String(data=two_arms_urdf()))
    watched.node.wait_for("robot model two_arms: end effectors right_tcp, left_tcp")
    made = []
    for turn in np.linspace(0.0, 0.5, 6):
        here = HERE | {"right_shoulder": HERE["right_shoulder"] - float(turn)}
        made.append(pose_of(here, "right_tcp")[:3, 3])
        before = len(watched.path[-1].poses) if watched.path else 0
        watched.until(
            lambda here=here: watched.measure(here),
            lambda n=before: watched.path and len(watched.path[-1].poses) > n,
            "the path to grow",
        )
    poses = watched.path[-1].poses
    places = np.array([[p.pose.position.x, p.pose.position.y, p.pose.position.z] for p in poses])
    np.testing.assert_allclose(places, made, atol=1e-9)
    [line] = viewer.named("executed")  # the left arm has not moved
    assert len(line.points) == len(made)
    watched.wait(lambda: len(viewer.named("robot")) > 10, "the measured robot")
    shown = len(viewer.named("robot"))
    # A joint that is not measured any more is nowhere, and what hangs on it neither.
    watched.until(
        lambda: watched.measure({"right_elbow": float("nan")}),
        lambda: len(viewer.named("robot")) < shown,
        "the right forearm to be gone",
    )
    assert "no position of right_elbow on /joint_states" in watched.text
    said = "/joint_states: not drawn, found 1 names but 0 positions"
    watched.until(
        lambda: watched.joints.publish(JointState(name=["waist"])), lambda: said in watched.node.output, said
    )
    assert watched.node.stop() == 0, watched.node.output


def test_poses_and_a_base_need_no_model(processes: ProcessStarter, graph: RosGraph, tmp_path: Path) -> None:
    robot = mobile_robot()
    robot["action"]["tool"]["measured_topic"] = "/tool/pose"
    watched = Watched(processes, graph, tmp_path, robot)
    viewer = watched.viewer
    measured = graph.publisher("/tool/pose", PoseStamped)
    for height in (0.30, 0.32, 0.34):
        before = len(watched.path[-1].poses) if watched.path else 0
        pose = PoseStamped()
        pose.header.frame_id, pose.header.stamp = "base_link", time_msg(graph.now_ns())
        pose.pose.position.x, pose.pose.position.z, pose.pose.orientation.w = 0.4, height, 1.0
        watched.until(
            lambda pose=pose: measured.publish(pose),
            lambda n=before: watched.path and len(watched.path[-1].poses) > n,
            "the path to grow",
        )
    now_ns = graph.now_ns()
    chunk = mobile_chunk(mobile_config(), now_ns, 1, way=(0.3, 0.0, 0.0), steps=16)
    watched.chunks.publish(chunk_msg(chunk))
    watched.wait(lambda: len(viewer.named("steps")) == 2, "the paths of tool and base")
    tool, base = viewer.named("steps")
    assert (tool.points[-1].x, tool.points[-1].z) == pytest.approx((HOME[0] + 0.3, HOME[2]))
    # 0.2 m/s for 0.8 s, while it turns to the left.
    assert 0.14 < base.points[-1].x < 0.16
    assert 0.0 < base.points[-1].y < 0.05
    assert "no robot model: no path of arm" in watched.text
    assert "beyond its limit: tool x 0.70, limit 0.60" in watched.text
    pose.header.frame_id = "elsewhere"
    said = "pose of tool not drawn: found it in frame 'elsewhere', expected 'base_link'"
    watched.until(lambda: measured.publish(pose), lambda: said in watched.node.output, said)
    assert watched.node.stop() == 0, watched.node.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no robot description: give --ros-args --params-file"),
        (["more"], "unknown arguments more"),
        (["--ros-args", "-p", "rate:=0.0"], "parameter rate: got 0.0, expected a number from 1 to 100 Hz"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    processes: ProcessStarter, arguments: list[str], said: str
) -> None:
    node = processes("gr00t_ros.nodes.action_visualizer", *arguments)
    assert node.wait() == 2
    assert any(said in line for line in node.lines), node.output


def test_a_model_file_that_does_not_exist_is_one_sentence(processes: ProcessStarter, tmp_path: Path) -> None:
    from gr00t_ros.share import robot_file

    options = ("--params-file", str(robot_file("so101")), "-p", f"urdf:={tmp_path / 'none.urdf'}")
    node = processes("gr00t_ros.nodes.action_visualizer", "--ros-args", *options)
    assert node.wait() == 2
    assert any("none.urdf: cannot be read" in line for line in node.lines), node.output
