# SPDX-License-Identifier: Apache-2.0
"""Statistics that a checkpoint scales by, from all rows of the datasets that it is trained on.

They are computed from the recorded values themselves. ``meta/stats.json`` is not used: it is there or not,
of another version of the data or not, and it knows nothing of relative actions or of episodes that are left
out. The datasets of one embodiment are taken together row by row, whatever their weights, so that changing a
mixture does not change what a number means to the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.errors import Gr00tError
from gr00t_model.processing import ActionConfig, Gr00tProcessor, ModalityConfig, poses
from gr00t_ros.data.lerobot import Episode
from gr00t_ros.data.statistics import KEPT_VALUES, RunningStatistics
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from gr00t_ros.findings import named
from gr00t_ros.training.samples import DatasetSource, OpenSource

_LOG = logging.getLogger(__name__)

Array = NDArray[np.float64]
Statistics = dict[str, dict[str, dict[str, dict[str, list[Any]]]]]


def training_statistics(
    sources: Sequence[DatasetSource],
    modalities: Mapping[str, Mapping[str, ModalityConfig]],
    report: Callable[[str], None] = _LOG.warning,
) -> Statistics:
    """{tag: {"state" | "action" | "relative_action": {key: {"min", "max", "mean", "std", "q01", "q99"}}}}, as
    a processor takes them.

    State and action values are [D], of all rows. ``relative_action`` is there for RELATIVE keys, [T, D] per
    step of the chunk, of all rows that can be samples and of real steps only, as the loss counts them.

    Args:
        modalities: {tag: its modality configs}.
        report: is told what is odd but can be trained on: values that never change, streams that are frozen,
            steps that no episode is long enough for.

    Raises:
        DatasetError: a dataset cannot be read, does not fit, or holds a value that is no finite number;
            names file, episode and row.
    """
    collected: dict[str, _Embodiment] = {}
    for source in sources:
        if source.tag not in modalities:
            raise DatasetError(f"{source.path}: no modality configs for its embodiment {source.tag!r}")
        modality = modalities[source.tag]
        embodiment = collected.setdefault(source.tag, _Embodiment(source.tag, modality))
        opened = OpenSource(source, modality)
        opened.rows()
        embodiment.add(opened, report)
    return {tag: embodiment.result(report) for tag, embodiment in collected.items()}


def check_episodes(
    sources: Sequence[DatasetSource], processor: Gr00tProcessor, report: Callable[[str], None] = _LOG.warning
) -> None:
    """Looks at all that training will read of these sources, besides pictures, as :func:`training_statistics`
    does, for episodes that it is not given: what is wrong should not come up in the middle of a run.

    Raises:
        DatasetError: as there; or a source does not fit the processor's statistics.
    """
    for source in sources:
        tag = source.tag
        opened = OpenSource(
            source,
            processor.modality(tag),
            state_widths=processor.state_widths(tag),
            action_widths=processor.action_widths(tag),
        )
        opened.rows()
        _Embodiment(tag, processor.modality(tag)).add(opened, report)


@dataclass
class _Embodiment:
    """What is being summed up for one tag."""

    tag: str
    modality: Mapping[str, ModalityConfig]
    running: dict[tuple[str, str], RunningStatistics] = field(default_factory=dict)
    steps: dict[str, list[RunningStatistics]] = field(default_factory=dict)

    def add(self, source: OpenSource, report: Callable[[str], None]) -> None:
        frozen, unnamed = [], []
        for number in source.episodes:
            episode = source.episode(number)
            source.reader.check_videos(episode)
            if not all(source.reader.instruction(episode, row) for row in source.reader.rows(episode)):
                unnamed.append(number)
            states, actions = source.reader.states(episode), source.reader.action_rows(episode)
            for kind, groups in (("state", states), ("action", actions)):
                for key, values in groups.items():
                    self._running(kind, key, source).add(values)
            for key, chunks in self._relative(source.reader, episode, states, actions):
                self._add_steps(key, chunks)
            if len(episode) > 1 and not any(np.ptp(values, axis=0).any() for values in states.values()):
                frozen.append(number)
        where, everywhere = source.dataset.path, len(source.episodes)
        if source.empty:
            report(f"{where}: no rows in {_episodes(source.empty, 0)}; left out")
        if frozen:
            report(
                f"{where}: no state changes in {_episodes(frozen, everywhere)}: a frozen stream, or a robot "
                "that did not move"
            )
        if unnamed:
            report(
                f"{where}: rows without a task text in {_episodes(unnamed, everywhere)}; the network is "
                "given an empty instruction there"
            )

    def _running(self, kind: str, key: str, source: OpenSource) -> RunningStatistics:
        where = f"{source.dataset.path}: {kind}.{key}"
        return self.running.setdefault((kind, key), RunningStatistics(where))

    def _relative(
        self,
        reader: WindowReader,
        episode: Episode,
        states: Mapping[str, NDArray[np.float32]],
        actions: Mapping[str, NDArray[np.float32]],
    ) -> Iterator[tuple[str, list[Array]]]:
        """For each RELATIVE key the differences of every step of the chunk, [rows, D] each."""
        config = self.modality["action"]
        rows = np.asarray(reader.rows(episode), np.int64)
        for key in config.modality_keys:
            action = config.action_config(key)
            if not action.relative:
                continue
            # Relative to the last state that the network sees, as the processor does it.
            last = self.modality["state"].delta_indices[-1]
            reference = states[action.state_key or key].astype(np.float64)
            values = actions[key].astype(np.float64)
            chunks = []
            for delta in config.delta_indices:
                real = rows[rows + delta < len(episode)]
                chunks.append(_difference(action, key, episode, values[real + delta], reference[real + last]))
            yield key, chunks

    def _add_steps(self, key: str, chunks: list[Array]) -> None:
        if key not in self.steps:
            kept = KEPT_VALUES // len(chunks)
            self.steps[key] = [RunningStatistics(f"{self.tag}: relative action {key}", kept) for _ in chunks]
        for running, differences in zip(self.steps[key], chunks, strict=True):
            running.add(differences)

    def result(self, report: Callable[[str], None]) -> dict[str, dict[str, dict[str, list[Any]]]]:
        groups: dict[str, dict[str, dict[str, list[Any]]]] = {"state": {}, "action": {}}
        for (kind, key), running in self.running.items():
            entry = groups[kind][key] = running.result()
            low, high = np.asarray(entry["min"], np.float64), np.asarray(entry["max"], np.float64)
            constant = np.flatnonzero(low == high).tolist()
            if constant:
                which = f"number {named(constant)}" if len(constant) < len(low) else "all of it"
                report(f"{self.tag}: {kind}.{key} never changes ({which}); nothing is learned from that")
        groups["relative_action"] = {key: self._per_step(key, report) for key in self.steps}
        return groups

    def _per_step(self, key: str, report: Callable[[str], None]) -> dict[str, list[Any]]:
        steps = [running.result() for running in self.steps[key] if running.count]
        wanted = len(self.steps[key])
        if len(steps) < wanted:
            report(
                f"{self.tag}: action.{key}: no episode is long enough for steps {len(steps)} to {wanted - 1} "
                "of the chunk; the network does not learn them"
            )
            # Never trained, but scaled all the same: like the last step that is there.
            steps += [steps[-1]] * (wanted - len(steps))
        return {name: [step[name] for step in steps] for name in steps[0]}


def _difference(action: ActionConfig, key: str, episode: Episode, values: Array, reference: Array) -> Array:
    layout = action.format if action.type == "EEF" else None
    names = {"action": f"action {key}", "state": f"state {action.state_key or key}"}
    try:
        return poses.relative(values, reference, layout, **names)
    except Gr00tError as error:
        raise DatasetError(f"episode {episode.index}: {error}") from None


def _episodes(numbers: Sequence[int], total: int) -> str:
    if len(numbers) == total:
        return "all episodes"
    return f"episode{'s' if len(numbers) > 1 else ''} {named(numbers)}"
