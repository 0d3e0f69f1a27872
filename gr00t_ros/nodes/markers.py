# SPDX-License-Identifier: Apache-2.0
"""Shapes as markers of RViz, kept from one drawing to the next: only what changed is made anew, and what is
not drawn any more is deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from gr00t_ros.nodes.conversions import duration_msg
from gr00t_ros.visualization import shapes
from gr00t_ros.visualization.shapes import Shape

# A viewer removes what has not been drawn again for this long: the visualizer is gone. Much longer than the
# time between two drawings.
LIFETIME_NS = 3_000_000_000

_TYPES = {
    shapes.LINES: Marker.LINE_LIST,
    shapes.STRIP: Marker.LINE_STRIP,
    shapes.POINTS: Marker.SPHERE_LIST,
    shapes.CUBES: Marker.CUBE_LIST,
    shapes.TEXT: Marker.TEXT_VIEW_FACING,
    shapes.MESH: Marker.MESH_RESOURCE,
    shapes.BOX: Marker.CUBE,
    shapes.CYLINDER: Marker.CYLINDER,
    shapes.SPHERE: Marker.SPHERE,
}


class Markers:
    """The markers that viewers have."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, int], tuple[Shape, Marker]] = {}
        self._colors: dict[bytes, list[ColorRGBA]] = {}

    def update(self, wanted: Iterable[Shape]) -> MarkerArray:
        """``wanted`` is all that is to be seen from now on.

        Stamps are zero: a viewer then takes the newest transform that it has, instead of waiting for one of
        this very moment.
        """
        found: list[Marker] = []
        drawn = {}
        for shape in wanted:
            before = self._drawn.get(shape.key)
            if before is not None and before[0] is shape:
                marker = before[1]
            else:
                # One that is kept must stay of its type: viewers refuse a change.
                marker = before[1] if before is not None else Marker(ns=shape.key[0], id=shape.key[1])
                self._fill(marker, shape)
            drawn[shape.key] = (shape, marker)
            found.append(marker)
        gone = self._drawn.keys() - drawn.keys()
        found += [Marker(ns=ns, id=number, action=Marker.DELETE) for ns, number in sorted(gone)]
        self._drawn = drawn
        return MarkerArray(markers=found)

    def clear(self) -> MarkerArray:
        """Nothing is to be seen."""
        self._drawn.clear()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])

    def _fill(self, marker: Marker, shape: Shape) -> None:
        marker.header.frame_id = shape.frame
        marker.type, marker.action = _TYPES[shape.kind], Marker.ADD
        marker.frame_locked = True  # moves with its frame
        marker.lifetime = duration_msg(LIFETIME_NS)
        x, y, z, qx, qy, qz, qw = map(float, shape.pose)
        marker.pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        marker.scale = Vector3(x=float(shape.scale[0]), y=float(shape.scale[1]), z=float(shape.scale[2]))
        marker.color = _color(shape.color)
        points = [] if shape.points is None else shape.points.tolist()
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in points]
        marker.colors = [] if shape.colors is None else self._color_list(shape.colors)
        marker.text, marker.mesh_resource = shape.text, shape.mesh

    def _color_list(self, colors: NDArray[Any]) -> list[ColorRGBA]:
        """Chunks have the same colours again and again."""
        key = colors.tobytes()
        if key not in self._colors:
            if len(self._colors) >= 64:
                self._colors.clear()
            self._colors[key] = [_color(color) for color in colors.tolist()]
        return self._colors[key]


def _color(color: Iterable[float]) -> ColorRGBA:
    r, g, b, a = map(float, color)
    return ColorRGBA(r=r, g=g, b=b, a=a)
