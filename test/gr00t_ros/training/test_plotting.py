# SPDX-License-Identifier: Apache-2.0
"""The picture shows what was evaluated: a panel for each value, every chunk where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.training import plotting
from gr00t_ros.training.metrics import ChunkErrors
from gr00t_ros.training.open_loop import Evaluation, Trace
from gr00t_ros.training.open_loop_report import summarize
from gr00t_ros.training.quantities import quantities
from support_evaluation import TAG, processor_for

pytest.importorskip("matplotlib", reason="pictures need the extra train")
PNG = b"\x89PNG\r\n\x1a\n"
FPS, ROWS, HORIZON = 20.0, 40, 8


def evaluated(widths: dict[str, int], states: dict[str, int] | None = None) -> Evaluation:
    """Two chunks, one of a single step; predictions are 0.1 off, the last value of a key never moves."""
    processor = processor_for(widths if states is None else states, widths)
    columns = {key: tuple(f"{key}_{i}" for i in range(width)) for key, width in widths.items()}
    compared = quantities(processor.modality(TAG), widths if states is None else states, columns)
    errors = {key: ChunkErrors(HORIZON, one.held) for key, one in compared.items()}
    recorded = {}
    for key, width in widths.items():
        recorded[key] = np.sin(np.arange(ROWS)[:, None] / 10 + np.arange(width))
        recorded[key][:, -1] = 0.5
    result = Evaluation(compared, errors, HORIZON, HORIZON, 0, FPS, episodes=[3], rows=2)
    result.trace = Trace(3, np.arange(ROWS) / FPS, recorded)
    for row in (0, ROWS - 1):
        stop = min(row + HORIZON, ROWS)
        shown = {key: values[row:stop] + 0.1 for key, values in recorded.items()}
        held = {key: np.where(compared[key].held, recorded[key][row] - 0.3, np.nan) for key in compared}
        result.trace.chunks.append((row, shown, held))
        for key, sums in errors.items():
            done = recorded[key][row:stop]
            sums.add(shown[key] - done, held[key] - done, done)
    return result


def figure_of(evaluation: Evaluation) -> Any:
    summary = summarize(evaluation)
    assert summary is not None
    assert evaluation.trace is not None
    return plotting._figure(evaluation, summary, evaluation.trace)


@pytest.mark.parametrize(
    ("widths", "columns"), [({"arm": 5, "gripper": 1}, 2), ({f"part_{i}": 11 for i in range(4)}, 4)]
)
def test_each_value_has_a_panel(widths: dict[str, int], columns: int) -> None:
    evaluation = evaluated(widths)
    figure = figure_of(evaluation)
    values = sum(widths.values())
    assert len(figure.axes) == values + 1
    assert figure.get_figwidth() == pytest.approx(columns * plotting.PANEL_WIDTH)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    for key, width in widths.items():
        assert sum(title.startswith(f"{key}: {key}_") for title in titles) == width
        assert any(
            title.startswith(f"{key}: {key}_{width - 1}") and "does not move" in title for title in titles
        )


def test_it_is_written_as_a_whole(tmp_path: Path) -> None:
    evaluation = evaluated({"arm": 1})
    summary = summarize(evaluation)
    assert summary is not None
    plotting.plot(evaluation, summary, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_chunks_and_held_states_are_where_they_belong() -> None:
    evaluation = evaluated({"arm": 2})
    assert evaluation.trace is not None
    axes = figure_of(evaluation).axes[0]
    held, predicted = (collection.get_segments() for collection in axes.collections)
    recorded = evaluation.trace.recorded["arm"][:, 0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), recorded)
    assert len(predicted) == 2
    np.testing.assert_allclose(predicted[0][:, 0], np.arange(HORIZON) / FPS)
    np.testing.assert_allclose(predicted[0][:, 1], recorded[:HORIZON] + 0.1)
    np.testing.assert_allclose(held[0], [[0.0, recorded[0] - 0.3], [(HORIZON - 1) / FPS, recorded[0] - 0.3]])
    # A chunk of one step is drawn as a point: a line of it would not be seen.
    (point,) = axes.lines[1:]
    np.testing.assert_allclose(point.get_xydata(), [[(ROWS - 1) / FPS, recorded[-1] + 0.1]])
    low, high = axes.get_ylim()
    assert low < min(recorded.min(), predicted[0][:, 1].min())
    assert high > max(recorded.max(), predicted[0][:, 1].max())


def test_without_a_state_to_hold_nothing_is_drawn_for_it() -> None:
    axes = figure_of(evaluated({"arm": 2}, {"other": 2})).axes[0]
    (predicted,) = axes.collections
    assert len(predicted.get_segments()) == 2
    assert "held" not in axes.get_title(loc="left")


def test_the_error_by_step_is_that_of_the_summary() -> None:
    evaluation = evaluated({"arm": 2, "hand": 3})
    steps = figure_of(evaluation).axes[-1]
    lines = {line.get_label(): line for line in steps.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"arm", "hand", "all"}
    np.testing.assert_allclose(lines["arm"].get_ydata(), [0.1] * HORIZON)


def test_without_an_evaluated_row_there_is_nothing_to_draw(tmp_path: Path) -> None:
    evaluation = evaluated({"arm": 2})
    evaluation.trace = None
    summary = summarize(evaluation)
    assert summary is not None
    with pytest.raises(Gr00tRosError, match="nothing to draw"):
        plotting.plot(evaluation, summary, tmp_path / "picture.png")


def test_without_matplotlib_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(Gr00tRosError, match="install the extra train"):
        plotting.require_matplotlib()
