# SPDX-License-Identifier: Apache-2.0
"""The cameras' pictures with what the policy intends on them, for whoever subscribes to them.

While nobody does, no picture is received. The path is drawn where the camera is known: it has a
``CameraInfo`` beside its pictures, as drivers do, and its ``frame_id`` is a link of the robot model.
"""

from __future__ import annotations

import array
import copy
from typing import Any

from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gr00t_ros.causes import CauseLog
from gr00t_ros.errors import MessageError
from gr00t_ros.images import decode_image
from gr00t_ros.nodes.polling import Polled, nothing, take
from gr00t_ros.robot_types import COMPRESSED_IMAGE, VideoSource
from gr00t_ros.visualization.overlay import overlay, project
from gr00t_ros.visualization.scene import Scene

# Messages that wait at most: the sensor profile's depth.
WAITING = 5


class CameraOverlays:
    """One publisher a camera, ``overlay/KEY``; subscriptions come and go with those who look."""

    def __init__(self, node: Node, scene: Scene, troubles: CauseLog) -> None:
        self._cameras = [_Camera(node, video, scene, troubles) for video in scene.robot.video.values()]

    def draw(self, now_ns: int, now_s: float) -> None:
        """Publishes what came in since the last time, of each camera the newest."""
        for camera in self._cameras:
            camera.draw(now_ns, now_s)


class _Camera:
    def __init__(self, node: Node, video: VideoSource, scene: Scene, troubles: CauseLog) -> None:
        self._node, self._video, self._scene, self._troubles = node, video, scene, troubles
        self._publisher = node.create_publisher(Image, f"overlay/{video.key}", 1)
        self._subscriptions: list[Any] = []
        self._info: CameraInfo | None = None

    def draw(self, now_ns: int, now_s: float) -> None:
        watched = self._publisher.get_subscription_count() > 0
        if watched != bool(self._subscriptions):
            self._listen(watched)
        if not watched:
            return
        pictures, infos = self._subscriptions
        self._info = _newest(infos) or self._info
        newest = _newest(pictures)
        if newest is None:
            return
        try:
            picture = decode_image(newest)
        except MessageError as error:
            self._troubles.add(f"camera {self._video.key}", f"{self._video.topic}: not drawn: {error}")
            return
        lines = self._scene.lines(now_ns, now_s)
        drawn = overlay(picture, lines, self._tracks(newest.header.frame_id))
        height, width, _ = drawn.shape
        message = Image(
            header=newest.header, height=height, width=width, encoding="rgb8", step=3 * width,
            data=array.array("B", drawn.tobytes()),
        )  # fmt: skip
        self._publisher.publish(message)

    def _tracks(self, frame: str) -> list[Any]:
        found = self._scene.camera_pose(frame)
        if self._info is None or found is None or not self._info.k[0] > 0.0:  # 0: not calibrated
            return []
        root, pose = found
        return [
            (project(places, pose, self._info.k), colors)
            for path_frame, places, colors in self._scene.tracks()
            if path_frame == root
        ]

    def _listen(self, watched: bool) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        if not watched:
            return
        topic = self._video.topic
        kind = CompressedImage if self._video.type == COMPRESSED_IMAGE else Image
        # Beside the pictures, whatever they are called: /camera/front/image_raw/compressed.
        base = topic.removesuffix("/compressed").rpartition("/")[0]
        for what, name in ((kind, topic), (CameraInfo, f"{base}/camera_info")):
            qos = copy.copy(qos_profile_sensor_data)
            self._subscriptions.append(
                self._node.create_subscription(what, name, nothing, qos, callback_group=Polled())
            )


def _newest(subscription: Any) -> Any:
    """The last message that waits, or None."""
    found = None
    for message in take(subscription, WAITING):
        found = message
    return found
