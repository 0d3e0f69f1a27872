# SPDX-License-Identifier: Apache-2.0
"""How old what a row shows was at the row's own time: a histogram that episodes add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Upper ends of the bins, ms: fractions of a camera period at 30 Hz and above, then what only a stalled camera
# reaches. What is older, or from after the row, falls into the last and the first bin.
EDGES_MS = (0, 5, 10, 15, 20, 25, 30, 35, 40, 50, 75, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Timing:
    """Of the rows of one or more episodes: the age of the newest camera frame used, ms.

    ``counts`` has one number more than ``EDGES_MS``: rows up to each edge, then those beyond the last.
    """

    rows: int
    counts: tuple[int, ...]
    min_ms: float
    max_ms: float
    mean_ms: float

    @classmethod
    def of(cls, stamp_ns: NDArray[np.int64], t_obs_ns: NDArray[np.int64]) -> Timing:
        """From the rows' own times and those of the frames they use, [N] each."""
        age = (stamp_ns - t_obs_ns) / 1e6
        bins = np.searchsorted(EDGES_MS, age, side="left")
        counts = tuple(int(n) for n in np.bincount(bins, minlength=len(EDGES_MS) + 1))
        return cls(len(age), counts, float(age.min()), float(age.max()), float(age.mean()))

    @classmethod
    def total(cls, parts: list[Timing]) -> Timing:
        """Of all rows together."""
        rows = sum(part.rows for part in parts)
        return cls(
            rows,
            tuple(sum(counts) for counts in zip(*(part.counts for part in parts), strict=True)),
            min(part.min_ms for part in parts),
            max(part.max_ms for part in parts),
            sum(part.mean_ms * part.rows for part in parts) / rows,
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Timing:
        """The inverse of :meth:`to_json`."""
        return cls(
            int(value["rows"]),
            tuple(int(n) for n in value["counts"]),
            float(value["min_ms"]),
            float(value["max_ms"]),
            float(value["mean_ms"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is kept in ``episode.json`` and ``conversion.json``."""
        return {
            "rows": self.rows,
            "edges_ms": list(EDGES_MS),
            "counts": list(self.counts),
            "min_ms": self.min_ms,
            "max_ms": self.max_ms,
            "mean_ms": self.mean_ms,
        }
