# SPDX-License-Identifier: Apache-2.0
"""ROS messages as plain Python, with the fields of sensor_msgs and its like, for tests without ROS.

The core reads messages by attribute, from rclpy and from bag readers alike; these are a third kind.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np


def header(stamp_ns: int, frame_id: str = "") -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
    return SimpleNamespace(stamp=stamp, frame_id=frame_id)


def raw_image(
    rows: np.ndarray,
    encoding: str,
    *,
    width: int,
    stamp_ns: int = 1,
    step: int | None = None,
    is_bigendian: int = 0,
) -> SimpleNamespace:
    """A sensor_msgs/Image from its rows of bytes, uint8 [H, bytes]; ``step`` pads them with 0xAA."""
    height, used = rows.shape
    step = used if step is None else step
    data = np.full((height, step), 0xAA, np.uint8)
    data[:, :used] = rows
    return SimpleNamespace(
        header=header(stamp_ns),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=step,
        data=data.tobytes(),
    )


def rgb_image(pixels: np.ndarray, stamp_ns: int = 1) -> SimpleNamespace:
    """A sensor_msgs/Image of encoding rgb8 from uint8 [H, W, 3]."""
    height, width, _ = pixels.shape
    return raw_image(pixels.reshape(height, width * 3), "rgb8", width=width, stamp_ns=stamp_ns)


def grey_image(value: int, stamp_ns: int, size: tuple[int, int] = (4, 6)) -> SimpleNamespace:
    """A small rgb8 image of one colour, by which a test recognises the frame."""
    return rgb_image(np.full((*size, 3), value, np.uint8), stamp_ns)


def compressed_image(pixels: np.ndarray, kind: str = "png", stamp_ns: int = 1) -> SimpleNamespace:
    """A sensor_msgs/CompressedImage of RGB pixels, kind png or jpg."""
    data = cv2.imencode(f".{kind}", pixels[..., ::-1])[1].tobytes()
    name = "jpeg" if kind == "jpg" else kind
    return SimpleNamespace(header=header(stamp_ns), format=f"rgb8; {name} compressed bgr8", data=data)


def joint_state(positions: dict[str, float], stamp_ns: int = 1, **fields: Any) -> SimpleNamespace:
    """A sensor_msgs/JointState with these joints; ``velocity``, ``effort``... as given."""
    message = SimpleNamespace(
        header=header(stamp_ns),
        name=list(positions),
        position=list(positions.values()),
        velocity=[],
        effort=[],
    )
    message.__dict__.update(fields)
    return message


def array(values: list[float]) -> SimpleNamespace:
    """A std_msgs/Float64MultiArray."""
    return SimpleNamespace(layout=None, data=list(values))


def pose(
    xyz: list[float], quaternion: list[float], stamp_ns: int = 1, frame_id: str = "base"
) -> SimpleNamespace:
    """A geometry_msgs/PoseStamped, quaternion as x, y, z, w."""
    position = SimpleNamespace(**dict(zip("xyz", xyz, strict=True)))
    orientation = SimpleNamespace(**dict(zip("xyzw", quaternion, strict=True)))
    return SimpleNamespace(
        header=header(stamp_ns, frame_id), pose=SimpleNamespace(position=position, orientation=orientation)
    )


def modality(
    video: list[str],
    state: list[str],
    action: list[str],
    *,
    video_deltas: list[int] | None = None,
    state_deltas: list[int] | None = None,
    horizon: int = 16,
) -> dict[str, SimpleNamespace]:
    """A checkpoint's modality configuration, as far as the robot side reads it."""
    return {
        "video": SimpleNamespace(modality_keys=video, delta_indices=video_deltas or [0]),
        "state": SimpleNamespace(modality_keys=state, delta_indices=state_deltas or [0]),
        "action": SimpleNamespace(modality_keys=action, delta_indices=list(range(horizon))),
        "language": SimpleNamespace(modality_keys=["annotation.human.task_description"], delta_indices=[0]),
    }
