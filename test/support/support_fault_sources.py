# SPDX-License-Identifier: Apache-2.0
"""The cameras and the joint states of an SO-101, each as a process that can be killed or frozen.

``python -m support_fault_sources cameras`` publishes both cameras, another picture in every frame; the topic
``/test/cameras`` (String) makes it repeat the last message (``same stamp``) or the last picture under new
stamps (``same pixels``) until it is told ``well``. ``python -m support_fault_sources joints FILE`` publishes
the positions in a file that ``support_fault_stand_ins.SharedPlace`` writes.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from support_fault_recording import ARM, GRIPPER
from support_topics import FRONT, HEIGHT, JOINTS, WIDTH, WRIST

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
    def __init__(self, file: str) -> None:
        super().__init__("joints")
        self._place = np.memmap(file, np.float64, "r", shape=(6,))
        self._output = self.create_publisher(JointState, JOINTS, qos_profile_sensor_data)
        self.create_timer(0.01, self._publish)

    def _publish(self) -> None:
        message = JointState(name=[*ARM, *GRIPPER], position=self._place.tolist())
        message.header.stamp = self.get_clock().now().to_msg()
        self._output.publish(message)


def main() -> None:
    rclpy.init()
    kind, *files = sys.argv[1:]
    rclpy.spin(Cameras() if kind == "cameras" else Joints(*files))


if __name__ == "__main__":
    main()
