# SPDX-License-Identifier: Apache-2.0
"""Shapes as markers of RViz, kept from one drawing to the next: only what changed is made anew, and what is
not drawn any more is deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from gr00t_ros.nodes.conversions import duration_msg
from gr00t_ros.visualization import shapes
from gr00t_ros.visualization.shapes import Shape

# A viewer removes what has not been drawn again for this long: the visualizer is gone. Much longer than the
# time between two drawings.
LIFETIME_NS = 3_000_000_000
# Colours remembered at most: those of a few lengths of chunks.
MAX_COLORS = 2000

TYPES = {
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
        # One message for each key ever drawn, used again and again: making one costs as much as sending it.
        # There are as many keys as parts, joints and end effectors.
        self._pool: dict[tuple[str, int], Marker] = {}
        self._colors: dict[tuple[float, ...], ColorRGBA] = {}

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
                marker = self._pool.get(shape.key) or self._pool.setdefault(shape.key, _marker(shape))
                marker.action = Marker.ADD
                self._fill(marker, shape, before[0] if before is not None else None)
            drawn[shape.key] = (shape, marker)
            found.append(marker)
        gone = self._drawn.keys() - drawn.keys()
        for key in sorted(gone):
            marker = self._pool[key]
            marker.action, marker.points, marker.colors = Marker.DELETE, [], []
            found.append(marker)
        self._drawn = drawn
        return MarkerArray(markers=found)

    def clear(self) -> MarkerArray:
        """Nothing is to be seen."""
        self._drawn.clear()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])

    def _fill(self, marker: Marker, shape: Shape, before: Shape | None) -> None:
        """Most of a shape stays from chunk to chunk: of a mesh all but its pose, of a path all but points."""
        marker.header.frame_id, marker.type = shape.frame, TYPES[shape.kind]
        if before is None or before.pose != shape.pose:
            place, turn = marker.pose.position, marker.pose.orientation
            place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w = map(float, shape.pose)
        if before is None or before.scale != shape.scale:
            marker.scale.x, marker.scale.y, marker.scale.z = map(float, shape.scale)
        if before is None or before.color != shape.color:
            marker.color = self._color(*shape.color)
        if shape.points is not None:
            marker.points = self._point_list(marker.points, shape.points)
            colors = [] if shape.colors is None else shape.colors.tolist()
            marker.colors = [self._color(*color) for color in colors]
        marker.text, marker.mesh_resource = shape.text, shape.mesh

    def _point_list(self, points: list[Point], values: NDArray[Any]) -> list[Point]:
        """``values`` [N, 3] in the messages that are there already, as far as they go."""
        del points[len(values) :]
        points.extend(Point() for _ in range(len(values) - len(points)))
        for point, (x, y, z) in zip(points, values.tolist(), strict=True):
            point.x, point.y, point.z = x, y, z
        return points

    def _color(self, *channels: float) -> ColorRGBA:
        """One message for each colour: chunks have the same ones again and again."""
        found = self._colors.get(channels)
        if found is None:
            if len(self._colors) >= MAX_COLORS:
                self._colors.clear()
            r, g, b, a = channels
            found = self._colors[channels] = ColorRGBA(r=r, g=g, b=b, a=a)
        return found


def _marker(shape: Shape) -> Marker:
    """What never changes of a marker."""
    return Marker(
        ns=shape.key[0],
        id=shape.key[1],
        frame_locked=True,  # moves with its frame
        lifetime=duration_msg(LIFETIME_NS),
    )
