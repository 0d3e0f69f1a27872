# SPDX-License-Identifier: Apache-2.0
"""Reading a nested mapping one checked value at a time, so that every mistake is named by its key path.

A ``Section`` is one level of a robot YAML. Each ``text``, ``number``, ``names``... call takes one key, checks
the value and remembers the key; ``done`` then refuses what was never asked for. Knows nothing about robots;
``robot_parsing`` does.
"""

from __future__ import annotations

import array
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from gr00t_ros.errors import RobotConfigError

# A joint or key becomes part of a ROS parameter name, in which dots separate levels.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_/-]*")
# https://design.ros2.org/articles/topic_and_service_names.html
_TOPIC = re.compile(r"[~/]?/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
# Longest piece of a wrong value that is shown back.
_SHOWN = 80


class Section:
    """One level of the description. ``path`` is how messages name it, for example ``robot.video.front``."""

    def __init__(self, values: Any, path: str) -> None:
        self.path = path
        if not isinstance(values, Mapping):
            raise RobotConfigError(f"{path}: found {shown(values)}, expected keys with values")
        for key in values:
            if not isinstance(key, str):
                raise RobotConfigError(
                    f"{path}: found the key {shown(key)}, expected keys that are text (quote it)"
                )
        self._values: Mapping[str, Any] = values
        self._taken: set[str] = set()

    def fail(self, key: str, expected: str) -> NoReturn:
        """Raise RobotConfigError for ``key``: its path, the value found, what was expected."""
        where = f"{self.path}.{key}" if key else self.path
        if key not in self._values:
            guess = self._near(key, [name for name in self._values if name not in self._taken])
            raise RobotConfigError(f"{where}: missing, expected {expected}{guess}")
        raise RobotConfigError(f"{where}: found {shown(self._values[key])}, expected {expected}")

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key in self._values

    def names_given(self) -> tuple[str, ...]:
        """All keys given, in order: for levels whose keys are joint names."""
        return tuple(self._values)

    def text(self, key: str, expected: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """Text; one of ``choices`` where there are any. Without a default the key is required."""
        self._taken.add(key)
        if choices:
            expected = f"{expected}: one of {', '.join(choices)}"
        if key not in self._values and default is not None:
            return default
        value = self._get(key, expected)
        if not isinstance(value, str):
            self.fail(key, f"{expected} (text{'; put it in quotes' if value is not None else ''})")
        if choices and value not in choices:
            self.fail(key, expected + self._near(value, choices))
        return value

    def name(self, key: str, expected: str) -> str:
        """A name of letters, digits, _, / and -, starting with a letter or _."""
        value = self.text(key, expected)
        if not _NAME.fullmatch(value):
            self.fail(key, f"{expected}: letters, digits, _, - and /, starting with a letter")
        return value

    def topic(self, key: str, default: str | None = None) -> str:
        """A ROS topic name, absolute (/joint_states) or relative to the node's namespace."""
        value = self.text(key, "a topic name such as /joint_states", default)
        if not _TOPIC.fullmatch(value) or value.startswith("//"):
            self.fail(key, "a topic name such as /joint_states: letters, digits and _, levels separated by /")
        return value

    def number(
        self, key: str, expected: str, default: float | None = None, *, above: float | None = None
    ) -> float:
        """A finite number, greater than ``above`` where given. Whole numbers are taken too."""
        self._taken.add(key)
        if key not in self._values and default is not None:
            return default
        value = self._get(key, expected)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(key, f"{expected} (a number{_exponent_hint(value)})")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fail(key, f"{expected} (finite)")
        if above is not None and not number > above:
            self.fail(key, f"{expected} (greater than {above:g})")
        return number

    def integer(self, key: str, expected: str, *, minimum: int) -> int:
        """A whole number, at least ``minimum``."""
        self._taken.add(key)
        value = self._get(key, expected)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or value != value // 1
            or value < minimum
        ):
            self.fail(key, f"{expected} (a whole number, at least {minimum})")
        return int(value)

    def flag(self, key: str, expected: str, default: bool) -> bool:
        """true or false."""
        self._taken.add(key)
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"{expected} (true or false)")
        return value

    def items(self, key: str, expected: str) -> list[Any]:
        """A list with at least one entry."""
        self._taken.add(key)
        value = self._get(key, expected)
        if not isinstance(value, (list, tuple, array.array)) or len(value) == 0:
            self.fail(key, f"{expected} (a list with at least one entry)")
        return list(value)

    def names(self, key: str, expected: str) -> tuple[str, ...]:
        """A list of different names."""
        values = self.items(key, expected)
        for value in values:
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                self.fail(key, f"{expected}; {shown(value)} is not a name of letters, digits, _, - and /")
        for value in values:
            if values.count(value) > 1:
                self.fail(key, f"{expected}, each once; {shown(value)} is there {values.count(value)} times")
        return tuple(values)

    def indices(self, key: str, expected: str) -> tuple[int, ...]:
        """A list of different whole numbers from 0 on."""
        values = self.items(key, expected)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                self.fail(key, f"{expected}; {shown(value)} is not a whole number from 0 on")
        if len(set(values)) != len(values):
            self.fail(key, f"{expected}, each once")
        return tuple(values)

    def section(self, key: str, expected: str, *, required: bool = True) -> Section:
        """The level below ``key``; an empty one where it is not given and not required."""
        self._taken.add(key)
        if key not in self._values and not required:
            return Section({}, f"{self.path}.{key}")
        value = self._get(key, expected)
        if not isinstance(value, Mapping):
            self.fail(key, f"{expected} (keys with values)")
        return Section(value, f"{self.path}.{key}")

    def done(self, also: Sequence[str] = ()) -> None:
        """Refuse keys that were neither asked for nor named in ``also``."""
        known = sorted(self._taken | set(also))
        for key in self._values:
            if key not in known:
                guess = self._near(key, known) or (f" (known here: {', '.join(known)})" if known else "")
                raise RobotConfigError(
                    f"{self.path}.{key}: unknown key with the value {shown(self._values[key])}, "
                    f"expected a known key{guess}"
                )

    def _get(self, key: str, expected: str) -> Any:
        if key not in self._values:
            self.fail(key, expected)
        return self._values[key]

    @staticmethod
    def _near(word: str, words: Sequence[str]) -> str:
        near = difflib.get_close_matches(word, words, n=1)
        return f" (did you mean {near[0]}?)" if near else ""


def shown(value: Any) -> str:
    """A wrong value as a message shows it: short, on one line."""
    if value is None:
        return "nothing (ROS parameters know no null)"
    if isinstance(value, Mapping):
        return f"keys ({', '.join(map(str, list(value)[:6]))})" if value else "no keys"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _exponent_hint(value: Any) -> str:
    """YAML 1.1 reads 1e-3 as text; people do not expect that."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return ", without quotes, and 1.0e-3 rather than 1e-3"
    return ""
