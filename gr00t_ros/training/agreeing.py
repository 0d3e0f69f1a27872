# SPDX-License-Identifier: Apache-2.0
"""Whether numbers that are put together mean the same: the datasets of one embodiment among each other, and a
dataset and the robot description that is given for it.

Nothing later would notice: joints in another order, or degrees among radians, only make a policy that moves
the wrong way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gr00t_ros.data import rates
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.mapping import group_names
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import ActionGroupConfig, RobotConfig, StateSource
from gr00t_ros.robot_types import EE_POSE, POSE, TWIST
from gr00t_ros.training.modalities import Modality
from gr00t_ros.units import JointUnit

if TYPE_CHECKING:
    from gr00t_ros.training.preparing import Recording

# rad, m, or relative: 0.0174533 and pi / 180 are one unit.
_ROUNDED = 1e-6
_KINDS = ("state", "action")


def check_own_robot(dataset: LeRobotDataset, own: Path, robot: RobotConfig, named: Path) -> None:
    """That a robot description reads a dataset as the one does that it was recorded with. The order of joints
    may differ where the dataset names them.

    Raises:
        DatasetError: joints, units or what the values are differ.
        RobotConfigError: the dataset's own description cannot be read.
    """
    recorded = RobotConfig.from_file(own)
    different = [
        text
        for kind in _KINDS
        for key, group in _groups(robot, kind).items()
        if key in _groups(recorded, kind)
        for text in _group_differences(
            recorded, robot, kind, key, ordered=not _by_name(dataset, kind, key, _columns(group))
        )
    ]
    if different:
        raise DatasetError(
            f"{dataset.path}: {named} reads it otherwise than its own {own.relative_to(dataset.path)}, by "
            f"which it was recorded: {'; '.join(different)}; correct the one that is wrong, or leave --robot "
            "out"
        )


def check_together(recordings: Sequence[Recording]) -> None:
    """That datasets of one embodiment have one rate, and the same joints in the same order and units.

    Raises:
        DatasetError: they differ; says in what.
    """
    first: dict[str, Recording] = {}
    for recording in recordings:
        other = first.setdefault(recording.tag, recording)
        one, two = other.dataset, recording.dataset
        if rates.differ(two.fps, one.fps, rates.WRITTEN):
            raise DatasetError(
                f"{recording.path}: fps is {two.fps:g}, {other.path} of the same embodiment {recording.tag} "
                f"has {one.fps:g}; convert them at one rate, or give them two tags"
            )
        different = list(_differences(other, recording))
        if different:
            raise _not_together(other, recording, different)


def check_configurations(recordings: Sequence[Recording], found: Sequence[Modality]) -> dict[str, Modality]:
    """The modality configuration of each embodiment, from those of its datasets, which must be the same.

    Raises:
        DatasetError: they differ in keys or in what is relative; says in what.
    """
    first: dict[str, tuple[Recording, Modality]] = {}
    for recording, modality in zip(recordings, found, strict=True):
        other, before = first.setdefault(recording.tag, (recording, modality))
        different = [
            f"{name} were {_listed(one)} and are {_listed(two)}"
            for name, one, two in (
                (name, _contents(before, kind), _contents(modality, kind))
                for name, kind in (("cameras", "video"), ("states", "state"), ("actions", "action"))
            )
            if one != two
        ]
        if different:
            raise _not_together(other, recording, different)
    return {tag: modality for tag, (_, modality) in first.items()}


def _not_together(one: Recording, two: Recording, different: Sequence[str]) -> DatasetError:
    return DatasetError(
        f"{two.path} does not go together with {one.path}, of the same embodiment {one.tag}: "
        f"{'; '.join(different)}; convert both with one robot YAML, or give them two tags (--dataset DIR:TAG)"
    )


def _contents(modality: Modality, kind: str) -> set[str]:
    """Keys, and for actions whether they are relative; in no order, for values are found by key."""
    config = modality[kind]
    if kind != "action":
        return set(config.modality_keys)
    return {f"{key} {config.action_config(key).rep.lower()}" for key in config.modality_keys}


def _differences(one: Recording, two: Recording) -> Iterator[str]:
    for kind in _KINDS:
        if one.robot is not None and two.robot is not None:
            groups = _groups(one.robot, kind)
            for key in groups:
                if key in _groups(two.robot, kind):
                    yield from _group_differences(one.robot, two.robot, kind, key, ordered=True)
            continue
        names, others = _names(one, kind), _names(two, kind)
        for key in names:
            if names[key] and others.get(key) and not set(names[key]) & set(others[key]):
                yield f"{kind} {key} was {_listed(names[key][0])} and is {_listed(others[key][0])}"


def _group_differences(
    one: RobotConfig, two: RobotConfig, kind: str, key: str, *, ordered: bool
) -> Iterator[str]:
    """In what two descriptions of a group differ that changes the meaning of its values."""
    before, after = _groups(one, kind)[key], _groups(two, kind)[key]
    names, others = _columns(before), _columns(after)
    if names != others if ordered else set(names) != set(others):
        yield f"{kind} {key} was {_listed(names)} and is {_listed(others)}"
        return
    was, now = _meaning(before), _meaning(after)
    if was != now:
        yield f"{kind} {key} was {_listed(was)} and is {_listed(now)}"
    for name in before.unit_names:
        left, right = one.unit(name), two.unit(name)
        if not _same(left, right):
            yield f"the unit of {name} was {_spoken(left)} and is {_spoken(right)}"


def _meaning(group: StateSource | ActionGroupConfig) -> list[str]:
    """What the values are, how a rotation is written, and the frame of what is in a frame."""
    what = group.representation if isinstance(group, ActionGroupConfig) else group.type
    said = [what, group.field] if isinstance(group, StateSource) else [what]
    if what in (EE_POSE, POSE):
        said.append(group.rotation)
    return [*said, *([f"in frame {group.frame_id!r}"] if what in (EE_POSE, POSE, TWIST) else [])]


def _groups(robot: RobotConfig, kind: str) -> Mapping[str, StateSource | ActionGroupConfig]:
    return robot.state if kind == "state" else robot.action


def _columns(group: StateSource | ActionGroupConfig) -> tuple[str, ...]:
    return group.joints if isinstance(group, StateSource) else group.columns


def _by_name(dataset: LeRobotDataset, kind: str, key: str, joints: Sequence[str]) -> bool:
    """Whether these joints are found in the dataset by their names."""
    groups = dataset.groups(kind)
    return any(
        set(joints) <= set(names)
        for group in (key, "all")
        if group in groups
        for names in group_names(dataset, group, groups[group])
    )


def _names(recording: Recording, kind: str) -> dict[str, list[tuple[str, ...]]]:
    """What the columns of each group may be called, in the order in which they are read."""
    dataset = recording.dataset
    found = {key: group_names(dataset, key, group) for key, group in dataset.groups(kind).items()}
    if recording.robot is None:
        return found
    # A permutation of the robot's joints is read in the robot's order.
    own = {key: _columns(group) for key, group in _groups(recording.robot, kind).items()}
    return {
        key: [columns, *(names for names in found.get(key, ()) if set(names) != set(columns))]
        for key, columns in own.items()
    }


def _same(one: JointUnit, two: JointUnit) -> bool:
    """As numbers that people round differently."""
    pairs = ((one.sign * one.scale, two.sign * two.scale), (one.offset, two.offset))
    return all(math.isclose(*pair, rel_tol=_ROUNDED, abs_tol=_ROUNDED) for pair in pairs)


def _listed(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names) if isinstance(names, set) else names) or "none"


def _spoken(unit: JointUnit) -> str:
    return f"{unit.sign * unit.scale:g} x value + {unit.offset:g}"
