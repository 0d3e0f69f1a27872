# SPDX-License-Identifier: Apache-2.0
"""Decimated meshes keep their shape, and a damaged STL file is named."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.sim.meshes import decimate, read_stl


def fine_cube(cuts: int) -> NDArray[np.float64]:
    """The unit cube's surface, each side cut into cuts x cuts squares of two triangles; [F, 3, 3]."""
    steps = np.linspace(0, 1, cuts + 1)
    triangles = []
    for axis in range(3):
        for side in (0.0, 1.0):
            for u0, u1 in itertools.pairwise(steps):
                for v0, v1 in itertools.pairwise(steps):
                    square = np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]])
                    corners = np.insert(square, axis, side, axis=1)
                    triangles += [corners[[0, 1, 2]], corners[[0, 2, 3]]]
    return np.array(triangles)


def test_a_cube_stays_a_cube_with_a_fraction_of_the_triangles() -> None:
    fine = fine_cube(40)
    vertices, faces = decimate(fine, 0.2)
    assert len(faces) < len(fine) / 20
    # Corners and sides stay where they are: that is what the quadrics are for.
    np.testing.assert_allclose(vertices.min(axis=0), 0.0, atol=2e-3)
    np.testing.assert_allclose(vertices.max(axis=0), 1.0, atol=2e-3)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(6.0, rel=0.02)


def test_cells_smaller_than_the_triangles_change_nothing() -> None:
    vertices, faces = decimate(fine_cube(4), 1e-4)
    assert len(faces) == 6 * 16 * 2
    np.testing.assert_allclose(np.unique(vertices.round(6)), [0, 0.25, 0.5, 0.75, 1.0])


def test_stl_is_read_and_a_cut_one_is_named(tmp_path: Path) -> None:
    triangle = struct.pack("<12fH", *([0.0] * 3), 0, 0, 0, 1, 0, 0, 0, 1, 0, 0)
    path = tmp_path / "part.stl"
    path.write_bytes(bytes(80) + struct.pack("<I", 2) + triangle * 2)
    assert read_stl(path).shape == (2, 3, 3)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(Gr00tRosError, match=r"part\.stl.*not a whole"):
        read_stl(path)
