# SPDX-License-Identifier: Apache-2.0
"""The picture that a demo run leaves: what the cameras saw over time, and each joint commanded and measured.

Used by ``nodes/demo_monitor.py``. matplotlib is imported when the picture is drawn, never before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.sim.monitoring import DemoRecord

_NS = 1_000_000_000
# Columns of camera frames: as many as can still be made out on a page.
COLUMNS = 8
_COMMANDED, _MEASURED, _CHUNK, _LIMIT = "#d62728", "#1f77b4", "#9aa4b0", "#555555"
_PLOTS_PER_ROW = 3
_MIN_SPAN = 0.1  # rad


@dataclass(frozen=True)
class Shot:
    """One camera frame of the strip: ROS time (ns), picture [H, W, 3] RGB, and what stands above it, the time
    by default."""

    time_ns: int
    picture: NDArray[np.uint8]
    caption: str = ""


def draw(path: Path, record: DemoRecord, shots: Mapping[str, Sequence[Shot]], title: str, note: str) -> None:
    """Writes the PNG at ``path``. ``shots``: per camera, in time order; the strip spreads them evenly."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    joints = record.joints
    rows = -(-len(joints) // _PLOTS_PER_ROW)
    cameras = list(shots)
    first = record.plot[0].time_ns if record.plot else 0
    figure = Figure(figsize=(16.0, 0.9 + 1.6 * len(cameras) + 2.3 * rows), dpi=110, layout="constrained")
    heights = [1.6 * max(1, len(cameras)), 2.3 * rows]
    parts: Any = figure.subfigures(2, 1, height_ratios=heights, hspace=0.02)
    strip, plots = parts
    figure.suptitle(title, fontsize=14, fontweight="bold")
    if note:
        figure.supxlabel(note, fontsize=11, color="#b03030")
    _draw_strip(strip, cameras, shots, first)
    axes = plots.subplots(rows, _PLOTS_PER_ROW, sharex=True, squeeze=False)
    for i, joint in enumerate(joints):
        _draw_joint(axes[i // _PLOTS_PER_ROW][i % _PLOTS_PER_ROW], record, i, joint, first)
    for empty in axes.flat[len(joints) :]:
        empty.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    lines, names = axes[0][0].get_legend_handles_labels()
    plots.legend(lines, names, loc="outside upper right", fontsize=9, ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_strip(part: Any, cameras: Sequence[str], shots: Mapping[str, Sequence[Shot]], first: int) -> None:
    if not cameras:
        return
    axes = part.subplots(len(cameras), COLUMNS, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02})
    for row, camera in enumerate(cameras):
        taken = evenly(shots[camera], COLUMNS)
        for column in range(COLUMNS):
            axis = axes[row][column]
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_visible(False)
            if column < len(taken):
                axis.imshow(taken[column].picture)
                if row == 0:
                    time_s = max(0, taken[column].time_ns - first) / _NS
                    axis.set_title(taken[column].caption or f"{time_s:.1f} s", fontsize=9)
            if column == 0:
                axis.set_ylabel(camera, fontsize=11)


def _draw_joint(axis: Any, record: DemoRecord, index: int, joint: str, first: int) -> None:
    times = np.array([(sample.time_ns - first) / _NS for sample in record.plot])
    commanded = np.array([sample.commanded[index] for sample in record.plot])
    measured = np.array([sample.measured[index] for sample in record.plot])
    for k, stamp in enumerate(stamp for stamp in record.chunk_times if stamp >= first):
        axis.axvline(
            (stamp - first) / _NS, color=_CHUNK, lw=0.5, alpha=0.5, label="chunk" if k == 0 else None
        )
    axis.plot(times, measured, color=_MEASURED, lw=2.0, label="measured")
    axis.plot(times, commanded, color=_COMMANDED, lw=1.0, ls="--", label="commanded")
    limits = record.robot.limits[joint]
    low, high = axis.get_ylim()
    if high - low < _MIN_SPAN:
        # A joint that stands still is a straight line, not a plot of rounding errors.
        middle = (low + high) / 2
        low, high = middle - _MIN_SPAN / 2, middle + _MIN_SPAN / 2
        axis.set_ylim(low, high)
    for bound in (limits.min, limits.max):
        # A limit is drawn where it is near the motion; far ones would flatten the curves.
        if low - 0.3 < bound < high + 0.3:
            axis.axhline(bound, color=_LIMIT, lw=1.0, ls=":")
    axis.set_title(f"{joint}  [{limits.min:g}, {limits.max:g}] rad", fontsize=9, loc="left")
    axis.grid(True, alpha=0.2)
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.tick_params(labelsize=8)


def evenly(shots: Sequence[Shot], count: int) -> list[Shot]:
    """At most ``count`` of ``shots``, first and last included, evenly spread."""
    if len(shots) <= count:
        return list(shots)
    return [shots[round(i * (len(shots) - 1) / (count - 1))] for i in range(count)]
