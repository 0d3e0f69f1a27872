# SPDX-License-Identifier: Apache-2.0
"""Makes a LeRobot dataset of staged episodes: v2.1 with GR00T's additions, or v3.0.

``assemble`` is what the converter calls at the end; ``merging_datasets.py`` brings other datasets through the
same door. Episodes pass one at a time, so memory does not grow with their number.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gr00t_ros.data.contact_sheet import write_contact_sheet
from gr00t_ros.data.conversion_report import ReportMaker
from gr00t_ros.data.dataset_form import FORMATS, V30, features_of, info_of, modality_of
from gr00t_ros.data.episode_source import COUNTED, Columns, EpisodeSource, staged_source
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.lerobot_v2_writing import V2Writer
from gr00t_ros.data.lerobot_v3_writing import V3Writer
from gr00t_ros.data.lerobot_writing import StagedEpisode, read_staged
from gr00t_ros.data.relative_actions import HORIZON, RelativeActions, relations_of
from gr00t_ros.data.rows import Layout
from gr00t_ros.data.statistics import FIELDS, PERCENTILES, RunningStatistics, combined
from gr00t_ros.data.whole_files import WholeFolder, refuse_without_room, storing, write_json
from gr00t_ros.errors import DatasetError

_ALL = tuple(PERCENTILES)


class FormatWriter(Protocol):
    """Where the files of one format lie."""

    def add(self, index: int, source: EpisodeSource, columns: Columns, statistics: Mapping[str, Any]) -> None:
        """Appends an episode; ``columns`` are complete, with tasks as positions in the dataset's list."""
        ...

    def finish(self, tasks: Sequence[str]) -> None:
        """Writes the indices."""
        ...


@dataclass(frozen=True)
class DatasetPlan:
    """What a dataset is to be, apart from its episodes.

    Attributes:
        fmt: ``v2.1`` or ``v3.0``.
        features: of info.json.
        modality: of modality.json; None for a dataset without one.
        horizon: steps of an action chunk, for the relative-action statistics.
        conversion: what ``meta/conversion.json`` says about how the dataset came about.
        left_out: {cause: rows} that belong to no episode, for the report.
        robot_yaml: the robot description to keep beside the data.
    """

    fmt: str
    robot_type: str
    fps: float
    features: Mapping[str, Any]
    modality: Mapping[str, Any] | None
    horizon: int = HORIZON
    conversion: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    robot_yaml: Path | None = None


def assemble(
    staged: Sequence[str | Path],
    output: str | Path,
    layout: Layout,
    fmt: str = "v2.1",
    *,
    robot_yaml: str | Path | None = None,
    conversion: Mapping[str, Any] | None = None,
    left_out: Mapping[str, int] | None = None,
    horizon: int = HORIZON,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Makes the dataset ``output`` of the staged episodes, in their order. The staged folders stay.

    Args:
        layout: the columns that all of them must have.
        fmt: ``v2.1`` or ``v3.0``.
        robot_yaml: copied to ``meta/robot.yaml``.
        conversion: provenance for ``meta/conversion.json``; episodes, drops and timing are added to it.
        left_out: {cause: rows} that belong to none of the episodes, for the report.
        horizon: steps of an action chunk, for ``meta/relative_stats.json``.
        progress: called with (episodes done, all episodes).

    Raises:
        DatasetError: there are none, one is damaged or has other columns or another picture size, ``output``
            exists, or the disk is full. Nothing is left at ``output`` then.
    """
    episodes = [read_staged(folder) for folder in staged]
    if not episodes:
        raise DatasetError(f"{output}: no episodes, so no dataset")
    videos = episodes[0].videos
    for episode in episodes:
        _refuse_other(episode, layout, videos)
    plan = DatasetPlan(
        fmt=fmt,
        robot_type=layout.robot_type,
        fps=layout.fps,
        features=features_of(layout, videos),
        modality=modality_of(layout),
        horizon=horizon,
        conversion=dict(conversion or {}),
        left_out=dict(left_out or {}),
        robot_yaml=None if robot_yaml is None else Path(robot_yaml),
    )
    return write_dataset([staged_source(episode) for episode in episodes], Path(output), plan, progress)


def _refuse_other(episode: StagedEpisode, layout: Layout, videos: Mapping[str, Mapping[str, Any]]) -> None:
    if episode.layout != layout:
        raise DatasetError(
            f"{episode.path}: was converted with other columns or another rate than the rest; "
            "remove the folder and convert it again"
        )
    for key, info in episode.videos.items():
        if info != videos[key]:
            shown = [
                f"{i['video.width']}x{i['video.height']} {i['video.codec']}" for i in (info, videos[key])
            ]
            raise DatasetError(
                f"{episode.path}: camera {key} is {shown[0]}, in the episodes before {shown[1]}; convert "
                "it to the same --size, or into a dataset of its own"
            )


def write_dataset(
    sources: Sequence[EpisodeSource],
    output: Path,
    plan: DatasetPlan,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Makes the dataset ``output``. Raises DatasetError as :func:`assemble`."""
    if plan.fmt not in FORMATS:
        raise DatasetError(f"dataset format {plan.fmt!r}: expected one of {', '.join(FORMATS)}")
    folder = WholeFolder(output)
    try:
        needed = _copied_bytes(sources, plan, folder.partial)
        refuse_without_room(output, needed)
        with storing(output, needed):
            _write(folder.partial, sources, plan, progress)
        folder.commit()
    except BaseException:
        folder.discard()
        raise
    return output


def _copied_bytes(sources: Sequence[EpisodeSource], plan: DatasetPlan, place: Path) -> int:
    """Bytes of video that cannot just be given a second name."""
    device = place.stat().st_dev
    copied: dict[Path, int] = {}
    for source in sources:
        for part in source.videos.values():
            if part.path not in copied and part.path.is_file():
                found = part.path.stat()
                linked = plan.fmt != V30 and part.whole and found.st_dev == device
                copied[part.path] = 0 if linked else found.st_size
    return sum(copied.values())


def _write(
    root: Path,
    sources: Sequence[EpisodeSource],
    plan: DatasetPlan,
    progress: Callable[[int, int], None] | None,
) -> None:
    (root / "meta").mkdir(parents=True)
    writer: FormatWriter = (V3Writer if plan.fmt == V30 else V2Writer)(root, plan.features, plan.fps)
    tasks: dict[str, int] = {}
    totals: dict[str, RunningStatistics] = {}
    images: dict[str, list[dict[str, Any]]] = {}
    report = ReportMaker(plan.features, plan.fps, plan.left_out)
    relative = RelativeActions(relations_of(plan.modality, plan.features), plan.horizon)
    frames = 0
    for index, source in enumerate(sources):
        columns = _complete(source, index, frames, tasks, plan.features)
        statistics: dict[str, Any] = {}
        for name, values in columns.items():
            running = RunningStatistics(f"{source.where}, {name}", kept=values.size)
            running.add(values.reshape(len(values), -1))
            statistics[name] = running.result(_ALL) | {"count": [len(values)]}
            totals.setdefault(name, RunningStatistics(name)).add(values.reshape(len(values), -1))
        for name, values in source.images().items():
            statistics[name] = values
            images.setdefault(name, []).append(values)
        relative.add(columns)
        report.add(source, columns)
        writer.add(index, source, columns, statistics)
        frames += len(columns["index"])
        if progress is not None:
            progress(index + 1, len(sources))
    writer.finish(list(tasks))
    lengths = [source.length for source in sources]
    info = info_of(plan.fmt, plan.robot_type, plan.fps, plan.features, lengths, len(tasks))
    write_json(root / "meta/info.json", info)
    write_json(root / "meta/stats.json", _totals(plan.fmt, totals, images))
    write_json(root / "meta/relative_stats.json", relative.result())
    if plan.modality is not None:
        write_json(root / "meta/modality.json", plan.modality)
    if plan.robot_yaml is not None:
        shutil.copyfile(plan.robot_yaml, root / "meta/robot.yaml")
    episodes = [{"length": source.length, "tasks": list(source.tasks), **source.record} for source in sources]
    write_json(
        root / "meta/conversion.json",
        {
            **plan.conversion,
            "relative_horizon": plan.horizon,
            "report": report.report().to_json(),
            "episodes": episodes,
        },
    )
    if any(feature["dtype"] == "video" for feature in plan.features.values()):
        write_contact_sheet(LeRobotDataset(root), root / "meta/contact_sheet.png")


def _complete(
    source: EpisodeSource, index: int, frames: int, tasks: dict[str, int], features: Mapping[str, Any]
) -> Columns:
    """An episode's columns in the order of info.json, with the dataset's numbers; ``tasks`` grows."""
    read = source.columns()
    rows = np.arange(source.length, dtype=np.int64)
    numbers = np.array([tasks.setdefault(text, len(tasks)) for text in source.texts], np.int64)
    counted = {
        "frame_index": rows,
        "episode_index": np.full(source.length, index, np.int64),
        "index": frames + rows,
    }
    columns: Columns = {}
    for name, feature in features.items():
        if feature["dtype"] == "video":
            continue
        if name in COUNTED:
            columns[name] = counted[name]
        elif name not in read:
            raise DatasetError(f"{source.where}: no column {name}, which the dataset has")
        elif is_task(name):
            columns[name] = numbers[read[name]]
        else:
            columns[name] = read[name]
    return columns


def is_task(name: str) -> bool:
    """Whether the numbers of a column stand for texts in the list of tasks."""
    return name == "task_index" or name.startswith("annotation.")


def _totals(
    fmt: str, totals: Mapping[str, RunningStatistics], images: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """``meta/stats.json``: GR00T's six fields (its reader slices every field it finds); v3.0 has more."""
    if fmt == V30:
        values = {name: running.result(_ALL) | {"count": [running.count]} for name, running in totals.items()}
        return values | {name: combined(parts) for name, parts in images.items()}
    values = {name: running.result() for name, running in totals.items()}
    pictures = {name: combined(parts) for name, parts in images.items()}
    return values | {name: {field: entry[field] for field in FIELDS} for name, entry in pictures.items()}
