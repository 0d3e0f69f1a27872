# SPDX-License-Identifier: Apache-2.0
"""Rows of a recording that a test made up, part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gr00t_ros.data.bag_rows import BagRows, Part
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.rows import Row
from gr00t_ros.robot import RobotConfig
from support_bags import NS, START, BagMaker
from support_robots import small_robot

STEP = 0.05


def config(**changes: Any) -> RobotConfig:
    """The small robot; keys are dotted paths with __ for dots, such as recording__action_source."""
    values = small_robot()
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        level = values
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return RobotConfig.from_mapping(values)


def read(
    folder: Path, robot: RobotConfig | None = None, **options: Any
) -> tuple[list[tuple[Part, list[Row]]], BagRows]:
    """The parts of a recording with their rows, and the reader for its counts."""
    with Bag(folder) as bag:
        rows = BagRows(bag, robot or config(), fps=options.pop("fps", 20.0), **options)
        parts: list[tuple[Part, list[Row]]] = []
        for item in rows:
            if isinstance(item, Part):
                parts.append((item, []))
            else:
                parts[-1][1].append(item)
    return parts, rows


def seconds(ns: int) -> float:
    return (ns - START) / NS


def written(tmp_path: Path, maker: BagMaker, name: str = "bag") -> Path:
    """In the order of receive times."""
    maker.messages.sort(key=lambda message: message[2])
    return maker.write(tmp_path / name)
