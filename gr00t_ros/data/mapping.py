# SPDX-License-Identifier: Apache-2.0
"""Which column of a dataset belongs to which joint of a robot, and which video to which camera.

``replay`` publishes a dataset as the robot that recorded it would; this is where the two descriptions meet.
Values keep the dataset's units here: ``units.py`` turns them into SI.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data.lerobot import ColumnGroup, Episode, LeRobotDataset
from gr00t_ros.errors import DatasetError
from gr00t_ros.group_values import from_checkpoint
from gr00t_ros.robot import RobotConfig
from gr00t_ros.units import to_si

# LeRobot's own recordings name joints "shoulder_pan.pos".
_NAME_SUFFIX = ".pos"


@dataclass(frozen=True)
class DatasetMapping:
    """Where a robot's sources lie in a dataset.

    ``videos``: camera key to video feature. ``states`` and ``actions``: group key to (column, positions in
    it), in the order of the group's joints.
    """

    videos: dict[str, str]
    states: dict[str, tuple[str, tuple[int, ...]]]
    actions: dict[str, tuple[str, tuple[int, ...]]]

    def state_si(self, robot: RobotConfig, episode: Episode, key: str) -> NDArray[np.float64]:
        """State group ``key`` of all rows, in SI [N, D], columns in the order of the group's joints."""
        column, positions = self.states[key]
        units = [robot.unit(joint) for joint in robot.state[key].joints]
        return to_si(_columns(episode, column, positions), units)

    def action_si(self, robot: RobotConfig, episode: Episode, key: str) -> NDArray[np.float64]:
        """Action group ``key`` of all rows as chunks carry it: SI [N, D], rotations as quaternions. Raises
        ValueError for a rotation that is none."""
        column, positions = self.actions[key]
        return from_checkpoint(robot, robot.action[key], _columns(episode, column, positions))


def _columns(episode: Episode, column: str, positions: tuple[int, ...]) -> NDArray[np.float64]:
    values = episode.column(column)
    if max(positions) >= values.shape[1]:
        raise DatasetError(
            f"episode {episode.index}: {column} has {values.shape[1]} values, the robot needs number "
            f"{max(positions)}"
        )
    return values[:, positions]


def map_dataset(dataset: LeRobotDataset, robot: RobotConfig) -> DatasetMapping:
    """Finds every camera and every state and action group of ``robot`` in ``dataset``.

    Groups come from modality.json by key, and the joints in a group by info.json's names; without the first,
    from the names alone. Names that are none of the robot's leave the YAML's order, where the widths add up.
    Raises DatasetError that says what the dataset has instead.
    """
    return DatasetMapping(
        videos={key: dataset.video(key) for key in robot.video},
        states=map_groups(dataset, "state", {key: source.joints for key, source in robot.state.items()}),
        actions=map_groups(dataset, "action", {key: group.columns for key, group in robot.action.items()}),
    )


def map_groups(
    dataset: LeRobotDataset, kind: str, wanted: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Column and positions of each group in ``wanted`` ({key: joint names}; ``kind`` is state or action), as
    :func:`map_dataset` finds them; names that no dataset has leave modality.json and the order."""
    groups = dataset.groups(kind)
    if dataset.modality is not None:
        return {key: _named_group(dataset, kind, groups, key, joints) for key, joints in wanted.items()}
    whole = groups.get("all")
    if whole is None:
        column = "observation.state" if kind == "state" else "action"
        raise DatasetError(f"{dataset.path}: info.json has no column {column}")
    names = [name.removesuffix(_NAME_SUFFIX) for name in dataset.names(whole.column)]
    total = sum(len(joints) for joints in wanted.values())
    if all(joint in names for joints in wanted.values() for joint in joints):
        return {key: (whole.column, tuple(names.index(j) for j in joints)) for key, joints in wanted.items()}
    if total != whole.width:
        raise DatasetError(
            f"{dataset.path}: {whole.column} has {whole.width} values ({', '.join(names)}) and no "
            f"modality.json; the robot's {kind} groups have {total} joints with other names"
        )
    found, start = {}, 0
    for key, joints in wanted.items():
        found[key] = (whole.column, tuple(range(start, start + len(joints))))
        start += len(joints)
    return found


def _named_group(
    dataset: LeRobotDataset,
    kind: str,
    groups: dict[str, ColumnGroup],
    key: str,
    joints: tuple[str, ...],
) -> tuple[str, tuple[int, ...]]:
    where = f"{dataset.path / 'meta/modality.json'}: {kind}"
    if key not in groups:
        raise DatasetError(f"{where} has no group {key!r}; it has {', '.join(groups)}")
    group, width = groups[key], len(joints)
    if group.width != width:
        raise DatasetError(f"{where}.{key} has {group.width} values, the robot's group has {width} joints")
    for names in group_names(dataset, key, group):
        if set(names) == set(joints):
            return group.column, tuple(group.start + names.index(joint) for joint in joints)
        elsewhere = [name for name, joint in zip(names, joints, strict=True) if name != joint]
        if not {*elsewhere}.isdisjoint(joints):
            raise DatasetError(
                f"{where}.{key}: info.json calls its values {', '.join(names)}, the robot's joints are "
                f"{', '.join(joints)}: some are others, and the rest in another order; correct the one that "
                "is wrong"
            )
    return group.column, tuple(range(group.start, group.end))


def group_names(dataset: LeRobotDataset, key: str, group: ColumnGroup) -> list[tuple[str, ...]]:
    """What info.json calls the columns of a group: as they stand there, and without the key in front, which
    the converter puts there where two groups have a column of one name. Empty where not all have a name of
    their own."""
    names = [name.removesuffix(_NAME_SUFFIX) for name in dataset.names(group.column)[group.start : group.end]]
    if len(set(names)) != group.width:
        return []
    prefix = f"{key}_"
    bare = tuple(name.removeprefix(prefix) for name in names)
    return [tuple(names), bare] if all(name.startswith(prefix) for name in names) else [tuple(names)]
