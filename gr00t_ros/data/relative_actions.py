# SPDX-License-Identifier: Apache-2.0
"""Statistics of actions relative to the state they start from, for ``meta/relative_stats.json``.

A checkpoint may express the actions of a key against the state of the same row: joints by subtraction, poses
by ``inv(T_state) @ T_action``. It scales them by their own range at each step of the chunk, which is what is
counted here, over every row whose whole chunk lies in its episode, as the reference does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.errors import Gr00tError
from gr00t_ros.data.episode_source import Columns
from gr00t_ros.data.statistics import RunningStatistics
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot_types import POSE_LAYOUTS, POSITION_COLUMNS, ROTATION_COLUMNS

# Steps of an action chunk: GR00T's for a new embodiment.
HORIZON = 16
# Rows whose chunks are made at a time: 30 MB of 16 steps of 56 columns.
_ROWS = 4096


@dataclass(frozen=True)
class Relation:
    """An action key that can be expressed against the state of the same name.

    ``pose`` is the layout of ``gr00t_model.processing.poses``, None for joints.
    """

    key: str
    action: tuple[str, int, int]
    state: tuple[str, int, int]
    pose: str | None = None


def relations_of(modality: Mapping[str, Any] | None, features: Mapping[str, Any]) -> list[Relation]:
    """The action keys of a modality.json that have a state with the same columns.

    Names from info.json decide; where there are none, the width does. An action without such a state, or a
    pose with a quaternion (which no checkpoint expresses relatively), has none.
    """
    if modality is None:
        return []
    relations = []
    for key, entry in modality.get("action", {}).items():
        other = modality.get("state", {}).get(key)
        if other is None:
            continue
        action, state = _slice(entry, "action"), _slice(other, "observation.state")
        names, state_names = _names(features, key, action), _names(features, key, state)
        if action[2] - action[1] != state[2] - state[1] or names != state_names:
            continue
        pose = _pose(names)
        if pose != "quaternion":
            relations.append(Relation(key, action, state, POSE_LAYOUTS.get(pose or "")))
    return relations


def _slice(entry: Mapping[str, Any], column: str) -> tuple[str, int, int]:
    return str(entry.get("original_key") or column), int(entry["start"]), int(entry["end"])


def _names(features: Mapping[str, Any], key: str, part: tuple[str, int, int]) -> list[str] | None:
    column, start, end = part
    names = features.get(column, {}).get("names")
    if isinstance(names, Mapping):  # {"motors": [...]}
        names = next(iter(names.values()), None)
    if not isinstance(names, list):
        return None
    # Where two groups have a column of one name, info.json puts the key before it.
    return [str(name).removeprefix(f"{key}_") for name in names[start:end]]


def _pose(names: list[str] | None) -> str | None:
    """Which rotation the columns of a pose have; None for joints."""
    for rotation, columns in ROTATION_COLUMNS.items():
        if names == [*POSITION_COLUMNS, *columns]:
            return rotation
    return None


class RelativeActions:
    """Adds up the relations' statistics, episode by episode."""

    def __init__(self, relations: list[Relation], horizon: int = HORIZON) -> None:
        if horizon < 1:
            raise DatasetError(f"an action horizon of {horizon} steps: expected at least 1")
        self._relations = relations
        self._horizon = horizon
        self._running = {r.key: RunningStatistics(f"relative action {r.key}") for r in relations}

    def add(self, columns: Columns) -> None:
        """The next episode's columns. Raises DatasetError for a pose without orientation."""
        for relation in self._relations:
            actions, states = _part(columns, relation.action), _part(columns, relation.state)
            for first in range(0, len(actions) - self._horizon + 1, _ROWS):
                last = min(first + _ROWS, len(actions) - self._horizon + 1)
                chunk = actions[np.arange(first, last)[:, None] + np.arange(self._horizon)]
                self._running[relation.key].add(_related(relation, chunk, states[first:last, None]))

    def result(self) -> dict[str, Any]:
        """{key: {min, max, mean, std, q01, q99}}, each [T, D]; keys without a whole chunk are left out."""
        return {key: running.result() for key, running in self._running.items() if running.count}


def _part(columns: Columns, part: tuple[str, int, int]) -> NDArray[np.float64]:
    name, start, end = part
    values = np.asarray(columns[name], np.float64)
    return values.reshape(len(values), -1)[:, start:end]


def _related(
    relation: Relation, actions: NDArray[np.float64], states: NDArray[np.float64]
) -> NDArray[np.float64]:
    if relation.pose is None:
        return actions - states
    # Only here: the package that it is in loads torch, which takes seconds and a converter does not need.
    from gr00t_model.processing import poses

    names = {"action": f"action {relation.key}", "state": f"state {relation.key}"}
    try:
        return poses.relative(actions, states, relation.pose, **names)
    except Gr00tError as error:
        raise DatasetError(str(error)) from error
