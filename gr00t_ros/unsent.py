# SPDX-License-Identifier: Apache-2.0
"""What each motion knew before the commands of a period were made, for those that are never sent.

A process may stand still between the two. Whoever publishes then drops what has grown old, and the motion
goes on from what its controller really has. No ROS types.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gr00t_ros.motion_types import Motion


class Marks:
    """Of one period at a time. Not thread safe."""

    def __init__(self, motions: Sequence[Motion]) -> None:
        self._motions = motions
        self._known: list[dict[str, Any]] = []
        self._silent = False

    def take(self, silent: bool) -> None:
        """A period begins; ``silent``: nothing was being sent before it."""
        # What a motion knows it replaces as a whole. The ways that a velocity remembers are an array that it
        # writes into: the entry that it made is written again by the next period.
        self._known, self._silent = [dict(vars(motion)) for motion in self._motions], silent

    def clear(self) -> None:
        """The motions have changed since."""
        self._known = []

    def back(self, keys: Collection[str]) -> bool:
        """The motions of these action groups know what they knew before; whether all is silent again."""
        if not self._known:
            return False
        for motion, known in zip(self._motions, self._known, strict=True):
            if motion.group.key in keys:
                vars(motion).update(known)
                if self._silent and len(keys) < len(self._motions):
                    motion.forget()  # while others move, it must not hold what it held before the silence
        return self._silent and len(keys) == len(self._motions)
