# SPDX-License-Identifier: Apache-2.0
"""Watches a running demo from outside: a status line a second, a picture at the end, and the verdict as exit
code.

It hears what every other node says and commands nothing. The run counts ``duration`` seconds from the first
command on (the model may take a while to load); with duration 0 it ends on SIGINT or SIGTERM and judges what
it saw until then. Exit code 0 means: pictures, chunks and commands flowed, every command was inside its
limits, and the arm followed within the stated tracking error; with a task also that episodes ended, and the
named object was reached in half of them at least. Otherwise 1, with the reasons.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from gr00t_ros.errors import ChunkRefused, Gr00tRosError, MessageError
from gr00t_ros.images import decode_image
from gr00t_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.conversions import chunk_from_msg, nanoseconds
from gr00t_ros.nodes.parameters import Parameters, ParameterSpec
from gr00t_ros.nodes.plain import refuse_arguments, run_plain
from gr00t_ros.nodes.sim_task import TASKS
from gr00t_ros.nodes.task_referee import TaskReferee
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import (
    COMPRESSED_IMAGE,
    FLOAT64_MULTI_ARRAY,
    JOINT_TRAJECTORY,
    ActionGroupConfig,
    VideoSource,
)
from gr00t_ros.sim.monitoring import DemoRecord
from gr00t_ros.sim.picture import COLUMNS, Shot, draw

PICTURE = "demo.png"
# Pictures kept per camera: enough to choose an even strip from, whatever the duration.
_SHOTS = 4 * COLUMNS
_STATES = {
    getattr(ExecutorStatus, name): name.lower() for name in ("WAITING", "EXECUTING", "HOLDING", "STOPPED")
}
_POLICY_STATES = {
    getattr(PolicyStatus, name): name.lower() for name in ("INACTIVE", "WAITING", "RUNNING", "FAULT", "IDLE")
}

SPECS = (
    ParameterSpec(
        "duration", 30.0, "time from the first command to the end; 0 means until stopped", "s", 0.0, 1e6
    ),
    ParameterSpec("output", ".demo", f"folder for the picture {PICTURE}", read_only=True),
    # Servos lag by 0.07 rad at full speed (2 rad/s). Random weights ask for another place every 50 ms: then
    # 0.1 rad was the worst, and 0.22 rad without acceleration limits. Beyond this the chain is broken or the
    # arm blocked.
    ParameterSpec("max_tracking_error", 0.25, "commanded against measured joints", "rad", 0.0, 10.0),
    ParameterSpec(
        "startup_timeout", 120.0, "time until the first command, then it counts as failed", "s", 1.0, 1e5
    ),
    ParameterSpec(
        "task", "", "empty, or reach: leads the simulator from episode to episode and counts", choices=TASKS
    ),
    ParameterSpec("note", "", "a line for the picture and the summary, for example that weights are random"),
)

DESCRIPTION = f"""demo_monitor: watches a running demo and judges it.

usage: demo_monitor --ros-args --params-file ROBOT_YAML [-r __ns:=/gr00t] [-p name:=value ...]

parameters:
{chr(10).join(f"  {spec.name} (default {spec.default}): {spec.description}" for spec in SPECS)}"""


class DemoMonitor(Node):
    """Collects; the record decides."""

    def __init__(self) -> None:
        super().__init__(
            "demo_monitor",
            namespace="/gr00t",
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self.parameters = Parameters(self, SPECS)
        described = self.parameters.robot()
        if not described:
            raise Gr00tRosError("no robot description: give --ros-args --params-file ROBOT_YAML")
        self.robot = RobotConfig.from_flat(described)
        self.record = DemoRecord(self.robot, self.parameters["max_tracking_error"])
        self.shots: dict[str, list[Shot]] = {key: [] for key in self.robot.video}
        self._newest: dict[str, tuple[bytes, type]] = {}  # each camera's newest frame, and its message type
        self._shot_due = dict.fromkeys(self.robot.video, 0.0)
        self._shot_every = max(0.2, self.parameters["duration"] / _SHOTS)
        self.policy: PolicyStatus | None = None
        self.executor_status: ExecutorStatus | None = None
        self.first_command: float | None = None  # monotonic s
        self.referee = self._make_referee() if self.parameters["task"] else None
        for video in self.robot.video.values():
            kind = CompressedImage if video.type == COMPRESSED_IMAGE else Image
            # Raw: a picture is only decoded when it goes into the strip.
            self.create_subscription(
                kind, video.topic, self._frame_taker(video, kind), qos_profile_sensor_data, raw=True
            )
        joint_states = self.robot.executor_joint_state_topic
        self.create_subscription(JointState, joint_states, self._on_joint_state, qos_profile_sensor_data)
        newest = QoSProfile(depth=10)
        for group in self.robot.action.values():
            self.create_subscription(*self._command_taker(group), newest)
        self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, newest)
        self.create_subscription(PolicyStatus, "policy/status", self._on_policy, newest)
        self.create_subscription(ExecutorStatus, "executor/status", self._on_executor, newest)

    def _make_referee(self) -> TaskReferee:
        def ended(words: str, line: str) -> None:
            print(line, flush=True)
            for video in self.robot.video.values():
                self._shoot(video, f"{self.record.instruction}\n{words}")

        return TaskReferee(self, again=self.record.forget, ended=ended)

    # What is heard.

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _frame_taker(self, video: VideoSource, kind: type) -> Any:
        def take(data: bytes) -> None:
            self.record.frames[video.key].add()
            self._newest[video.key] = data, kind
            now = time.monotonic()
            # Before the first command the strip would show a still arm; of a task it shows how episodes end.
            if self.first_command is None or self.referee is not None or now < self._shot_due[video.key]:
                return
            self._shot_due[video.key] = now + self._shot_every
            self._shoot(video)

        return take

    def _shoot(self, video: VideoSource, caption: str = "") -> None:
        """The camera's newest frame goes into the strip."""
        if video.key not in self._newest:
            return
        message = deserialize_message(*self._newest[video.key])
        try:
            picture = decode_image(message)
        except MessageError as error:
            self.get_logger().warning(f"{video.topic}: {error}", throttle_duration_sec=10.0)
            return
        shots = self.shots[video.key]
        shots.append(Shot(nanoseconds(message.header.stamp), picture, caption))
        if len(shots) > 2 * _SHOTS:
            # An endless run: every other one goes, so the strip still spans the whole run.
            del shots[1::2]
            self._shot_every *= 2.0

    def _on_joint_state(self, message: JointState) -> None:
        self.record.on_joint_state(message.name, message.position, nanoseconds(message.header.stamp))

    def _on_chunk(self, message: ActionChunk) -> None:
        try:
            self.record.on_chunk(chunk_from_msg(message))
        except ChunkRefused as error:
            self.get_logger().warning(f"action_chunk: {error}", throttle_duration_sec=10.0)

    def _on_policy(self, message: PolicyStatus) -> None:
        self.policy = message

    def _on_executor(self, message: ExecutorStatus) -> None:
        self.executor_status = message

    def _command_taker(self, group: ActionGroupConfig) -> tuple[type, str, Any]:
        def started() -> None:
            if self.first_command is None:
                self.first_command = time.monotonic()

        def trajectory(message: JointTrajectory) -> None:
            started()
            self.record.on_trajectory(
                group.key,
                list(message.joint_names),
                [nanoseconds(point.time_from_start) for point in message.points],
                [point.positions for point in message.points],
                [point.velocities for point in message.points],
                stamp_ns=nanoseconds(message.header.stamp),
                now_ns=self._now_ns(),
            )

        def values(message: Float64MultiArray) -> None:
            started()
            self.record.on_values(group.key, list(message.data))

        def joint_state(message: JointState) -> None:
            started()
            given = dict(zip(message.name, message.position, strict=False))
            self.record.on_values(group.key, [given[joint] for joint in group.joints if joint in given])

        if group.interface == JOINT_TRAJECTORY:
            return JointTrajectory, group.topic, trajectory
        if group.interface == FLOAT64_MULTI_ARRAY:
            return Float64MultiArray, group.topic, values
        return JointState, group.topic, joint_state

    # What is said.

    def status_line(self, elapsed_s: float) -> str:
        """One line: rates, times, tracking error, states."""
        record = self.record
        cameras = " ".join(f"{rate.hertz():.1f}" for rate in record.frames.values())
        commands = " ".join(f"{rate.hertz():.1f}" for rate in record.commands.values())
        parts = [f"{elapsed_s:5.1f} s", f"camera {cameras} Hz", f"chunks {record.chunks.hertz():.1f} Hz"]
        parts.append(f"commands {commands} Hz")
        if self.policy is not None:
            parts.append(f"inference {1e3 * self.policy.inference_time:.0f} ms")
            parts.append(f"observation age {1e3 * self.policy.observation_age:.0f} ms")
        worst, rms, _ = record.tracking()
        if record.total_commands:
            parts.append(f"tracking error {rms:.3f} rad RMS, {worst:.3f} max")
        parts.append(f"executor {self._executor_state()}")
        policy = self._policy_state()
        if policy != "running":
            parts.append(f"policy {policy}")
        return " | ".join(parts)

    def _executor_state(self) -> str:
        status = self.executor_status
        if status is None:
            return "not heard"
        reason = f" ({status.reason})" if status.reason and status.state != ExecutorStatus.EXECUTING else ""
        return _STATES.get(status.state, "unknown") + reason

    def _policy_state(self) -> str:
        status = self.policy
        if status is None:
            return "not heard"
        reason = f" ({status.reason})" if status.reason and status.state != PolicyStatus.RUNNING else ""
        return _POLICY_STATES.get(status.state, "unknown") + reason

    def problems(self, stopped: bool) -> list[str]:
        """Why the run failed; ``stopped``: it was ended by a signal."""
        found = self.record.problems()
        if self.record.chunks.count == 0 or self.record.total_commands == 0:
            found.append(f"policy: {self._policy_state()}; executor: {self._executor_state()}")
        if self.referee is not None:
            found += self.referee.problems()
        if stopped and self.parameters["duration"] > 0:
            found.append("stopped before its time")
        return found

    def draw(self) -> Path:
        """Writes the picture and returns its path. Raises Gr00tRosError when it cannot be written."""
        path = Path(self.parameters["output"]).expanduser() / PICTURE
        title = f"{self.robot.name}: “{self.record.instruction}”"
        if self.referee is not None:
            title = f"{self.robot.name}: {self.referee.score}"
        try:
            draw(path, self.record, self.shots, title, self.parameters["note"])
        except (OSError, ImportError) as error:
            raise Gr00tRosError(f"the picture {path} cannot be written: {error}") from error
        return path


def _watch(node: DemoMonitor, stop: threading.Event) -> bool:
    """Spins until the run is over; True when a signal ended it."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    began = time.monotonic()
    line_due = began + 1.0
    duration, timeout = node.parameters["duration"], node.parameters["startup_timeout"]
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)
            if node.referee is not None and node.first_command is not None:
                node.referee.turn()
            now = time.monotonic()
            if now >= line_due:
                line_due += 1.0
                print(node.status_line(now - began), flush=True)
            if node.first_command is None:
                if now - began > timeout:
                    return False
            elif duration > 0 and now - node.first_command >= duration:
                return False
        return True
    finally:
        executor.shutdown(1.0)


def _body(arguments: list[str], stop: threading.Event) -> int:
    refuse_arguments(arguments)
    node = DemoMonitor()
    try:
        stopped = _watch(node, stop)
        problems = node.problems(stopped)
        lines = node.record.summary()
        if node.referee is not None:
            lines.append(f"episodes: {node.referee.score} ({node.referee.score_by_kind or 'none ended'})")
        if node.record.plot:
            lines.append(f"picture: {node.draw()}")
    finally:
        node.destroy_node()
    if node.parameters["note"]:
        lines.append(node.parameters["note"])
    lines += [f"FAILED: {problem}" for problem in problems] or [
        "OK: the whole chain ran and every limit was kept"
    ]
    print("\n".join(lines), flush=True)
    return 1 if problems else 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``demo_monitor``."""
    return run_plain(_body, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
