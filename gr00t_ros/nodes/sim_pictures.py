# SPDX-License-Identifier: Apache-2.0
"""The pictures of the simulated SO-101's cameras as messages, rendered on a thread of their own."""

from __future__ import annotations

import array
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.robot_types import COMPRESSED_IMAGE, VideoSource

if TYPE_CHECKING:
    from gr00t_ros.nodes.so101_sim import SO101Sim

_JPEG_QUALITY = 90


class PictureThread:
    """Renders and publishes all cameras on its own thread, so that joint states never wait for a picture.

    With ``lossless`` the physics waits until the picture before is out (simulated time: every picture is
    made); otherwise a picture that comes too soon replaces the one that waits.
    """

    def __init__(self, node: SO101Sim, *, lossless: bool) -> None:
        self._node = node
        self._lossless = lossless
        self._waiting: queue.Queue[tuple[Time, NDArray[np.float64]] | None] = queue.Queue(maxsize=1)
        self._error: Exception | None = None
        self._ready = threading.Event()
        self._out = threading.Event()  # every picture that was posted is published
        self._publishers = [
            (
                video,
                node.create_publisher(
                    CompressedImage if video.type == COMPRESSED_IMAGE else Image,
                    video.topic,
                    qos_profile_sensor_data,
                ),
            )
            for video in node.wiring.videos
        ]
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()
        self._ready.wait()
        self.check()

    def check(self) -> None:
        """Raises what ended the thread."""
        if self._error is not None:
            raise self._error

    def post(self, stamp: Time, positions: NDArray[np.float64]) -> None:
        """Hands over one picture's scene; positions is the model's qpos and is not changed afterwards."""
        self._out.clear()
        while self._error is None:
            try:
                self._waiting.put((stamp, positions), timeout=0.1 if self._lossless else 0.0001)
                return
            except queue.Full:
                if not self._lossless:
                    _discard(self._waiting)

    def wait(self) -> None:
        """Returns when what was posted last is published. For whoever posts, with ``lossless``."""
        while self._error is None and not self._out.wait(0.1):
            pass

    def _run(self) -> None:
        try:
            renderer = self._node.sim.renderer()
            self._ready.set()
            names = [video.key for video, _ in self._publishers]
            while (item := self._waiting.get()) is not None:
                stamp, positions = item
                pictures = renderer.render(positions, names)
                for (video, publisher), picture in zip(self._publishers, pictures, strict=True):
                    publisher.publish(image_message(video, picture, stamp))
                self._out.set()
            renderer.close()
        except Exception as error:  # check() raises it on the main thread
            self._error = error
        finally:
            self._ready.set()

    def close(self) -> None:
        """Ends the thread; what waits is not rendered any more."""
        while self._thread.is_alive():
            _discard(self._waiting)
            try:
                self._waiting.put(None, timeout=0.1)
            except queue.Full:
                continue
            self._thread.join()


def _discard(waiting: queue.Queue[Any]) -> None:
    with contextlib.suppress(queue.Empty):
        waiting.get_nowait()


def image_message(video: VideoSource, picture: NDArray[np.uint8], stamp: Time) -> Image | CompressedImage:
    """picture [H, W, 3] RGB as the message type that the robot description gives the camera."""
    frame = f"{video.key}_camera"
    if video.type == COMPRESSED_IMAGE:
        done, jpeg = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise Gr00tRosError(f"{video.topic}: the picture cannot be encoded as JPEG")
        compressed = CompressedImage(format="jpeg", data=array.array("B", jpeg.tobytes()))
        compressed.header.stamp, compressed.header.frame_id = stamp, frame
        return compressed
    height, width, _ = picture.shape
    # rclpy takes an array.array as it is; from bytes or lists it would check every value.
    message = Image(
        height=height, width=width, encoding="rgb8", step=3 * width, data=array.array("B", picture.tobytes())
    )
    message.header.stamp, message.header.frame_id = stamp, frame
    return message
