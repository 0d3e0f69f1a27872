# SPDX-License-Identifier: Apache-2.0
"""Per-key statistics of a dataset: what scaling needs to know, read from ``statistics.json`` or made from
limits.

A checkpoint holds the statistics of many robots. Each is parsed when its tag is first used, and only the
numbers that its scaling rules read must be there, so that a gap in another robot's data stops nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_model.errors import ConfigError
from gr00t_model.processing.arrays import NotNumbersError, as_floats

FIELDS = ("min", "max", "mean", "std", "q01", "q99")
GROUPS = ("state", "action", "relative_action")


@dataclass(frozen=True, eq=False)
class KeyStatistics:
    """Statistics of one key in dataset units.

    Args:
        values: field of ``FIELDS`` -> float64 array, all of one shape: [D], or [T, D] where each time step
            has its own (stored for relative actions).
        where: what to call this key in error messages.
    """

    values: Mapping[str, NDArray[np.float64]]
    where: str = "statistics"

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError(f"{self.where}: no values, expected some of {', '.join(FIELDS)}")
        first, shape = next((name, value.shape) for name, value in self.values.items())
        if len(shape) not in (1, 2) or 0 in shape:
            raise ConfigError(f"{self.where}: {first} has shape {list(shape)}, expected [D] or [T, D]")
        for name, value in self.values.items():
            if value.shape != shape:
                raise ConfigError(
                    f"{self.where}: {name} has shape {list(value.shape)}, expected {list(shape)} as "
                    f"{first} has"
                )

    @property
    def _shape(self) -> tuple[int, ...]:
        return next(iter(self.values.values())).shape

    @property
    def width(self) -> int:
        """D, the number of values a time step."""
        return self._shape[-1]

    @property
    def steps(self) -> int | None:
        """T where the statistics are per time step, else None."""
        return self._shape[0] if len(self._shape) == 2 else None

    def pair(self, first: str, second: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Two fields that a scaling rule needs, checked to be there and within float32, as all values are."""
        for field in (first, second):
            if field not in self.values:
                raise ConfigError(f"{self.where}: {field} is missing, found {', '.join(self.values)}")
            if not (np.abs(self.values[field]) <= np.finfo(np.float32).max).all():
                raise ConfigError(
                    f"{self.where}: {field} holds non-finite values or values beyond float32, expected "
                    "finite numbers"
                )
        return self.values[first], self.values[second]

    @classmethod
    def from_limits(cls, low: ArrayLike, high: ArrayLike) -> KeyStatistics:
        """Statistics of a uniform distribution between limits, shape [D] or [T, D].

        For a robot that has no data yet: its joint limits become the range that is scaled to [-1, 1].
        """
        lowest, highest = np.asarray(low, np.float64), np.asarray(high, np.float64)
        span = highest - lowest
        return cls(
            {
                "min": lowest,
                "max": highest,
                "mean": (lowest + highest) / 2,
                "std": span / np.sqrt(12.0),  # of a uniform distribution
                "q01": lowest + 0.01 * span,
                "q99": highest - 0.01 * span,
            },
            "statistics from limits",
        )

    @classmethod
    def from_mapping(cls, data: Any, where: str) -> KeyStatistics:
        """Parse ``{"min": [...], ...}``; errors name ``where``."""
        if not isinstance(data, Mapping):
            raise ConfigError(
                f"{where}: expected a mapping of {', '.join(FIELDS)}, found {type(data).__name__}"
            )
        try:
            values = {field: as_floats(data[field]) for field in FIELDS if field in data}
        except NotNumbersError as error:
            raise ConfigError(f"{where}: {error}, expected lists of numbers of equal length") from None
        return cls(values, where)

    def to_mapping(self) -> dict[str, list[Any]]:
        """The form stored in ``statistics.json``."""
        return {field: value.tolist() for field, value in self.values.items()}


@dataclass(frozen=True, eq=False)
class EmbodimentStatistics:
    """All statistics of one embodiment, by group and key."""

    state: Mapping[str, KeyStatistics]
    action: Mapping[str, KeyStatistics]
    relative_action: Mapping[str, KeyStatistics]

    @classmethod
    def from_mapping(cls, tag: str, data: Any) -> EmbodimentStatistics:
        """Parse ``{group: {key: {...}}}``; leaves may already be :class:`KeyStatistics`.

        Other groups than ``GROUPS`` are left alone: datasets store more than scaling needs.

        Raises:
            ConfigError: an entry is misshaped or no list of numbers; the message names it.
        """
        groups: dict[str, dict[str, KeyStatistics]] = {}
        for group in GROUPS:
            where = f"statistics.{tag}.{group}"
            keys = _mapping(_mapping(data, f"statistics.{tag}").get(group) or {}, where)
            groups[group] = {
                key: entry
                if isinstance(entry, KeyStatistics)
                else KeyStatistics.from_mapping(entry, f"{where}.{key}")
                for key, entry in keys.items()
            }
        return cls(**groups)


def statistics_to_mapping(data: Any) -> Any:
    """Nested statistics in the form stored in ``statistics.json``: plain numbers and lists."""
    if isinstance(data, KeyStatistics):
        return data.to_mapping()
    if isinstance(data, Mapping):
        return {key: statistics_to_mapping(entry) for key, entry in data.items()}
    return data.tolist() if isinstance(data, np.ndarray | np.generic) else data


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {type(data).__name__}")
    return data
