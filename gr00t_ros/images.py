# SPDX-License-Identifier: Apache-2.0
"""Image messages to pixels: the only place where camera encodings, row padding and byte order are understood.

``check_image`` looks at the header alone and runs in the subscription callback; ``decode_image`` does the
work and runs on the policy's worker thread, once for the frame that is used. Both take ``sensor_msgs``
messages from rclpy, from a bag reader, or anything with the same fields, and raise MessageError for what they
refuse.
"""

from __future__ import annotations

import importlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import MessageError

Pixels = NDArray[np.uint8]

# encoding -> (channels as stored, OpenCV conversion to RGB or None). Two-channel entries are 4:2:2. A Bayer
# pattern is named by ROS after its first two rows; OpenCV's old names, which every version knows, start at
# the second row and column: bayer_rggb8 is BayerBG.
_EIGHT_BIT: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
}
# Colours of 16 bit: scaled to 8 bit over their full range, then as the 8-bit encoding named here. Here, and
# only here, the message's byte order matters.
_SIXTEEN_BIT = {"rgb16": "rgb8", "bgr16": "bgr8", "mono16": "mono8", "rgba16": "rgba8", "bgra16": "bgra8"}

ENCODINGS = (*_EIGHT_BIT, *_SIXTEEN_BIT)

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# USB cameras round the size of a JPEG up and leave what was in the buffer behind its end marker.
_JPEG_PADDING = 4096


def check_image(msg: Any, source: str = "image") -> None:
    """Refuse an Image or CompressedImage whose header does not fit its data, without decoding it.

    ``source`` names the camera in the message of the MessageError that is raised.
    """
    if is_compressed(msg):
        _check_compressed(msg, source)
    else:
        _check_raw(msg, source)


def decode_image(msg: Any, source: str = "image") -> Pixels:
    """RGB pixels, uint8 [H, W, 3], of an Image or CompressedImage.

    An rgb8 image without row padding is returned as a view of the message's memory: do not write to it.
    Encodings outside ``ENCODINGS`` go through cv_bridge where the robot has the real one. Raises
    MessageError.
    """
    check_image(msg, source)
    return _decode_compressed(msg, source) if is_compressed(msg) else _decode_raw(msg, source)


def is_compressed(msg: Any) -> bool:
    """Whether the message is a CompressedImage: it has a format where an Image has an encoding."""
    return not hasattr(msg, "encoding")


def _check_raw(msg: Any, source: str) -> None:
    height, width, step, encoding = int(msg.height), int(msg.width), int(msg.step), str(msg.encoding)
    if height <= 0 or width <= 0:
        raise MessageError(
            f"{source}: found an image of {width}x{height} pixels, expected at least one pixel"
        )
    size = len(msg.data)
    if size < height * step or step <= 0:
        raise MessageError(
            f"{source}: found {size} bytes, expected {height * step} ({height} rows of step {step}) as the "
            "header says"
        )
    base = _SIXTEEN_BIT.get(encoding, encoding)
    if base not in _EIGHT_BIT:
        if _cv_bridge() is None:
            raise MessageError(
                f"{source}: found encoding {encoding!r}, expected one of {', '.join(ENCODINGS)} (cv_bridge, "
                "which would know more, is not installed)"
            )
        return
    channels = _EIGHT_BIT[base][0]
    row = width * channels * (1 if base == encoding else 2)
    if step < row:
        raise MessageError(
            f"{source}: found step {step}, expected at least {row} bytes for {width} pixels of {encoding}"
        )
    if channels == 2 and width % 2:
        raise MessageError(f"{source}: found width {width}, expected an even one for {encoding}")
    if base.startswith("bayer") and (width < 2 or height < 2):
        raise MessageError(f"{source}: found {width}x{height} pixels, expected at least 2x2 for {encoding}")


def _decode_raw(msg: Any, source: str) -> Pixels:
    height, width, step, encoding = int(msg.height), int(msg.width), int(msg.step), str(msg.encoding)
    base = _SIXTEEN_BIT.get(encoding, encoding)
    if base not in _EIGHT_BIT:
        return _decode_with_cv_bridge(msg, source)
    channels, conversion = _EIGHT_BIT[base]
    rows: NDArray[Any] = np.frombuffer(msg.data, np.uint8, count=height * step).reshape(height, step)
    if base != encoding:
        wide = rows[:, : width * channels * 2].copy().view(">u2" if msg.is_bigendian else "<u2")
        rows = _to_eight_bit(wide)
    pixels = rows[:, : width * channels]
    if channels > 1:
        pixels = pixels.reshape(height, width, channels)  # copies where rows are padded
    if conversion is None:
        return pixels
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), np.uint8)


def _to_eight_bit(values: NDArray[Any]) -> Pixels:
    """0..65535 to 0..255, to the nearest: 257 steps of the one are a step of the other."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _check_compressed(msg: Any, source: str) -> None:
    data = memoryview(msg.data)
    kind = str(msg.format)
    if "compressedDepth" in kind:
        raise MessageError(f"{source}: found a depth image ({kind}), expected a colour image as JPEG or PNG")
    if len(data) == 0:
        raise MessageError(f"{source}: found a compressed image without data, expected JPEG or PNG")
    head = bytes(data[:8])
    if head.startswith(_JPEG_START):
        tail = bytes(data[-_JPEG_PADDING:]) if len(data) > _JPEG_PADDING else bytes(data[2:])
        complete = _JPEG_END in tail
    elif head == _PNG_START:
        complete = bytes(data[-len(_PNG_END) :]) == _PNG_END
    else:
        raise MessageError(
            f"{source}: found format {kind!r} starting with {head.hex(' ')}, expected JPEG or PNG"
        )
    if not complete:
        raise MessageError(
            f"{source}: found a compressed image that breaks off after {len(data)} bytes, expected its end "
            "marker"
        )


def _decode_compressed(msg: Any, source: str) -> Pixels:
    data = np.frombuffer(msg.data, np.uint8)
    try:
        # Orientation tags are ignored: a camera's pixels are used as they come, raw or compressed alike.
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise MessageError(f"{source}: the compressed image cannot be decoded ({error.err})") from error
    if pixels is None:
        raise MessageError(
            f"{source}: the compressed image of {len(data)} bytes is damaged and cannot be decoded"
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _cv_bridge() -> Any | None:
    """The CvBridge class where ROS's own is installed. The pure Python copy on PyPI lacks its compiled half,
    ignores row padding and byte order, and is not used."""
    try:
        importlib.import_module("cv_bridge.boost.cv_bridge_boost")
        return importlib.import_module("cv_bridge").CvBridge
    except (ImportError, AttributeError):
        return None


def _decode_with_cv_bridge(msg: Any, source: str) -> Pixels:
    bridge = _cv_bridge()
    if bridge is None:
        raise MessageError(
            f"{source}: found encoding {msg.encoding!r}, expected one of {', '.join(ENCODINGS)}"
        )
    try:
        pixels = np.asarray(bridge().imgmsg_to_cv2(msg, desired_encoding="rgb8"))
    except Exception as error:  # CvBridgeError and whatever OpenCV raises inside it
        raise MessageError(f"{source}: cv_bridge cannot turn {msg.encoding!r} into rgb8 ({error})") from error
    if pixels.dtype != np.uint8 or pixels.shape != (int(msg.height), int(msg.width), 3):
        raise MessageError(
            f"{source}: cv_bridge made {pixels.dtype} {pixels.shape} of {msg.encoding!r}, expected an RGB "
            "picture"
        )
    return pixels
