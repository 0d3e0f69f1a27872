# SPDX-License-Identifier: Apache-2.0
"""One pass over a dataset's numbers: ranges, what stands still, what jumps, how the rows lie in time.

``dataset_report.py`` turns what is counted here into sentences. Episodes are looked at one after the other
and none is kept, so memory does not grow with the recording; lists of places are cut at a fixed length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.errors import DatasetError

Values = NDArray[np.float64]

STATE, ACTION = "observation.state", "action"
# Places that are kept of each kind of oddity, to be named; all are counted.
KEPT = 50
# A step between two rows that is larger than this share of all that a value ever spans is a jump: a wrapped
# angle is, a lost stretch of a recording, a glitch of one sample.
JUMP_SHARE = 0.5
# A value with no more than so many different numbers is switched, not moved, and is meant to jump.
FEW_NUMBERS = 8
# A value whose mean step is beyond this share of its range is noise around a point.
NOISE_SHARE = 0.1
# Leaps are of interest in what really moves: in values that span this share of what the median one does.
SMALL_SHARE = 0.1
# s. Measurements are repeated exactly when nothing moves; for how long they may while commands go on moving.
# An arm follows within a fraction of a second.
STUCK_S = 1.0
# Share of a command's range that it moves by in that time if it does move.
MOVED_SHARE = 0.1


@dataclass(frozen=True)
class Place:
    """Somewhere in the dataset: a value (its column number) at a row, or between it and the next."""

    episode: int
    row: int
    value: int = 0
    size: float = 0.0


@dataclass
class ColumnFacts:
    """What a column of D values does over all rows seen. ``low`` and ``high`` [D] are of finite values.

    ``frozen`` are the episodes in which no value changes; ``not_finite`` [D] counts, ``bad`` says where
    first. ``path`` [D] is the sum of all steps, ``numbers`` the different numbers of each value as far as
    they are few.
    """

    width: int
    rows: int = 0
    steps: int = 0
    frozen: list[int] = field(default_factory=list)
    bad: list[Place] = field(default_factory=list)
    low: Values = field(init=False)
    high: Values = field(init=False)
    path: Values = field(init=False)
    not_finite: NDArray[np.int64] = field(init=False)
    numbers: list[set[float]] = field(init=False)
    _jumps: list[Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.low, self.high = np.full(self.width, np.inf), np.full(self.width, -np.inf)
        self.path, self.not_finite = np.zeros(self.width), np.zeros(self.width, np.int64)
        self.numbers = [set() for _ in range(self.width)]

    def add(self, episode: int, values: Values) -> None:
        """One episode's rows [N, D]."""
        finite = np.isfinite(values)
        self.rows += len(values)
        self.not_finite += (~finite).sum(axis=0)
        if not finite.all() and len(self.bad) < KEPT:
            row, value = np.argwhere(~finite)[0]
            self.bad.append(Place(episode, int(row), int(value)))
        self.low = np.fmin(self.low, np.where(finite, values, np.inf).min(axis=0))
        self.high = np.fmax(self.high, np.where(finite, values, -np.inf).max(axis=0))
        for value, numbers in enumerate(self.numbers):
            if len(numbers) <= FEW_NUMBERS:
                numbers.update(np.unique(values[finite[:, value], value])[: FEW_NUMBERS + 1].tolist())
        if len(values) < 2:
            return
        steps = np.abs(np.diff(values, axis=0))
        steps = np.where(np.isfinite(steps), steps, 0.0)
        self.steps += len(steps)
        self.path += steps.sum(axis=0)
        if not steps.any() and finite.all():
            self.frozen.append(episode)
        # The range only grows: what is no jump by now will not be one.
        large = np.argwhere((steps > JUMP_SHARE * self.spans) & (self.spans > 0.0))
        self._jumps += [Place(episode, int(r), int(v), float(steps[r, v])) for r, v in large]
        if len(self._jumps) > 10 * KEPT:
            self._jumps = self.jumps(10 * KEPT)

    @property
    def spans(self) -> Values:
        """[D]: what each value spans; 0 where it has no finite value."""
        return np.where(self.high >= self.low, self.high - self.low, 0.0)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """[D]: which values never change."""
        return self.spans == 0.0

    def jumps(self, most: int = KEPT) -> list[Place]:
        """The largest jumps, of values that otherwise move smoothly."""
        smooth = self.path <= NOISE_SHARE * self.spans * max(self.steps, 1)
        usual = float(np.median(self.spans[self.spans > 0.0])) if self.spans.any() else 0.0
        moved = np.array([len(numbers) > FEW_NUMBERS for numbers in self.numbers])
        moved &= smooth & (self.spans >= SMALL_SHARE * usual)
        found = [
            place
            for place in self._jumps
            if place.size > JUMP_SHARE * self.spans[place.value]
            and smooth[place.value]
            and moved[place.value]
        ]
        return sorted(found, key=lambda place: -place.size / self.spans[place.value])[:most]


@dataclass
class Survey:
    """What one pass has found. ``unreadable`` are episodes that cannot be read, and why.

    ``lengths``, ``rates`` (Hz, the median's) are by episode; ``gaps`` places after which rows are missing
    (size in s), ``missing_video`` (feature, episode) without a file; ``instructions`` counts rows by text.
    ``equal_now`` and ``equal_next`` count rows whose action is the state of the row, and of the one after
    it. ``stuck`` are stretches (size in s) in which the whole state is repeated while an action value moves.
    """

    columns: dict[str, ColumnFacts] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    gaps: list[Place] = field(default_factory=list)
    missing_video: list[tuple[str, int]] = field(default_factory=list)
    instructions: dict[str, int] = field(default_factory=dict)
    without_instruction: list[int] = field(default_factory=list)
    equal_now: int = 0
    equal_next: int = 0
    next_rows: int = 0
    _stuck: list[tuple[Place, Values]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows in the episodes that can be read."""
        return sum(self.lengths.values())

    @property
    def stuck(self) -> list[Place]:
        """Where the state is repeated although an action moves by a share of its whole range; not in episodes
        in which it is frozen altogether."""
        return [place for place, moved in self._stuck if self._moves(moved)]

    def _moves(self, moved: Values) -> bool:
        """Whether a move [D] of an action's values is one for the range that they have."""
        return bool((moved > MOVED_SHARE * self.columns[ACTION].spans).any())

    def check(self, episode: Episode) -> None:
        """Raises DatasetError for an episode that is not like those before it."""
        for name, facts in self.columns.items():
            width = facts.width if name not in episode.columns else episode.column(name).shape[1]
            if facts.width != width:
                raise DatasetError(
                    f"episode {episode.index}: {name} has {width} values, others have {facts.width}"
                )

    def add(self, episode: Episode, fps: float) -> None:
        """One episode more, that :meth:`check` has seen."""
        number = episode.index
        self.lengths[number] = len(episode)
        for text in episode.instructions:
            self.instructions[text] = self.instructions.get(text, 0) + 1
        if not all(text.strip() for text in episode.instructions):
            self.without_instruction.append(number)
        for feature, span in episode.videos.items():
            if not span.path.is_file():
                self.missing_video.append((feature, number))
        self._add_times(episode, fps)
        for name in (STATE, ACTION):
            if name in episode.columns:
                values = episode.column(name)
                self.columns.setdefault(name, ColumnFacts(values.shape[1])).add(number, values)
        if STATE in episode.columns and ACTION in episode.columns:
            self._add_pair(number, episode.state, episode.action, fps)

    def _add_times(self, episode: Episode, fps: float) -> None:
        if len(episode) < 2:
            return
        steps = np.diff(episode.timestamps)
        usual = float(np.median(steps))
        self.rates[episode.index] = 1.0 / usual
        # Against the episode's own step: where fps is wrong, that is told, and not every row.
        for row in np.flatnonzero(steps > 1.5 * usual)[:KEPT].tolist():
            self.gaps.append(Place(episode.index, row, size=float(steps[row])))

    def _add_pair(self, number: int, state: Values, action: Values, fps: float) -> None:
        if state.shape == action.shape:
            self.equal_now += int((state == action).all(axis=1).sum())
            self.equal_next += int((state[1:] == action[:-1]).all(axis=1).sum())
            self.next_rows += len(state) - 1
        if number in self.columns[STATE].frozen:
            return
        for start, stop in _runs((np.diff(state, axis=0) == 0.0).all(axis=1)):
            moved = np.ptp(action[start : stop + 1], axis=0)
            # The range only grows: what is no move by now will not be one, and takes no room.
            if (stop - start) / fps >= STUCK_S and self._moves(moved):
                self._stuck.append((Place(number, start, size=(stop - start) / fps), moved))
        if len(self._stuck) > KEPT:
            self._stuck = [kept for kept in self._stuck if self._moves(kept[1])][:KEPT]


def survey(
    dataset: LeRobotDataset,
    episodes: Sequence[int] | None = None,
    *,
    also: Callable[[Episode], None] = lambda episode: None,
    tell: Callable[[int], object] = lambda episodes: None,
) -> Survey:
    """Reads the episodes (None: all) once; ``tell`` is told how many are done, ``also`` sees each of them.

    A damaged episode is in ``unreadable``, and nothing of it in the other facts.
    """
    found = Survey()
    for done, number in enumerate(dataset.episodes if episodes is None else episodes, 1):
        try:
            episode = dataset.episode(number)
            found.check(episode)
            also(episode)
            found.add(episode, dataset.fps)
        except DatasetError as error:
            found.unreadable[number] = str(error)
        tell(done)
    return found


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of each run of True."""
    at = 0
    for value, group in groupby(flags.tolist()):
        length = sum(1 for _ in group)
        if value:
            yield at, at + length
        at += length


def value_names(dataset: LeRobotDataset, column: str) -> list[str]:
    """What each value of a column is called: ``group.name`` where modality.json has groups."""
    width = int((dataset.features.get(column, {}).get("shape") or [0])[0])
    given = dataset.names(column)
    names = [given[i] if i < len(given) else str(i) for i in range(width)]
    if dataset.modality is not None:
        for key, group in dataset.groups("state" if column == STATE else "action").items():
            for i in range(group.start, min(group.end, width)):
                if group.column == column:
                    names[i] = f"{key}.{given[i] if i < len(given) else i - group.start}"
    return names
