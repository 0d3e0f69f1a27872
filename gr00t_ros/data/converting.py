# SPDX-License-Identifier: Apache-2.0
"""One bag to staged episodes: the unit of work that runs in a process of its own and is done once.

A bag's folder below the staging folder holds its episodes and, when the last of them is whole, ``bag.json``:
what was made, from what, and what was left out and why. Without that file, or with one about another
recording or other options, the bag is converted again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gr00t_ros.data.bag_episodes import AUTO, Episode, bag_name, record_file
from gr00t_ros.data.bag_recovery import find_files
from gr00t_ros.data.bag_rows import BagRows, Part
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.lerobot_writing import EpisodeWriter
from gr00t_ros.data.rows import Layout, Row
from gr00t_ros.data.video_writing import VideoOptions
from gr00t_ros.data.whole_files import read_json, remove, storing, write_json
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig

# Of bag.json, and of the meaning of what was staged: a higher one converts everything again.
_FORM = 1
RECORD = "bag.json"
SPLIT, LEAVE_OUT = "split", "leave-out"
# Why rows that were made are in no episode; a label is another reason.
TOO_SHORT, WITH_GAPS = "too short", "episode with gaps"
# A part this short (s) is the debris of a gap: fewer steps than any action chunk has.
MIN_SECONDS = 0.5
# How often progress is told, s.
_TELL_EVERY = 0.25


@dataclass(frozen=True)
class ConvertOptions:
    """What changes the result. ``gaps`` is split or leave-out, ``leave_out`` are labels of episodes that are
    not wanted."""

    fps: float
    task: str | None = None
    episodes: str = AUTO
    gaps: str = SPLIT
    min_seconds: float = MIN_SECONDS
    leave_out: tuple[str, ...] = ()
    video: VideoOptions = field(default_factory=VideoOptions)


@dataclass(frozen=True)
class Job:
    """A bag, the robot YAML, where its episodes are staged."""

    bag: Path
    robot: Path
    folder: Path
    options: ConvertOptions

    @property
    def key(self) -> dict[str, Any]:
        """What the result is made from; JSON. Raises DatasetError where the bag cannot be found."""
        files = []
        # What the recorder wrote beside the bag may be corrected by hand or by a label at any time.
        beside = [path for path in (record_file(self.bag),) if path.is_file()]
        for path in (*find_files(self.bag).paths, *beside):
            status = path.stat()
            files.append([path.name, status.st_size, status.st_mtime_ns])
        robot = hashlib.sha256(self.robot.read_bytes()).hexdigest()
        options = json.loads(json.dumps(asdict(self.options)))
        return {"form": _FORM, "files": files, "robot": robot, "options": options}


@dataclass(frozen=True)
class Converted:
    """What became of a bag: ``episodes`` are staged folders, in order.

    ``drops`` counts rows that are in no episode by cause, ``refused`` messages by topic; ``texts`` has a
    sentence for each of them. ``notes`` are things to know. ``seconds`` is the length of the recording,
    ``skipped`` says that all this was there before.
    """

    name: str
    episodes: tuple[Path, ...]
    rows: int
    seconds: float
    drops: Mapping[str, int]
    refused: Mapping[str, int]
    texts: Mapping[str, str]
    notes: tuple[str, ...]
    skipped: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a bag is: a share of 0 to 1, rows made, seconds of the recording read."""

    share: float
    rows: int
    seconds: float


Tell = Callable[[Progress], None]


def finished(job: Job) -> Converted | None:
    """What an earlier run made of the same bag with the same options; None where it did not finish."""
    path = job.folder / RECORD
    if not path.is_file():
        return None
    try:
        record = read_json(path, "what became of a bag")
        if record["key"] != job.key:
            return None
        episodes = tuple(job.folder / name for name in record["episodes"])
        if not all((episode / "episode.json").is_file() for episode in episodes):
            return None
        return Converted(
            record["name"],
            episodes,
            int(record["rows"]),
            float(record["seconds"]),
            dict(record["drops"]),
            dict(record["refused"]),
            dict(record["texts"]),
            tuple(record["notes"]),
            skipped=True,
        )
    except (DatasetError, KeyError, TypeError, ValueError):
        return None


def convert_bag(job: Job, tell: Tell = lambda progress: None) -> Converted:
    """Converts one bag; what an earlier run left of it is removed first. ``tell`` is called a few times a
    second, between two messages; what it raises ends the conversion and leaves nothing half-written.

    Raises:
        DatasetError: the bag cannot be read, no row could be made of it, or the disk is full. Nothing that
            looks finished is left.
        RobotConfigError: the robot YAML is wrong.
    """
    before = finished(job)
    if before is not None:
        return before
    robot = RobotConfig.from_file(job.robot)
    with storing(job.folder):
        remove(job.folder)
        job.folder.mkdir(parents=True)
    with Bag(job.bag) as bag:
        work = _Work(job, bag, robot, tell)
        work.run()
        converted = work.result()
    record = {
        "key": job.key,
        **asdict(converted),
        "episodes": [path.name for path in converted.episodes],
    }
    with storing(job.folder):
        draft = job.folder / f"{RECORD}.draft"
        write_json(draft, record)
        draft.rename(job.folder / RECORD)
    return converted


class _Work:
    """The conversion of one bag."""

    def __init__(self, job: Job, bag: Bag, robot: RobotConfig, tell: Tell) -> None:
        self._job, self._bag, self._tell = job, bag, tell
        self._options = job.options
        self._layout = Layout.from_robot(robot, job.options.fps)
        self._rows = BagRows(
            bag, robot, fps=job.options.fps, task=job.options.task, episodes=job.options.episodes
        )
        self._rows.heartbeat = self._progress
        self._name = bag_name(bag)
        self._made: list[tuple[Path, Part, int]] = []
        self._unwanted = 0  # episodes that the options leave out
        self._left_out: Counter[str] = Counter()  # their rows
        self._texts: dict[str, str] = {}
        self._broken: list[Episode] = []  # those with more than one part
        self._notes: list[str] = []
        self._total = 0
        self._counted: Counter[str] = Counter()
        self._writer: EpisodeWriter | None = None
        self._part: Part | None = None
        self._next_tell = 0.0

    def run(self) -> None:
        """Makes all episodes."""
        try:
            for item in self._rows:
                if not isinstance(item, Row):
                    self._finish()
                    self._open(item)
                elif self._writer is not None:
                    self._writer.add(item)
                    self._total += 1
                elif self._part is not None:
                    self._left_out[_labelled(self._part.episode)] += 1
            self._finish()
        except BaseException:
            if self._writer is not None:
                self._writer.abort()
            raise

    def result(self) -> Converted:
        """What was made. Raises DatasetError when that is nothing although something was there and wanted."""
        if self._options.gaps == LEAVE_OUT:
            self._leave_out_broken()
        notes = [*([self._bag.recovered] if self._bag.recovered else []), *self._rows.notes, *self._notes]
        rows = self._rows
        if not self._made and not self._unwanted and not rows.discarded:
            raise DatasetError(f"{self._bag.path}: no episode could be made; {self._reasons(notes)}")
        return Converted(
            self._name,
            tuple(path for path, _, _ in self._made),
            sum(count for _, _, count in self._made),
            (self._bag.end_ns - self._bag.start_ns) / 1e9,
            dict(rows.drops + self._left_out),
            dict(rows.refused),
            {**self._texts, **rows.texts},
            tuple(dict.fromkeys(notes)),
        )

    def _open(self, part: Part) -> None:
        self._part = part
        self._writer = None
        if part.part > 0:
            self._broken.append(part.episode)
        label = part.episode.label
        if label and label in self._options.leave_out:
            self._leave_out(_labelled(part.episode), 0, f"{_shown(part)} is labelled {label} and left out")
            return
        folder = self._job.folder / f"episode_{len(self._made):06d}"
        self._writer = EpisodeWriter(folder, self._layout, self._options.video)

    def _finish(self) -> None:
        """Ends the part under way, with what was left out since the one before ended."""
        writer, part = self._writer, self._part
        if part is None:
            return
        drops = self._rows.drops - self._counted
        self._counted = self._rows.drops.copy()
        if writer is None:
            return
        count = len(writer)
        if count < max(1, round(self._options.min_seconds * self._options.fps)):
            writer.abort()
            self._total -= count
            seconds = count / self._options.fps
            self._leave_out(
                TOO_SHORT,
                count,
                f"{_shown(part)} has {count} rows ({seconds:.2f} s) and is left out: shorter than "
                f"{self._options.min_seconds:g} s",
            )
        else:
            folder = self._job.folder / f"episode_{len(self._made):06d}"
            writer.finish(self._source(part.episode, part), drops)
            self._made.append((folder, part, count))
        self._writer = None

    def _leave_out(self, cause: str, rows: int, note: str) -> None:
        """Counts an episode that the options leave out, or a part of one."""
        self._unwanted += 1
        self._left_out[cause] += rows
        self._texts.setdefault(cause, note)
        self._notes.append(note)

    def _source(self, episode: Episode, part: Part) -> dict[str, Any]:
        return {
            "bag": self._name,
            "episode": episode.name,
            "part": part.part,
            "because": part.because,
            "label": episode.label,
        }

    def _leave_out_broken(self) -> None:
        """Removes the episodes that have more than one part, also where only one was long enough."""
        kept = []
        for path, part, count in self._made:
            if any(episode is part.episode for episode in self._broken):
                remove(path)
                because = f" ({part.because})" if part.because else ""
                self._leave_out(
                    WITH_GAPS, count, f"{_shown(part)} is left out: its episode has gaps{because}"
                )
            else:
                kept.append((path, part, count))
        self._made = kept

    def _reasons(self, notes: list[str]) -> str:
        rows = self._rows
        causes = [f"{count} rows left out: {rows.texts[name]}" for name, count in rows.drops.most_common(3)]
        refused = [
            f"{count} messages on {topic} refused: {rows.texts.get(f'refused {topic}', '')}"
            for topic, count in rows.refused.most_common(3)
        ]
        counts = self._bag.counts
        silent = [f"no message on {topic}" for topic in rows.topics if not counts.get(topic)]
        return "; ".join([*refused, *silent, *causes, *notes]) or "the bag holds no camera frame"

    def _progress(self) -> None:
        now = time.monotonic()
        if now < self._next_tell:
            return
        self._next_tell = now + _TELL_EVERY
        read = max(0, self._rows.at_ns - self._bag.start_ns)
        share = min(1.0, read / max(1, self._bag.end_ns - self._bag.start_ns))
        self._tell(Progress(share, self._total, read / 1e9))


def _labelled(episode: Episode) -> str:
    return f"label {episode.label}"


def _shown(part: Part) -> str:
    return part.episode.name + (f" (part {part.part + 1})" if part.part else "")
