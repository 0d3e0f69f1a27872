# SPDX-License-Identifier: Apache-2.0
"""What is odd about columns of numbers: values that never change, a stream that stood still, jumps, NaN.

None of it is an error: a joint may be locked, an arm may wait. It is what a person should know before a
network learns from the data, so it is said in sentences, with rows to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Kinds of findings.
NOT_FINITE = "not_finite"
CONSTANT = "constant"
FROZEN = "frozen"
JUMP = "jump"

# s. Encoders have noise, so that all values of a stream repeat exactly for this long only when the stream
# has stopped (or comes from a simulation that stands still).
FROZEN_S = 2.0
# A step between two rows is a jump when it is this share of all that the column spans, and this many times
# the step that one row in a hundred exceeds: a wrapped angle, a lost stretch, a glitch of one sample.
JUMP_SHARE = 0.5
JUMP_FACTOR = 20.0
# A column with no more different values than this is switched, not moved, and is meant to jump.
FEW_VALUES = 8
_NAMES_SHOWN = 6


@dataclass(frozen=True)
class Finding:
    """One oddity. ``kind`` is fit for counting, ``columns`` are the names it is about, ``text`` is for
    people."""

    kind: str
    columns: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def check_columns(
    names: Sequence[str], values: ArrayLike, fps: float = 0.0, starts: Sequence[int] = (0,)
) -> list[Finding]:
    """What is odd about one stream of columns.

    Args:
        names: of the columns.
        values: [N, D], in the order of recording.
        fps: rows per second, for times in the texts and for how long is long; 0 where unknown.
        starts: the rows at which episodes begin; nothing is compared across such a row.
    """
    array = np.asarray(values, np.float64)
    if len(array) == 0:
        return []
    array = array.reshape(len(array), -1)
    finite = np.isfinite(array)
    findings = list(_not_finite(names, finite))
    if len(array) < 2:
        return findings
    changed = array[1:] != array[:-1]
    joins = np.asarray([start - 1 for start in starts if 0 < start < len(array)], np.int64)
    low = np.where(finite, array, np.inf).min(axis=0)
    high = np.where(finite, array, -np.inf).max(axis=0)
    constant = (high <= low) & finite.all(axis=0)
    if constant.all():
        text = f"no value ever changes in {len(array)} rows: the stream is frozen"
        return [*findings, Finding(FROZEN, tuple(names), text)]
    if constant.any():
        fixed = [(name, low[i]) for i, name in enumerate(names) if constant[i]]
        shown = ", ".join(f"{name} (always {value:g})" for name, value in fixed[:_NAMES_SHOWN])
        findings.append(Finding(CONSTANT, tuple(name for name, _ in fixed), _more(shown, len(fixed))))
    findings += _frozen(names, changed.any(axis=1), joins, fps)
    findings += _jumps(names, array, joins, high - low)
    return findings


def _more(shown: str, count: int) -> str:
    rest = f" and {count - _NAMES_SHOWN} more" if count > _NAMES_SHOWN else ""
    return f"never changes: {shown}{rest}"


def _not_finite(names: Sequence[str], finite: NDArray[np.bool_]) -> Iterator[Finding]:
    for i, name in enumerate(names):
        bad = int((~finite[:, i]).sum())
        if bad:
            first = int(np.argmin(finite[:, i]))
            yield Finding(
                NOT_FINITE, (name,), f"{name}: {bad} values are not finite, the first in row {first}"
            )


def _frozen(
    names: Sequence[str], changed: NDArray[np.bool_], joins: NDArray[np.int64], fps: float
) -> Iterator[Finding]:
    """The longest stretch in which no column changes, where it is long."""
    moving = changed.copy()
    moving[joins] = True  # an episode's first row is a new beginning
    ends = np.flatnonzero(np.concatenate([[True], moving, [True]]))
    lengths = np.diff(ends)
    longest = int(lengths.argmax())
    rows, first = int(lengths[longest]), int(ends[longest])
    least = FROZEN_S * fps if fps else max(30.0, 0.1 * len(changed))
    if rows < max(2.0, least):
        return
    standing = int(lengths[lengths >= max(2.0, least)].sum())
    time = f" ({rows / fps:.1f} s)" if fps else ""
    yield Finding(
        FROZEN,
        tuple(names),
        f"stands still for {rows} rows{time} from row {first} on; in such stretches are {standing} of "
        f"{len(changed) + 1} rows",
    )


def _jumps(
    names: Sequence[str], array: NDArray[np.float64], joins: NDArray[np.int64], spans: NDArray[np.float64]
) -> Iterator[Finding]:
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.abs(np.diff(array, axis=0))
    steps[joins] = 0.0
    steps = np.where(np.isfinite(steps), steps, 0.0)
    usual = np.quantile(steps, 0.99, axis=0)
    large = (steps > JUMP_SHARE * spans) & (steps > JUMP_FACTOR * usual)
    for i in map(int, np.flatnonzero(large.any(axis=0))):
        if len(np.unique(array[:, i])) <= FEW_VALUES:
            continue
        rows = np.flatnonzero(large[:, i])
        row = int(rows[0])
        yield Finding(
            JUMP,
            (names[i],),
            f"{names[i]} jumps {len(rows)} times by more than half of its range, first from "
            f"{array[row, i]:g} to {array[row + 1, i]:g} after row {row}",
        )
