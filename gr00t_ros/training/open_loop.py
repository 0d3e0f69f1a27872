# SPDX-License-Identifier: Apache-2.0
"""Open-loop evaluation: at rows of a recording, what the policy would have done against what was done.

The policy sees each recorded observation and gives a chunk; the chunk is compared with the recorded actions
of the same steps, and so is holding still, which says what an error is worth. Nothing the policy does changes
what it sees next: a small error here is needed for a robot that works, and not enough.

``evaluate`` prints what comes out; fine-tuning may call it between two stretches of training. It runs
whatever has a policy's ``get_action``, on any backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gr00t_model.errors import ObservationError
from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.mapping import map_groups
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training.metrics import ChunkErrors
from gr00t_ros.training.quantities import Quantities, quantities

Values = NDArray[np.float64]
# Noise takes a number of 64 bits for the time of the observation; episode and row share it in halves.
_ROW_BITS = 32
# Rows between two chunks from which on seeking in the video is quicker than decoding what lies between. Key
# frames are 2 frames apart as LeRobot writes videos, 250 as encoders do by default.
_SEEK_ROWS = 100
# Reasons why rows were left out that are kept; the others are only counted.
_KEPT_REASONS = 20


class Policy(Protocol):
    """What is asked of a policy; ``Gr00tPolicy`` is one."""

    def get_action(
        self, observation: Mapping[str, Any], *, t_obs_ns: int, seed: int
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """Actions {key: [1, T, D]} in dataset units; the noise is a function of the two numbers."""


@dataclass(frozen=True)
class Chosen:
    """Which rows are evaluated.

    ``episodes`` are their numbers, None for all. ``interval`` is how many rows lie between two chunks; None
    is the horizon, so that every recorded step is predicted once. ``limit`` is the largest number of chunks,
    spread evenly over what the others leave.
    """

    episodes: tuple[int, ...] | None = None
    interval: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Refused:
    """A row that could not be evaluated, None for a whole episode, and why."""

    episode: int
    row: int | None
    reason: str


@dataclass
class Trace:
    """One episode as a picture shows it, by action key, in the values of ``Quantities.shown``.

    ``times`` [N] in s from the episode's start; ``recorded`` {key: [N, Q]}; ``chunks``: row, {key: [n, Q]} of
    the n steps that were compared, {key: [Q]} of the held state.
    """

    episode: int
    times: Values
    recorded: dict[str, Values]
    chunks: list[tuple[int, dict[str, Values], dict[str, Values]]] = field(default_factory=list)


@dataclass
class Evaluation:
    """What came out, by action key. ``complete`` is False where it was interrupted.

    ``rows`` is the number of chunks compared; ``refused_rows`` counts those that could not be, ``refused``
    has the first reasons. ``inference_s`` is the time that the policy took for all.
    """

    compared: dict[str, Quantities]
    errors: dict[str, ChunkErrors]
    horizon: int
    interval: int
    seed: int
    fps: float
    episodes: list[int] = field(default_factory=list)
    rows: int = 0
    refused_rows: int = 0
    refused: list[Refused] = field(default_factory=list)
    complete: bool = True
    inference_s: float = 0.0
    trace: Trace | None = None

    def refuse(self, episode: int, row: int | None, reason: Exception, chunks: int = 1) -> None:
        """Keeps why a row was left out, or the ``chunks`` of a whole episode."""
        self.refused_rows += chunks
        if len(self.refused) < _KEPT_REASONS:
            self.refused.append(Refused(episode, row, " ".join(str(reason).split())))


class OpenLoop:
    """Policies of one kind over one dataset. ``run`` does the work; ``planned`` is how many chunks it takes.

    Made before the policy is loaded, which takes long, it refuses a dataset that does not fit.

    Args:
        processor, tag: the checkpoint's and the embodiment: what the policy sees and gives.
        robot: names, units and representations of the action keys; the instruction where the dataset has
            none.
        seed: of the noise. A chunk's noise is a function of it, the episode and the row: the same row gives
            the same chunk whichever others are evaluated.
        trace: number of the episode to keep for a picture; None keeps the first that is evaluated.

    Raises:
        DatasetError: the dataset lacks what the policy sees or gives, or one of the episodes.
        EmbodimentError: the processor does not know the tag, or has no statistics for it.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        processor: Gr00tProcessor,
        tag: str,
        *,
        robot: RobotConfig | None = None,
        chosen: Chosen = Chosen(),
        seed: int = 0,
        trace: int | None = None,
    ) -> None:
        self._dataset, self._trace = dataset, trace
        modality, action_widths = processor.modality(tag), processor.action_widths(tag)
        state_widths = processor.state_widths(tag)
        self._reader = WindowReader(
            dataset, modality, robot=robot, state_widths=state_widths, action_widths=action_widths
        )
        names = action_names(dataset, action_widths, robot)
        compared = quantities(modality, state_widths, names, robot)
        horizon = modality["action"].horizon
        self.result = Evaluation(
            compared,
            {key: ChunkErrors(horizon, one.held) for key, one in compared.items()},
            horizon,
            horizon if chosen.interval is None else chosen.interval,
            seed,
            dataset.fps,
        )
        self._episodes = tuple(dataset.episodes) if chosen.episodes is None else chosen.episodes
        unknown = sorted({*self._episodes, *(() if trace is None else (trace,))} - set(dataset.episodes))
        if unknown:
            raise DatasetError(
                f"{dataset.path}: no episode {', '.join(map(str, unknown))}; the dataset has "
                f"{min(dataset.episodes)} to {max(dataset.episodes)}"
            )
        self._candidates = sum(
            len(self._reader.rows_in(dataset.length(number))[:: self.result.interval])
            for number in self._episodes
        )
        self.planned = min(self._candidates, self._candidates if chosen.limit is None else chosen.limit)
        self._seen = 0
        self._origins: dict[str, Values] = {}

    def run(self, policy: Policy, progress: Callable[[int], object] = lambda rows: None) -> Evaluation:
        """Evaluates all chosen rows, once; ``progress`` is told the number of chunks that have been dealt
        with.

        KeyboardInterrupt ends it early: what is there is returned, marked as incomplete.

        Raises:
            DatasetError: not one of the rows could be evaluated.
            Gr00tError: the network's output is not finite, or memory does not suffice.
        """
        result = self.result
        try:
            for episode, rows in self._read():
                for row, observation in self._observations(episode, rows):
                    self._evaluate(policy, episode, row, observation)
                    progress(result.rows + result.refused_rows)
        except KeyboardInterrupt:
            result.complete = False
        if result.complete and not result.rows:
            why = result.refused[0].reason if result.refused else "no episode is long enough for a chunk"
            raise DatasetError(f"{self._dataset.path}: none of its rows could be evaluated: {why}")
        return result

    # Rows.

    def _read(self) -> Iterator[tuple[Episode, list[int]]]:
        """The chosen episodes with their chosen rows, one after the other; those that cannot be used are
        told."""
        for number in self._episodes:
            candidates = self._reader.rows_in(self._dataset.length(number))[:: self.result.interval]
            chosen = [row for row in candidates if self._is_next()]
            if not chosen:
                continue
            try:
                episode = self._dataset.episode(number)
                self._reader.rows(episode)  # whose rate is checked there
            except DatasetError as error:
                self.result.refuse(number, None, error, len(chosen))
                continue
            yield episode, chosen

    def _observations(self, episode: Episode, rows: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """What the policy sees at rows of an episode; what cannot be read is told."""
        while rows:
            gaps = (later - row > _SEEK_ROWS for row, later in pairwise(rows))
            together = next((i for i, far in enumerate(gaps, 1) if far), len(rows))
            try:
                for observation in self._reader.observations(episode, rows[:together]):
                    yield rows.pop(0), observation
            except DatasetError as error:
                self.result.refuse(episode.index, rows.pop(0), error)

    def _is_next(self) -> bool:
        """Whether the next candidate is one of the planned, which lie evenly among all candidates."""
        before = self._seen * self.planned // self._candidates
        self._seen += 1
        return self._seen * self.planned // self._candidates > before

    # One chunk.

    def _evaluate(self, policy: Policy, episode: Episode, row: int, observation: Mapping[str, Any]) -> None:
        result = self.result
        try:
            recorded, real = self._reader.actions(episode, row)
            actions, info = policy.get_action(
                observation, t_obs_ns=(episode.index << _ROW_BITS) + row, seed=result.seed
            )
            done = {key: _steps(recorded[key], real) for key in result.compared}
            given = {key: _steps(actions[key], real) for key in result.compared}
            still = {key: one.still(observation["state"]) for key, one in result.compared.items()}
            self._origins = self._origins or {key: values[0] for key, values in done.items()}
            sums = {
                key: (
                    one.errors(given[key], done[key]),
                    one.errors(np.broadcast_to(still[key], done[key].shape), done[key]),
                    one.shown(done[key], self._origins[key]),
                )
                for key, one in result.compared.items()
            }
        except (DatasetError, ObservationError) as error:
            result.refuse(episode.index, row, error)
            return
        for key, (errors, hold_errors, shown) in sums.items():
            result.errors[key].add(errors, hold_errors, shown)
        result.rows += 1
        result.inference_s += float(info.get("timing", {}).get("inference_s", 0.0))
        if episode.index not in result.episodes[-1:]:
            result.episodes.append(episode.index)
        if self._trace in (None, episode.index):
            try:
                self._keep(episode, row, given, still)
                self._trace = episode.index
            except DatasetError:  # a row of the episode is damaged: the picture is of another one
                result.trace = None

    def _keep(
        self, episode: Episode, row: int, given: Mapping[str, Values], still: Mapping[str, Values]
    ) -> None:
        """Adds a chunk to the trace."""
        compared, origins, trace = self.result.compared, self._origins, self.result.trace
        if trace is None:
            rows = self._reader.action_rows(episode)
            recorded = {
                key: one.shown(np.asarray(rows[key], np.float64), origins[key])
                for key, one in compared.items()
            }
            times = episode.timestamps - episode.timestamps[0]
            trace = self.result.trace = Trace(episode.index, times, recorded)
        shown = {key: one.shown(given[key], origins[key]) for key, one in compared.items()}
        held = {key: one.shown(still[key][None], origins[key])[0] for key, one in compared.items()}
        trace.chunks.append((row, shown, held))


def _steps(chunk: NDArray[np.float32], real: int) -> Values:
    """The steps [real, D] of a chunk [1, T, D] that lie within the episode."""
    return np.asarray(chunk[0, :real], np.float64)


def action_names(
    dataset: LeRobotDataset, widths: Mapping[str, int], robot: RobotConfig | None
) -> dict[str, tuple[str, ...]]:
    """Names of each action key's columns: the robot's, else info.json's, else numbers.

    Raises:
        DatasetError: the dataset lacks a key, or has it in another width.
    """
    own = {key: robot.action[key].columns for key in widths if robot is not None and key in robot.action}
    wanted = {key: own.get(key, ("",) * width) for key, width in widths.items()}
    found = {}
    for key, (column, positions) in map_groups(dataset, "action", wanted).items():
        names = dataset.names(column)
        named = max(positions) < len(names)
        found[key] = own.get(key) or tuple(names[i] if named else f"{key}_{i}" for i in positions)
    return found
