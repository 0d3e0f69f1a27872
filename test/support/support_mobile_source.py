# SPDX-License-Identifier: Apache-2.0
"""Chunks for the mobile manipulator, five a second, as a process of its own that a test can kill.

The arm and the base are asked to change speed all the time, further than their limits allow; the tool goes
round in a circle, turning, in a plan that every chunk agrees on.
"""

from __future__ import annotations

import time

import numpy as np
import rclpy
from rclpy.qos import QoSProfile

from gr00t_ros.chunk import Chunk, chunk_group
from gr00t_ros.msg import ActionChunk
from gr00t_ros.nodes.conversions import chunk_msg
from gr00t_ros.rotations import rotvec_to_quaternion
from support_mobile import HOME, STEP_NS, mobile_config

STEPS = 30


def plan(times_s: np.ndarray) -> dict[str, np.ndarray]:
    """What is wanted at these times (ROS time, s), by group."""
    phase = times_s * 1.2
    zero = np.zeros_like(phase)
    tool = HOME[:3] + 0.05 * np.stack([np.cos(phase) - 1.0, np.sin(phase), zero], axis=1)
    return {
        "arm": np.stack([1.5 * np.sin(2.0 * phase), 4.0 * np.cos(phase)], axis=1),
        "base": np.stack([0.7 * np.sin(phase), 2.0 * np.cos(phase)], axis=1),
        "tool": np.concatenate(
            [tool, rotvec_to_quaternion(np.stack([zero, zero, 0.4 * np.sin(phase)], axis=1))], axis=1
        ),
    }


def main() -> None:
    """Publishes until it is killed."""
    robot = mobile_config()
    rclpy.init()
    node = rclpy.create_node("chunk_source")
    chunks = node.create_publisher(ActionChunk, "/gr00t/action_chunk", QoSProfile(depth=1))
    session, sequence = time.time_ns(), 0
    while True:
        now = time.time_ns()
        wanted = plan((now + np.arange(STEPS) * STEP_NS) / 1e9)
        groups = tuple(chunk_group(group, wanted[key]) for key, group in robot.action.items())
        chunks.publish(chunk_msg(Chunk(session, sequence, "circle", now, now, STEP_NS, groups)))
        sequence += 1
        time.sleep(0.2)


if __name__ == "__main__":
    main()
