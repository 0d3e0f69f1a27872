# SPDX-License-Identifier: Apache-2.0
"""The simulated SO-101 as a ROS node: what a real arm's drivers and controllers are to the rest of the graph.

Gives both cameras, the joint states and, when asked, ``/clock``; takes the commands that ros2_control's
controllers would take. Topics and message types come from the robot description where one is given
(``--params-file config/robots/so101.yaml``), so that the node always fits what the policy and the executor
were told.

One thread steps the physics, answers commands and publishes joint states; a second one renders. A picture
carries the stamp of the joint state that it shows, and that joint state is published first.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from gr00t_ros.causes import CauseLog, without_numbers
from gr00t_ros.errors import MessageError, RobotConfigError
from gr00t_ros.nodes.parameters import Parameters, ParameterSpec
from gr00t_ros.nodes.plain import refuse_arguments, run_plain
from gr00t_ros.nodes.sim_pictures import PictureThread
from gr00t_ros.nodes.sim_task import TASKS, TaskTopics
from gr00t_ros.nodes.sim_task import TOPIC as TASK_TOPIC
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import FLOAT64_MULTI_ARRAY, JOINT_TRAJECTORY, VideoSource
from gr00t_ros.sim.controllers import PositionController, TrajectoryController
from gr00t_ros.sim.reaching import ReachingTask
from gr00t_ros.sim.scene import CAMERAS, TIMESTEP
from gr00t_ros.sim.so101 import SimulatedSO101
from gr00t_ros.system import REACH

_NS = 1_000_000_000
# Behind by more than this (0.2 s), the simulation lets the time go instead of racing after it.
_MAX_LAG_NS = 200_000_000
# While time stands still for a command, what it waits for is told again this often, real ns.
_REMIND_NS = 500_000_000

SPECS = (
    ParameterSpec("width", 320, "width of the pictures", "pixels", 16, 4096, read_only=True),
    ParameterSpec("height", 240, "height of the pictures", "pixels", 16, 4096, read_only=True),
    ParameterSpec(
        "camera_rate", 20.0, "pictures per second of each camera", "Hz", 0.1, 100.0, read_only=True
    ),
    ParameterSpec("joint_state_rate", 100.0, "joint states per second", "Hz", 1.0, 500.0, read_only=True),
    ParameterSpec("shadows", False, "cast shadows; three times as slow without a GPU", read_only=True),
    ParameterSpec("seed", 0, "places the objects on the table", "", 0, 2**31 - 1, read_only=True),
    ParameterSpec("publish_clock", False, "publish /clock and stamp everything with it", read_only=True),
    ParameterSpec(
        "real_time_factor",
        1.0,
        "simulated seconds per second, with publish_clock",
        "",
        0.01,
        100.0,
        read_only=True,
    ),
    ParameterSpec(
        "wait_for_commands",
        False,
        "with publish_clock: time stands still after each picture until every controller was commanded",
        read_only=True,
    ),
    ParameterSpec(
        "command_prefix",
        "",
        "put before the names of the command topics, for a teacher that records other commands than it sends",
        read_only=True,
    ),
    ParameterSpec(
        "task",
        "",
        "empty, or reach: episodes one after the other, from seed on; ~/reset begins the next one",
        read_only=True,
        choices=TASKS,
    ),
    ParameterSpec(
        "kinds",
        "static",
        "of the task's episodes, in turn: static, moved, swapped, with commas between them",
        read_only=True,
    ),
)

DESCRIPTION = f"""so101_sim: a simulated SO-101 arm with two cameras on ROS 2 topics.

usage: so101_sim [--ros-args --params-file ROBOT_YAML -p name:=value ...]

parameters:
{chr(10).join(f"  {spec.name} (default {spec.default}): {spec.description}" for spec in SPECS)}
services: ~/reset (std_srvs/Trigger) puts arm and objects back; with a task, it begins the next episode."""


@dataclass(frozen=True)
class Wiring:
    """Which topics the simulator serves: one entry per camera, controller joints and their topics."""

    videos: tuple[VideoSource, ...]
    joint_states: tuple[str, ...]
    trajectories: tuple[tuple[str, tuple[str, ...]], ...]
    positions: tuple[tuple[str, tuple[str, ...]], ...]


DEFAULT_WIRING = Wiring(
    videos=tuple(VideoSource(camera, f"/camera/{camera}/image_raw") for camera in CAMERAS),
    joint_states=("/joint_states",),
    trajectories=(("/arm_controller/joint_trajectory", SimulatedSO101.joint_names[:5]),),
    positions=(("/gripper_controller/commands", SimulatedSO101.joint_names[5:]),),
)


def wiring_of(robot: RobotConfig) -> Wiring:
    """The part of a robot description that this arm serves; RobotConfigError for what it does not have."""
    for source in robot.video.values():
        if source.key not in CAMERAS:
            raise RobotConfigError(
                f"robot.video.keys: found {source.key!r}, the simulated SO-101 has {' and '.join(CAMERAS)}"
            )
    states = [source for source in robot.state.values() if source.topic != TASK_TOPIC]
    for key, joints in [(s.key, s.joints) for s in states] + [
        (g.key, g.joints) for g in robot.action.values()
    ]:
        for joint in joints:
            if joint not in SimulatedSO101.joint_names:
                names = ", ".join(SimulatedSO101.joint_names)
                raise RobotConfigError(f"group {key}: joint {joint!r} does not exist, the SO-101 has {names}")
    for group in robot.action.values():
        if group.interface not in (JOINT_TRAJECTORY, FLOAT64_MULTI_ARRAY):
            raise RobotConfigError(
                f"robot.action.{group.key}.interface: found {group.interface!r}, but the simulated SO-101's "
                f"controllers take {JOINT_TRAJECTORY} and {FLOAT64_MULTI_ARRAY}"
            )
    commands = {kind: tuple((g.topic, g.joints) for g in robot.action.values() if g.interface == kind)
                for kind in (JOINT_TRAJECTORY, FLOAT64_MULTI_ARRAY)}  # fmt: skip
    return Wiring(
        videos=tuple(robot.video.values()),
        joint_states=tuple(dict.fromkeys(source.topic for source in states)),
        trajectories=commands[JOINT_TRAJECTORY],
        positions=commands[FLOAT64_MULTI_ARRAY],
    )


class SO101Sim(Node):
    """Owns the simulation, its controllers, and the thread that renders."""

    def __init__(self) -> None:
        super().__init__(
            "so101_sim",
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self.parameters = Parameters(self, SPECS)
        description = self.parameters.robot()
        robot = RobotConfig.from_flat(description) if description else None
        self.wiring = DEFAULT_WIRING if robot is None else wiring_of(robot)
        looks: dict[str, Any] = {
            "cameras": tuple(video.key for video in self.wiring.videos),
            "width": self.parameters["width"],
            "height": self.parameters["height"],
            "shadows": self.parameters["shadows"],
        }
        self.task: TaskTopics | None = None
        if self.parameters["task"] == REACH:
            text = "/gr00t/instruction" if robot is None else robot.instruction.topic
            seed, kinds = self.parameters["seed"], self.parameters["kinds"]
            self.task = TaskTopics(self, ReachingTask(**looks), seed, kinds, text)
            self.sim = self.task.task.arm
        else:
            self.sim = SimulatedSO101(seed=self.parameters["seed"], **looks)
        self._own_clock = bool(self.parameters["publish_clock"])
        # With wait_for_commands: the topics of the controllers that time stands still for.
        self._awaited: set[str] = set()
        # The physics advances in steps of 2 ms, so the joint state period is a whole number of them.
        self.period = max(1, round(1.0 / self.parameters["joint_state_rate"] / TIMESTEP)) * TIMESTEP
        self._frame_every = max(1, round(1.0 / self.parameters["camera_rate"] / self.period))
        self.camera_rate = 1.0 / self.period / self._frame_every
        self._ticks = 0
        self._now_ns = 0
        self._refusals = CauseLog(self.get_logger().warning)
        self._make_controllers()
        self._joint_states = [self.create_publisher(JointState, t, 10) for t in self.wiring.joint_states]
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10) if self._own_clock else None
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.pictures = PictureThread(self, lossless=self._own_clock)

    def _make_controllers(self) -> None:
        positions = dict(zip(self.sim.joint_names, self.sim.joint_positions(), strict=True))
        self._controllers: list[TrajectoryController | PositionController] = []
        prefix = self.parameters["command_prefix"]
        for topic, joints in self.wiring.trajectories:
            topic = prefix + topic
            follower = TrajectoryController(joints, np.array([positions[joint] for joint in joints]))
            self._controllers.append(follower)
            # Depth 1: only the newest command matters, an older one must not be executed late.
            self.create_subscription(
                JointTrajectory, topic, self._taker(topic, follower, _take_trajectory), 1
            )
        for topic, joints in self.wiring.positions:
            topic = prefix + topic
            holder = PositionController(joints, np.array([positions[joint] for joint in joints]))
            self._controllers.append(holder)
            self.create_subscription(Float64MultiArray, topic, self._taker(topic, holder, _take_positions), 1)

        self._command_topics = tuple(
            prefix + topic for topic, _ in (*self.wiring.trajectories, *self.wiring.positions)
        )

    def _taker(self, topic: str, controller: Any, take: Any) -> Any:
        """A subscription callback that tells each kind of refused command once."""

        def callback(message: Any) -> None:
            self._awaited.discard(topic)
            try:
                take(controller, message, self.now_ns())
                self._refusals.remove(topic)
            except MessageError as error:
                self._refusals.add(topic + without_numbers(str(error)), f"{topic}: refused a {error}")

        return callback

    def now_ns(self) -> int:
        """The time of the present tick, which stamps are in: simulated time with ``publish_clock``, else ROS
        time.
        """
        return self._now_ns

    def tick(self, now: int) -> None:
        """One period: commands to the servos, physics, joint states, and every so often a picture. ``now``:
        ns.
        """
        self._ticks += 1
        self._now_ns = now
        for controller in self._controllers:
            self.sim.set_targets(dict(zip(controller.joints, controller.sample(now), strict=True)))
        if self.task is None:
            self.sim.step(self.period)
        else:
            self.task.step(self.period)
        stamp = Time(sec=now // _NS, nanosec=now % _NS)
        self._publish_clock()
        message = JointState(
            name=list(self.sim.joint_names),
            position=self.sim.joint_positions().tolist(),
            velocity=self.sim.joint_velocities().tolist(),
        )
        message.header.stamp = stamp
        for publisher in self._joint_states:
            publisher.publish(message)
        if self._ticks % self._frame_every == 0:
            if self.task is not None:
                self.task.say()
            self.pictures.post(stamp, self.sim.snapshot())
            if self.parameters["wait_for_commands"]:
                # Whoever hears the state of the task, which is what is answered, can rely on its picture.
                self.pictures.wait()
                self._awaited = set(self._command_topics)
            if self.task is not None:
                self.task.tell(stamp)

    def _remind(self) -> None:
        """Tells what time it is, and what is asked, to whoever has started while time stands still."""
        self._publish_clock()
        if self.task is not None:
            self.task.tell(Time(sec=self._now_ns // _NS, nanosec=self._now_ns % _NS))

    def _publish_clock(self) -> None:
        if self._clock_publisher is not None:
            now = Time(sec=self._now_ns // _NS, nanosec=self._now_ns % _NS)
            self._clock_publisher.publish(Clock(clock=now))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = "arm and objects are back at their start"
        if self.task is None:
            self.sim.reset()
        else:
            response.message = self.task.begin()
        self._awaited.clear()
        start = dict(zip(self.sim.joint_names, self.sim.joint_positions(), strict=True))
        for controller in self._controllers:
            controller.reset(np.array([start[joint] for joint in controller.joints]))
        response.success = True
        return response

    def run(self, stop: threading.Event) -> None:
        """Ticks at the set rate until ``stop`` is set, spinning the subscriptions in between.

        Ticks are exactly a period apart in ROS time, however late the loop runs: a servo that wakes up late
        finds the command of its own moment. Only when it is too late, or the clock is set, does time jump.
        """
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        pace = self.parameters["real_time_factor"] if self._own_clock else 1.0
        period_ns = round(self.period * _NS)
        wait_ns = round(period_ns / pace)
        due = told = self._wall_ns()
        while not stop.is_set():
            late = self._wall_ns() - due
            if abs(late) > _MAX_LAG_NS:
                if late > 0:
                    self.get_logger().warning(
                        f"the simulation is {late / _NS:.2f} s behind and goes on from here; "
                        "a slower camera_rate or smaller pictures help",
                        throttle_duration_sec=10.0,
                    )
                due, late = due + late, 0
            if self._awaited:
                executor.spin_once(timeout_sec=0.05)
                self.pictures.check()
                if self._wall_ns() - told > _REMIND_NS:
                    told = self._wall_ns()
                    self._remind()
                due = max(due, self._wall_ns() - _MAX_LAG_NS // 2)
                continue
            told = self._wall_ns()
            if late >= 0:
                self.tick(self._now_ns + period_ns if self._own_clock else due)
                due += wait_ns
            executor.spin_once(timeout_sec=max(0, due - self._wall_ns()) / _NS)
            self.pictures.check()
        executor.shutdown(1.0)

    def _wall_ns(self) -> int:
        """What the pace is kept by."""
        return time.monotonic_ns() if self._own_clock else int(self.get_clock().now().nanoseconds)


def _take_trajectory(controller: TrajectoryController, message: JointTrajectory, now_ns: int) -> None:
    stamp = message.header.stamp
    controller.accept(
        list(message.joint_names),
        [p.time_from_start.sec * _NS + p.time_from_start.nanosec for p in message.points],
        [p.positions for p in message.points],
        [p.velocities for p in message.points],
        stamp_ns=stamp.sec * _NS + stamp.nanosec,
        now_ns=now_ns,
    )


def _take_positions(controller: PositionController, message: Float64MultiArray, now_ns: int) -> None:
    controller.accept(message.data)


def _body(arguments: list[str], stop: threading.Event) -> int:
    refuse_arguments(arguments)
    node = SO101Sim()
    cameras = ", ".join(f"{video.key} on {video.topic}" for video in node.wiring.videos)
    node.get_logger().info(
        f"ready: {cameras}; {node.sim.width}x{node.sim.height} at {node.camera_rate:g} Hz, "
        f"joint states at {1 / node.period:g} Hz"
    )
    try:
        node.run(stop)
    finally:
        node.pictures.close()
        node.sim.close()
        node.destroy_node()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``so101_sim``."""
    return run_plain(_body, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
