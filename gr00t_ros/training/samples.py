# SPDX-License-Identifier: Apache-2.0
"""Datasets as sources of training samples: opened, checked, and read shard by shard.

A shard's frames are decoded once, from its first row to its last, and kept as the first image step leaves
them until their rows are used; nothing else of a video is ever in memory.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.processing import Gr00tProcessor, ModalityConfig
from gr00t_model.processing.points import seen_at
from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training.pointing import HEAD, WIDTH, Pointing

# Episodes whose rows are kept at hand at least. One of 1000 rows of 100 numbers takes 0.8 MB.
KEPT_EPISODES = 32


@dataclass(frozen=True)
class DatasetSource:
    """One dataset of a mixture.

    Args:
        tag: embodiment of the checkpoint that it belongs to.
        weight: its share of the samples drawn, relative to the other sources' weights, whatever its size.
        robot: finds joints by name where the dataset has no ``meta/modality.json``, and gives the
            instruction where it has none.
        episodes: which episodes to use; None means all.
        pointing: the label that each sample gets besides, or None.
    """

    path: Path
    tag: str
    weight: float = 1.0
    robot: RobotConfig | None = None
    episodes: tuple[int, ...] | None = None
    pointing: Pointing | None = None


class OpenSource:
    """A source, opened and looked through: every file that training will need is there.

    ``episodes`` are the numbers of those to use; episodes without rows are left out, and are in ``empty``.
    ``kept_episodes`` is how many of those read last are not read again: more than are in use at a time.

    Raises:
        DatasetError: it cannot be read, does not fit ``modality``, or has no row that can be a sample.
    """

    def __init__(
        self,
        source: DatasetSource,
        modality: Mapping[str, ModalityConfig],
        *,
        state_widths: Mapping[str, int] | None = None,
        action_widths: Mapping[str, int] | None = None,
        kept_episodes: int = KEPT_EPISODES,
    ) -> None:
        if not (math.isfinite(source.weight) and source.weight > 0):
            raise DatasetError(f"{source.path}: its weight is {source.weight}, expected a number above 0")
        self.source = source
        self.dataset = LeRobotDataset(source.path)
        self.reader = WindowReader(
            self.dataset,
            modality,
            robot=source.robot,
            state_widths=state_widths,
            action_widths=action_widths,
        )
        self._points = None if source.pointing is None else self._point_reader(source.pointing, modality)
        self._points_of: dict[int, NDArray[np.float32]] = {}  # by episode, [N, 2]
        chosen = self._chosen()
        self.empty = tuple(number for number in chosen if self.dataset.length(number) == 0)
        self.episodes = tuple(number for number in chosen if number not in self.empty)
        self._check_files()
        self._kept: OrderedDict[int, Episode] = OrderedDict()
        self._kept_episodes = kept_episodes

    def _point_reader(self, pointing: Pointing, modality: Mapping[str, ModalityConfig]) -> WindowReader:
        """Reads nothing but the point, which is not among the network's states."""
        return WindowReader(
            self.dataset,
            {**modality, "state": ModalityConfig((0,), (pointing.state,))},
            robot=self.source.robot,
            state_widths={pointing.state: WIDTH},
        )

    def _chosen(self) -> tuple[int, ...]:
        have = self.dataset.episodes
        if self.source.episodes is None:
            return tuple(have)
        missing = [number for number in self.source.episodes if number not in have]
        if missing or not self.source.episodes:
            raise DatasetError(
                f"{self.dataset.path}: no episode {', '.join(map(str, missing)) or 'is chosen'}; the dataset "
                f"has {min(have)} to {max(have)}"
            )
        return tuple(sorted(set(self.source.episodes)))

    def _check_files(self) -> None:
        features = [self.dataset.video(key) for key in self.reader.modality["video"].modality_keys]
        for number in self.episodes:
            for path in (
                self.dataset.data_file(number),
                *(self.dataset.video_span(number, key).path for key in features),
            ):
                if not path.is_file():
                    raise DatasetError(f"{path}: missing; it should hold a part of episode {number}")

    def rows(self) -> dict[int, range]:
        """The rows of each episode that can be samples. Raises DatasetError when there are none at all."""
        usable = {number: self.reader.rows_in(self.dataset.length(number)) for number in self.episodes}
        if not any(map(len, usable.values())):
            raise DatasetError(
                f"{self.dataset.path}: no episode is long enough for a sample; the checkpoint looks "
                f"{self.reader.rows_in(0).start} rows back"
            )
        return usable

    def episode(self, number: int) -> Episode:
        """An episode's rows, checked once and kept while they are in use."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        episode = self.dataset.episode(number)
        self.reader.rows(episode)  # says when the timestamps contradict the dataset's fps
        self._kept[number] = episode
        if len(self._kept) > self._kept_episodes:
            self._kept.popitem(last=False)
        return episode

    def point(self, episode: int, row: int) -> tuple[float, float]:
        """(u, v) of the named thing in the camera's picture; only for a source with ``pointing``.

        Raises:
            DatasetError: the dataset has no such state, or a value is not finite.
        """
        assert self._points is not None
        if episode not in self._points_of:
            (self._points_of[episode],) = self._points.states(self.episode(episode)).values()
        u, v = self._points_of[episode][row]
        return float(u), float(v)


@dataclass(frozen=True)
class LoadedShard:
    """The frames that the samples of a shard need: {video key: {row: uint8 [H, W, 3]}}, and how large the
    cameras' pictures were: {video key: (height, width)}."""

    frames: Mapping[str, Mapping[int, NDArray[np.uint8]]]
    sizes: Mapping[str, tuple[int, int]]


def load_shard(
    source: OpenSource, processor: Gr00tProcessor, episode: int, rows: Sequence[int]
) -> LoadedShard:
    """Decodes what the samples at ``rows`` of an episode need, each video once from front to back."""
    recorded = source.episode(episode)
    deltas = source.reader.modality["video"].delta_indices
    wanted = {row + delta for row in rows for delta in deltas}
    first, stop = min(wanted), max(wanted) + 1
    frames: dict[str, dict[int, NDArray[np.uint8]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for key in source.reader.modality["video"].modality_keys:
        decoded = source.reader.frames(recorded, key, first, stop, threads=1)
        frames[key] = {}
        for row, frame in zip(range(first, stop), decoded, strict=True):
            sizes[key] = (frame.shape[0], frame.shape[1])
            if row in wanted:
                frames[key][row] = processor.reduce_image(frame)
    return LoadedShard(frames, sizes)


def encode(
    source: OpenSource,
    processor: Gr00tProcessor,
    shard: LoadedShard,
    episode: int,
    row: int,
    rng: np.random.Generator | None,
) -> dict[str, Any]:
    """One training sample, batch 1, pixels uint8; without ``rng`` the images are those of evaluation. Where
    the source has ``pointing``, its label is the entry of that name."""
    recorded = source.episode(episode)
    deltas = source.reader.modality["video"].delta_indices
    frames = {key: np.stack([kept[row + delta] for delta in deltas]) for key, kept in shard.frames.items()}
    observation = source.reader.observation(recorded, row, frames)
    actions, real = source.reader.actions(recorded, row)
    draw = None if rng is None else processor.augmentation.draw(rng)
    sample = processor.encode_training(
        observation, actions, source.source.tag, draw, pixels="uint8", real_steps=(real,)
    )
    pointing = source.source.pointing
    if pointing is None:
        return sample
    newest = row + deltas[-1]
    modality = source.reader.modality
    size = shard.sizes[pointing.view(modality)]
    point = seen_at(source.point(episode, newest), size, processor.chain, draw)
    return {**sample, HEAD: pointing.label(point, sample["pixel_values"], modality)}
