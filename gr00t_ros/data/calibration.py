# SPDX-License-Identifier: Apache-2.0
"""Recorded observations for calibrating and checking engines, out of a LeRobot dataset.

``build_engine`` and ``benchmark`` use these. Values stay in the dataset's units, in which the checkpoint was
trained, so no robot description is needed; where one is given, joints are found by its names.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.inference.observations import (
    MAX_OBSERVATIONS,
    EncodedObservation,
    ObservationSet,
    encode_observation,
)
from gr00t_model.processing import Gr00tProcessor, ModalityConfig
from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.mapping import map_groups
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig


def recorded_observations(
    dataset_dir: str | Path,
    processor: Gr00tProcessor,
    tag: str,
    count: int = 16,
    seed: int = 0,
    robot: RobotConfig | None = None,
) -> ObservationSet:
    """``count`` observations spread evenly over the episodes and over each episode's rows.

    Args:
        processor: the checkpoint's; its modality configuration of ``tag`` says what an observation holds.
        seed: which rows, and the noise; the same seed gives the same observations.
        robot: finds joints by name in a dataset without ``meta/modality.json``, and gives the instruction
            where the dataset has none.

    Raises:
        DatasetError: the dataset cannot be read or lacks what the checkpoint sees.
        ObservationError: a frame or a state cannot be used, or ``count`` is not 1 to 32.
    """
    dataset = LeRobotDataset(dataset_dir)
    reader = _Reader(dataset, processor, tag, robot)
    rng = np.random.default_rng(seed)
    encoded: list[EncodedObservation] = []
    for number, share in _shares(list(dataset.episodes), min(count, MAX_OBSERVATIONS + 1)):
        episode = dataset.episode(number)
        for row in reader.rows(episode, share, rng):
            observation = reader.observation(episode, row)
            encoded.append(encode_observation(processor, tag, observation, (seed, len(encoded))))
    return ObservationSet(encoded, f"recorded: {dataset.path.name}, {len(dataset)} episodes, seed {seed}")


def _shares(episodes: list[int], count: int) -> list[tuple[int, int]]:
    """(episode, how many of the observations), episodes spread evenly where there are more of them."""
    chosen = [episodes[i * len(episodes) // count] for i in range(count)] if count > 0 else []
    return [(number, chosen.count(number)) for number in dict.fromkeys(chosen)]


class _Reader:
    """Rows of a dataset as observations in the policy's form."""

    def __init__(
        self, dataset: LeRobotDataset, processor: Gr00tProcessor, tag: str, robot: RobotConfig | None
    ) -> None:
        self._modality: Mapping[str, ModalityConfig] = processor.modality(tag)
        self._instruction = robot.instruction.default if robot else ""
        self._videos = {key: dataset.video(key) for key in self._modality["video"].modality_keys}
        wanted: dict[str, tuple[str, ...]] = {}
        for key, width in processor.state_widths(tag).items():
            known = robot is not None and key in robot.state
            wanted[key] = robot.state[key].joints if robot and known else ("",) * width
            if len(wanted[key]) != width:
                raise DatasetError(
                    f"state {key}: the robot has {len(wanted[key])} joints, the checkpoint {width} values"
                )
        self._states = map_groups(dataset, "state", wanted)

    def rows(self, episode: Episode, share: int, rng: np.random.Generator) -> list[int]:
        """One row of each of ``share`` equal stretches of the episode, none without its past."""
        past = min(0, *self._modality["video"].delta_indices, *self._modality["state"].delta_indices)
        if len(episode) <= -past:
            raise DatasetError(
                f"episode {episode.index} has {len(episode)} rows; the checkpoint looks back {-past}"
            )
        ends = np.linspace(-past, len(episode), share + 1)
        return [min(int(rng.uniform(low, high)), len(episode) - 1) for low, high in pairwise(ends)]

    def observation(self, episode: Episode, row: int) -> dict[str, dict[str, Any]]:
        """What the policy would have been given at this row."""
        states = {}
        for key, (column, positions) in self._states.items():
            values = episode.column(column)
            if max(positions) >= values.shape[1]:
                raise DatasetError(
                    f"episode {episode.index}: {column} has {values.shape[1]} values, state {key} needs "
                    f"number {max(positions)}"
                )
            at = [row + delta for delta in self._modality["state"].delta_indices]
            states[key] = values[at][:, positions].astype(np.float32)[None]
        video = self._modality["video"].delta_indices
        language = self._modality["language"]
        text = episode.instructions[row] or self._instruction
        return {
            "video": {key: self._frames(episode, f, row, video) for key, f in self._videos.items()},
            "state": states,
            "language": {key: [[text] * len(language.delta_indices)] for key in language.modality_keys},
        }

    def _frames(self, episode: Episode, feature: str, row: int, deltas: tuple[int, ...]) -> NDArray[np.uint8]:
        """uint8 [1, T, H, W, 3]."""
        wanted = [row + delta for delta in deltas]
        first = min(wanted)
        decoded = list(episode.frames(feature, first, max(wanted) + 1))
        return np.stack([decoded[at - first] for at in wanted])[None]
