# SPDX-License-Identifier: Apache-2.0
"""Errors of action chunks, added up while chunks come: memory does not grow with the recording.

``open_loop.py`` adds one chunk after the other and reads the figures at the end. Everything is kept by
horizon step and value, so that the same sums give the error of a joint, of a group and of a step. Pure numpy;
what the values mean is ``quantities.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """Mean errors over some chunks' steps, in a value's own unit (squared for the first and third).

    ``mse`` and ``mae`` are the prediction's; ``mse_hold_still`` and ``mae_hold_still`` those of commanding
    the present state over the whole chunk, None where there is no state to hold.
    """

    mse: float
    mae: float
    mse_hold_still: float | None = None
    mae_hold_still: float | None = None

    @property
    def ratio(self) -> float | None:
        """``mse / mse_hold_still``: below 1 is better than holding still. None without one, or where holding
        still makes no error at all."""
        if not self.mse_hold_still:
            return None
        return self.mse / self.mse_hold_still


class ChunkErrors:
    """Sums over chunks of one action key: T steps, Q values.

    Args:
        horizon: T.
        held: which of the Q values have a present state to hold.
    """

    def __init__(self, horizon: int, held: Sequence[bool]) -> None:
        shape = (horizon, len(held))
        self.held = np.array(held, bool)
        self.chunks = 0
        self.count = np.zeros(horizon, np.int64)
        self._squared, self._absolute = np.zeros(shape), np.zeros(shape)
        self._held_squared, self._held_absolute = np.zeros(shape), np.zeros(shape)
        self._low, self._high = np.full(len(held), np.inf), np.full(len(held), -np.inf)
        self._worst = np.zeros(len(held))

    def add(self, errors: Values, hold_errors: Values, recorded: Values) -> None:
        """One chunk more; nothing in it is kept.

        Only its first n steps are given, those that the episode still had: what would have come after its
        end nobody knows.

        Args:
            errors: [n, Q], predicted less recorded.
            hold_errors: [n, Q], present state less recorded; what is not ``held`` is not looked at.
            recorded: [n, Q], for the range that the values moved in.
        """
        n = len(errors)
        if not n:
            return
        self.chunks += 1
        self.count[:n] += 1
        hold = np.where(self.held, hold_errors, 0.0)
        self._squared[:n] += errors**2
        self._absolute[:n] += np.abs(errors)
        self._held_squared[:n] += hold**2
        self._held_absolute[:n] += np.abs(hold)
        self._worst = np.maximum(self._worst, np.abs(errors).max(axis=0))
        self._low = np.minimum(self._low, recorded.min(axis=0))
        self._high = np.maximum(self._high, recorded.max(axis=0))

    @property
    def steps(self) -> int:
        """Number of compared steps, over all chunks."""
        return int(self.count.sum())

    @property
    def spans(self) -> Values:
        """[Q]: the recorded values' range, 0 before the first chunk."""
        return np.where(self._high >= self._low, self._high - self._low, 0.0)

    @property
    def worst(self) -> Values:
        """[Q]: the largest error of a single step."""
        return self._worst

    def by_value(self) -> list[Figures]:
        """Of each of the Q values, over all steps. Empty before the first chunk."""
        if not self.steps:
            return []
        means = [sums.sum(axis=0) / self.steps for sums in self._sums]
        return [self._figures(means, value) for value in range(len(self.held))]

    def by_step(self) -> list[list[Figures] | None]:
        """T times by value; None for a step that no chunk reached."""
        found: list[list[Figures] | None] = []
        for step, count in enumerate(self.count):
            if not count:
                found.append(None)
                continue
            means = [sums[step] / count for sums in self._sums]
            found.append([self._figures(means, value) for value in range(len(self.held))])
        return found

    @property
    def _sums(self) -> tuple[Values, Values, Values, Values]:
        return self._squared, self._absolute, self._held_squared, self._held_absolute

    def _figures(self, means: Sequence[Values], value: int) -> Figures:
        mse, mae, held_mse, held_mae = (float(mean[value]) for mean in means)
        if not self.held[value]:
            return Figures(mse, mae)
        return Figures(mse, mae, held_mse, held_mae)


def mean(figures: Sequence[Figures]) -> Figures:
    """The plain mean over at least one value, as the reference's evaluation takes it: values in larger units
    weigh more.

    The hold-still errors are None unless every value has them: a mean over fewer values could not be compared
    with the prediction's.
    """
    squared = [f.mse_hold_still for f in figures if f.mse_hold_still is not None]
    absolute = [f.mae_hold_still for f in figures if f.mae_hold_still is not None]
    complete = len(squared) == len(absolute) == len(figures)
    return Figures(
        float(np.mean([f.mse for f in figures])),
        float(np.mean([f.mae for f in figures])),
        float(np.mean(squared)) if complete else None,
        float(np.mean(absolute)) if complete else None,
    )


def scaled_ratio(figures: Sequence[Figures], spans: Sequence[float]) -> float | None:
    """MSE over that of holding still, each value's errors divided by its recorded range.

    One number for values of different units: the range makes radians, percent and metres weigh the same, and
    a value that hardly differs from the held one cannot rule a mean of ratios. Values without a present
    state are left out. None where there is nothing to compare, or holding still is exact.
    """
    pairs = [
        (f.mse / span**2, f.mse_hold_still / span**2)
        for f, span in zip(figures, spans, strict=True)
        if f.mse_hold_still is not None and span > 0.0
    ]
    held = sum(pair[1] for pair in pairs)
    return sum(pair[0] for pair in pairs) / held if held > 0.0 else None
