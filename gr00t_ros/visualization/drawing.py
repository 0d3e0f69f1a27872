# SPDX-License-Identifier: Apache-2.0
"""From paths, poses and sentences to the shapes that show them.

What is what in the picture: a line from yellow over red to violet is where an end effector will go (early to
late; wide where the chunk before agreed), white cubes are steps kept from the committed plan, a cyan line is
that plan, a green one the way already made, a pale blue robot the end of the chunk, red balls are limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.rotations import matrix_to_quaternion
from gr00t_ros.visualization import shapes
from gr00t_ros.visualization.robot_model import RobotModel
from gr00t_ros.visualization.shapes import Rgba, Shape

Values = NDArray[np.float64]

FROZEN: Rgba = (1.0, 1.0, 1.0, 0.95)
COMMITTED: Rgba = (0.20, 0.90, 0.95, 0.9)
EXECUTED: Rgba = (0.35, 0.85, 0.35, 0.9)
GHOST: Rgba = (0.45, 0.70, 1.0, 0.35)
ROBOT: Rgba = (0.78, 0.78, 0.80, 1.0)
LIMIT: Rgba = (1.0, 0.08, 0.05, 0.85)
WORDS: Rgba = (1.0, 1.0, 1.0, 1.0)
AXES = np.array([[1.0, 0.2, 0.2, 1.0], [0.2, 0.9, 0.2, 1.0], [0.3, 0.4, 1.0, 1.0]])
AXES_COLORS = np.repeat(AXES, 2, axis=0)  # of both ends of each

# Widths of the predicted path, in shares of the robot's size, from no agreement to full agreement with the
# chunk before; the middle one where nothing is known.
WIDTHS = (0.003, 0.006, 0.010, 0.014)
UNKNOWN_WIDTH = 1
# Other sizes, in shares of the robot's size: a text of 0.036 is 2 cm high on a small arm.
STEP, CUBE, LINE, AXIS, BALL, LETTER, STICK = 0.016, 0.024, 0.006, 0.08, 0.07, 0.036, 0.02
# m. Without a robot model the size of a small arm.
DEFAULT_SIZE = 0.5


def robot_size(model: RobotModel, links: Sequence[str]) -> float:
    """How far in m ``links`` reach from their frames: the lengths of their chains."""
    lengths = [
        sum(float(np.linalg.norm(joint.origin[:3, 3])) for joint in model.chain(link)) for link in links
    ]
    return max(lengths, default=0.0) or DEFAULT_SIZE


def predicted(
    index: int, frame: str, path: Values, frozen: int, confidence: Values | None, size: float
) -> list[Shape]:
    """Where an end effector will go: poses [T, 4, 4], of which the first ``frozen`` are kept from the plan.

    ``confidence`` [T] from 0 to 1 widens the line, NaN and None leave it as wide as where nothing is known.
    """
    known = np.asarray(np.isfinite(path).all(axis=(1, 2)), np.bool_)
    places, colors = path[known, :3, 3], shapes.over_time(len(path))[known]
    if not len(places):
        return []
    classes = np.full(len(path), UNKNOWN_WIDTH)
    if confidence is not None:
        sure = np.isfinite(confidence)
        classes[sure] = np.minimum((confidence[sure] * len(WIDTHS)).astype(int), len(WIDTHS) - 1)
    # A piece of the line is as sure as its end is.
    classes = classes[known][1:]
    found = []
    for width, share in enumerate(WIDTHS):
        begins = np.flatnonzero(classes == width)
        if len(begins):
            ends = np.stack([begins, begins + 1], axis=1).reshape(-1)  # of each piece, in pairs
            key = ("predicted", index * len(WIDTHS) + width)
            found.append(
                Shape(key, shapes.LINES, frame, _line(share * size), points=places[ends], colors=colors[ends])
            )
    step = (STEP * size,) * 3
    found.append(Shape(("steps", index), shapes.POINTS, frame, step, points=places, colors=colors))
    kept = places[: int(known[:frozen].sum())]
    if len(kept):
        cube = (CUBE * size,) * 3
        found.append(Shape(("frozen", index), shapes.CUBES, frame, cube, FROZEN, points=kept))
    end = path[np.flatnonzero(known)[-1]]
    tips = end[:3, 3] + AXIS * size * end[:3, :3].T
    axes = np.stack([np.broadcast_to(end[:3, 3], (3, 3)), tips], axis=1).reshape(6, 3)
    found.append(
        Shape(("axes", index), shapes.LINES, frame, _line(LINE * size), points=axes,
              colors=AXES_COLORS)
    )  # fmt: skip
    return found


def strip(name: str, index: int, frame: str, places: Values, color: Rgba, size: float) -> list[Shape]:
    """A line through ``places`` [N, 3]; none through fewer than two. Places that are NaN are left out."""
    known = places[np.isfinite(places).all(axis=1)]
    if len(known) < 2:
        return []
    return [Shape((name, index), shapes.STRIP, frame, _line(LINE * size), color, points=known)]


def body(name: str, model: RobotModel, poses: Mapping[str, Values], color: Rgba, size: float) -> list[Shape]:
    """The robot's visible parts at ``poses`` ([4, 4] by link, NaN where unknown); sticks from joint to joint
    where the URDF shows nothing of them, or only meshes that say no place to find them at."""
    finite = np.isfinite(np.reshape([*poses.values()], (-1, 16))).all(axis=1)
    known = {link: pose for (link, pose), whole in zip(poses.items(), finite, strict=True) if whole}
    parts = [(number, part) for number, part in model.drawable if part.link in known]
    if not parts:
        return _sticks(name, model, known, color, size)
    matrices = np.array([known[part.link] for _, part in parts]) @ [part.origin for _, part in parts]
    turns = matrix_to_quaternion(matrices[:, :3, :3])
    places = np.concatenate([matrices[:, :3, 3], turns], axis=1).tolist()
    return [
        Shape((name, number), part.shape, model.frame_of(part.link), part.size, color, pose=tuple(place),
              mesh=part.mesh)
        for (number, part), place in zip(parts, places, strict=True)
    ]  # fmt: skip


def _sticks(
    name: str, model: RobotModel, known: Mapping[str, Values], color: Rgba, size: float
) -> list[Shape]:
    by_frame: dict[str, list[Values]] = {}
    for link, pose in known.items():
        joint = model.above.get(link)
        if joint is not None and not joint.is_free and joint.parent in known:
            ends = by_frame.setdefault(model.frame_of(link), [])
            ends += [known[joint.parent][:3, 3], pose[:3, 3]]
    return [
        Shape((name, number), shapes.LINES, frame, _line(STICK * size), color, points=np.array(ends))
        for number, (frame, ends) in enumerate(by_frame.items())
    ]


def ball(index: int, frame: str, place: Values, text: str, size: float) -> list[Shape]:
    """A limit that is exceeded at ``place`` [3], and which."""
    if not np.isfinite(place).all():
        return []
    at = (*place.tolist(), 0.0, 0.0, 0.0, 1.0)
    return [
        Shape(("limits", 2 * index), shapes.SPHERE, frame, (BALL * size,) * 3, LIMIT, pose=at),
        words(("limits", 2 * index + 1), frame, place + np.array([0.0, 0.0, BALL * size]), text, size, LIMIT),
    ]


def words(
    key: tuple[str, int], frame: str, place: Values, text: str, size: float, color: Rgba = WORDS
) -> Shape:
    """A text that always faces the viewer, at ``place`` [3]."""
    at = (*np.asarray(place, np.float64).tolist(), 0.0, 0.0, 0.0, 1.0)
    return Shape(key, shapes.TEXT, frame, (0.0, 0.0, LETTER * size), color, pose=at, text=text)


def _line(width: float) -> tuple[float, float, float]:
    return (width, 0.0, 0.0)
