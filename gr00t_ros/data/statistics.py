# SPDX-License-Identifier: Apache-2.0
"""Statistics of dataset columns: what scaling reads (range, moments, percentiles), exact where data fit.

Everything is float64 [D], or [T, D] for action chunks. A column that never changes has standard deviation 0
and is for whoever divides by it to notice; a value that is no number is refused with its place, since one NaN
would make every statistic of its column one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_ros.errors import DatasetError

Array = NDArray[np.float64]

# Fields of GR00T's stats.json, and those that LeRobot v3.0 has on top.
FIELDS = ("min", "max", "mean", "std", "q01", "q99")
PERCENTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
# Values kept for percentiles, 4 bytes each: 16 MB. Up to there percentiles are exact: 9 hours of 6 joints at
# 20 Hz, 30 minutes of relative actions of 16 steps and 7 joints. Beyond, they come from every 2nd, 4th, ...
# row: at least 18,000 of the latter, spread evenly, with which the 1st percentile is off by a thousandth in
# rank.
KEPT_VALUES = 4_000_000


class RunningStatistics:
    """Statistics of rows [N, ...] that come in parts; the trailing shape is fixed by the first part.

    Args:
        where: what to call the values in an error message, such as the file and column.
        kept: how many values may be kept for the percentiles.
    """

    def __init__(self, where: str = "values", kept: int = KEPT_VALUES) -> None:
        self.count = 0
        self._where = where
        self._kept = kept
        self._parts: list[NDArray[np.float32]] = []
        self._parts_rows = 0
        self._stride = 1
        self._min = self._max = self._mean = self._squares = np.zeros(0)

    def add(self, values: ArrayLike) -> None:
        """Adds rows [N, ...]. Raises DatasetError for a value that is not finite."""
        rows = np.asarray(values, np.float64)
        if not np.isfinite(rows).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            raise DatasetError(
                f"{self._where}: row {self.count + place[0]}, column {list(place[1:])} is {rows[place]}, "
                "expected finite numbers"
            )
        if len(rows) == 0:
            return
        if self.count and rows.shape[1:] != self._min.shape:
            raise DatasetError(
                f"{self._where}: rows of shape {list(rows.shape[1:])} after {list(self._min.shape)}"
            )
        self._keep(rows)
        low, high, mean = rows.min(axis=0), rows.max(axis=0), rows.mean(axis=0)
        squares = ((rows - mean) ** 2).sum(axis=0)
        if self.count == 0:
            self._min, self._max, self._mean, self._squares = low, high, mean, squares
        else:
            # Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
            # variances", 1979.
            shift, total = mean - self._mean, self.count + len(rows)
            self._mean = self._mean + shift * (len(rows) / total)
            self._squares = self._squares + squares + shift**2 * (self.count * len(rows) / total)
            self._min, self._max = np.minimum(self._min, low), np.maximum(self._max, high)
        self.count += len(rows)

    def _keep(self, rows: Array) -> None:
        first = -self.count % self._stride
        part = rows[first :: self._stride].astype(np.float32)
        self._parts.append(part)
        self._parts_rows += len(part)
        most = max(2, self._kept // max(1, rows[0].size))
        while self._parts_rows > most:
            # Rows at every multiple of the stride are kept, so every other of them stays.
            self._parts = [np.concatenate(self._parts)[::2].copy()]
            self._parts_rows = len(self._parts[0])
            self._stride *= 2

    def result(self, percentiles: tuple[str, ...] = ("q01", "q99")) -> dict[str, list[object]]:
        """``FIELDS`` order: min, max, mean, std, then the percentiles asked for. Raises DatasetError without
        rows."""
        if self.count == 0:
            raise DatasetError(f"{self._where}: no rows, so no statistics")
        constant = self._min == self._max
        # The mean of equal numbers is that number; sums of them say so only up to rounding.
        mean = np.where(constant, self._min, np.clip(self._mean, self._min, self._max))
        std = np.where(constant, 0.0, np.sqrt(self._squares / self.count))
        fields = {"min": self._min, "max": self._max, "mean": mean, "std": std}
        kept = np.concatenate(self._parts)
        self._parts = [kept]
        quantiles = np.quantile(kept.astype(np.float64), [PERCENTILES[name] for name in percentiles], axis=0)
        for name, values in zip(percentiles, quantiles, strict=True):
            fields[name] = np.clip(values, self._min, self._max)
        return {name: values.tolist() for name, values in fields.items()}


def column_statistics(values: ArrayLike, where: str = "values") -> dict[str, list[object]]:
    """[N, D] to ``{min, max, mean, std, q01, q99}``, each [D].

    Raises:
        DatasetError: no rows, or a value that is not finite; the message names ``where``, row and column.
    """
    running = RunningStatistics(where, kept=np.size(values))
    running.add(values)
    return running.result()


def relative_statistics(chunks: ArrayLike, where: str = "values") -> dict[str, list[object]]:
    """Differences of action chunks to their state, [N, T, D], to the same fields, each [T, D]. Raises
    DatasetError as :func:`column_statistics`."""
    return column_statistics(chunks, where)


def combined(parts: list[dict[str, object]]) -> dict[str, list[object]]:
    """Statistics of several parts, each with ``count`` and all fields, as one.

    Range and moments are exact; percentiles are the parts' own, averaged by count, as LeRobot does.
    """
    counts = np.array([np.asarray(part["count"], np.float64).reshape(-1)[0] for part in parts])
    weights = counts / counts.sum()

    def stacked(name: str) -> Array:
        return np.stack([np.asarray(part[name], np.float64) for part in parts])

    def weighted(values: Array) -> Array:
        return np.tensordot(weights, values, axes=1)

    means, low, high = stacked("mean"), stacked("min").min(axis=0), stacked("max").max(axis=0)
    mean = weighted(means)
    std = np.where(low == high, 0.0, np.sqrt(weighted(stacked("std") ** 2 + (means - mean) ** 2)))
    fields = {"min": low, "max": high, "mean": mean, "std": std}
    for name in PERCENTILES:
        if all(name in part for part in parts):
            fields[name] = weighted(stacked(name))
    return {name: value.tolist() for name, value in fields.items()} | {"count": [int(counts.sum())]}
