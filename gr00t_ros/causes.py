# SPDX-License-Identifier: Apache-2.0
"""Telling why something is not done: once per cause, in one line. Nodes and planner log through this."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any


class CauseLog:
    """Tells each cause once, and again only after it has gone away and come back.

    A cause that flickers is told at most every ``quiet_s`` seconds, so that 30 frames a second cannot flood
    a log. Keys stand for causes; sentences may hold numbers that change. Thread safe.
    """

    # Keys remembered at most: what arrives on a topic must not grow the node.
    MAX_KEYS = 200

    def __init__(self, tell: Callable[[str], Any], quiet_s: float = 10.0) -> None:
        self._tell = tell
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._present: set[str] = set()
        self._told: dict[str, float] = {}

    def update(self, causes: Mapping[str, str], prefix: str = "") -> None:
        """``causes`` (key to sentence) are all that are present now. What is new is told in one line."""
        with self._lock:
            fresh = [sentence for key, sentence in causes.items() if self._is_news(key)]
            self._present = set(causes)
        if fresh:
            self._tell(prefix + "; ".join(fresh))

    def add(self, key: str, sentence: str, tell: Callable[[str], Any] | None = None) -> None:
        """One more cause is present."""
        with self._lock:
            news = self._is_news(key)
            self._present.add(key)
        if news:
            (tell or self._tell)(sentence)

    def remove(self, prefix: str) -> None:
        """All causes whose key begins with ``prefix`` have gone away."""
        with self._lock:
            self._present = {key for key in self._present if not key.startswith(prefix)}

    def _is_news(self, key: str) -> bool:
        if key in self._present:
            return False
        if len(self._told) + len(self._present) > self.MAX_KEYS:
            self._told.clear()
            self._present.clear()
        now = time.monotonic()
        if now - self._told.get(key, -self._quiet_s) < self._quiet_s:
            return False
        self._told[key] = now
        return True


def without_numbers(text: str) -> str:
    """A key for a sentence whose numbers change while its cause stays the same."""
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", text)


def one_line(error: BaseException) -> str:
    """The text of an error without line breaks, as a log line wants it."""
    return " ".join(str(error).split())
