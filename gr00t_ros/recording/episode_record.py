# SPDX-License-Identifier: Apache-2.0
"""``episode.json``: what is known about an episode beside its messages.

It lies in the episode's folder (or, where only marks are given, in its place), is there from the beginning of
the episode, and is written whole or not at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gr00t_ros.errors import RecordingError

FORMAT = 1


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode. Times are ROS time in ns since 1970, as in the bag.

    ``instruction`` is what holds for the episode; ``told`` is what it was when it began, which differs after
    a correction. ``stop_ns`` is 0 and ``ended_by`` empty for as long as the episode runs, and so for one
    whose recorder was killed. ``audit`` is ``recording.audit.Audit.as_dict()``, empty without a bag.
    """

    episode: str
    robot: str
    instruction: str
    told: str
    start_ns: int
    stop_ns: int = 0
    ended_by: str = ""
    label: str = ""
    messages: int = 0
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """0 while it runs."""
        return max(0, self.stop_ns - self.start_ns) / 1e9

    @classmethod
    def read(cls, path: Path) -> EpisodeRecord:
        """The record in a file.

        Raises:
            RecordingError: it cannot be read, or is none.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise RecordingError(f"{path}: another format than {FORMAT}, which this version reads")
            values.pop("duration_s", None)
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordingError(f"{path}: cannot be read as an episode ({error})") from error

    def write(self, path: Path) -> None:
        """Puts the record in place of what is there. Raises RecordingError, and then the old one stays."""
        values = {"format": FORMAT, **asdict(self), "duration_s": self.duration_s}
        part = path.with_name(path.name + ".tmp")
        try:
            part.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RecordingError(f"{path}: cannot be written ({error})") from error

    def labelled(self, label: str, instruction: str) -> EpisodeRecord:
        """With a label and a corrected instruction; an empty text leaves what is there."""
        return replace(self, label=label or self.label, instruction=instruction or self.instruction)
