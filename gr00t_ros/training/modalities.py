# SPDX-License-Identifier: Apache-2.0
"""Modality configurations for a robot that the base checkpoint does not know: which keys, how many steps, and
which actions are relative to the present state.

Made from the robot YAML where there is one, for only it says what an action group commands; else from the
dataset's ``meta/modality.json``, where every action is then absolute unless it is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gr00t_model.processing import ActionConfig, ModalityConfig
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.robot import ActionGroupConfig, RobotConfig
from gr00t_ros.robot_types import EE_POSE, JOINT_POSITION, POSE, POSE_LAYOUTS
from gr00t_ros.training.options import TrainingError

Modality = Mapping[str, ModalityConfig]

# The name that GR00T's datasets give the task's text, and the conversion of bags as well.
LANGUAGE_KEY = "annotation.human.task_description"
ALL = "all"


@dataclass(frozen=True)
class Representations:
    """Which action keys are to be relative or absolute whatever the default says, and which are scaled by
    mean and standard deviation instead of by their range; ``all`` stands for every key."""

    relative: tuple[str, ...] = ()
    absolute: tuple[str, ...] = ()
    mean_std: tuple[str, ...] = ()

    def choose(self, key: str, default: bool) -> bool:
        """Whether this key is to be relative."""
        for exact in (key, ALL):
            if exact in self.relative:
                return True
            if exact in self.absolute:
                return False
        return default

    def check(self, keys: Iterable[str]) -> None:
        """TrainingError where a key is named that is no action, or both ways."""
        known = (*keys, ALL)
        for key in (*self.relative, *self.absolute, *self.mean_std):
            if key not in known:
                raise TrainingError(
                    f"--relative, --absolute and --mean-std: there is no action {key!r}; the actions are "
                    f"{', '.join(known[:-1])}"
                )
        both = set(self.relative) & set(self.absolute)
        if both:
            raise TrainingError(f"{', '.join(sorted(both))}: named with both --relative and --absolute")

    def action(self, keys: tuple[str, ...], configs: Iterable[ActionConfig], horizon: int) -> ModalityConfig:
        """Of an embodiment with these actions."""
        moments = tuple(key for key in keys if {key, ALL} & set(self.mean_std))
        return ModalityConfig(
            tuple(range(horizon)), keys, mean_std_embedding_keys=moments, action_configs=tuple(configs)
        )


def from_robot(robot: RobotConfig, horizon: int, chosen: Representations) -> dict[str, ModalityConfig]:
    """Keys in the YAML's order. Joint positions and poses are relative to the state group that holds the same
    values, scalars and velocities absolute.

    Raises:
        TrainingError: an action is to be relative, and no state holds what it is relative to.
    """
    chosen.check(robot.action)
    configs = []
    for key, group in robot.action.items():
        default = group.representation in (JOINT_POSITION, EE_POSE)
        config = _relative(robot, group)
        if config is None and chosen.choose(key, False):
            raise TrainingError(
                f"action {key} cannot be relative: no state group of robot {robot.name} holds the same "
                "joints, or the same pose with a rotation of rot6d or rotvec"
            )
        relative = config is not None and chosen.choose(key, default)
        configs.append(config if relative and config is not None else ActionConfig())
    return {
        "video": ModalityConfig((0,), tuple(robot.video)),
        "state": ModalityConfig((0,), tuple(robot.state)),
        "action": chosen.action(tuple(robot.action), configs, horizon),
        "language": ModalityConfig((0,), (LANGUAGE_KEY,)),
    }


def from_dataset(dataset: LeRobotDataset, horizon: int, chosen: Representations) -> dict[str, ModalityConfig]:
    """Keys in the order of ``meta/modality.json``; actions are absolute unless chosen to be relative.

    Raises:
        TrainingError: the dataset has no modality.json, or it lacks cameras, states or actions.
    """
    path = dataset.path / "meta/modality.json"
    if dataset.modality is None:
        raise TrainingError(
            f"{path} is missing, so nothing says which values are which; add one, or give --robot"
        )
    keys = {name: tuple(dataset.modality.get(name) or ()) for name in ("video", "state", "action")}
    for name, found in keys.items():
        if not found:
            raise TrainingError(f"{path} names no {name}; a policy needs at least one")
    chosen.check(keys["action"])
    widths = {key: group.width for key, group in dataset.groups("state").items()}
    configs = []
    for key, group in dataset.groups("action").items():
        relative = chosen.choose(key, False)
        if relative and widths.get(key) != group.width:
            raise TrainingError(
                f"{path}: action {key} cannot be relative, expected a state {key} of {group.width} values"
            )
        configs.append(ActionConfig(rep="RELATIVE") if relative else ActionConfig())
    return {
        "video": ModalityConfig((0,), keys["video"]),
        "state": ModalityConfig((0,), keys["state"]),
        "action": chosen.action(keys["action"], configs, horizon),
        "language": ModalityConfig((0,), (_language(dataset.modality),)),
    }


def has_relative(modality: Modality) -> bool:
    """Whether any action is relative to the present state."""
    action = modality["action"]
    return any(action.action_config(key).relative for key in action.modality_keys)


def described(modality: Modality) -> str:
    """What goes in and comes out, in one line for people."""
    action = modality["action"]
    actions = (f"{key} {action.action_config(key).rep.lower()}" for key in action.modality_keys)
    return (
        f"cameras {', '.join(modality['video'].modality_keys)}; states "
        f"{', '.join(modality['state'].modality_keys)}; {action.horizon} steps of {', '.join(actions)}"
    )


def _relative(robot: RobotConfig, group: ActionGroupConfig) -> ActionConfig | None:
    """Relative to the state group that holds the same values; None where there is none."""
    if group.representation == EE_POSE:
        layout = POSE_LAYOUTS.get(group.rotation)
        state = _pose_state(robot, group)
        if layout is None or state is None:
            return None
        return ActionConfig(rep="RELATIVE", type="EEF", format=layout, state_key=state)
    for key, source in robot.state.items():
        if group.joints and source.joints == group.joints and source.field == "position":
            return ActionConfig(rep="RELATIVE", state_key=key)
    return None


def _pose_state(robot: RobotConfig, group: ActionGroupConfig) -> str | None:
    poses = [
        (key, source)
        for key, source in robot.state.items()
        if source.type == POSE and source.rotation == group.rotation
    ]
    for key, source in poses:
        if key == group.key or source.topic == group.measured_topic:
            return key
    return poses[0][0] if len(poses) == 1 else None


def _language(modality: Mapping[str, object]) -> str:
    annotations = modality.get("annotation")
    names = list(annotations) if isinstance(annotations, Mapping) else []
    for name in ("human.task_description", "human.action.task_description"):
        if name in names:
            return f"annotation.{name}"
    return LANGUAGE_KEY
