# SPDX-License-Identifier: Apache-2.0
"""Message definitions, as they go into a bag: with them it can be read where the package is not installed.

They come from the ``.msg`` (or ``.idl``) files that every installed message package has below ``share/``, so
that custom messages are in the bag exactly as they are on this robot.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

from gr00t_ros.errors import RecordingError


@dataclass(frozen=True)
class Definition:
    """A message type: its text with the texts of all types in it, its hash (RIHS01), and whether it begins
    with a std_msgs/Header."""

    name: str
    text: str
    digest: str
    has_header: bool


class Definitions:
    """The types that are installed; each is read once."""

    def __init__(self, prefixes: Iterable[Path] | None = None) -> None:
        """``prefixes`` are the installations to look in, by default the sourced ones and this Python's."""
        self._prefixes = tuple(installed_prefixes() if prefixes is None else prefixes)
        # An empty store, and not one with the types of a distribution: what is installed here is what counts.
        self._store = get_typestore(Stores.EMPTY)
        self._known: dict[str, Definition] = {}

    def of(self, name: str) -> Definition:
        """The definition of ``sensor_msgs/msg/Image`` and the like.

        Raises:
            RecordingError: the package is not installed, or its files cannot be read as a definition.
        """
        if name not in self._known:
            try:
                self._register(name)
                text, _ = self._store.generate_msgdef(name, ros_version=2)
                digest = self._store.hash_rihs01(name)
            except (TypesysError, OSError, UnicodeDecodeError) as error:
                raise RecordingError(
                    f"message type {name}: its definition cannot be read ({error})"
                ) from error
            fields = self._store.fielddefs[name][1]
            first = _named(fields[0][1]) if fields else ()
            header = bool(fields) and fields[0][0] == "header" and first == ("std_msgs/msg/Header",)
            self._known[name] = Definition(name, text, digest, header)
        return self._known[name]

    def _register(self, name: str) -> None:
        """Reads ``name`` and every type in it into the store."""
        types: dict[str, Any] = {}
        waiting = [name]
        while waiting:
            wanted = waiting.pop()
            if wanted in types or wanted in self._store.fielddefs:
                continue
            types.update(self._read(wanted))
            if wanted not in types:
                raise RecordingError(f"message type {wanted}: its file defines something else")
            waiting += [inner for _, field in types[wanted][1] for inner in _named(field)]
        self._store.register(types)

    def _read(self, name: str) -> dict[str, Any]:
        package, _, rest = name.partition("/")
        for prefix in self._prefixes:
            path = prefix / "share" / package / f"{rest}.msg"
            if path.is_file():
                return dict(get_types_from_msg(path.read_text(encoding="utf-8"), name))
            path = path.with_suffix(".idl")
            if path.is_file():
                return dict(get_types_from_idl(path.read_text(encoding="utf-8")))
        searched = ", ".join(map(str, self._prefixes)) or "nowhere"
        raise RecordingError(
            f"message type {name} is not installed (looked in {searched}); install {package}"
        )


def installed_prefixes() -> Iterator[Path]:
    """Where message packages may lie: what is sourced, then this Python's environment."""
    for text in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if text:
            yield Path(text)
    yield Path(sys.prefix)


def _named(field: Any) -> tuple[str, ...]:
    """The message types in a field: rosbags has (kind, name) for one and (kind, (field, length)) for
    several."""
    kind, content = field
    if kind == Nodetype.NAME:
        return (str(content),)
    return _named(content[0]) if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) else ()
