# SPDX-License-Identifier: Apache-2.0
"""What the robot is told: the one text that the planner follows, or why there is none."""

from __future__ import annotations

from typing import NamedTuple

from gr00t_ros.causes import one_line
from gr00t_ros.errors import MessageError
from gr00t_ros.observation import check_instruction


class Word(NamedTuple):
    """Exactly one is not empty: a usable text, what is wrong with the newest one, or why none is expected."""

    text: str
    problem: str
    idle: str


class Instruction:
    """The current task text, or why there is none. Any thread.

    The newest text wins, wherever it came from. A text that cannot be used leaves no instruction at all: to
    go on with the old one would be to do what nobody asks for any more. An empty text is the way to say:
    stop planning. ``rest`` says that too, where it is no problem but the end of a task.
    """

    def __init__(self, how_to: str) -> None:
        """``how_to`` ends the sentence about a missing instruction."""
        self._how_to = how_to
        self._word = Word("", f"no instruction yet: {how_to}", "")

    def set(self, text: str) -> None:
        """Takes the newest text, whatever it is."""
        if not text.strip():
            self._word = Word("", f"the instruction is empty, so nothing is planned: {self._how_to}", "")
            return
        try:
            self._word = Word(check_instruction(text), "", "")
        except MessageError as error:
            self._word = Word("", f"{one_line(error)}; nothing is planned until a usable one comes", "")

    def rest(self, why: str) -> None:
        """No text, and none is missing; ``why`` is the sentence about it."""
        self._word = Word("", "", why)

    @property
    def text(self) -> str:
        """What is asked for, or an empty text."""
        return self._word.text

    @property
    def current(self) -> Word:
        """All three in one moment."""
        return self._word
