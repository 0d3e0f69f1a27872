# SPDX-License-Identifier: Apache-2.0
"""What every teacher of the simulated SO-101 needs: command publishers, and the recorder's services."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.nodes.conversions import COMMAND_TYPES, command_msg
from gr00t_ros.nodes.parameters import Parameters, ParameterSpec
from gr00t_ros.nodes.so101_sim import wiring_of
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import ActionGroupConfig
from gr00t_ros.sim.scene import JOINTS
from gr00t_ros.srv import StartEpisode

RECORDER = "/gr00t/episode_recorder"
# For the simulator and the recorder to appear, and for the recorder to close a bag.
PATIENCE_S = 30.0
# For a recorder that has just appeared to hear what it needs.
GRACE_S = 5.0

Values = NDArray[np.float64]
Output = tuple[Publisher, ActionGroupConfig, list[int]]


class Teacher(Node):
    """A node that commands and has recorded. Its methods spin; it is used from one thread."""

    def __init__(self, stop: threading.Event, specs: Sequence[ParameterSpec]) -> None:
        super().__init__(
            "so101_teacher",
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self.parameters = Parameters(self, tuple(specs))
        self.robot = RobotConfig.from_flat(self.parameters.robot())
        self.step = 1.0 / self.robot.step_rate
        self.stop = stop
        self.measured: dict[str, float] = {}
        wiring_of(self.robot)  # refuses what is not the simulated arm's
        self.outputs = self.make_outputs("")
        self.create_subscription(JointState, self.robot.executor_joint_state_topic, self._on_joints, 1)
        self._start = self.create_client(StartEpisode, f"{RECORDER}/start")
        self._end = self.create_client(Trigger, f"{RECORDER}/stop")
        self._discard = self.create_client(Trigger, f"{RECORDER}/discard")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def make_outputs(self, prefix: str) -> list[Output]:
        """Publishers for the command topics with ``prefix`` before their names, each with its group and the
        columns of that."""
        return [
            (
                self.create_publisher(COMMAND_TYPES[group.interface], prefix + group.topic, 1),
                group,
                [JOINTS.index(joint) for joint in group.joints],
            )
            for group in self.robot.action.values()
        ]

    def _on_joints(self, message: JointState) -> None:
        self.measured = dict(zip(message.name, message.position, strict=True))

    def ready(self) -> bool:
        """Whether somebody takes the commands, and the recorder is there."""
        found = all(publisher.get_subscription_count() for publisher, *_ in self.outputs)
        return found and all(client.service_is_ready() for client in (self._start, self._end, self._discard))

    def command(
        self, places: Values, speeds: Values, now_ns: int, outputs: Sequence[Output] | None = None
    ) -> None:
        """The next steps [P, 6] as each group's interface wants them; a trajectory ends at rest."""
        speeds = speeds.copy()
        speeds[-1] = 0.0
        times = np.arange(1, len(places) + 1, dtype=np.float64) * self.step
        for publisher, group, columns in self.outputs if outputs is None else outputs:
            command = GroupCommand(group, places[:, columns], speeds[:, columns], times)
            publisher.publish(command_msg(command, now_ns))

    def begin_episode(self, instruction: str) -> None:
        """The recorder begins. One that has just been started may refuse, since it has not heard the
        simulated time yet, so it is asked again for a while."""
        end = time.monotonic() + GRACE_S
        while True:
            try:
                self.call(self._start, StartEpisode.Request(instruction=instruction))
                return
            except Gr00tRosError:
                if time.monotonic() > end:
                    raise
            self.spin_until(time.monotonic() + 0.2)

    def end_episode(self, *, keep: bool = True) -> None:
        """The recorder ends the episode, and keeps it or throws it away."""
        self.call(self._end if keep else self._discard, Trigger.Request())

    def call(self, client: Any, request: Any) -> Any:
        """Asks and waits; Gr00tRosError with the other side's words when it refuses, None when stopped."""
        if self.stop.is_set():
            return None
        future = client.call_async(request)
        self.until(future.done, f"an answer of {client.srv_name}")
        if not future.done():
            return None
        if not future.result().success:
            raise Gr00tRosError(f"{client.srv_name}: {future.result().message}")
        return future.result()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Spins until ``condition`` holds or the node is stopped; Gr00tRosError when that takes too long."""
        end = time.monotonic() + PATIENCE_S
        while not condition() and not self.stop.is_set():
            if time.monotonic() > end:
                raise Gr00tRosError(f"waited {PATIENCE_S:g} s for {what}; is it running?")
            self._executor.spin_once(timeout_sec=0.05)

    def spin_until(self, due: float) -> None:
        """Callbacks until ``due``, monotonic s."""
        while (left := due - time.monotonic()) > 0 and not self.stop.is_set():
            self._executor.spin_once(timeout_sec=left)
