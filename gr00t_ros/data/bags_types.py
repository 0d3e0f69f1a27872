# SPDX-License-Identifier: Apache-2.0
"""From recorded bytes to messages: by the definition in the bag, else by the standard one.

Only the types that somebody asks for are looked at, each by itself: a type of another topic that nobody can
parse disturbs nothing. The types that robots' YAMLs use have been the same in every ROS 2 distribution, so
bags from before Iron, which hold no definitions, read by those of Jazzy.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

from gr00t_ros.data.bags_storage import Definition
from gr00t_ros.errors import DatasetError, MessageError

# Between the parts of a definition in IDL, as recorders write it.
_RULE = "=" * 80 + "\n"
_IDL = "IDL: "
_ENCAPSULATION = 4


class Types:
    """Decodes the messages of one bag."""

    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        self._definitions = definitions
        self._stores: dict[str, Any] = {}
        self._standard: Any = None

    def decode(self, kind: str, data: memoryview, topic: str) -> Any:
        """The message, with numpy arrays that are views of ``data`` where its fields are arrays.

        Raises:
            MessageError: the bytes are not a message of this type.
            DatasetError: the bag does not describe the type, and it is no standard one.
        """
        store = self._stores.get(kind)
        if store is None:
            store = self._stores[kind] = self._store(kind, topic)
        try:
            return _decoded(store, kind, data)
        except (SerdeError, TypesysError, struct.error, ValueError, KeyError, IndexError) as error:
            raise MessageError(f"{topic}: a {kind} cannot be decoded ({error})") from error

    def _store(self, kind: str, topic: str) -> Any:
        definition = self._definitions.get(kind)
        if definition is not None:
            try:
                store = get_typestore(Stores.EMPTY)
                store.register(_parsed(kind, definition))
                return store
            except (TypesysError, AssertionError, ValueError, KeyError) as error:
                problem = f"cannot be read ({' '.join(str(error).split())[:120]})"
        else:
            problem = "is missing"
        if self._standard is None:
            self._standard = get_typestore(Stores.ROS2_JAZZY)
        if kind not in self._standard.types:
            raise DatasetError(f"{topic}: the definition of {kind} in the bag {problem}")
        return self._standard


def _decoded(store: Any, kind: str, data: memoryview) -> Any:
    """As rosbags' ``deserialize_cdr``, but for bytes behind the message, which it refuses.

    Fast DDS estimates the length of a message that is serialized before it is published (as the executor's
    trajectories are): eight bytes too many for each empty sequence of doubles.
    """
    if len(data) < _ENCAPSULATION or data[0] != 0 or data[1] not in (0, 1):
        raise SerdeError("no CDR encapsulation")
    form = store.get_msgdef(kind)
    read = form.deserialize_cdr_le if data[1] else form.deserialize_cdr_be
    message, end = read(data[_ENCAPSULATION:], 0, form.cls, store)
    if end + _ENCAPSULATION > len(data):
        raise SerdeError(f"{len(data)} bytes, which end before the message does")
    return message


def _parsed(kind: str, definition: Definition) -> Any:
    if definition.encoding == "ros2msg":
        return get_types_from_msg(definition.text, kind)
    if not definition.text.startswith(_RULE + _IDL):
        return get_types_from_idl(definition.text)
    types: dict[str, Any] = {}
    for part in definition.text.split(_RULE)[1:]:
        types.update(get_types_from_idl(part.partition("\n")[2]))
    return types
