# SPDX-License-Identifier: Apache-2.0
"""Messages from a bag reader and from rclpy give the same observation as plain Python ones: one code for
all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from gr00t_ros.observation import Observation, ObservationBuilder
from support_messages import compressed_image, joint_state, modality, rgb_image
from support_robots import small_config

NOW = 1_700_000_000_123_456_789
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
POSITIONS = {"gripper": 0.2, "elbow": 0.7, "shoulder": -0.3}
FRONT, WRIST, JOINTS = "/camera/front/image_raw", "/camera/wrist/image_raw/compressed", "/joint_states"


def plain() -> dict[str, Any]:
    return {
        FRONT: rgb_image(PIXELS, NOW),
        WRIST: compressed_image(PIXELS[::-1], "png", NOW),
        JOINTS: joint_state(POSITIONS, NOW),
    }


def assemble(messages: dict[str, Any]) -> Observation:
    builder = ObservationBuilder(small_config(), modality(["front", "wrist"], ["arm", "gripper"], []))
    for topic, msg in messages.items():
        builder.add(topic, msg, NOW)
    return builder.assemble(NOW, "pick")


def assert_as_plain(observation: Observation) -> None:
    expected = assemble(plain())
    assert observation.t_obs_ns == expected.t_obs_ns == NOW
    for kind in ("video", "state"):
        for key, values in expected.data[kind].items():
            np.testing.assert_array_equal(observation.data[kind][key], values)


def test_messages_from_a_bag() -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    front, wrist, joints = plain().values()
    stamp = types["builtin_interfaces/msg/Time"](sec=NOW // 10**9, nanosec=NOW % 10**9)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
    messages = {
        FRONT: types["sensor_msgs/msg/Image"](
            header=header,
            height=front.height,
            width=front.width,
            encoding=front.encoding,
            is_bigendian=0,
            step=front.step,
            data=np.frombuffer(front.data, np.uint8),
        ),
        WRIST: types["sensor_msgs/msg/CompressedImage"](
            header=header, format=wrist.format, data=np.frombuffer(wrist.data, np.uint8)
        ),
        JOINTS: types["sensor_msgs/msg/JointState"](
            header=header,
            name=joints.name,
            position=np.array(joints.position),
            velocity=np.array([]),
            effort=np.array([]),
        ),
    }
    # Through bytes and back: what a bag reader hands over.
    read = {
        topic: store.deserialize_cdr(store.serialize_cdr(msg, msg.__msgtype__), msg.__msgtype__)
        for topic, msg in messages.items()
    }
    assert_as_plain(assemble(read))


@pytest.mark.ros
def test_messages_from_rclpy() -> None:
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CompressedImage, Image, JointState

    front, wrist, joints = plain().values()
    image = Image(
        height=front.height, width=front.width, encoding=front.encoding, step=front.step, data=front.data
    )
    compressed = CompressedImage(format=wrist.format, data=wrist.data)
    state = JointState(name=joints.name, position=joints.position)
    read = {}
    for topic, msg in ((FRONT, image), (WRIST, compressed), (JOINTS, state)):
        msg.header.stamp.sec, msg.header.stamp.nanosec = NOW // 10**9, NOW % 10**9
        read[topic] = deserialize_message(serialize_message(msg), type(msg))
    assert_as_plain(assemble(read))
