# SPDX-License-Identifier: Apache-2.0
"""Shows in RViz or Foxglove what the policy intends, before the arm moves. Commands nothing.

What is drawn, and how, is ``gr00t_ros.visualization``; this node reads topics and publishes its shapes. It is
a plain node: it draws from its start on, with whatever has come by then, and says what is missing.
"""

from __future__ import annotations

import copy
import threading
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from gr00t_ros.causes import CauseLog, one_line, without_numbers
from gr00t_ros.chunk import check_chunk
from gr00t_ros.errors import ChunkRefused, Gr00tRosError
from gr00t_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.camera_overlays import CameraOverlays
from gr00t_ros.nodes.conversions import chunk_from_msg, nanoseconds, plan_from_msg, time_msg
from gr00t_ros.nodes.marker_wire import marker_writer
from gr00t_ros.nodes.parameters import Parameters, ParameterSpec
from gr00t_ros.nodes.plain import refuse_arguments, run_plain
from gr00t_ros.nodes.polling import Polled, nothing, take
from gr00t_ros.nodes.robot_state import LATCHED, TOPIC, RobotState
from gr00t_ros.nodes.status_lines import executor_line, policy_line
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_STATE, RECEIVE
from gr00t_ros.rotations import matrix_to_quaternion
from gr00t_ros.visualization.description import read_description
from gr00t_ros.visualization.kinematics import Kinematics
from gr00t_ros.visualization.scene import Scene

# Joint states read at a time: several drivers may share a topic. The subscription keeps 5.
JOINT_STATES_A_TICK = 8
# s. How long the end waits for viewers to hear that there is nothing to see; most hear it at once.
CLEAR_S = 1.0

SPECS = (
    ParameterSpec("rate", 20.0, "drawings per second, besides one for each chunk", "Hz", 1.0, 100.0,
                  read_only=True),
    ParameterSpec("end_effectors", "",
                  "links whose paths are drawn, with commas between; empty finds the ends of the arms",
                  read_only=True),
    ParameterSpec("frame_id", "", "where the status text stands; empty takes the root of the robot model",
                  read_only=True),
    ParameterSpec("executed_time", 10.0, "how long the executed path reaches back", "s", 0.0, 600.0,
                  read_only=True),
    ParameterSpec("urdf", "",
                  "URDF file, for a robot without robot_state_publisher: it is used, and published on "
                  "/robot_description with the links' TF", read_only=True),
    ParameterSpec("draw_robot", False, "draw the measured robot too, for viewers without TF", read_only=True),
)  # fmt: skip

DESCRIPTION = f"""action_visualizer: shows in RViz or Foxglove what the policy intends. Commands nothing.

usage: action_visualizer --ros-args --params-file ROBOT_YAML [-r __ns:=/gr00t] [-p name:=value ...]

parameters:
{chr(10).join(f"  {spec.name} (default {spec.default!r}): {spec.description}" for spec in SPECS)}"""


class ActionVisualizer(Node):
    """Hears everything, draws it."""

    def __init__(self) -> None:
        super().__init__(
            "action_visualizer",
            namespace="/gr00t",
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self.parameters = Parameters(self, SPECS)
        described = self.parameters.robot()
        if not described:
            raise Gr00tRosError("no robot description: give --ros-args --params-file ROBOT_YAML")
        self.robot = RobotConfig.from_flat(described)
        wanted = [name.strip() for name in self.parameters["end_effectors"].split(",")]
        self.scene = Scene(
            self.robot,
            wanted=[name for name in wanted if name],
            frame=self.parameters["frame_id"],
            trail_s=self.parameters["executed_time"],
            draw_robot=self.parameters["draw_robot"],
        )
        self._troubles = CauseLog(self.get_logger().warning)
        self._markers = marker_writer()
        self._status: ExecutorStatus | None = None
        self._marker_publisher = self.create_publisher(MarkerArray, "markers", 10)
        self._joint_publisher = self.create_publisher(JointState, "predicted_joint_states", 10)
        self._path_publishers: dict[str, Any] = {}
        self._state: RobotState | None = None
        self._overlays = CameraOverlays(self, self.scene, self._troubles)
        self._subscribe()
        if self.parameters["urdf"]:
            self._own_model()
        else:
            self.create_subscription(String, TOPIC, self._on_description, LATCHED)
        self.create_timer(1.0 / self.parameters["rate"], self.draw)

    def _subscribe(self) -> None:
        newest = QoSProfile(depth=1)
        self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, newest)
        self.create_subscription(ExecutorStatus, "executor/status", self._on_executor, newest)
        self.create_subscription(PolicyStatus, "policy/status", self._on_policy, newest)
        robot = self.robot
        topics = {robot.executor_joint_state_topic: robot.executor_joint_state_stamp}
        for source in robot.state.values():
            if source.type == JOINT_STATE:
                topics.setdefault(source.topic, source.stamp)
        polled = Polled()  # joint states come at up to 1 kHz, and are looked at 20 times a second
        self._joint_states = [
            (topic, stamp == RECEIVE, self._sensor(JointState, topic, nothing, polled))
            for topic, stamp in topics.items()
        ]
        for group in robot.action.values():
            if group.measured_topic:
                self._sensor(PoseStamped, group.measured_topic, self._pose_taker(group.key))

    def _sensor(self, kind: type, topic: str, callback: Any, group: Any = None) -> Any:
        return self.create_subscription(
            kind,
            topic,
            callback,
            copy.copy(qos_profile_sensor_data),  # rclpy writes qos_overrides into it
            callback_group=group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    # What is heard.

    def _own_model(self) -> None:
        path = self.parameters["urdf"]
        text = read_description(path)
        self.scene.set_model(text, path)
        assert self.scene.model is not None
        self._state = RobotState(self, text, Kinematics(self.scene.model))
        if self._state.why_no_tf:
            self.get_logger().warning(self._state.why_no_tf)
        self._tell_model()

    def _on_description(self, message: String) -> None:
        try:
            self.scene.set_model(message.data, TOPIC)
        except Gr00tRosError as error:
            self._troubles.add("model", f"robot model not used: {one_line(error)}")
            return
        self._troubles.remove("model")
        self._tell_model()

    def _tell_model(self) -> None:
        assert self.scene.model is not None
        names = ", ".join(effector.name for effector in self.scene.effectors) or "none"
        self.get_logger().info(f"robot model {self.scene.model.name}: end effectors {names}")

    def _on_chunk(self, message: ActionChunk) -> None:
        self._read_joints()
        try:
            self.scene.take_chunk(check_chunk(chunk_from_msg(message), self.robot, self._now_ns()))
        except ChunkRefused as error:
            self._troubles.add("chunk " + without_numbers(str(error)), f"chunk not drawn: {error}")
            return
        self._troubles.remove("chunk ")
        self.draw()
        self._publish_predicted()

    def _on_policy(self, message: PolicyStatus) -> None:
        self.scene.policy = (policy_line(message), time.monotonic())

    def _on_executor(self, message: ExecutorStatus) -> None:
        self.scene.executor = (executor_line(message, self._status), time.monotonic())
        self._status = message
        plan = plan_from_msg(message)
        self.scene.take_plan(plan.groups if plan else None, plan.step_ns if plan else 0)

    def _pose_taker(self, key: str) -> Any:
        def take_pose(message: PoseStamped) -> None:
            expected = self.robot.action[key].frame_id
            if message.header.frame_id != expected:
                self._troubles.add(
                    f"pose {key}",
                    f"pose of {key} not drawn: found it in frame {message.header.frame_id!r}, expected "
                    f"{expected!r}",
                )
                return
            place, turn = message.pose.position, message.pose.orientation
            values = (place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w)
            self.scene.measure_pose(key, values, nanoseconds(message.header.stamp) or self._now_ns())

        return take_pose

    def _read_joints(self) -> None:
        for topic, receive, subscription in self._joint_states:
            for message in take(subscription, JOINT_STATES_A_TICK):
                if len(message.name) != len(message.position):
                    self._troubles.add(
                        f"joints {topic}",
                        f"{topic}: not drawn, found {len(message.name)} names but {len(message.position)} "
                        "positions",
                    )
                    continue
                stamp_ns = 0 if receive else nanoseconds(message.header.stamp)
                self.scene.measure(message.name, message.position, stamp_ns or self._now_ns())

    # What is said.

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def draw(self) -> None:
        """Publishes what holds now, for whoever looks."""
        self._read_joints()
        now_ns = self._now_ns()
        shapes = self.scene.shapes(now_ns, time.monotonic())
        if self._marker_publisher.get_subscription_count():
            self._marker_publisher.publish(self._markers.update(shapes))
        self._publish_paths()
        self._overlays.draw(now_ns, time.monotonic())
        if self._state is not None:
            self._state.publish(self.scene.measured, now_ns)

    def _publish_paths(self) -> None:
        """The first end effector's on ``executed_path``, others below it under their names."""
        for index, effector in enumerate(self.scene.effectors):
            topic = "executed_path" if index == 0 else f"executed_path/{_topic_name(effector.name)}"
            if topic not in self._path_publishers:
                self._path_publishers[topic] = self.create_publisher(Path, topic, 1)
            publisher = self._path_publishers[topic]
            if publisher.get_subscription_count():
                publisher.publish(self._path(effector.frame, self.scene.trails[effector.name]))

    def _path(self, frame: str, trail: Any) -> Path:
        message = Path()
        message.header.frame_id = frame
        poses = trail.poses
        turns = matrix_to_quaternion(poses[:, :3, :3]).tolist()
        for stamp_ns, place, turn in zip(trail.stamps_ns, poses[:, :3, 3].tolist(), turns, strict=True):
            pose = PoseStamped()
            pose.header.frame_id, pose.header.stamp = frame, time_msg(stamp_ns)
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = place
            turned = pose.pose.orientation
            turned.x, turned.y, turned.z, turned.w = turn
            message.poses.append(pose)
        return message

    def _publish_predicted(self) -> None:
        joints = self.scene.predicted_joints
        if joints:
            message = JointState(name=list(joints), position=list(joints.values()))
            # Now, not when it is due: who makes TF of it would have transforms of the future.
            message.header.stamp = time_msg(self._now_ns())
            self._joint_publisher.publish(message)

    def clear(self) -> None:
        """Nothing is left in the viewers."""
        self._marker_publisher.publish(self._markers.clear())
        # The publisher goes away next, with what it has not sent yet.
        self._marker_publisher.wait_for_all_acked(Duration(seconds=CLEAR_S))


def _topic_name(name: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)


def _body(arguments: list[str], stop: threading.Event) -> int:
    refuse_arguments(arguments)
    node = ActionVisualizer()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.get_logger().info(f"ready: drawing {node.robot.name}")
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
        node.clear()
    finally:
        executor.shutdown(1.0)
        node.destroy_node()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``action_visualizer``."""
    return run_plain(_body, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
