# SPDX-License-Identifier: Apache-2.0
"""Markers that are written as bytes are read as the messages meant; where they are not, messages are sent."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.serialization import deserialize_message, serialize_message
from visualization_msgs.msg import MarkerArray

from gr00t_ros.nodes import marker_wire
from gr00t_ros.nodes.marker_wire import MarkerWire, marker_writer
from gr00t_ros.nodes.markers import TYPES, Markers
from gr00t_ros.visualization import shapes
from gr00t_ros.visualization.shapes import Shape

pytestmark = pytest.mark.ros

DRAWINGS = 30


def read(data: bytes) -> MarkerArray:
    return deserialize_message(data, MarkerArray)


def some_shape(rng: np.random.Generator, number: int, kind: str) -> Shape:
    """Frames, names and texts of any length: what follows them begins at any place."""
    count = int(rng.integers(0, 6))
    has_points = kind in (shapes.LINES, shapes.STRIP, shapes.POINTS, shapes.CUBES)
    return Shape(
        ("n" * (1 + number % 5), number),
        kind,
        "f" * int(rng.integers(0, 9)),
        tuple(rng.random(3)),
        tuple(rng.random(4)),
        # A path is a view into poses, as drawing makes it.
        rng.normal(size=(count, 4, 4))[:, :3, 3] if has_points else None,
        rng.random((count, 4)) if has_points and number % 2 else None,
        tuple(rng.normal(size=7)),
        "größer\n" * int(rng.integers(0, 4)) if kind == shapes.TEXT else "",
        "package://robot/" + "m" * int(rng.integers(0, 9)) if kind == shapes.MESH else "",
    )


def test_bytes_are_read_as_the_messages_that_were_meant() -> None:
    rng = np.random.default_rng(0)
    wire, markers = MarkerWire(), Markers()
    kinds = list(TYPES) * 2
    deleted = 0
    for _ in range(DRAWINGS):
        wanted = [some_shape(rng, i, kind) for i, kind in enumerate(kinds) if rng.random() < 0.7]
        expected = markers.update(wanted)
        deleted += sum(marker.action == marker.DELETE for marker in expected.markers)
        # Messages hold float64 where the wire has float32.
        assert read(wire.update(wanted)) == read(serialize_message(expected))
    assert deleted > DRAWINGS
    assert read(wire.clear()) == markers.clear()
    assert read(wire.update([])).markers == []


def test_what_goes_is_deleted_once() -> None:
    wire = MarkerWire()
    line = Shape(("predicted", 3), shapes.LINES, "base_link", (0.01, 0.0, 0.0), points=np.zeros((2, 3)))
    ball = replace(line, key=("limits", 0), kind=shapes.SPHERE, points=None)
    wire.update([line, ball])
    kept, gone = read(wire.update([ball])).markers
    assert (kept.ns, kept.action) == ("limits", kept.ADD)
    assert (gone.ns, gone.id, gone.action, gone.points) == ("predicted", 3, gone.DELETE, [])
    [kept] = read(wire.update([ball])).markers
    assert kept.ns == "limits"


@pytest.fixture
def no_cache() -> Iterator[None]:
    """What was encoded one way is not used with another."""
    for cached in (marker_wire._begin, marker_wire._end):
        cached.cache_clear()
    yield
    for cached in (marker_wire._begin, marker_wire._end):
        cached.cache_clear()


def test_this_middleware_reads_the_bytes() -> None:
    assert isinstance(marker_writer(), MarkerWire)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("_STAMP", bytes(12)),  # a field more
        ("_LIFETIME", (7, 0)),  # other content
        ("_COUNT", struct.Struct(">I")),  # the other order of bytes
        ("_HEADER", b"\x00\x07\x00\x00"),  # another encoding
    ],
)
def test_messages_are_sent_where_the_bytes_are_not_understood(
    part: str, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker_wire, part, other)
    assert isinstance(marker_writer(), Markers)
