# SPDX-License-Identifier: Apache-2.0
"""Shapes as they go over the wire: the bytes of a MarkerArray, written without its messages.

rclpy turns a marker's thirteen messages, and each point and colour, into C one by one, and that into bytes:
as much work as finding out what to draw. Here numbers go into the bytes as they lie in memory. The form is
OMG's Common Data Representation (little-endian, version 1), which the middlewares of ROS 2 share;
:func:`marker_writer` looks whether the middleware at hand reads it, and has markers made as messages if not.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from visualization_msgs.msg import Marker, MarkerArray

from gr00t_ros.nodes.markers import LIFETIME_NS, TYPES, Markers
from gr00t_ros.visualization import shapes
from gr00t_ros.visualization.shapes import Shape

# Says how the rest is encoded; places count from its end.
_HEADER = b"\x00\x01\x00\x00"
_COUNT = struct.Struct("<I")
_IDS = struct.Struct("<iii")  # id, type, action
# Pose, scale, colour, lifetime, frame_locked, number of points. These are 112 bytes, so that points, being
# float64, follow at a place that is a multiple of 8.
_BODY = struct.Struct("<10d4f2i?3xI")
_LIFETIME = divmod(LIFETIME_NS, 1_000_000_000)
# Stamp 0: a viewer then takes the newest transform that it has.
_STAMP = bytes(8)


class MarkerWire:
    """The markers that viewers have, as ``Markers`` keeps them, serialized."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, int], Shape] = {}

    def update(self, wanted: Iterable[Shape]) -> bytes:
        """``wanted`` is all that is to be seen from now on."""
        drawn = {shape.key: shape for shape in wanted}
        gone = [self._drawn[key] for key in sorted(self._drawn.keys() - drawn.keys())]
        self._drawn = drawn
        data = bytearray(_HEADER + _COUNT.pack(len(drawn) + len(gone)))
        for shape in drawn.values():
            _write(data, shape, Marker.ADD)
        for shape in gone:
            _write(data, replace(shape, points=None, colors=None), Marker.DELETE)
        return bytes(data)

    def clear(self) -> bytes:
        """Nothing is to be seen."""
        self._drawn = {}
        return bytes(serialize_message(Markers().clear()))


def marker_writer() -> MarkerWire | Markers:
    """What makes a publisher's messages of shapes: bytes where the middleware reads them as the markers that
    were meant, messages elsewhere."""
    points = np.arange(9.0).reshape(3, 3)
    samples = [
        Shape(("sample", 1), shapes.TEXT, "link", (1.0, 2.0, 3.0), pose=(4.0,) * 7, text="grüße"),
        Shape(("samples", 2), shapes.STRIP, "base", (0.5, 0.0, 0.0), (0.0, 0.25, 0.5, 1.0), points),
        Shape(("sample", 3), shapes.POINTS, "", (1.0,) * 3, points=points[1:], colors=np.eye(4)[:2]),
        Shape(("sample", 4), shapes.MESH, "a_link", (1.0,) * 3, mesh="file:///part.stl"),
    ]
    wire, markers = MarkerWire(), Markers()
    for shown in (samples, samples[1:]):
        written, meant = wire.update(shown), markers.update(shown)
        if not _reads_as(written, meant):
            return Markers()
    return MarkerWire()


def _reads_as(written: bytes, meant: MarkerArray) -> bool:
    expected = serialize_message(meant)
    if (len(written), written[:4]) != (len(expected), expected[:4]):
        return False
    try:
        found = deserialize_message(written, MarkerArray)
    except RuntimeError:  # rclpy's RMWError
        return False
    return bool(found == deserialize_message(expected, MarkerArray))


def _write(data: bytearray, shape: Shape, action: int) -> None:
    """Adds one Marker, field by field in the message's order."""
    _align(data, 4)
    data += _begin(shape.key, shape.kind, shape.frame, action)
    _align(data, 8)
    points = b"" if shape.points is None else np.asarray(shape.points, "<f8").tobytes()
    colors = b"" if shape.colors is None else np.asarray(shape.colors, "<f4").tobytes()
    data += _BODY.pack(*shape.pose, *shape.scale, *shape.color, *_LIFETIME, True, len(points) // 24)
    data += points
    data += _COUNT.pack(len(colors) // 16)
    data += colors
    data += _end(shape.text, shape.mesh)


@functools.lru_cache(maxsize=1024)  # parts, joints and end effectors, to be seen and gone
def _begin(key: tuple[str, int], kind: str, frame: str, action: int) -> bytes:
    """Header, namespace, id, type and action."""
    return _STAMP + _text(frame) + _text(key[0]) + _IDS.pack(key[1], TYPES[kind], action)


@functools.lru_cache(maxsize=1024)  # few markers have a text, and few texts change from chunk to chunk
def _end(text: str, mesh: str) -> bytes:
    """Texture (its name; header, format and bytes of an image; coordinates), text, mesh and the mesh's file
    (name, bytes, own materials). Textures and files are not used."""
    nothing = _COUNT.pack(0)
    texture = _text("") + _STAMP + _text("") + _text("") + nothing + nothing
    return texture + _text(text) + _text(mesh) + _text("") + nothing + b"\0"


def _text(value: str) -> bytes:
    """A string with its length, filled up to where the next number of 4 bytes may stand."""
    text = value.encode() + b"\0"
    return _COUNT.pack(len(text)) + text + bytes(-len(text) % 4)


def _align(data: bytearray, size: int) -> None:
    """Fills up to where a number of ``size`` bytes may stand."""
    data += bytes(-(len(data) - len(_HEADER)) % size)
