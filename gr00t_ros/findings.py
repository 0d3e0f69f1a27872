# SPDX-License-Identifier: Apache-2.0
"""Findings of a check, for people: what was found, what was expected and what to do, as one table.

A FAIL means that the robot should not be started; a WARN that somebody should know.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How much a finding matters."""

    OK = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True)
class Finding:
    """One line of the table. ``remedy`` says what to do, and is empty where there is nothing to do."""

    level: Level
    part: str
    found: str
    expected: str = ""
    remedy: str = ""


def named(things: Iterable[object], most: int = 6) -> str:
    """``0, 1, 2 and 5 more``: the first ``most`` of things, as many as a sentence can take."""
    texts = [str(thing) for thing in things]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def ok(part: str, found: str, expected: str = "") -> Finding:
    """All is well with ``part``."""
    return Finding(Level.OK, part, found, expected)


def warn(part: str, found: str, expected: str, remedy: str) -> Finding:
    """Somebody should know."""
    return Finding(Level.WARN, part, found, expected, remedy)


def fail(part: str, found: str, expected: str, remedy: str) -> Finding:
    """The robot should not be started."""
    return Finding(Level.FAIL, part, found, expected, remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """The level of the worst finding; OK where there is none."""
    return max((finding.level for finding in findings), default=Level.OK)


def table(findings: Sequence[Finding], width: int | None = None) -> str:
    """The findings as aligned columns; each on one line, or cells folded to fit ``width`` characters."""
    rows = [("RESULT", "PART", "FOUND", "EXPECTED", "WHAT TO DO")]
    rows += [(f.level.name, f.part, f.found, f.expected, f.remedy) for f in findings]
    rows = [tuple(" ".join(cell.split()) for cell in row) for row in rows]  # type: ignore[misc]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    if width is not None and sum(widths) + 8 > width:
        widths[1] = min(widths[1], 24)
        room = max(width - widths[0] - widths[1] - 8, 60)
        widths[2], widths[3], widths[4] = room * 4 // 10, room * 3 // 10, room * 3 // 10
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for at in range(max(len(cell) for cell in cells)):
            parts = (cell[at] if at < len(cell) else "" for cell in cells)
            lines.append("  ".join(p.ljust(size) for p, size in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)
