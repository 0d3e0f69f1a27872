# SPDX-License-Identifier: Apache-2.0
"""An evaluation for people and for programs: the table, the JSON, and whether what was asked for was reached.

Everything here is worked out from one :class:`Summary`, so that the table and the file cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.training.metrics import Figures, mean, scaled_ratio
from gr00t_ros.training.open_loop import Evaluation
from gr00t_ros.training.quantities import Quantities

# The layout of the JSON; larger when a field changes its meaning or goes.
FORMAT_VERSION = 1
ALL = "all"


@dataclass(frozen=True)
class ValueSummary:
    """One joint (or x, y, z, rotation) over all steps. ``span`` is the recorded range, ``worst`` the largest
    error of one step, both in ``unit``; ``si`` what a ``unit`` is in SI, None where nobody says."""

    name: str
    unit: str
    si: float | None
    figures: Figures
    span: float
    worst: float
    moving: bool


@dataclass(frozen=True)
class Summary:
    """All figures. ``groups`` and ``steps`` are means over values, dataset units; ``steps`` holds one entry
    per horizon step by key and for ``all``, None where no chunk reached the step.

    ``moving_ratio`` is MSE over that of holding still on the values that move, each scaled by its range.
    """

    values: dict[str, list[ValueSummary]]
    groups: dict[str, Figures]
    total: Figures
    steps: dict[str, list[Figures | None]]
    moving_ratio: float | None

    @property
    def moving(self) -> list[str]:
        """What moves in the recording, as key.name."""
        return [f"{key}.{v.name}" for key, values in self.values.items() for v in values if v.moving]


def summarize(evaluation: Evaluation) -> Summary | None:
    """The figures of what has been evaluated; None where that is nothing."""
    if not evaluation.rows:
        return None
    values: dict[str, list[ValueSummary]] = {}
    steps: dict[str, list[list[Figures] | None]] = {}
    for key, errors in evaluation.errors.items():
        one = evaluation.compared[key]
        moving = one.moving(errors.spans)
        values[key] = [
            ValueSummary(name, unit, si, figures, float(span), float(worst), bool(moves))
            for name, unit, si, figures, span, worst, moves in zip(
                one.names,
                one.units,
                one.si,
                errors.by_value(),
                errors.spans,
                errors.worst,
                moving,
                strict=True,
            )
        ]
        steps[key] = errors.by_step()
    everything = [value for own in values.values() for value in own]
    moved = [value for value in everything if value.moving]
    together = [
        None if None in at else [figures for own in at for figures in own or ()]
        for at in zip(*steps.values(), strict=True)
    ]
    return Summary(
        values,
        {key: mean([value.figures for value in own]) for key, own in values.items()},
        mean([value.figures for value in everything]),
        {
            key: [None if own is None else mean(own) for own in found]
            for key, found in {**steps, ALL: together}.items()
        },
        scaled_ratio([value.figures for value in moved], [value.span for value in moved]),
    )


@dataclass(frozen=True)
class Wanted:
    """What an evaluation has to reach. ``max_mse`` and ``max_mae`` by ``all``, a key, or key.name, in dataset
    units."""

    max_mse: Mapping[str, float]
    max_mae: Mapping[str, float]
    better_than_hold_still: bool = False

    def check(self, compared: Mapping[str, Quantities]) -> None:
        """Before the work: that every threshold is for something that the policy gives. Raises Gr00tRosError
        that names the one that is not."""
        known = {ALL, *compared, *(f"{key}.{name}" for key, one in compared.items() for name in one.names)}
        for what in (*self.max_mse, *self.max_mae):
            if what not in known:
                raise Gr00tRosError(
                    f"no error of {what!r} is known; expected {', '.join([ALL, *compared])}, or a joint of "
                    "those as key.joint"
                )

    def missed(self, summary: Summary) -> list[str]:
        """What was not reached, a sentence each."""
        found = []
        for name, limits in (("mse", self.max_mse), ("mae", self.max_mae)):
            for what, limit in limits.items():
                value = getattr(_named(summary, what), name)
                if not value <= limit:
                    found.append(f"{name.upper()} of {what} is {value:.4g}, at most {limit:g} was wanted")
        if self.better_than_hold_still:
            found += _not_better(summary)
        return found


def _not_better(summary: Summary) -> list[str]:
    if not summary.moving:
        return ["better than holding still cannot be told: no joint moves in the evaluated rows"]
    if summary.moving_ratio is None:
        return ["better than holding still cannot be told: no joint that moves has a state to hold"]
    if summary.moving_ratio >= 1.0:
        return [
            f"the error is {summary.moving_ratio:.3g} times that of holding still, on the joints that move"
        ]
    return []


def _named(summary: Summary, what: str) -> Figures:
    if what == ALL:
        return summary.total
    if what in summary.groups:
        return summary.groups[what]
    key, _, name = what.partition(".")
    return next(value.figures for value in summary.values[key] if value.name == name)


# ---- for people ----------------------------------------------------------------------------------


def table(evaluation: Evaluation, summary: Summary) -> Iterator[str]:
    """Lines: what was compared, errors by joint, by group and by horizon step."""
    episodes = evaluation.episodes
    yield (
        f"{evaluation.rows} chunks of {evaluation.horizon} steps, one every {evaluation.interval} rows of "
        f"{len(episodes)} episode{'s' * (len(episodes) != 1)} ({ranges(episodes)}), seed {evaluation.seed}"
    )
    names = [f"  {value.name}" for own in summary.values.values() for value in own]
    width = max(len(name) for name in (*names, *summary.groups, "all")) + 1
    known = any(value.si not in (None, 1.0) for own in summary.values.values() for value in own)
    head = ("MSE", "MAE", "hold still", "ratio", "largest", "span", *(("MAE in SI",) if known else ()))
    yield f"{'':<{width}}" + "".join(f"{name:>11}" for name in head) + "  unit"
    for key, own in summary.values.items():
        yield _line(key, width, summary.groups[key])
        for value in own:
            cells = [_number(value.worst), _number(value.span)]
            if known:
                cells.append(_number(None if value.si is None else value.figures.mae * value.si))
            still = "" if value.moving else ", does not move"
            yield _line(f"  {value.name}", width, value.figures, *cells) + f"  {value.unit}{still}"
    yield _line("all", width, summary.total)
    yield "MSE by horizon step, mean of all (hold still):"
    yield from _step_lines(summary)
    yield from _notes(evaluation, summary)


def _line(name: str, width: int, figures: Figures, *more: str) -> str:
    cells = [_number(figures.mse), _number(figures.mae), _number(figures.mse_hold_still)]
    cells += ["-" if figures.ratio is None else f"{figures.ratio:.3g}", *more]
    return f"{name:<{width}}" + "".join(f"{cell:>11}" for cell in cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _step_lines(summary: Summary, per_line: int = 4) -> Iterator[str]:
    cells = [
        f"{step:>4}  " + ("-" if f is None else f"{_number(f.mse):>9} ({_number(f.mse_hold_still)})")
        for step, f in enumerate(summary.steps[ALL])
    ]
    for start in range(0, len(cells), per_line):
        yield "".join(f"{cell:<28}" for cell in cells[start : start + per_line]).rstrip()


def _notes(evaluation: Evaluation, summary: Summary) -> Iterator[str]:
    rules: dict[str, list[str]] = {}
    for key, one in evaluation.compared.items():
        rules.setdefault(one.hold_rule, []).append(key)
    for rule, keys in rules.items():
        yield f"hold still, {', '.join(keys)}: {rule}"
    total = sum(len(own) for own in summary.values.values())
    yield f"{len(summary.moving)} of {total} values move in the evaluated rows: {_rule(evaluation)}"
    if summary.moving_ratio is not None:
        verdict = "better" if summary.moving_ratio < 1.0 else "not better"
        yield (
            f"{verdict} than holding still on those that move: "
            f"{summary.moving_ratio:.3g} times its error (MSE, each scaled by its range)"
        )
    if evaluation.refused_rows:
        first = evaluation.refused[0]
        where = f"episode {first.episode}" + ("" if first.row is None else f", row {first.row}")
        yield f"{evaluation.refused_rows} could not be evaluated; the first is {where}: {first.reason}"


def _rule(evaluation: Evaluation) -> str:
    return "; ".join(dict.fromkeys(one.motion_rule for one in evaluation.compared.values()))


def ranges(numbers: list[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0-2, 5``."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


# ---- for programs --------------------------------------------------------------------------------


def to_mapping(evaluation: Evaluation, summary: Summary) -> dict[str, Any]:
    """All figures as plain data. Errors are in dataset units, those in ``si`` in SI where it is known."""
    return {
        "format_version": FORMAT_VERSION,
        "complete": evaluation.complete,
        "chunks": evaluation.rows,
        "horizon": evaluation.horizon,
        "interval": evaluation.interval,
        "seed": evaluation.seed,
        "fps": evaluation.fps,
        "episodes": evaluation.episodes,
        "inference_s": evaluation.inference_s,
        "not_evaluated": evaluation.refused_rows,
        "not_evaluated_first": [asdict(one) for one in evaluation.refused],
        "all": _plain(summary.total),
        "moving": summary.moving,
        "moving_rule": _rule(evaluation),
        "moving_mse_over_hold_still": summary.moving_ratio,
        "groups": {
            key: {
                **_plain(summary.groups[key]),
                "hold_still": evaluation.compared[key].hold_rule,
                "values": {value.name: _plain_value(value) for value in own},
            }
            for key, own in summary.values.items()
        },
        "by_step": {
            key: [None if f is None else _plain(f) for f in found] for key, found in summary.steps.items()
        },
        "by_step_and_value": {
            key: {
                name: [None if at is None else _plain(at[i]) for at in evaluation.errors[key].by_step()]
                for i, name in enumerate(one.names)
            }
            for key, one in evaluation.compared.items()
        },
    }


def _plain(figures: Figures) -> dict[str, float | None]:
    return {**asdict(figures), "ratio": figures.ratio}


def _plain_value(value: ValueSummary) -> dict[str, Any]:
    figures = value.figures
    si = None
    if value.si is not None:
        still = figures.mse_hold_still
        si = {
            "mse": figures.mse * value.si**2,
            "mae": figures.mae * value.si,
            "mse_hold_still": None if still is None else still * value.si**2,
        }
    return {
        **_plain(figures),
        "si": si,
        "unit": value.unit,
        "largest": value.worst,
        "span": value.span,
        "moves": value.moving,
    }
