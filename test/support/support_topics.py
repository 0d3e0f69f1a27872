# SPDX-License-Identifier: Apache-2.0
"""The topics of an SO-101, published by a test: cameras, joint states, and what a node is asked for.

``FakeRobot`` publishes what a robot does, at a steady pace, and lets a test spoil each message.
``NodeUnderTest`` is one running lifecycle node: transitions, parameters, and the log lines since a moment.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from support_processes import REPO, NodeProcess, ProcessStarter, RosGraph, claim_domain
from support_robots import shipped

ROBOT = shipped("so101")
FRONT, WRIST, JOINTS = "/camera/front/image_raw", "/camera/wrist/image_raw", "/joint_states"
ARM_COMMANDS, GRIPPER_COMMANDS = "/arm_controller/joint_trajectory", "/gripper_controller/commands"
# Any size does; a small one keeps two cores free for the node under test.
WIDTH, HEIGHT = 64, 48


def stamp(nanoseconds: int) -> Any:
    from builtin_interfaces.msg import Time

    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def nanoseconds(message: Any) -> int:
    return message.sec * 1_000_000_000 + message.nanosec


def pixels(seed: int) -> np.ndarray:
    """The picture of a camera, uint8 [HEIGHT, WIDTH, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


class FakeRobot:
    """Cameras at ``camera_rate`` and joint states at 50 Hz until ``close``.

    ``spoil_image`` and ``spoil_joints`` get each message before it is published and may change it, or return
    None to leave it out (without ``joints`` none is published until ``restore``). ``positions`` are the
    measured joints. ``now_ns`` gives the stamps; when ``clock`` is on it is published.
    """

    def __init__(
        self, graph: RosGraph, cameras: bool = True, joints: bool = True, camera_rate: float = 20.0
    ) -> None:
        from rclpy.qos import qos_profile_sensor_data
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import Image, JointState

        self.positions = {joint: 0.05 * (i + 1) for i, joint in enumerate(ROBOT.joints)}
        self.spoil_image: Callable[[str, Any], Any] = lambda topic, message: message
        self.spoil_joints: Callable[[Any], Any] = lambda message: message if joints else None
        self.now_ns: Callable[[], int] = graph.now_ns
        self.clock = False
        self.pictures = {FRONT: pixels(1), WRIST: pixels(2)}
        self._image, self._joint_state, self._clock = Image, JointState, Clock
        node = graph.node
        self._cameras = (
            {topic: node.create_publisher(Image, topic, qos_profile_sensor_data) for topic in self.pictures}
            if cameras
            else {}
        )
        self._joints = node.create_publisher(JointState, JOINTS, qos_profile_sensor_data)
        self._clocks = node.create_publisher(Clock, "/clock", qos_profile_sensor_data)
        self._every = max(1, round(50.0 / camera_rate))
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join(10.0)

    def restore(self) -> None:
        """Everything is well again."""
        self.spoil_image = lambda topic, message: message
        self.spoil_joints = lambda message: message

    def image(self, topic: str, stamp_ns: int) -> Any:
        message = self._image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=WIDTH * 3)
        message.header.stamp = stamp(stamp_ns)
        message.data.frombytes(self.pictures[topic].tobytes())
        return message

    def _run(self) -> None:
        count, due = 0, time.monotonic()
        while self._running:
            now = self.now_ns()
            if self.clock:
                self._clocks.publish(self._clock(clock=stamp(now)))
            joints = self._joint_state(
                name=list(self.positions), position=[float(x) for x in self.positions.values()]
            )
            joints.header.stamp = stamp(now)
            joints = self.spoil_joints(joints)
            if joints is not None:
                self._joints.publish(joints)
            if count % self._every == 0:
                for topic, publisher in self._cameras.items():
                    message = self.spoil_image(topic, self.image(topic, now))
                    if message is not None:
                        publisher.publish(message)
            count += 1
            due = max(due + 0.02, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def so101_node(module: str, *parameters: str) -> Iterator[tuple[NodeProcess, RosGraph]]:
    """A node of the SO-101 in a process and a ROS domain of its own, and a graph to talk with it.

    ``parameters`` are ``name:=value``; they come after the shipped files and override them.
    """
    domain, lock = claim_domain()
    starter = ProcessStarter(domain)
    try:
        with RosGraph(domain) as graph:
            arguments = ["--ros-args", "-r", "__ns:=/gr00t"]
            for file in ("config/policy.yaml", "config/robots/so101.yaml"):
                arguments += ["--params-file", str(REPO / file)]
            for parameter in parameters:
                arguments += ["-p", parameter]
            yield starter(module, *arguments), graph
    finally:
        starter.close()
        lock.close()


class NodeUnderTest:
    """A lifecycle node in a process of its own."""

    def __init__(self, process: NodeProcess, graph: RosGraph, name: str) -> None:
        from lifecycle_msgs.srv import ChangeState

        self.process, self.graph, self.name = process, graph, name
        # A transition is asked for once. By the time that the state is answered, which may be asked for
        # again, the node has discovered this client as well.
        graph.client(f"{name}/change_state", ChangeState)
        _ = self.state

    def change(self, transition: str) -> bool:
        """Asks for a transition (configure, activate, deactivate, cleanup); whether it succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.graph.call(f"{self.name}/change_state", ChangeState, request, again_s=None).success)

    @property
    def state(self) -> str:
        from lifecycle_msgs.srv import GetState

        return str(self.graph.call(f"{self.name}/get_state", GetState).current_state.label)

    def set(self, **values: Any) -> list[str]:
        """Sets parameters (``__`` stands for a dot); the reasons of those that were refused."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        request = SetParameters.Request(parameters=parameters)
        results = self.graph.call(f"{self.name}/set_parameters", SetParameters, request).results
        return [result.reason for result in results if not result.successful]

    def mark(self) -> int:
        """A moment in the log, for ``since``."""
        return len(self.process.lines)

    def since(self, mark: int, pattern: str = r"\[(WARN|ERROR|FATAL)\]") -> list[str]:
        """The log lines from a moment on that match."""
        return [line for line in self.process.lines[mark:] if re.search(pattern, line)]

    def told(self, mark: int, pattern: str = r"\[(WARN|ERROR|FATAL)\]", settle_s: float = 0.3) -> list[str]:
        """As ``since``, after at least one such line has come and time has passed for further ones."""
        self.graph.wait_until(lambda: self.since(mark, pattern), f"a log line that matches {pattern}")
        time.sleep(settle_s)
        return self.since(mark, pattern)

    @property
    def alive(self) -> bool:
        return self.process.process.poll() is None
