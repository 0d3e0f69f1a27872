# SPDX-License-Identifier: Apache-2.0
"""An evaluation as a picture: one panel a joint with what was recorded and what was predicted, and the error
by step of the chunk.

Drawn without a display. matplotlib comes with the extra ``train``; whoever evaluates without a picture does
without it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.training.open_loop import Evaluation, Trace
from gr00t_ros.training.open_loop_report import ALL, Summary, ValueSummary
from gr00t_ros.training.quantities import MOTION_SI

# Inches. A panel of this size is readable at 100 dpi, and 44 of them still fit a screen's width.
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 1.9
STEP_HEIGHT = 2.8
# For the heading, for numbers at the left, and for a title above and numbers below.
TITLE, MARGIN, ROOM = 0.3, 0.6, 0.25
DPI = 100
# Up to so many panels stand in two columns, more in four.
FEW_PANELS = 8
# Chunks go from dark to light in the order of time; the ends of the map are too pale or too dark on white.
COLOURS, FIRST_COLOUR, LAST_COLOUR = "plasma", 0.0, 0.85


def require_matplotlib() -> None:
    """Raises Gr00tRosError, with what to do, where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise Gr00tRosError(
            "pictures need matplotlib, which is not installed; install the extra train, or leave --plot out"
        ) from error


def plot(evaluation: Evaluation, summary: Summary, path: Path) -> None:
    """Writes the picture of the episode that ``evaluation`` kept.

    Raises:
        Gr00tRosError: no episode was kept: none of the chosen one's rows could be evaluated.
        OSError: it cannot be written.
    """
    require_matplotlib()
    import matplotlib as mpl

    trace = evaluation.trace
    if trace is None:
        raise Gr00tRosError("there is nothing to draw: no row of the episode to be drawn could be evaluated")
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = _figure(evaluation, summary, trace)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=DPI, format=path.suffix.lstrip(".").lower() or "png")
    partial.replace(path)


def _figure(evaluation: Evaluation, summary: Summary, trace: Trace) -> Any:
    # Not pyplot: that would keep the figure, and choose a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(key, i, value) for key, own in summary.values.items() for i, value in enumerate(own)]
    columns = 2 if len(panels) <= FEW_PANELS else 4
    lines = math.ceil(len(panels) / columns)
    width, height = columns * PANEL_WIDTH, TITLE + lines * PANEL_HEIGHT + STEP_HEIGHT
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # Places in inches: a layout that looks for room by itself takes ten times as long as all the drawing.
    sides = {"left": MARGIN / width, "right": 1.0 - 0.2 * MARGIN / width}
    grid = figure.add_gridspec(
        lines,
        columns,
        top=1.0 - (TITLE + ROOM) / height,
        bottom=(STEP_HEIGHT + 1.4 * ROOM) / height,
        wspace=0.2,
        hspace=0.35,
        **sides,
    )
    under = figure.add_gridspec(
        1, 1, top=(STEP_HEIGHT - ROOM) / height, bottom=(ROOM + 0.2) / height, **sides
    )
    for number, (key, i, value) in enumerate(panels):
        axes = figure.add_subplot(grid[number // columns, number % columns])
        _panel(axes, evaluation, trace, key, i, value)
        axes.tick_params(labelbottom=number + columns >= len(panels))
    _steps(figure.add_subplot(under[0, 0]), evaluation, summary)
    figure.suptitle(
        f"episode {trace.episode}, over time in s: recorded (black), {len(trace.chunks)} predicted chunks "
        "(coloured), present state held (dashed)",
        fontsize=9,
        y=1.0 - 0.4 * TITLE / height,
    )
    return figure


def _panel(axes: Any, evaluation: Evaluation, trace: Trace, key: str, i: int, value: ValueSummary) -> None:
    import matplotlib as mpl
    from matplotlib.collections import LineCollection

    recorded = trace.recorded[key][:, i]
    step = 1.0 / evaluation.fps
    predicted, held = [], []
    for row, chunks, stills in trace.chunks:
        chunk = chunks[key][:, i]
        times = trace.times[row] + step * np.arange(len(chunk))
        predicted.append(np.column_stack([times, chunk]))
        if np.isfinite(stills[key][i]):
            # One step long at least, or the last row's would be a point.
            ends = [times[0], max(times[-1], times[0] + step)]
            held.append(np.column_stack([ends, [stills[key][i]] * 2]))
    shades = np.linspace(FIRST_COLOUR, LAST_COLOUR, max(len(predicted), 2))[: len(predicted)]
    axes.plot(trace.times, recorded, color="black", linewidth=1.4, alpha=0.8, zorder=2)
    if held:
        axes.add_collection(
            LineCollection(held, colors="0.4", linewidths=0.9, linestyles=(0, (4, 2)), zorder=1)
        )
    colours = mpl.colormaps[COLOURS](shades)
    axes.add_collection(LineCollection(predicted, colors=colours, linewidths=0.9, zorder=3))
    for line in predicted:
        if len(line) == 1:  # the last row of an episode: no line can be drawn
            axes.plot(*line[0], ".", color=colours[-1], markersize=2, zorder=3)
    _limit(axes, [recorded, *(line[:, 1] for line in (*predicted, *held))], value)
    axes.set_xlim(trace.times[0], max(trace.times[-1], step))
    unit = "" if value.unit == "dataset" else f" [{value.unit}]"
    still = "" if value.moving else ", does not move"
    title = f"{key}: {value.name}{unit}   MSE {value.figures.mse:.3g}"
    if value.figures.mse_hold_still is not None:
        title += f" (held {value.figures.mse_hold_still:.3g})"
    axes.set_title(title + still, fontsize=7, loc="left", color="black" if value.moving else "0.45")


def _limit(axes: Any, curves: list[Any], value: ValueSummary) -> None:
    """All curves, and never so near that noise looks like motion."""
    low = min(float(curve.min()) for curve in curves if len(curve))
    high = max(float(curve.max()) for curve in curves if len(curve))
    room = max(0.06 * (high - low), 0.02 * max(abs(low), abs(high)), MOTION_SI / 2)
    axes.set_ylim(low - room, high + room)
    axes.locator_params(axis="y", nbins=4)
    axes.ticklabel_format(axis="y", useOffset=False)


def _steps(axes: Any, evaluation: Evaluation, summary: Summary) -> None:
    """Root mean square error by step; its square would hide the first steps."""
    for key, found in summary.steps.items():
        errors = [math.nan if f is None else math.sqrt(f.mse) for f in found]
        still = [
            math.nan if f is None or f.mse_hold_still is None else math.sqrt(f.mse_hold_still) for f in found
        ]
        wide = {"linewidth": 2.0, "color": "black"} if key == ALL else {"linewidth": 1.0}
        (line,) = axes.plot(range(len(errors)), errors, marker=".", markersize=4, label=key, **wide)
        if any(map(math.isfinite, still)):
            axes.plot(range(len(still)), still, linestyle=(0, (4, 2)), linewidth=0.8, color=line.get_color())
    axes.set_xlabel("step of the chunk")
    axes.set_ylabel("RMS error")
    axes.set_ylim(bottom=0.0)
    axes.set_title(
        f"error by step of the chunk, over {evaluation.rows} chunks; dashed: present state held",
        fontsize=8,
        loc="left",
    )
    # Above, where no curve can be.
    place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.0}
    axes.legend(fontsize=7, ncols=len(summary.steps), frameon=False, **place)
