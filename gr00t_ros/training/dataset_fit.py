# SPDX-License-Identifier: Apache-2.0
"""A dataset against what is to be done with it: a checkpoint's keys, horizon and statistics, a robot's rate.

Part of ``dataset_report.py``. That values lie outside of what a checkpoint scales by is the one sign of a
dataset in other units: nothing else would fail, and the robot would move wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data import rates
from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from gr00t_ros.findings import Finding, fail, named, ok, warn
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training.dataset_survey import Survey

if TYPE_CHECKING:  # which brings torch: what is in a dataset is told without it
    from gr00t_model.processing import ModalityConfig

# Beyond the statistics by this share of their range, a value is not a new extreme but another thing.
OUTSIDE = 0.1
# Share of the rows that lie outside: some are a person who reached further, most are other units.
SOME_ROWS, MOST_ROWS = 0.01, 0.5

Statistics = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]


class Fit:
    """Sees every episode of a survey; ``findings`` are there afterwards."""

    def __init__(
        self,
        dataset: LeRobotDataset,
        modality: Mapping[str, ModalityConfig] | None,
        statistics: Statistics | None,
        robot: RobotConfig | None,
    ) -> None:
        self._dataset, self._modality, self._robot = dataset, modality, robot
        self._statistics = statistics or {}
        self._problem = ""
        self._reader: WindowReader | None = None
        self._outside: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._spans: dict[tuple[str, str], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._rows = 0
        if modality is not None:
            try:
                self._reader = WindowReader(dataset, modality, robot=robot)
            except DatasetError as error:
                self._problem = str(error)

    def see(self, episode: Episode) -> None:
        """Counts values outside of the statistics; keeps the first reason why keys cannot be read."""
        if self._reader is None:
            return
        try:
            kinds = {"state": self._reader.states(episode), "action": self._reader.action_rows(episode)}
        except DatasetError as error:
            if all(np.isfinite(episode.columns[name]).all() for name in episode.columns):
                self._problem = self._problem or str(error)
            return  # values that are not finite are told of the column
        self._rows += len(episode)
        for kind, groups in kinds.items():
            for key, values in groups.items():
                low, high = values.min(axis=0), values.max(axis=0)
                known = self._spans.get((kind, key), (low, high))
                self._spans[kind, key] = (np.minimum(known[0], low), np.maximum(known[1], high))
                self._count(kind, key, values)

    def _count(self, kind: str, key: str, values: NDArray[np.float32]) -> None:
        entry = self._statistics.get(kind, {}).get(key)
        if entry is None or not {"min", "max"} <= set(entry):
            return
        low, high = np.asarray(entry["min"], np.float64), np.asarray(entry["max"], np.float64)
        if low.shape != (values.shape[1],):
            return  # the checkpoint's own check speaks of it
        room = OUTSIDE * (high - low)
        # In float32, as the rows are: a constant value is then not beyond itself.
        outside = (values < (low - room).astype(np.float32)) | (values > (high + room).astype(np.float32))
        counts = self._outside.setdefault((kind, key), np.zeros(values.shape[1], np.int64))
        counts += outside.sum(axis=0)

    def findings(self, found: Survey) -> list[Finding]:
        """After the last episode."""
        return [*self._rate(), *self._keys(), *self._lengths(found), *self._still(), *self._ranges()]

    def _rate(self) -> Iterator[Finding]:
        if self._robot is None:
            return
        fps, rate = self._dataset.fps, self._robot.step_rate
        if rates.differ(fps, rate, rates.WRITTEN):
            yield fail(
                "robot",
                f"the dataset has {fps:g} rows a second",
                f"its step_rate, {rate:g} Hz",
                "the robot would act at another speed than it was taught: convert at that rate, or correct "
                "the one that is wrong",
            )
        else:
            yield ok("robot", f"{fps:g} rows a second", f"step_rate of {self._robot.name}")

    def _keys(self) -> Iterator[Finding]:
        if self._modality is None:
            return
        if self._problem:
            remedy = "take a checkpoint for this robot, or correct meta/modality.json"
            yield fail("modality", self._problem, "what the policy sees and gives", remedy)
            return
        keys = {kind: self._modality[kind].modality_keys for kind in ("video", "state", "action")}
        text = "; ".join(f"{kind}: {', '.join(own)}" for kind, own in keys.items())
        yield ok("modality", f"found {text}", "what the policy sees and gives")

    def _lengths(self, found: Survey) -> Iterator[Finding]:
        if self._reader is None or self._modality is None or not found.lengths:
            return
        horizon = self._modality["action"].horizon
        rows = {number: len(self._reader.rows_in(length)) for number, length in found.lengths.items()}
        useless = [number for number, count in rows.items() if not count]
        short = [number for number, count in rows.items() if 0 < count < horizon]
        total = len(rows)
        if useless:
            yield (fail if len(useless) == total else warn)(
                "length",
                f"{len(useless)} of {total} episodes are too short for one observation ({named(useless)})",
                "the past that the policy looks at, and an action",
                "they are left out",
            )
        if short:
            yield warn(
                "length",
                f"{len(short)} of {total} episodes are shorter than the horizon ({named(short)})",
                f"{horizon} rows and more",
                "their chunks are cut short: record longer episodes, or train with a shorter horizon",
            )

    def _still(self) -> Iterator[Finding]:
        still = [f"{kind}.{key}" for (kind, key), (low, high) in self._spans.items() if (low == high).all()]
        if still and len(still) < len(self._spans):  # all of them is a frozen dataset, which is told
            yield warn(
                "keys",
                f"{', '.join(still)} never change",
                "values that change",
                "the policy cannot learn to move them; leave them out of the robot YAML if that is not meant",
            )

    def _ranges(self) -> Iterator[Finding]:
        compared = 0
        for (kind, key), counts in self._outside.items():
            compared += len(counts)
            shares = counts / max(self._rows, 1)
            worst = int(np.argmax(shares))
            if shares[worst] <= SOME_ROWS:
                continue
            text = f"{self._name(kind, key, worst)} lies outside in {shares[worst]:.0%} of the rows"
            expected = "inside the range that the checkpoint was trained on"
            if shares[worst] >= MOST_ROWS:
                yield fail(
                    f"{kind}.{key}", text, expected, "the dataset is of another robot or in other units"
                )
            else:
                remedy = "the policy has not learned what to do there: see whether that is meant"
                yield warn(f"{kind}.{key}", text, expected, remedy)
        if compared and all((c / max(self._rows, 1) <= SOME_ROWS).all() for c in self._outside.values()):
            yield ok("statistics", f"{compared} values lie inside", "the range of the checkpoint's training")

    def _name(self, kind: str, key: str, value: int) -> str:
        """What the robot, else the dataset calls a value of a key."""
        if self._robot is not None and key in (self._robot.state if kind == "state" else self._robot.action):
            if kind == "state":
                return self._robot.state[key].joints[value]
            return self._robot.action[key].columns[value]
        group = self._dataset.groups(kind).get(key)
        names = () if group is None else self._dataset.names(group.column)
        place = 0 if group is None else group.start + value
        return names[place] if place < len(names) else f"value {value}"
