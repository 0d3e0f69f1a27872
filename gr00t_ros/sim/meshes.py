# SPDX-License-Identifier: Apache-2.0
"""STL files and a decimation that keeps edges, so that CAD meshes render in real time without a GPU.

Used by ``scene.py`` only. The SO-101's meshes hold 320,000 triangles; a software renderer wants some 15,000.
The method is vertex clustering with quadric error metrics: space is cut into cells, all corners in a cell
become one vertex, and that vertex is where the squared distances to the planes of the cell's triangles are
smallest (Lindstrom, "Out-of-core simplification of large polygonal models", 2000). It is one pass of numpy
and keeps flat faces flat.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import Gr00tRosError

_STL_HEADER = 84  # bytes: an 80-byte title and the number of triangles
_STL_TRIANGLE = np.dtype([("normal", "<3f4"), ("corners", "<3f4", (3,)), ("attributes", "<u2")])
# Quadrics of a flat cell are singular; this share of their trace pulls the vertex to the cell's mean corner
# instead.
_REGULARIZATION = 1e-3


def read_stl(path: Path) -> NDArray[np.float64]:
    """Triangles [F, 3, 3] in the file's units, from a binary STL file. Raises Gr00tRosError when it is cut
    short.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[80:_STL_HEADER], "little") if len(data) >= _STL_HEADER else -1
    if count < 0 or len(data) < _STL_HEADER + count * _STL_TRIANGLE.itemsize:
        raise Gr00tRosError(
            f"{path}: not a whole binary STL file ({len(data)} bytes); install its package again"
        )
    triangles = np.frombuffer(data, _STL_TRIANGLE, count, _STL_HEADER)["corners"]
    return triangles.astype(np.float64)


def decimate(triangles: NDArray[np.float64], cell: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Vertices [V, 3] and faces [F, 3] of a coarser mesh; ``cell`` is the edge of a cluster, in the mesh's
    units.
    """
    corners = triangles.reshape(-1, 3)
    origin = corners.min(axis=0)
    grid = np.floor((corners - origin) / cell).astype(np.int64)
    keys = np.ravel_multi_index(tuple(grid.T), tuple(grid.max(axis=0) + 1))
    _, labels, counts = np.unique(keys, return_inverse=True, return_counts=True)
    cells = len(counts)

    # A triangle's normal times its area weighs every plane by how much surface it stands for.
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    means = np.stack([np.bincount(labels, corners[:, k], cells) for k in range(3)], axis=1) / counts[:, None]
    planes = np.repeat(normals, 3, axis=0)
    distances = np.einsum("ij,ij->i", planes, corners - means[labels])
    quadrics = np.empty((cells, 3, 3))
    for row in range(3):
        for column in range(row, 3):
            summed = np.bincount(labels, planes[:, row] * planes[:, column], cells)
            quadrics[:, row, column] = quadrics[:, column, row] = summed
    targets = np.stack([np.bincount(labels, planes[:, k] * distances, cells) for k in range(3)], axis=1)
    ridge = _REGULARIZATION * np.trace(quadrics, axis1=1, axis2=2) + 1e-30
    quadrics += ridge[:, None, None] * np.eye(3)
    moves = np.linalg.solve(quadrics, targets[:, :, None])[:, :, 0]
    # A vertex stays near its cell: ill-shaped cells would throw spikes otherwise.
    vertices = means + np.clip(moves, -cell, cell)

    faces = labels.reshape(-1, 3)
    kept = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[kept]
    # Triangles that collapsed onto one another: one of each is enough.
    _, first = np.unique(np.sort(faces, axis=1) @ [cells * cells, cells, 1], return_index=True)
    return vertices, faces[np.sort(first)].astype(np.int32)
