# SPDX-License-Identifier: Apache-2.0
"""A user's file with parameters that are no launch arguments: the executor's rate, the policy's tasks.

What is a launch argument is always given to a node, with its default where nobody says otherwise, and wins
over every file. Such a parameter in the file would be ignored without a word; here it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gr00t_ros.errors import Gr00tRosError

_ANY = ("*", "**")


def checked(path: str, arguments: Mapping[str, Collection[str]]) -> Path:
    """``path`` as a file that ``ros2 launch`` can pass on. ``arguments`` are the parameters of each node, by
    its name, that come from launch arguments.

    Raises:
        Gr00tRosError: there is no such file, it is no ROS 2 parameter file, or it holds one of ``arguments``.
    """
    file = Path(path).expanduser()
    try:
        sections = dict(_sections(yaml.safe_load(file.read_text(encoding="utf-8")), ""))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Gr00tRosError(f"argument params_file: {path} cannot be read: {error}") from error
    if not sections:
        raise Gr00tRosError(
            f"argument params_file: {path} has no parameters, expected NODE: ros__parameters: NAME: VALUE"
        )
    for section, parameters in sections.items():
        node = section.rsplit("/", 1)[-1]
        for name, given in arguments.items():
            twice = sorted(set(map(str, parameters)) & set(given)) if node in (name, *_ANY) else []
            if twice:
                raise Gr00tRosError(
                    f"argument params_file: {path} sets {', '.join(twice)} of {section or '/'}; that is a "
                    f"launch argument, which wins: give {twice[0]}:=... to the launch file"
                )
    return file.resolve()


def _sections(level: Any, path: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every node's parameters, by the node's name with its namespace."""
    if not isinstance(level, Mapping):
        return
    for key, value in level.items():
        if key == "ros__parameters" and isinstance(value, Mapping):
            yield path, value
        else:
            yield from _sections(value, f"{path}/{str(key).strip('/')}")
