# SPDX-License-Identifier: Apache-2.0
"""A stand-in for robot_state_publisher: ``/robot_description`` and the transforms of the links.

For robots, and simulated ones, that nobody starts a robot_state_publisher for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geometry_msgs.msg import Transform, TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from gr00t_ros.nodes.conversions import time_msg
from gr00t_ros.rotations import matrix_to_quaternion
from gr00t_ros.visualization.kinematics import Kinematics

# As robot_state_publisher offers it: who comes later gets the last one.
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPIC = "/robot_description"


class RobotState:
    """Publishes ``description`` once, and transforms whenever asked. TF needs ``tf2_msgs``, which comes with
    a ROS installation; without it ``why_no_tf`` says so."""

    def __init__(self, node: Node, description: str, kinematics: Kinematics) -> None:
        self._kinematics = kinematics
        self._description = node.create_publisher(String, TOPIC, LATCHED)
        self._description.publish(String(data=description))
        self.why_no_tf = ""
        self._publisher: Any = None
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            self.why_no_tf = "no TF of the links: tf2_msgs is not installed; it comes with a ROS installation"
            return
        self._message = TFMessage
        self._publisher = node.create_publisher(TFMessage, "/tf", 100)

    def publish(self, positions: Mapping[str, float], stamp_ns: int) -> None:
        """The transforms for measured ``positions`` (rad, m), as far as they are known."""
        if self._publisher is not None:
            found = transform_messages(self._kinematics, positions, stamp_ns)
            self._publisher.publish(self._message(transforms=found))


def transform_messages(
    kinematics: Kinematics, positions: Mapping[str, float], stamp_ns: int
) -> list[TransformStamped]:
    """From each known joint's parent to its child."""
    found = []
    for child, matrix in kinematics.transforms(positions).items():
        message = TransformStamped(child_frame_id=child, transform=Transform())
        message.header.frame_id = kinematics.model.above[child].parent
        message.header.stamp = time_msg(stamp_ns)
        place, turn = message.transform.translation, message.transform.rotation
        place.x, place.y, place.z = matrix[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = matrix_to_quaternion(matrix[:3, :3]).tolist()
        found.append(message)
    return found
