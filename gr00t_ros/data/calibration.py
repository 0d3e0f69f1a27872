# SPDX-License-Identifier: Apache-2.0
"""Recorded observations for calibrating and checking engines, out of a LeRobot dataset.

``build_engine`` and ``benchmark`` use these. Values stay in the dataset's units, in which the checkpoint was
trained, so no robot description is needed; where one is given, joints are found by its names.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from gr00t_model.inference.observations import (
    MAX_OBSERVATIONS,
    EncodedObservation,
    ObservationSet,
    encode_observation,
)
from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.windows import WindowReader
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
    reader = WindowReader(
        dataset, processor.modality(tag), robot=robot, state_widths=processor.state_widths(tag)
    )
    rng = np.random.default_rng(seed)
    encoded: list[EncodedObservation] = []
    for number, share in _shares(list(dataset.episodes), min(count, MAX_OBSERVATIONS + 1)):
        episode = dataset.episode(number)
        for row in _rows(reader, episode, share, rng):
            observation = reader.observation(episode, row)
            encoded.append(encode_observation(processor, tag, observation, (seed, len(encoded))))
    return ObservationSet(encoded, f"recorded: {dataset.path.name}, {len(dataset)} episodes, seed {seed}")


def _shares(episodes: list[int], count: int) -> list[tuple[int, int]]:
    """(episode, how many of the observations), episodes spread evenly where there are more of them."""
    chosen = [episodes[i * len(episodes) // count] for i in range(count)] if count > 0 else []
    return [(number, chosen.count(number)) for number in dict.fromkeys(chosen)]


def _rows(reader: WindowReader, episode: Episode, share: int, rng: np.random.Generator) -> list[int]:
    """One row of each of ``share`` equal stretches of the episode, none without its past."""
    rows = reader.rows(episode)
    if not rows:
        raise DatasetError(
            f"episode {episode.index} has {len(episode)} rows; the checkpoint looks back {rows.start}"
        )
    ends = np.linspace(rows.start, rows.stop, share + 1)
    return [min(int(rng.uniform(low, high)), rows.stop - 1) for low, high in pairwise(ends)]
