# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on the robot side, as types a caller can tell apart.

Every message says what was wrong, where, what was expected and what to do. Nodes log the message once per
cause and stay alive; commands print it as one line and exit non-zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class Gr00tRosError(Exception):
    """Base of every error that a user of ``gr00t_ros`` can cause or should handle."""


class RobotConfigError(Gr00tRosError):
    """A robot YAML holds an unknown, missing or impossible value, or does not fit the checkpoint."""


class MessageError(Gr00tRosError):
    """A message is refused: damaged, incomplete, unstamped, non-finite or of an unsupported kind."""


class ChunkRefused(Gr00tRosError):
    """An action chunk is refused before it reaches the timeline. ``str()`` is the reason."""


class UnsafeCommand(Gr00tRosError):
    """No safe command can be made from what was asked. The executor must hold, never send."""


class DatasetError(Gr00tRosError):
    """A dataset or recording cannot be read: the text names the file, key or episode and what was
    expected."""


class RecordingError(Gr00tRosError):
    """An episode cannot be recorded, kept, labelled or thrown away as asked."""


class SimulationError(Gr00tRosError):
    """The simulated robot cannot start or was told something impossible."""


@dataclass(frozen=True)
class Cause:
    """One reason why an observation cannot be assembled now.

    ``kind`` is one of the ``NotReady`` kinds, fit for counting; ``source`` is the key path in the robot YAML,
    for example ``video.front``; ``text`` is the sentence for people. ``text`` holds measured ages, so compare
    causes by ``(kind, source)`` to report each once.
    """

    kind: str
    source: str
    text: str


class NotReady(Gr00tRosError):
    """An observation cannot be assembled now; ``causes`` says why, one entry for each source at fault."""

    #: no message has arrived yet
    NO_MESSAGE = "no_message"
    #: the newest message is older than its ``max_age``
    STALE = "stale"
    #: messages have arrived, but none from at or before the newest camera frame
    BEHIND = "behind"
    #: the newest message carries a stamp from the future
    FUTURE = "future"
    #: not enough past messages for the checkpoint's ``delta_indices``
    HISTORY = "history"
    #: new frames, but the pixels of the camera have not changed for too long
    FROZEN = "frozen"
    #: the instruction is empty or cannot be used
    INSTRUCTION = "instruction"

    def __init__(self, causes: Sequence[Cause]) -> None:
        self.causes = tuple(causes)
        super().__init__("; ".join(cause.text for cause in self.causes))
