# SPDX-License-Identifier: Apache-2.0
"""What a run is made of, found and checked before anything slow begins: datasets, robots, the processor.

All that a person can get wrong about data is said here, in one line, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gr00t_model import Gr00tProcessor
from gr00t_model.errors import Gr00tError
from gr00t_model.processing import EMBODIMENT_IDS
from gr00t_ros.data import rates
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from gr00t_ros.training import modalities
from gr00t_ros.training.agreeing import (
    check_configurations,
    check_own_robot,
    check_together,
)
from gr00t_ros.training.dataset_statistics import check_episodes, training_statistics
from gr00t_ros.training.dividing import held_out, parse_skipped, without
from gr00t_ros.training.network import Base
from gr00t_ros.training.options import HORIZON, Options, TrainingError
from gr00t_ros.training.pointing import Pointing
from gr00t_ros.training.samples import DatasetSource

NEW_EMBODIMENT = "new_embodiment"
# Where the converter leaves the robot description that a dataset was made with.
ROBOT_IN_DATASET = Path("meta/robot.yaml")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Recording:
    """One dataset of the run, what it belongs to and what describes its robot."""

    path: Path
    tag: str
    weight: float
    dataset: LeRobotDataset
    robot: RobotConfig | None
    robot_path: Path | None
    held_out: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    pointing: Pointing | None = None

    @property
    def training(self) -> DatasetSource:
        """The episodes to learn from."""
        apart = {*self.held_out, *self.skipped}
        kept = tuple(number for number in self.dataset.episodes if number not in apart)
        return self._source(kept if apart else None)

    def identity(self) -> dict[str, Any]:
        """For the record, fit for JSON."""
        return {
            "path": str(self.path.resolve()),
            "embodiment_tag": self.tag,
            "weight": self.weight,
            "held_out_episodes": list(self.held_out),
            "skipped_episodes": list(self.skipped),
        }

    @property
    def evaluation(self) -> DatasetSource:
        """The episodes that are held out."""
        return self._source(self.held_out)

    def _source(self, episodes: tuple[int, ...] | None) -> DatasetSource:
        return DatasetSource(self.path, self.tag, self.weight, self.robot, episodes, self.pointing)


def find_recordings(options: Options) -> list[Recording]:
    """The datasets of the run with their robots and tags.

    Raises:
        DatasetError: a dataset cannot be read, its fps contradicts the robot's step_rate, or its values mean
            something else than those of another dataset of its embodiment, or than the robot's.
        RobotConfigError: a robot description is wrong.
        TrainingError: a dataset is given in a form that cannot be read, or too few episodes are left.
    """
    named = None if options.robot is None else robot_file(options.robot)
    found = []
    datasets = [parse_dataset(text) for text in options.datasets]
    skipped = parse_skipped(options.skip_episodes, [path for path, _, _ in datasets])
    for (path, tag, weight), skip in zip(datasets, skipped, strict=True):
        dataset = LeRobotDataset(path)
        own = path / ROBOT_IN_DATASET if (path / ROBOT_IN_DATASET).is_file() else None
        robot_path = named or own
        robot = None if robot_path is None else RobotConfig.from_file(robot_path)
        if named is not None and own is not None and robot is not None:
            check_own_robot(dataset, own, robot, named)
        tag = tag or options.embodiment_tag or (robot.embodiment_tag if robot else NEW_EMBODIMENT)
        pointing = Pointing.parse(options.pointing) if options.pointing else None
        recording = Recording(path, tag, weight, dataset, robot, robot_path, pointing=pointing)
        _check_rate(recording)
        left = without(dataset, skip)
        held = held_out(dataset, left, options.eval_episodes)
        found.append(replace(recording, held_out=held, skipped=skip))
    check_together(found)
    return found


def parse_dataset(text: str) -> tuple[Path, str | None, float]:
    """``DIR[:TAG[:WEIGHT]]``; a folder whose own name has colons is taken as it is.

    Raises:
        TrainingError: the weight is no positive number.
    """
    if Path(text).expanduser().is_dir():
        return Path(text).expanduser(), None, 1.0
    directory, *rest = text.split(":")
    if len(rest) > 2:
        raise TrainingError(f"--dataset {text}: expected DIR, DIR:TAG or DIR:TAG:WEIGHT")
    tag = rest[0] if rest and rest[0] else None
    weight = 1.0
    if len(rest) == 2:
        try:
            weight = float(rest[1])
        except ValueError:
            weight = -1.0
        if not 0.0 < weight < float("inf"):
            raise TrainingError(f"--dataset {text}: the weight is {rest[1]!r}, expected a number above 0")
    return Path(directory).expanduser(), tag, weight


def prepare_processor(
    options: Options, base: Base, recordings: Sequence[Recording], tell: Tell
) -> Gr00tProcessor:
    """The processor that the run trains with and that its checkpoints carry.

    Tags of the base that the run does not touch keep their configurations and statistics.

    Raises:
        Gr00tRosError, Gr00tError: the data, the robot and the base do not fit each other.
    """
    configs: dict[str, Any] = {} if base.processor is None else dict(base.processor.modality_configs)
    own = check_configurations(recordings, [_modality(options, base, recording) for recording in recordings])
    configs |= own
    for tag, modality in own.items():
        tell(f"{tag}: {modalities.described(modality)}")
    processor = _processor(options, base, configs, base.statistics, recordings)
    if options.statistics == "data":
        measured = training_statistics(
            [recording.training for recording in recordings], processor.modality_configs, tell
        )
        processor = _processor(options, base, configs, {**base.statistics, **measured}, recordings)
    for recording in recordings:
        _require(processor, recording)
    unseen = [recording.evaluation for recording in recordings if recording.held_out]
    if options.statistics != "data":
        unseen += [recording.training for recording in recordings]
    check_episodes(unseen, processor, tell)
    return processor


def _modality(options: Options, base: Base, recording: Recording) -> modalities.Modality:
    """The base's where it knows the tag, else one for the robot, else one for the dataset."""
    known = base.processor is not None and recording.tag in base.processor.modality_configs
    if options.modality == "base" and not known:
        tags = ", ".join(base.processor.tags) if base.processor is not None else "none"
        raise TrainingError(
            f"--modality base: the base knows no embodiment {recording.tag!r}, it knows {tags}; choose one "
            "with --embodiment-tag, or leave --modality out"
        )
    if known and options.modality != "new" and base.processor is not None:
        own = base.processor.modality(recording.tag)["action"].horizon
        chosen = (options.relative, options.absolute, options.mean_std)
        if any(chosen) or options.horizon not in (None, own):
            raise TrainingError(
                f"the base brings its own configuration of {recording.tag}, with {own} steps; --horizon, "
                "--relative, --absolute and --mean-std need --modality new"
            )
        modality: modalities.Modality = base.processor.modality(recording.tag)
        if recording.pointing and recording.pointing.state in modality["state"].modality_keys:
            raise TrainingError(
                f"--pointing {options.pointing}: the base gets this state as an input; --modality new makes "
                "a configuration without it"
            )
    else:
        horizon = options.horizon or HORIZON
        wanted = modalities.Representations(options.relative, options.absolute, options.mean_std)
        if recording.robot is not None:
            modality = modalities.from_robot(recording.robot, horizon, wanted)
        else:
            modality = modalities.from_dataset(recording.dataset, horizon, wanted)
    return modality if recording.pointing is None else recording.pointing.hidden(modality)


def _processor(
    options: Options,
    base: Base,
    configs: Mapping[str, Any],
    statistics: Mapping[str, Any],
    recordings: Sequence[Recording],
) -> Gr00tProcessor:
    network = base.config
    if base.processor is None:
        values: dict[str, Any] = {
            "max_state_dim": network.max_state_dim,
            "max_action_dim": network.max_action_dim,
            "max_action_horizon": network.action_horizon,
        }
        ids: dict[str, int] = {}
    else:
        own = base.processor.options
        values = {name: getattr(own, name) for name in own.__dataclass_fields__}
        ids = dict(base.processor.embodiment_ids)
        known = () if options.modality == "new" else base.processor.modality_configs
        if any(modalities.has_relative(configs[one.tag]) for one in recordings if one.tag not in known):
            # As the reference does. A base for which it is off would leave out what is chosen here, unsaid.
            values["use_relative_action"] = True
    if options.mean_std:
        # As the reference cuts, all beyond one standard deviation would be lost.
        values["clip_outliers"] = False
    if options.color_jitter is not None:
        names = ("brightness", "contrast", "saturation", "hue")
        values["color_jitter_params"] = dict(zip(names, options.color_jitter, strict=True))
    if options.random_rotation is not None:
        values["random_rotation_angle"] = options.random_rotation
    for name in ("crop_fraction", "image_edge"):
        if getattr(options, name) is not None and not values.get("use_albumentations", True):
            raise TrainingError(
                f"--{name.replace('_', '-')}: the base's processor_config.json has use_albumentations false, "
                "and so fixed sizes of its own (image_target_size, image_crop_size); leave it out"
            )
    if options.crop_fraction is not None:
        values["crop_fraction"] = options.crop_fraction
    if options.image_edge is not None:
        values["shortest_image_edge"] = options.image_edge
    ids = _with_numbers(ids, [recording.tag for recording in recordings], network.max_num_embodiments)
    return Gr00tProcessor(configs, statistics, ids, tokenizer=base.tokenizer(), **values)


def _with_numbers(ids: dict[str, int], tags: Sequence[str], room: int) -> dict[str, int]:
    """The table with a free number for each tag that has none.

    Raises:
        TrainingError: a number is beyond the network's, or none is free.
    """
    complete = {**EMBODIMENT_IDS, **ids}
    for tag in dict.fromkeys(tags):
        if tag not in complete:
            free = sorted(set(range(room)) - set(complete.values()))
            if not free:
                raise TrainingError(
                    f"all {room} embodiments of the base are taken; use the tag of one of them"
                )
            complete[tag] = ids[tag] = free[0]
        if complete[tag] >= room:
            raise TrainingError(
                f"embodiment {tag} has the number {complete[tag]}, and the base has room for 0 to {room - 1}"
            )
    return ids


def _require(processor: Gr00tProcessor, recording: Recording) -> None:
    try:
        processor.require_statistics(recording.tag)
    except Gr00tError as error:
        raise TrainingError(
            f"{error}; --statistics data measures them in {recording.path}"
            if "statistics" in str(error)
            else str(error)
        ) from error


def _check_rate(recording: Recording) -> None:
    robot, fps = recording.robot, recording.dataset.fps
    if robot is not None and rates.differ(fps, robot.step_rate, rates.WRITTEN):
        raise DatasetError(
            f"{recording.path / 'meta/info.json'}: fps is {fps:g}, but {recording.robot_path} has a "
            f"step_rate of {robot.step_rate:g} Hz: the robot would act at another speed than it was taught; "
            "convert the recording at that rate, or correct the one that is wrong"
        )
