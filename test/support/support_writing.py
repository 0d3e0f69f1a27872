# SPDX-License-Identifier: Apache-2.0
"""Rows of a small robot, staged episodes and datasets made of them, as the converter makes them.

Frames are those of ``support_datasets``: their brightness tells their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gr00t_ros.data.assembling import assemble
from gr00t_ros.data.lerobot_writing import EpisodeWriter, StagedEpisode
from gr00t_ros.data.rows import Layout, Row
from gr00t_ros.data.video_writing import VideoOptions
from support_datasets import CAMERAS, JOINTS, frame, states

FPS = 20.0
GROUPS = (("arm", JOINTS[:5]), ("gripper", JOINTS[5:]))
LAYOUT = Layout("so101", FPS, CAMERAS, GROUPS, GROUPS)
START_NS = 1_700_000_000_000_000_000
# Nearly lossless: neighbouring frames differ by 12 grey levels.
OPTIONS = VideoOptions(crf=10)


def task(episode: int, row: int) -> str:
    """The instruction changes after ten rows; episodes share some."""
    return f"task {episode + row // 10}"


def row(episode: int, number: int, layout: Layout = LAYOUT) -> Row:
    """Row ``number``; its frame is 7 ms old."""
    state = states(episode, number + 1)[number]
    action = state + np.float32(0.5)
    stamp = START_NS + round(number * 1e9 / layout.fps)
    return Row(
        stamp_ns=stamp,
        t_obs_ns=stamp - 7_000_000,
        video={key: frame(number + 3 * episode, key) for key in layout.video},
        state={"arm": state[:5], "gripper": state[5:]},
        action={"arm": action[:5], "gripper": action[5:]},
        instruction=task(episode, number),
    )


def stage(
    folder: Path, episode: int, rows: int, options: VideoOptions = OPTIONS, layout: Layout = LAYOUT
) -> StagedEpisode:
    """A staged episode of so many rows."""
    with EpisodeWriter(folder, layout, options) as writer:
        for number in range(rows):
            writer.add(row(episode, number, layout))
        return writer.finish({"bag": f"bag_{episode}"}, {"stale": episode})


def write_episodes(
    folder: Path,
    lengths: Sequence[int] = (24, 37, 18),
    fmt: str = "v2.1",
    first: int = 0,
    options: VideoOptions = OPTIONS,
    **assembling: Any,
) -> Path:
    """A dataset ``folder/dataset`` of staged episodes, the first of them number ``first``."""
    staged = [
        stage(folder / f"staged/{number}", first + number, rows, options).path
        for number, rows in enumerate(lengths)
    ]
    return assemble(staged, folder / "dataset", LAYOUT, fmt, **assembling)
