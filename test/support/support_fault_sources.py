# SPDX-License-Identifier: Apache-2.0
"""The cameras and the joint states of an SO-101, each as a process that can be killed or frozen.

``python -m support_fault_sources cameras`` publishes both cameras, another picture in every frame; the topic
``/test/cameras`` (String) makes it repeat the last message (``same stamp``) or the last picture under new
stamps (``same pixels``) until it is told ``well``. ``python -m support_fault_sources joints P0 ... P5``
begins at these positions, follows the commands and publishes where it is."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from support_fault_recording import ARM, GRIPPER, Reference, stamp_ns
from support_topics import ARM_COMMANDS, FRONT, GRIPPER_COMMANDS, HEIGHT, JOINTS, WIDTH, WRIST

MODES = "/test/cameras"
WELL, SAME_STAMP, SAME_PIXELS = "well", "same stamp", "same pixels"


class Cameras(Node):
    def __init__(self) -> None:
        super().__init__("cameras")
        self._mode = WELL
        self._random = np.random.default_rng(time.time_ns())
        self._newest: dict[str, Any] = {}
        self._outputs = {
            topic: self.create_publisher(Image, topic, qos_profile_sensor_data) for topic in (FRONT, WRIST)
        }
        self.create_subscription(String, MODES, self._take, 10)
        self.create_timer(0.05, self._publish)

    def _take(self, message: String) -> None:
        self._mode = message.data

    def _publish(self) -> None:
        now = self.get_clock().now().to_msg()
        for topic, publisher in self._outputs.items():
            message = self._newest.get(topic)
            if message is None or self._mode == WELL:
                message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=WIDTH * 3)
                message.data.frombytes(self._random.bytes(HEIGHT * WIDTH * 3))
                self._newest[topic] = message
            if self._mode != SAME_STAMP:
                message.header.stamp = now
            publisher.publish(message)


class Joints(Node):
    def __init__(self, positions: list[float]) -> None:
        super().__init__("joints")
        self._arm, self._gripper = Reference(positions[: len(ARM)]), positions[len(ARM)]
        self._output = self.create_publisher(JointState, JOINTS, qos_profile_sensor_data)
        self.create_subscription(JointTrajectory, ARM_COMMANDS, self._take_arm, 1)
        self.create_subscription(Float64MultiArray, GRIPPER_COMMANDS, self._take_gripper, 1)
        self.create_timer(0.01, self._publish)

    def _take_arm(self, message: JointTrajectory) -> None:
        # From its stamp on, however late it is read: a controller that lived on would be there by now.
        self._arm.take(message, stamp_ns(message))

    def _take_gripper(self, message: Float64MultiArray) -> None:
        self._gripper = message.data[0]

    def _publish(self) -> None:
        arm, _ = self._arm.at(time.time_ns())
        message = JointState(name=[*ARM, *GRIPPER], position=[*map(float, arm), float(self._gripper)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._output.publish(message)


def main() -> None:
    rclpy.init()
    kind, *positions = sys.argv[1:]
    rclpy.spin(Cameras() if kind == "cameras" else Joints([float(p) for p in positions]))


if __name__ == "__main__":
    main()
