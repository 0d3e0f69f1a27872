# SPDX-License-Identifier: Apache-2.0
"""The progress bar of ``bag_to_dataset``: rows a second, times real time, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from gr00t_ros.data.converting import Converted, Progress
from gr00t_ros.data.converting_jobs import Failed

# Seconds between two states of the bar: a log file should not fill up with them.
_ON_TERMINAL, _IN_LOG = 0.5, 15.0


class ConversionBar:
    """A bar on stderr over the bytes of all bags; called with the number of a bag and how far it is."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = [max(1, size) for size in sizes]
        self._far: dict[int, Progress] = {}
        self._skipped: set[int] = set()
        self._done = 0
        self._begun = time.monotonic()
        self._bar = tqdm(
            total=sum(self._sizes),
            smoothing=0.1,
            miniters=0,
            mininterval=_ON_TERMINAL if sys.stderr.isatty() else _IN_LOG,
            bar_format="{percentage:3.0f}%|{bar:20}| {elapsed} gone, {remaining} left, {desc}",
        )

    def __call__(self, number: int, progress: Progress) -> None:
        """A bag has come so far."""
        self._far[number] = progress
        self._show()

    def ended(self, number: int, outcome: Converted | Failed) -> None:
        """A bag is done with."""
        self._done += 1
        if isinstance(outcome, Converted) and outcome.skipped:
            # What was there before says nothing about the speed.
            self._bar.initial += self._sizes[number]
            self._skipped.add(number)
        seconds = outcome.seconds if isinstance(outcome, Converted) else 0.0
        rows = outcome.rows if isinstance(outcome, Converted) else 0
        self._far[number] = Progress(1.0, rows, seconds)
        self._show()

    def __enter__(self) -> ConversionBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.refresh()
        self._bar.close()

    def _show(self) -> None:
        elapsed = max(1e-3, time.monotonic() - self._begun)
        new = [progress for number, progress in self._far.items() if number not in self._skipped]
        rows, seconds = sum(p.rows for p in new), sum(p.seconds for p in new)
        self._bar.set_description_str(
            f"{self._done} of {len(self._sizes)} bags, {rows} rows, {rows / elapsed:.0f} rows/s, "
            f"{seconds / elapsed:.1f} times real time",
            refresh=False,
        )
        now = round(sum(self._sizes[n] * progress.share for n, progress in self._far.items()))
        self._bar.update(max(0, now - self._bar.n))
