# SPDX-License-Identifier: Apache-2.0
"""What is odd with a dataset, before hours of training on it: findings for people.

``evaluate --dataset DIR`` prints them, ``evaluate`` and ``finetune`` look at them first. A FAIL means that
training would break, or learn something else than it should; a WARN that somebody should know. What has to do
with one robot or one checkpoint is in ``dataset_fit.py``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gr00t_ros.data import rates
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.video import probe
from gr00t_ros.errors import DatasetError
from gr00t_ros.findings import Finding, Level, fail, named, ok, warn
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training import dataset_fit
from gr00t_ros.training.dataset_survey import (
    ACTION,
    KEPT,
    STATE,
    ColumnFacts,
    Place,
    Survey,
    survey,
    value_names,
)

if TYPE_CHECKING:  # which brings torch: what is in a dataset is told without it
    from gr00t_model.processing import ModalityConfig

# Share of rows that two columns agree in when one is a copy of the other (the ends of episodes may differ).
COPIED = 0.999
# Videos whose headers are looked at, per camera: the first, the middle and the last episode's.
_HEADERS = 3
# Reasons why episodes cannot be read that get a line each.
_REASONS = 6
# Characters of an instruction that are shown.
_TEXT = 60
_CAMERA = "observation.images."
_RATE_REMEDY = "correct fps in meta/info.json where it is wrong, or convert the recording again"


def report(
    dataset: LeRobotDataset,
    *,
    modality: Mapping[str, ModalityConfig] | None = None,
    statistics: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] | None = None,
    robot: RobotConfig | None = None,
    episodes: Sequence[int] | None = None,
    tell: Callable[[int], object] = lambda episodes: None,
) -> list[Finding]:
    """All findings, good ones included, in the order of the dataset's parts.

    Reads every row of the episodes once, and headers of some videos; nothing is decoded.

    Args:
        modality: what a checkpoint sees and gives; without it nothing is said about horizon and keys.
        statistics: {"state" | "action": {key: {"min": [D], "max": [D], ...}}}, what a checkpoint scales by.
        robot: finds joints by name; its ``step_rate`` is held against the dataset's fps.
        episodes: their numbers; None for all. A number that is not there is a finding.
        tell: is told how many episodes are done.
    """
    fit = dataset_fit.Fit(dataset, modality, statistics, robot)
    found = survey(dataset, episodes, also=fit.see, tell=tell)
    findings = [
        *_episodes(found),
        *_times(found, dataset),
        *_cameras(found, dataset),
        *_instructions(found, robot),
    ]
    for column in (STATE, ACTION):
        findings += _column(found, dataset, column)
    return [*findings, *_pair(found), *fit.findings(found)]


# ---- episodes and time ---------------------------------------------------------------------------


def _episodes(found: Survey) -> Iterator[Finding]:
    reasons: dict[str, list[int]] = {}
    for number, reason in found.unreadable.items():
        reasons.setdefault(reason, []).append(number)
    for reason, numbers in list(reasons.items())[:_REASONS]:
        yield fail(
            f"episode {named(numbers)}", reason, "rows that can be read", "mend it, or leave the episode out"
        )
    if len(reasons) > _REASONS:
        yield fail(
            "episodes",
            f"{len(found.unreadable)} cannot be read",
            "all of them",
            "copy or convert the dataset again",
        )
    if found.lengths:
        lengths = sorted(found.lengths.values())
        yield ok(
            "episodes",
            f"{len(lengths)} with {found.rows} rows, {lengths[0]} to {lengths[-1]} each",
        )


def _times(found: Survey, dataset: LeRobotDataset) -> Iterator[Finding]:
    fps = dataset.fps
    wrong = sorted(rate for rate in found.rates.values() if rates.differ(rate, fps, rates.MEASURED))
    if wrong:
        usual = wrong[len(wrong) // 2]
        text = (
            f"timestamps are {1e3 / usual:.4g} ms apart ({usual:.4g} Hz) in {len(wrong)} of "
            f"{len(found.rates)} episodes"
        )
        far = any(rates.differ(rate, fps, rates.MISTAKEN) for rate in wrong)
        yield (fail if far else warn)("time", text, f"fps of info.json, {fps:g}", _RATE_REMEDY)
    elif found.rates:
        yield ok("time", f"rows follow at {fps:g} Hz", "fps of info.json")
    if found.gaps:
        worst = max(found.gaps, key=lambda place: place.size)
        yield warn(
            "time",
            f"{len(found.gaps)} gaps between rows, the longest {worst.size:.3g} s after row {worst.row} of "
            f"episode {worst.episode}",
            f"a row every {1e3 / fps:.4g} ms",
            "a chunk that reaches over a gap teaches a leap: split the episodes there",
        )


# ---- cameras and instructions --------------------------------------------------------------------


def _cameras(found: Survey, dataset: LeRobotDataset) -> Iterator[Finding]:
    for text in dataset.warnings:
        told = text.removeprefix(f"{dataset.path}: ")
        yield warn("cameras", told, "a video file per episode", "remove it from info.json, or copy its files")
    if not dataset.video_keys:
        yield fail("cameras", "none with files", "at least one", "a policy needs to see: copy the videos")
    for feature in dataset.video_keys:
        part = f"camera {feature.removeprefix(_CAMERA)}"
        lost = [number for name, number in found.missing_video if name == feature]
        if lost:
            remedy = "copy the files, or leave the episodes out"
            yield fail(part, f"no file for episode {named(lost)}", "a file for each", remedy)
        findings = list(_headers(found, dataset, feature, set(lost)))
        yield from findings
        if not lost and not findings:
            shape = dataset.features[feature].get("shape") or ()
            size = " x ".join(str(n) for n in shape[:2])
            yield ok(part, f"files for all episodes, {size} pixels")


def _headers(found: Survey, dataset: LeRobotDataset, feature: str, missing: set[int]) -> Iterator[Finding]:
    """Of some videos: that they can be opened, are long enough, and are of the rate that info.json says."""
    numbers = [number for number in found.lengths if number not in missing]
    places = dict.fromkeys(i * (len(numbers) - 1) // (_HEADERS - 1) for i in range(_HEADERS))
    part = f"camera {feature.removeprefix(_CAMERA)}"
    told: set[str] = set()
    for number in (numbers[place] for place in places if numbers):
        span = dataset.video_span(number, feature)
        try:
            facts = probe(span.path)
        except DatasetError as error:
            yield fail(part, str(error), "a video", "copy the dataset again")
            continue
        needed = span.start + (found.lengths[number] - 1) / dataset.fps
        if rates.ends_before(facts, needed, dataset.fps) and "length" not in told:
            told.add("length")
            yield fail(
                part,
                f"{span.path.name} is {facts.seconds:.2f} s long, episode {number} ends at {needed:.2f} s",
                "a frame for every row",
                "copy the video again, or convert the recording again",
            )
        if facts.rate and rates.differ(facts.rate, dataset.fps, rates.MEASURED) and "rate" not in told:
            told.add("rate")
            far = rates.differ(facts.rate, dataset.fps, rates.MISTAKEN)
            text = f"{span.path.name} has {facts.rate:.4g} frames a second"
            yield (fail if far else warn)(part, text, f"fps of info.json, {dataset.fps:g}", _RATE_REMEDY)


def _instructions(found: Survey, robot: RobotConfig | None) -> Iterator[Finding]:
    default = robot.instruction.default.strip() if robot is not None else ""
    lost = found.without_instruction
    if lost and default:
        yield ok("instructions", f"none in episode {named(lost)}: there the robot's, {default!r}, is used")
    elif lost:
        yield warn(
            "instructions",
            f"none in {len(lost)} of {len(found.lengths)} episodes ({named(lost)})",
            "a task text for every row",
            "a policy follows texts that it was trained with: write them into the tasks file of meta/",
        )
    texts = [text for text in found.instructions if text.strip()]
    if texts:
        shown = (repr(textwrap.shorten(text, _TEXT, placeholder=" ...")) for text in texts)
        yield ok("instructions", f"{len(texts)} different: {named(shown, 3)}")


# ---- values --------------------------------------------------------------------------------------


def _column(found: Survey, dataset: LeRobotDataset, column: str) -> Iterator[Finding]:
    facts = found.columns.get(column)
    if facts is None:
        if found.lengths:
            yield fail(column, "missing", "a column of numbers", "convert the recording again")
        return
    names = value_names(dataset, column)
    names += [str(i) for i in range(len(names), facts.width)]
    if facts.bad:
        first = facts.bad[0]
        where = f"{names[first.value]} at row {first.row} of episode {first.episode}"
        total = int(facts.not_finite.sum())
        text = f"{total} values are NaN or infinite, in episode {_places(facts.bad)}; the first is {where}"
        yield fail(column, text, "finite numbers", "leave these episodes out, or record them again")
    yield from _frozen(found, column, facts, names)
    jumps = facts.jumps()
    if jumps:
        most = jumps[0]
        text = (
            f"{len(jumps)}{' or more' * (len(jumps) == KEPT)} leaps of more than half of a value's range, "
            f"the largest {most.size:.4g} in {names[most.value]} after row {most.row} of episode "
            f"{most.episode}"
        )
        remedy = "look for a wrapped angle, lost samples or a glitch there"
        yield warn(column, text, "values that change step by step", remedy)


def _frozen(found: Survey, column: str, facts: ColumnFacts, names: Sequence[str]) -> Iterator[Finding]:
    several = {number for number, length in found.lengths.items() if length > 1}
    frozen = [number for number in facts.frozen if number in several]
    if frozen and len(frozen) == len(several):
        same = "with the same values in all" if facts.constant.all() else "with other values in each"
        text = (
            f"a frozen stream: none of its {facts.width} values changes in any of {len(frozen)} episodes "
            f"({facts.rows} rows), {same}"
        )
        expected = "the measured joints" if column == STATE else "what the robot was told"
        remedy = "nothing can be learned from it: find out why the topic stood still, and record again"
        yield fail(column, text, expected, remedy)
        return
    if frozen:
        yield warn(
            column,
            f"a frozen stream in episode {named(frozen)}: no value changes there",
            "values that change",
            "leave these episodes out (the others change)",
        )
    if column == STATE and found.stuck:
        longest = max(found.stuck, key=lambda place: place.size)
        yield warn(
            column,
            f"repeated for {longest.size:.3g} s from row {longest.row} of episode {longest.episode} on while "
            f"actions move; {len(found.stuck)} such stretches, in episode {_places(found.stuck)}",
            "measured joints that follow",
            "the state's topic stood still there: leave these episodes out",
        )
    still = np.flatnonzero(facts.constant).tolist()
    text = f"{facts.width} values, {facts.width - len(still)} of them change"
    if still:
        text += f"; constant: {named(_together(still, names))}"
    yield ok(column, text)


def _pair(found: Survey) -> Iterator[Finding]:
    moving = [name for name, facts in found.columns.items() if len(facts.frozen) < len(found.lengths)]
    if not {STATE, ACTION} <= set(moving) or not found.rows:
        return
    if found.equal_now >= COPIED * found.rows:
        yield warn(
            ACTION,
            "is the state of the same row, everywhere",
            "what was commanded, or the state of the next row",
            "the first step of every chunk is where the robot is already: convert with action_source "
            "future_state",
        )
    elif found.next_rows and found.equal_next >= COPIED * found.next_rows:
        yield ok(ACTION, "is the state of the next row")


def _places(places: Sequence[Place]) -> str:
    return named(dict.fromkeys(place.episode for place in places))


def _together(values: Sequence[int], names: Sequence[str]) -> list[str]:
    """Names of values; a group whose values are all among them by its own name."""
    sizes: dict[str, int] = {}
    for name in names:
        group = name.partition(".")[0]
        sizes[group] = sizes.get(group, 0) + 1
    chosen: dict[str, list[str]] = {}
    for value in values:
        chosen.setdefault(names[value].partition(".")[0], []).append(names[value])
    told = []
    for group, own in chosen.items():
        told += [group] if len(own) == sizes[group] and len(own) > 1 else own
    return told


def unwell(findings: Sequence[Finding]) -> list[Finding]:
    """Those that somebody should know."""
    return [finding for finding in findings if finding.level is not Level.OK]
