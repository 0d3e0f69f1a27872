# SPDX-License-Identifier: Apache-2.0
"""Windows of a dataset: what a policy sees at one row of an episode, and the chunk of actions that follows.

The one place where rows become observations. Training, open-loop evaluation and the calibration of engines
all read through :class:`WindowReader`, so they cannot disagree about which frames, states and actions belong
together. Values stay in the dataset's units, in which a checkpoint is trained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data import rates
from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.mapping import map_groups
from gr00t_ros.data.video import probe
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig

if TYPE_CHECKING:
    from gr00t_model.processing import ModalityConfig

Frames = NDArray[np.uint8]


class WindowReader:
    """Observations and action chunks at rows of a dataset, as one embodiment's modality asks for.

    Args:
        modality: {"video" | "state" | "action" | "language": ModalityConfig}, as ``processor.modality(tag)``.
        robot: finds joints by name in a dataset without ``meta/modality.json``, and gives the instruction
            where the dataset has none.
        state_widths, action_widths: values a step of each key, where they are known (a checkpoint's); what
            the dataset and the robot have must agree.

    Raises:
        DatasetError: the dataset lacks a camera or a state that the modality names, or widths differ. Action
            groups are looked for when the first action is read: calibration does without them.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        modality: Mapping[str, ModalityConfig],
        *,
        robot: RobotConfig | None = None,
        state_widths: Mapping[str, int] | None = None,
        action_widths: Mapping[str, int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.modality = modality
        self._robot = robot
        self._action_widths = action_widths or {}
        self._videos = {key: dataset.video(key) for key in modality["video"].modality_keys}
        self._states = map_groups(dataset, "state", self._wanted("state", state_widths or {}))
        self._checked: set[int] = set()

    @cached_property
    def _actions(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        return map_groups(self.dataset, "action", self._wanted("action", self._action_widths))

    def _wanted(self, kind: str, widths: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
        """Joint names of each key, empty names where only their number is known."""
        wanted: dict[str, tuple[str, ...]] = {}
        for key in self.modality[kind].modality_keys:
            names = self._robot_names(kind, key)
            width = widths.get(key)
            if names is None:
                found = width or self._dataset_width(kind, key)
                names = ("",) * found
            if width is not None and len(names) != width:
                raise DatasetError(
                    f"{kind} {key}: the robot has {len(names)} joints, the checkpoint {width} values"
                )
            wanted[key] = names
        return wanted

    def _robot_names(self, kind: str, key: str) -> tuple[str, ...] | None:
        if self._robot is None:
            return None
        if kind == "state":
            return self._robot.state[key].joints if key in self._robot.state else None
        return self._robot.action[key].columns if key in self._robot.action else None

    def _dataset_width(self, kind: str, key: str) -> int:
        groups = self.dataset.groups(kind)
        if key in groups:
            return groups[key].width
        if self.dataset.modality is not None:
            path = self.dataset.path / "meta/modality.json"
            raise DatasetError(f"{path}: {kind} has no group {key!r}; it has {', '.join(groups) or 'none'}")
        if "all" in groups and len(self.modality[kind].modality_keys) == 1:
            return groups["all"].width
        raise DatasetError(
            f"{self.dataset.path}: no meta/modality.json says where {kind} {key!r} lies; add one, or give "
            "the robot description that it was recorded with"
        )

    # -- which rows --

    def rows_in(self, length: int) -> range:
        """Rows of an episode of ``length`` rows that can be samples: the past (and, for unusual modalities,
        the future) that an observation needs is there, and at least one action of the chunk."""
        seen = (*self.modality["video"].delta_indices, *self.modality["state"].delta_indices)
        chunk = self.modality["action"].delta_indices
        first = max(0, *(-delta for delta in (*seen, *chunk)))
        last = length - max(0, *seen, min(chunk))
        return range(first, max(first, last))

    def rows(self, episode: Episode) -> range:
        """Rows that can be samples; empty where the episode is too short.

        Raises:
            DatasetError: the episode's timestamps contradict the dataset's fps.
        """
        if episode.index not in self._checked:
            self._check_rate(episode)
            self._checked.add(episode.index)
        return self.rows_in(len(episode))

    def _check_rate(self, episode: Episode) -> None:
        if len(episode) < 2:
            return
        step = float(np.median(np.diff(episode.timestamps)))
        fps = self.dataset.fps
        if rates.differ(1.0 / step, fps, rates.MISTAKEN):
            raise DatasetError(
                f"{self._where(episode)}: its timestamps are {1e3 * step:.1f} ms apart ({1 / step:.3g} Hz), "
                f"meta/info.json says fps {fps:g}; correct fps where it is wrong, or convert the recording "
                "again"
            )

    # -- observations --

    def observation(
        self, episode: Episode, row: int, frames: Mapping[str, Frames] | None = None
    ) -> dict[str, dict[str, Any]]:
        """What the policy would have been given at this row, batch 1, in dataset units.

        Args:
            frames: {video key: uint8 [T, H, W, 3]} where they are decoded already; each call without them
                seeks and decodes by itself, which for many rows is slow: see :meth:`observations`.

        Raises:
            DatasetError: a frame or a value is missing, or a state is not finite; names file, episode, row.
        """
        if frames is None:
            frames = {key: self._frames(episode, key, row) for key in self._videos}
        steps = [row + delta for delta in self.modality["state"].delta_indices]
        language = self.modality["language"]
        texts = [[self.instruction(episode, row)] * len(language.delta_indices)]
        return {
            "video": {key: frames[key][None] for key in self._videos},
            "state": {key: self._values(episode, *self._states[key], steps)[None] for key in self._states},
            "language": dict.fromkeys(language.modality_keys, texts),
        }

    def observations(self, episode: Episode, rows: Iterable[int]) -> Iterator[dict[str, dict[str, Any]]]:
        """:meth:`observation` at ascending ``rows``, each video decoded once from the first to the last."""
        wanted = list(rows)
        if not wanted:
            return
        deltas = self.modality["video"].delta_indices
        start, stop = wanted[0] + min(deltas), wanted[-1] + max(deltas) + 1
        passing = {key: _Passing(self.frames(episode, key, start, stop), start) for key in self._videos}
        for row in wanted:
            at = [row + delta for delta in deltas]
            yield self.observation(episode, row, {key: one.take(at) for key, one in passing.items()})

    def frames(
        self, episode: Episode, key: str, start: int, stop: int, *, threads: int = 0
    ) -> Iterator[Frames]:
        """Decoded frames [H, W, 3] of the rows start..stop of a video key, one after the other; ``threads``
        as for ``video.frames_at``."""
        return episode.frames(self._videos[key], start, stop, threads=threads)

    def _frames(self, episode: Episode, key: str, row: int) -> Frames:
        deltas = self.modality["video"].delta_indices
        start = row + min(deltas)
        decoded = _Passing(self.frames(episode, key, start, row + max(deltas) + 1, threads=1), start)
        return decoded.take([row + delta for delta in deltas])

    def instruction(self, episode: Episode, row: int) -> str:
        """The task text of a row: what the language key names in modality.json, else the dataset's own, else
        the robot's default, else empty."""
        text = episode.instructions[row]
        column = self._annotation
        if column in episode.columns:
            number = int(np.asarray(episode.columns[column]).reshape(-1)[row])
            text = self.dataset.tasks.get(number, "")
        return text or (self._robot.instruction.default if self._robot else "")

    @cached_property
    def _annotation(self) -> str:
        """The column behind the language key, as GR00T's modality.json tells it; it need not be there."""
        key = self.modality["language"].modality_keys[0]
        entries = (self.dataset.modality or {}).get("annotation") or {}
        entry = entries.get(key.removeprefix("annotation.")) or {}
        return str(entry.get("original_key") or key)

    def check_videos(self, episode: Episode) -> None:
        """Looks into the headers of the episode's videos: whether they run at the dataset's fps and are as
        long as the rows. Raises DatasetError that names the file."""
        fps = self.dataset.fps
        for feature in self._videos.values():
            span = episode.videos[feature]
            facts = probe(span.path)
            if facts.rate and rates.differ(facts.rate, fps, rates.MISTAKEN):
                raise DatasetError(
                    f"{span.path}: runs at {facts.rate:.3g} frames a second, info.json says fps {fps:g}; "
                    "correct fps where it is wrong, or convert the recording again"
                )
            last = span.start + float(episode.timestamps[-1] - episode.timestamps[0])
            if rates.ends_before(facts, last, fps):
                raise DatasetError(
                    f"{span.path}: {facts.seconds:.2f} s long, but episode {episode.index} has rows until "
                    f"{last:.2f} s; the video does not fit the episode's rows"
                )

    # -- values --

    def states(self, episode: Episode) -> dict[str, NDArray[np.float32]]:
        """All rows of every state key, {key: [N, D]}. Raises DatasetError as :meth:`observation`."""
        rows = range(len(episode))
        return {key: self._values(episode, *place, rows) for key, place in self._states.items()}

    def action_rows(self, episode: Episode) -> dict[str, NDArray[np.float32]]:
        """All rows of every action key as recorded, {key: [N, D]}. Raises DatasetError as
        :meth:`actions`."""
        rows = range(len(episode))
        return {key: self._values(episode, *place, rows) for key, place in self._actions.items()}

    def actions(self, episode: Episode, row: int) -> tuple[dict[str, NDArray[np.float32]], int]:
        """The chunk of actions that begins at this row: ({key: [1, T, D]}, how many leading steps are real).

        Beyond the episode's end the last action is repeated, so that a chunk has its full length, and those
        steps are to be left out of the loss: nobody knows what the robot would have done next, and a network
        that learns to stand still there stops before its task is done. Repeating is still better than zeros,
        because the denoising network sees all steps of the chunk, and at inference the ones after the last
        are like the last as well.

        Raises:
            DatasetError: the dataset has no such actions, or one is not finite; names file, episode, row.
        """
        deltas = self.modality["action"].delta_indices
        last = len(episode) - 1
        real = sum(row + delta <= last for delta in deltas)
        steps = [min(row + delta, last) for delta in deltas]
        return {key: self._values(episode, *place, steps)[None] for key, place in self._actions.items()}, real

    def _values(
        self, episode: Episode, column: str, positions: tuple[int, ...], rows: Iterable[int]
    ) -> NDArray[np.float32]:
        """float32 [len(rows), len(positions)] of a column."""
        if column not in episode.columns:
            episode.column(column)  # says which there are
        recorded = np.asarray(episode.columns[column]).reshape(len(episode), -1)
        if max(positions) >= recorded.shape[1]:
            raise DatasetError(
                f"{self._where(episode)}: {column} has {recorded.shape[1]} values, number {max(positions)} "
                "is asked for; correct meta/modality.json"
            )
        at = list(rows)
        values = recorded[np.ix_(at, positions)].astype(np.float32)
        if not np.isfinite(values).all():
            line, place = np.argwhere(~np.isfinite(values))[0]
            raise DatasetError(
                f"{self._where(episode)}, row {at[line]}: value {positions[place]} of {column} is "
                f"{values[line, place]}, expected a finite number; leave this episode out (finetune "
                f"--skip-episodes {episode.index}) or record it again"
            )
        return values

    def _where(self, episode: Episode) -> str:
        return f"{self.dataset.data_file(episode.index)}: episode {episode.index}"


class _Passing:
    """Frames that are decoded forwards, with the last few kept for windows that overlap."""

    def __init__(self, frames: Iterator[Frames], first: int) -> None:
        self._frames = frames
        self._kept: deque[Frames] = deque()
        self._first = first  # row of the oldest kept frame

    def take(self, rows: list[int]) -> Frames:
        """The frames of ``rows``, none before the earliest of the call before; uint8 [T, H, W, 3]."""
        while self._kept and self._first < min(rows):
            self._kept.popleft()
            self._first += 1
        while self._first < min(rows):
            next(self._frames)
            self._first += 1
        while self._first + len(self._kept) <= max(rows):
            self._kept.append(next(self._frames))
        return np.stack([self._kept[row - self._first] for row in rows])
