# SPDX-License-Identifier: Apache-2.0
"""Log lines of a thread that must not wait for a disk or a terminal: rclpy's thread writes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rclpy.node import Node

# Lines that wait to be written, at most: they are told once a cause, so that more of them mean trouble.
MAX_LINES = 100


class LogLines:
    """``later`` may be called by any thread; the line is written by whoever spins ``node``."""

    def __init__(self, node: Node) -> None:
        self._lines: deque[tuple[Callable[[str], None], str]] = deque(maxlen=MAX_LINES)
        self._waiting = node.create_guard_condition(self.write)

    def later(self, tell: Callable[[str], None], text: str) -> None:
        """Has ``tell(text)`` called soon."""
        self._lines.append((tell, text))
        self._waiting.trigger()

    def write(self) -> None:
        """Writes what waits, now."""
        while self._lines:
            tell, text = self._lines.popleft()
            tell(text)
