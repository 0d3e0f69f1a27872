# SPDX-License-Identifier: Apache-2.0
"""Shows the simulated SO-101 a task, again and again, while ``episode_recorder`` records each time.

The paths are those of ``gr00t_ros.sim.demonstrations``. Commands go to the controllers that the robot
description names, at its step rate, as an executor would send them: so what is recorded is what a policy
would have had to command. The way to an episode's start is not recorded. Meant for the simulator only: it
obeys no limits but its own.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.nodes.conversions import COMMAND_TYPES, command_msg
from gr00t_ros.nodes.parameters import Parameters, ParameterSpec
from gr00t_ros.nodes.plain import refuse_arguments, run_plain
from gr00t_ros.nodes.so101_sim import wiring_of
from gr00t_ros.robot import RobotConfig
from gr00t_ros.sim.demonstrations import INSTRUCTION, PARKED, path, pose, random_start
from gr00t_ros.sim.scene import JOINTS
from gr00t_ros.srv import StartEpisode

RECORDER = "/gr00t/episode_recorder"
# Steps of the path in each trajectory: what an executor's default lookahead of 0.2 s is at 20 Hz.
_AHEAD = 4
# At rest before an episode and after it, s: servos settle in less, and the end of the task is shown as well.
_SETTLE_S = 0.4
# For the simulator and the recorder to appear, and for the recorder to close a bag.
_PATIENCE_S = 30.0

SPECS = (
    ParameterSpec("episodes", 20, "episodes to record", "", 1, 100_000, read_only=True),
    ParameterSpec("seed", 0, "where the episodes begin", "", 0, 2**31 - 1, read_only=True),
    ParameterSpec("instruction", INSTRUCTION, "what the task is called", read_only=True),
)

DESCRIPTION = f"""so101_teacher: demonstrates a task on the simulated SO-101 and has every episode recorded.

usage: so101_teacher --ros-args --params-file ROBOT_YAML [-p name:=value ...]

parameters:
{chr(10).join(f"  {spec.name} (default {spec.default}): {spec.description}" for spec in SPECS)}"""


class SO101Teacher(Node):
    """Commands the arm along one path after the other."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(
            "so101_teacher",
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self.parameters = Parameters(self, SPECS)
        robot = RobotConfig.from_flat(self.parameters.robot())
        self._step = 1.0 / robot.step_rate
        self._stop = stop
        self._measured: dict[str, float] = {}
        wiring_of(robot)  # refuses what is not the simulated arm's
        self._outputs = [
            (
                self.create_publisher(COMMAND_TYPES[group.interface], group.topic, 1),
                group,
                [JOINTS.index(joint) for joint in group.joints],
            )
            for group in robot.action.values()
        ]
        self.create_subscription(JointState, robot.executor_joint_state_topic, self._on_joints, 1)
        self._start = self.create_client(StartEpisode, f"{RECORDER}/start")
        self._end = self.create_client(Trigger, f"{RECORDER}/stop")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def _on_joints(self, message: JointState) -> None:
        self._measured = dict(zip(message.name, message.position, strict=True))

    def run(self) -> int:
        """All episodes; 0 when every one was recorded, 1 when it was stopped before."""
        rng = np.random.default_rng(self.parameters["seed"])
        episodes, instruction = self.parameters["episodes"], self.parameters["instruction"]
        self._until(self._ready, "the simulator (joint states, its controllers) and the episode recorder")
        place = np.array([self._measured[joint] for joint in JOINTS])
        for number in range(episodes):
            start = random_start(rng)
            self._follow(place, start)
            self._call(self._start, StartEpisode.Request(instruction=instruction))
            place = self._follow(start, pose(PARKED))
            self._call(self._end, Trigger.Request())
            if self._stop.is_set():
                return 1
            self.get_logger().info(f"episode {number + 1} of {episodes} recorded")
        return 0

    def _ready(self) -> bool:
        found = all(publisher.get_subscription_count() for publisher, *_ in self._outputs)
        services = self._start.service_is_ready() and self._end.service_is_ready()
        return found and services and set(JOINTS) <= set(self._measured)

    def _follow(self, start: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
        """From ``start`` to ``goal`` [6] and a moment of rest; returns where the command ended."""
        places, speeds = path(start, goal, self._step)
        rest = round(_SETTLE_S / self._step)
        places = np.concatenate([places, np.repeat(places[-1:], rest + _AHEAD, axis=0)])
        speeds = np.concatenate([speeds, np.zeros((rest + _AHEAD, len(JOINTS)))])
        begin = time.monotonic()
        for row in range(len(places) - _AHEAD):
            if self._stop.is_set():
                break
            self._command(places[row + 1 : row + 1 + _AHEAD], speeds[row + 1 : row + 1 + _AHEAD])
            self._spin_until(begin + (row + 1) * self._step)
        return places[-1]

    def _command(self, places: NDArray[np.float64], speeds: NDArray[np.float64]) -> None:
        """The next steps [P, 6] as each group's interface wants them; a trajectory ends at rest."""
        now = self.get_clock().now().nanoseconds
        speeds = speeds.copy()
        speeds[-1] = 0.0
        times = np.arange(1, len(places) + 1, dtype=np.float64) * self._step
        for publisher, group, columns in self._outputs:
            command = GroupCommand(group, places[:, columns], speeds[:, columns], times)
            publisher.publish(command_msg(command, now))

    def _call(self, client: Any, request: Any) -> None:
        """Asks the recorder; Gr00tRosError with its words when it refuses."""
        if self._stop.is_set():
            return
        future = client.call_async(request)
        self._until(future.done, f"an answer of {client.srv_name}")
        if future.done() and not future.result().success:
            raise Gr00tRosError(f"{client.srv_name}: {future.result().message}")

    def _until(self, condition: Any, what: str) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not condition() and not self._stop.is_set():
            if time.monotonic() > end:
                raise Gr00tRosError(f"waited {_PATIENCE_S:g} s for {what}; is it running?")
            self._executor.spin_once(timeout_sec=0.05)

    def _spin_until(self, due: float) -> None:
        """Callbacks until ``due``, monotonic s."""
        while (left := due - time.monotonic()) > 0 and not self._stop.is_set():
            self._executor.spin_once(timeout_sec=left)


def _body(arguments: list[str], stop: threading.Event) -> int:
    refuse_arguments(arguments)
    node = SO101Teacher(stop)
    try:
        return node.run()
    finally:
        node.destroy_node()


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``so101_teacher``."""
    return run_plain(_body, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
