# SPDX-License-Identifier: Apache-2.0
"""What a conversion gave: episodes, rows, what was left out and why, how old the frames were, what is odd.

Made of the finished dataset and its ``meta/conversion.json``, so that shards that were merged are reported
as one conversion. The text is for the terminal, ``to_json`` for files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gr00t_ros.data.column_checks import Finding, check_columns
from gr00t_ros.data.episode_source import Columns, EpisodeSource
from gr00t_ros.data.lerobot_writing import ACTION, STATE
from gr00t_ros.data.timing import EDGES_MS, Timing
from gr00t_ros.data.whole_files import read_json
from gr00t_ros.errors import DatasetError

# Rows of a column that are kept for the checks: 28 hours at 20 Hz of 44 joints are 350 MB, so longer datasets
# are checked in their first part, which is said.
_CHECKED_VALUES = 20_000_000
# Share of rows with a repeated frame from which on it is worth a line: a 25 Hz camera at 30 rows/s has 17%.
_REPEATED_SHARE = 0.05
_BAR = 40


@dataclass(frozen=True)
class EpisodeLine:
    """One episode as it is reported."""

    length: int
    tasks: tuple[str, ...]
    drops: Mapping[str, int]


@dataclass(frozen=True)
class ConversionReport:
    """See the module. ``repeated`` are {camera: rows whose frame equals the one before}, ``timing`` is None
    for episodes that nobody timed."""

    fps: float
    episodes: tuple[EpisodeLine, ...]
    drops: Mapping[str, int]
    timing: Timing | None
    repeated: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def rows(self) -> int:
        """Rows of all episodes."""
        return sum(episode.length for episode in self.episodes)

    def to_json(self) -> dict[str, Any]:
        """For ``meta/conversion.json``, below ``report``."""
        return {
            "episodes": len(self.episodes),
            "rows": self.rows,
            "seconds": self.rows / self.fps,
            "drops": dict(self.drops),
            "timing": None if self.timing is None else self.timing.to_json(),
            "repeated_frames": dict(self.repeated),
            "findings": [{"kind": f.kind, "columns": list(f.columns), "text": f.text} for f in self.findings],
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        lengths = [episode.length for episode in self.episodes]
        tasks = Counter(task for episode in self.episodes for task in episode.tasks)
        out = [
            f"{len(lengths)} episodes, {self.rows} rows, {self.rows / self.fps:.1f} s at {self.fps:g} Hz; "
            f"the shortest has {min(lengths)} rows, the longest {max(lengths)}",
        ]
        out += [f"  {count:4d} x {task or '(no instruction)'}" for task, count in tasks.most_common(10)]
        if len(tasks) > 10:
            out.append(f"       and {len(tasks) - 10} more instructions")
        out += self._drop_lines()
        if self.timing is not None:
            out += _timing_lines(self.timing)
        for camera, count in self.repeated.items():
            if count > _REPEATED_SHARE * self.rows:
                out.append(
                    f"camera {camera}: {count} of {self.rows} rows ({count / self.rows:.0%}) repeat the "
                    "frame before; it was slower than the rows, or stood still"
                )
        return out + [f"note: {finding.text}" for finding in self.findings]

    def _drop_lines(self) -> list[str]:
        total = sum(self.drops.values())
        if not total:
            # Without timing nobody was there who could have told of any.
            return ["no rows left out"] if self.timing is not None else []
        share = total / (total + self.rows)
        lines = [f"{total} rows left out ({share:.1%}):"]
        return lines + [f"  {count:6d}  {cause}" for cause, count in Counter(self.drops).most_common()]


def _timing_lines(timing: Timing) -> list[str]:
    """A histogram; empty bins at both ends are left out."""
    used = [i for i, count in enumerate(timing.counts) if count]
    lines = [
        f"age of the newest frame at its row: {timing.min_ms:.1f} to {timing.max_ms:.1f} ms, "
        f"{timing.mean_ms:.1f} on average"
    ]
    largest = max(timing.counts)
    for i in range(used[0], used[-1] + 1):
        upper = f"<= {EDGES_MS[i]:g}" if i < len(EDGES_MS) else f"> {EDGES_MS[-1]:g}"
        bar = "#" * round(_BAR * timing.counts[i] / largest)
        lines.append(f"  {upper:>7} ms {timing.counts[i]:7d} {bar}")
    return lines


class ReportMaker:
    """Collects what a report says while the episodes of a dataset pass by."""

    def __init__(
        self, features: Mapping[str, Any], fps: float, left_out: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """``left_out`` counts, by cause, rows that belong to no episode of the dataset."""
        self._features = features
        self._fps = fps
        self._episodes: list[EpisodeLine] = []
        self._drops: Counter[str] = Counter(left_out)
        self._timings: list[Timing] = []
        self._repeated: Counter[str] = Counter()
        self._starts: list[int] = []
        self._kept: dict[str, list[np.ndarray[Any, Any]]] = {STATE: [], ACTION: []}
        self._kept_values = 0
        self._rows = 0
        self._checked = 0

    def add(self, source: EpisodeSource, columns: Columns) -> None:
        """The next episode."""
        record = source.record
        drops = {str(cause): int(count) for cause, count in (record.get("drops") or {}).items()}
        self._episodes.append(EpisodeLine(source.length, source.tasks, drops))
        self._drops.update(drops)
        if record.get("timing"):
            self._timings.append(Timing.from_json(record["timing"]))
        self._repeated.update(record.get("repeated_frames") or {})
        self._rows += source.length
        if self._kept_values > _CHECKED_VALUES:
            return
        self._starts.append(self._checked)
        self._checked += source.length
        for name, parts in self._kept.items():
            if name in columns:
                values = columns[name].reshape(source.length, -1)
                parts.append(values)
                self._kept_values += values.size

    def report(self) -> ConversionReport:
        """Of all episodes so far."""
        return ConversionReport(
            fps=self._fps,
            episodes=tuple(self._episodes),
            drops=dict(self._drops),
            timing=Timing.total(self._timings) if self._timings else None,
            repeated=dict(self._repeated),
            findings=tuple(self._findings()),
        )

    def _findings(self) -> list[Finding]:
        findings = []
        for name, parts in self._kept.items():
            if not parts:
                continue
            values = np.concatenate(parts)
            names = column_names(self._features, name, values.shape[1])
            for finding in check_columns(names, values, self._fps, self._starts):
                findings.append(Finding(finding.kind, finding.columns, f"{name}: {finding.text}"))
        if findings and self._checked < self._rows:
            last = findings[-1]
            text = f"{last.text} (only the first {self._checked} of {self._rows} rows were checked)"
            findings[-1] = Finding(last.kind, last.columns, text)
        return findings


def column_names(features: Mapping[str, Any], column: str, width: int) -> Sequence[str]:
    """What info.json calls the values of a column; numbers where it says nothing."""
    names = features.get(column, {}).get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == width:
        return [str(name) for name in names]
    return [f"value {i}" for i in range(width)]


def read_report(dataset: str | Path) -> ConversionReport:
    """The report of a finished dataset. Raises DatasetError for one that was not made here."""
    path = Path(dataset) / "meta/conversion.json"
    record = read_json(path, "how the dataset was made")
    fps = read_json(Path(dataset) / "meta/info.json", "a dataset's info").get("fps")
    try:
        report = record["report"]
        return ConversionReport(
            fps=float(fps or 0.0),
            episodes=tuple(
                EpisodeLine(int(e["length"]), tuple(e["tasks"]), dict(e.get("drops") or {}))
                for e in record["episodes"]
            ),
            drops=dict(report["drops"]),
            timing=None if report["timing"] is None else Timing.from_json(report["timing"]),
            repeated=dict(report["repeated_frames"]),
            findings=tuple(Finding(f["kind"], tuple(f["columns"]), f["text"]) for f in report["findings"]),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DatasetError(f"{path}: holds no report of a conversion ({error!r})") from error
