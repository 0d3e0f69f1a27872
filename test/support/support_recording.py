# SPDX-License-Identifier: Apache-2.0
"""Episodes without ROS: messages as bytes, a robot's expectations, and a disk that is full when a test says
so."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gr00t_ros.recording import mcap_storage
from gr00t_ros.recording.definitions import Definition
from gr00t_ros.recording.episode import Episode
from gr00t_ros.recording.episode_folder import EpisodeFolder
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.expectations import Expected, expectations
from support_robots import shipped

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
FRONT, WRIST, JOINTS = "/camera/front/image_raw", "/camera/wrist/image_raw", "/joint_states"
ARM, GRIPPER = "/arm_controller/joint_trajectory", "/gripper_controller/commands"
INSTRUCTION = "/gr00t/instruction"
ROBOT = shipped("so101")
EXPECTED = expectations(ROBOT, lambda topic: topic)
HASH = "RIHS01_" + 64 * "0"


def definition(name: str, has_header: bool = True) -> Definition:
    """Some definition, which nobody decodes by."""
    return Definition(name, "byte[] data\n", HASH, has_header)


def message(stamp_ns: int, size: int = 0, big_endian: bool = False) -> bytes:
    """An encoded message that begins with a header: its stamp, then ``size`` random bytes."""
    order = ">" if big_endian else "<"
    stamp = struct.pack(order + "iI", stamp_ns // 10**9, stamp_ns % 10**9)
    return bytes((0, 0 if big_endian else 1, 0, 0)) + stamp + os.urandom(size)


def begin(
    folder: Path, expected: dict[str, Expected] | None = None, queue_bytes: int = 100_000_000
) -> Episode:
    """A running episode in ``folder``, with all of its topics connected."""
    episodes = EpisodeFolder(folder)
    episodes.prepare()
    name = episodes.new_name()
    expected = EXPECTED if expected is None else expected
    record = EpisodeRecord(name, ROBOT.name, "pick up the cube", "pick up the cube", START_NS)
    episode = Episode(episodes, record, expected, queue_bytes)
    for item in expected.values():
        episode.connect(item.topic, definition(item.message_type, item.stamp == "header"))
    return episode


def instead_of_write(monkeypatch: pytest.MonkeyPatch, write: Callable[[int, Any], int]) -> None:
    """Bags, and nothing else, are written by ``write`` and not by ``os.write``."""
    others = {name: getattr(os, name) for name in dir(os) if name != "write"}
    monkeypatch.setattr(mcap_storage, "os", SimpleNamespace(**others, write=write))


class FullDisk:
    """Lets files of a bag grow up to ``limit`` bytes each; the write that would go beyond is cut off there,
    and every further one fails, as on a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        self.limit, self.refused = limit, 0
        instead_of_write(monkeypatch, self.write)

    def write(self, file: int, data: Any) -> int:
        room = self.limit - os.fstat(file).st_size
        if room <= 0:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(file, data[:room])
