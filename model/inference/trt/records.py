# SPDX-License-Identifier: Apache-2.0
"""JSON files that a robot's safety rests on: read strictly, written whole, and with a digest of their own.

A record is a frozen dataclass. The digest is SHA-256 over canonical JSON of everything else in the file; it
notices an edit, a bad disk or a mixture of two files. It is no signature: who wants to fool it can.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from gr00t_model.errors import BackendError

DIGEST = "digest"
VERSION = "format_version"
# JSON has no such numbers, and a broken engine's measures are such numbers.
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}

Record = TypeVar("Record")


class _MisfitError(Exception):
    """A value is not what its field takes."""


def digest_of(record: Any) -> str:
    """The digest that `write_record` puts into a file of this record."""
    return _digest(_encode(record))


def write_record(record: Any, path: Path) -> None:
    """Write a record; its file appears whole or not at all.

    Raises:
        BackendError: it cannot be written.
    """
    content = _encode(record)
    text = json.dumps({**content, DIGEST: _digest(content)}, indent=2, ensure_ascii=False, allow_nan=False)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too
            partial.unlink()
        raise BackendError(f"{path} cannot be written: {error.strerror}") from error


def read_record(kind: type[Record], path: Path, version: int, remedy: str) -> Record:
    """Read a record of format `version`.

    Args:
        kind: a dataclass with a field ``format_version``.
        path: the file.
        version: the only format this code knows.
        remedy: what to do about a file that cannot be used.

    Raises:
        BackendError: the file is absent, is not such a record, lacks a field or has one too many, holds a
            wrong type, or was changed after it was written. The message names file and field.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BackendError(f"{path} does not exist; {remedy}") from error
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the latter for thousands of nested brackets
        raise BackendError(f"{path} is not JSON ({error}); {remedy}") from error
    try:
        if not isinstance(content, dict):
            raise _MisfitError(f"{path} holds no object")
        found = content.get(VERSION)
        if type(found) is not int or found != version:
            raise _MisfitError(f"{path}: {VERSION} is {_short(found)}, expected {version}")
        stated = content.pop(DIGEST, None)
        if not isinstance(stated, str):
            raise _MisfitError(f"{path}: {DIGEST} is missing")
        record = _decode(kind, content, "", path)
    except _MisfitError as error:
        raise BackendError(f"{error}; {remedy}") from error
    if stated != _digest(content):
        raise BackendError(f"{path} was changed after it was written; {remedy}")
    return typing.cast("Record", record)


def _digest(content: dict[str, Any]) -> str:
    # Escaped: a lone surrogate, which JSON can name, has no other bytes.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _encode(value: Any) -> Any:
    """A record as JSON values."""
    if dataclasses.is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _decode(kind: Any, value: Any, where: str, path: Path) -> Any:
    """A JSON value as what its field takes."""
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):  # an optional field
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _decode(inner, value, where, path)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, where, path)
    if origin is dict:
        items = _expect(dict, value, "an object", where, path).items()
        return {key: _decode(arguments[1], item, f"{where}.{key}", path) for key, item in items}
    if origin is tuple:
        items = _expect(list, value, "a list", where, path)
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(items)
        if len(items) != len(arguments):
            raise _MisfitError(f"{path}: {where} has {len(items)} values, expected {len(arguments)}")
        return tuple(
            _decode(a, item, f"{where}[{i}]", path)
            for i, (a, item) in enumerate(zip(arguments, items, strict=True))
        )
    if kind is float and isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _MisfitError(f"{path}: {where} is {_short(value)}, expected {_NAMES[kind]}")
    return value


def _decode_fields(kind: Any, value: Any, where: str, path: Path) -> Any:
    items = _expect(dict, value, "an object", where, path)
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    missing = [name for name in hints if name not in items]
    if missing:
        raise _MisfitError(f"{path}: {prefix}{missing[0]} is missing")
    strange = [name for name in items if name not in hints]
    if strange:
        raise _MisfitError(f"{path}: {prefix}{strange[0]} is unknown")
    decoded = {name: _decode(hint, items[name], f"{prefix}{name}", path) for name, hint in hints.items()}
    try:
        return kind(**decoded)
    except ValueError as error:  # what the dataclass itself refuses
        raise _MisfitError(f"{path}: {prefix}{error}") from error


def _expect(kind: type, value: Any, name: str, where: str, path: Path) -> Any:
    if not isinstance(value, kind):
        raise _MisfitError(f"{path}: {where} is {_short(value)}, expected {name}")
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
