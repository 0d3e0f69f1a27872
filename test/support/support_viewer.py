# SPDX-License-Identifier: Apache-2.0
"""A light viewer for tests: markers onto a picture, through a camera that looks at the robot.

It follows what RViz does with the kinds of markers that the visualizer publishes, as far as places and
colours go; meshes are not loaded but stand as a disc at their place. Everything is drawn in the order in
which it comes, without hiding anything, so that what must be there can be looked for.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

SIZE, FOCAL = 600, 700.0


class Viewer:
    """Keeps markers as RViz does: by namespace and number, until replaced or deleted. They may come on
    another thread."""

    def __init__(self, eye: tuple[float, float, float], target: tuple[float, float, float]) -> None:
        self.markers: dict[tuple[str, int], Any] = {}
        forward = np.subtract(target, eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        self._eye = np.asarray(eye, np.float64)
        self._turn = np.stack([right, np.cross(forward, right), forward])

    def take(self, message: Any) -> None:
        """One MarkerArray."""
        from visualization_msgs.msg import Marker

        for marker in message.markers:
            if marker.action == Marker.DELETEALL:
                self.markers.clear()
            elif marker.action == Marker.DELETE:
                self.markers.pop((marker.ns, marker.id), None)
            else:
                self.markers[marker.ns, marker.id] = marker

    def named(self, namespace: str) -> list[Any]:
        """The markers of a namespace."""
        return [marker for (name, _), marker in sorted(dict(self.markers).items()) if name == namespace]

    def project(self, points: Any) -> np.ndarray:
        """Where points [N, 3] are in the picture: pixels [N, 2], x to the right and y down."""
        seen = (np.asarray(points, np.float64).reshape(-1, 3) - self._eye) @ self._turn.T
        return SIZE / 2 + FOCAL * seen[:, :2] / seen[:, 2:]

    def picture(self) -> np.ndarray:
        """[SIZE, SIZE, 3] RGB on black."""
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        for marker in dict(self.markers).values():
            self._draw(image, marker)
        return image

    def color_at(self, image: np.ndarray, point: Any) -> np.ndarray:
        """The brightest colour [3] within two pixels of a point [3] of space."""
        x, y = np.round(self.project(point)[0]).astype(int)
        patch = image[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].reshape(-1, 3)
        return patch[np.argmax(patch.sum(axis=1))] if len(patch) else np.zeros(3)

    def _draw(self, image: np.ndarray, marker: Any) -> None:
        from visualization_msgs.msg import Marker

        color = _rgb(marker.color)
        if marker.type in (Marker.LINE_LIST, Marker.LINE_STRIP, Marker.SPHERE_LIST, Marker.CUBE_LIST):
            points = [(point.x, point.y, point.z) for point in marker.points]
            pixels = [tuple(map(int, np.round(pixel))) for pixel in self.project(points)]
            colors = [_rgb(own) for own in marker.colors] or [color] * len(pixels)
            assert len(colors) == len(pixels), f"{marker.ns}: {len(pixels)} points, {len(colors)} colours"
            if marker.type in (Marker.SPHERE_LIST, Marker.CUBE_LIST):
                for pixel, own in zip(pixels, colors, strict=True):
                    cv2.circle(image, pixel, 3, own, -1)
                return
            step = 2 if marker.type == Marker.LINE_LIST else 1
            for i in range(0, len(pixels) - 1, step):
                cv2.line(image, pixels[i], pixels[i + 1], colors[i], 2)
            return
        place = marker.pose.position
        x, y = map(int, np.round(self.project((place.x, place.y, place.z))[0]))
        if marker.type == Marker.TEXT_VIEW_FACING:
            for number, line in enumerate(marker.text.splitlines()):
                cv2.putText(image, line, (x, y + 14 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.4, color)
        else:
            assert marker.type in (Marker.MESH_RESOURCE, Marker.CUBE, Marker.CYLINDER, Marker.SPHERE)
            assert marker.type != Marker.MESH_RESOURCE or "://" in marker.mesh_resource
            cv2.circle(image, (x, y), 6, color, -1)


def _rgb(color: Any) -> tuple[int, int, int]:
    return round(255 * color.r), round(255 * color.g), round(255 * color.b)
