# SPDX-License-Identifier: Apache-2.0
"""An episode of which only begin and end are marked, because something else records the messages."""

from __future__ import annotations

from dataclasses import replace

from gr00t_ros.recording.episode_folder import EpisodeFolder
from gr00t_ros.recording.episode_record import EpisodeRecord


class MarkedEpisode:
    """The counterpart of ``recording.episode.Episode`` without a bag."""

    def __init__(self, folder: EpisodeFolder, record: EpisodeRecord) -> None:
        """Raises RecordingError when nothing can be written."""
        self.record, self._folder = record, folder
        self._write()

    def label(self, label: str, instruction: str) -> EpisodeRecord:
        """Labels the episode while it runs."""
        self.record = self.record.labelled(label, instruction)
        self._write()
        return self.record

    def finish(self, stop_ns: int, ended_by: str) -> EpisodeRecord:
        """Ends the episode."""
        self.record = replace(self.record, stop_ns=stop_ns, ended_by=ended_by)
        self._write()
        return self.record

    def discard(self) -> None:
        """Throws the episode away."""
        self._folder.discard(self.record.episode)

    def _write(self) -> None:
        self.record.write(self._folder.marks_file(self.record.episode))
