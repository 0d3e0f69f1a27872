# SPDX-License-Identifier: Apache-2.0
"""The folder that episodes lie in: their names, which count on, and what was left behind.

``episode_000012`` is an episode that is whole. ``episode_000012.recording`` is being written, or its recorder
was killed; it is never touched again by a recorder. Without bags an episode is ``episode_000012.json``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from gr00t_ros.errors import RecordingError
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.names import DISCARDED, RECORD_FILE, RECORDING

# With less room than this on the disk an episode is ended while it can still be closed: what waits, and the
# index of a long recording.
LEAST_FREE = 64_000_000
_NAME = re.compile(r"episode_(\d{6,})")


class EpisodeFolder:
    """See the module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 0

    def prepare(self) -> None:
        """Makes the folder. Raises RecordingError when it cannot be made or is a file."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(
                f"parameter output: {self.path} cannot be made a folder ({error})"
            ) from error

    def new_name(self) -> str:
        """The name of the next episode; also one that this process has discarded keeps its own."""
        numbers = [int(match[1]) for path in self._entries() if (match := _NAME.match(path.name))]
        self._next = max(self._next, max(numbers, default=-1) + 1)
        name = f"episode_{self._next:06d}"
        self._next += 1
        return name

    def free_bytes(self) -> int:
        """What the disk has room for."""
        try:
            return shutil.disk_usage(self.path).free
        except OSError as error:
            raise RecordingError(f"{self.path}: its disk cannot be asked ({error})") from error

    def almost_full(self) -> str:
        """A sentence where the disk has no room for more than closing what is open; else an empty text."""
        try:
            free = self.free_bytes()
        except RecordingError:
            return ""  # whoever writes there will know whether the disk is gone
        return f"the disk is full: {free / 1e6:.0f} MB are left" if free < LEAST_FREE else ""

    def recording(self, name: str) -> Path:
        """Where an episode lies while it is recorded."""
        return self.path / (name + RECORDING)

    def final(self, name: str) -> Path:
        """Where an episode lies when it is whole."""
        return self.path / name

    def leftovers(self) -> list[Path]:
        """What recorders that were killed have left, oldest first."""
        return sorted(path for path in self._entries() if path.name.endswith(RECORDING))

    def keep(self, name: str) -> Path:
        """Gives a closed episode its final name."""
        final = self.final(name)
        try:
            if final.exists():  # a rename would take the place of an empty folder
                raise RecordingError(f"{final} exists already; the episode stays {self.recording(name)}")
            return self.recording(name).rename(final)
        except OSError as error:
            raise RecordingError(f"{self.recording(name)}: cannot be renamed ({error})") from error

    def record_file(self, name: str) -> Path:
        """Where ``episode.json`` of a recorded episode lies.

        Raises:
            RecordingError: there is no such episode.
        """
        if not _NAME.fullmatch(name):
            raise RecordingError(f"{name!r} is not an episode's name, expected one such as episode_000012")
        for path in (
            self.final(name) / RECORD_FILE,
            self.marks_file(name),
            self.recording(name) / RECORD_FILE,
        ):
            if path.is_file():
                return path
        raise RecordingError(f"there is no episode {name} in {self.path}")

    def marks_file(self, name: str) -> Path:
        """What stands for an episode without a bag."""
        return self.path / f"{name}.json"

    def label(self, name: str, label: str, instruction: str) -> EpisodeRecord:
        """Labels a recorded episode; returns what is known of it now."""
        file = self.record_file(name)
        record = EpisodeRecord.read(file).labelled(label, instruction)
        record.write(file)
        return record

    def discard(self, name: str) -> None:
        """Deletes an episode, running or whole."""
        try:
            self.marks_file(name).unlink(missing_ok=True)
            for path in (self.recording(name), self.final(name)):
                if path.is_dir():
                    shutil.rmtree(path.rename(self.path / (name + DISCARDED)))
        except OSError as error:
            raise RecordingError(f"{name} cannot be deleted from {self.path} ({error})") from error

    def _entries(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir())
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be read ({error})") from error
