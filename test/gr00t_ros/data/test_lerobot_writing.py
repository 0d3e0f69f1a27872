# SPDX-License-Identifier: Apache-2.0
"""Staging an episode: whole or not there, and what is wrong with a row is named with the row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gr00t_ros.data.lerobot_writing import EpisodeWriter, read_staged
from gr00t_ros.data.rows import Layout, Row
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from support_datasets import CAMERAS, JOINTS, states
from support_writing import LAYOUT, OPTIONS, row, stage, task


def test_a_staged_episode_reads_back_as_it_was_made(tmp_path: Path) -> None:
    made = stage(tmp_path / "episode", 2, 23)
    assert read_staged(tmp_path / "episode") == made
    assert made.length == 23
    assert made.tasks == ("task 2", "task 3", "task 4")
    assert made.drops == {"stale": 2}
    assert made.source == {"bag": "bag_2"}
    table = made.table()
    np.testing.assert_array_equal(np.stack(table["observation.state"].to_numpy()), states(2, 23))
    np.testing.assert_array_equal(table["timestamp"], (np.arange(23) / 20).astype(np.float32))
    assert [made.tasks[i] for i in table["task_index"].to_pylist()] == [task(2, k) for k in range(23)]
    assert made.timing["min_ms"] == made.timing["max_ms"] == 7.0
    assert made.timing["rows"] == sum(made.timing["counts"]) == 23
    assert set(made.statistics()) == set(CAMERAS)


def test_repeated_frames_are_counted_by_camera(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "episode", LAYOUT, OPTIONS) as writer:
        for number in range(6):
            now = row(0, number)
            front = row(0, number // 2).video["front"].copy()
            writer.add(dataclasses.replace(now, video={**now.video, "front": front}))
        staged = writer.finish()
    assert staged.repeated == {"front": 3, "wrist": 0}


def without(kind: str, key: str) -> Callable[[Row], Row]:
    def change(good: Row) -> Row:
        return dataclasses.replace(good, **{kind: {k: v for k, v in getattr(good, kind).items() if k != key}})

    return change


def with_value(kind: str, key: str, value: Any) -> Callable[[Row], Row]:
    return lambda good: dataclasses.replace(good, **{kind: {**getattr(good, kind), key: value}})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("state", "arm"), "observation.state lacks the group arm; it has gripper"),
        (without("action", "gripper"), "action lacks the group gripper"),
        (without("video", "wrist"), "no frame of camera wrist"),
        (with_value("state", "arm", np.zeros(3)), r"state arm has shape \[3\], expected 5 values"),
        (with_value("state", "arm", np.full(5, np.nan)), "state arm, shoulder_pan is not a finite number"),
        (with_value("action", "gripper", [np.inf]), "action gripper, gripper is not a finite number"),
        (
            with_value("video", "front", np.zeros((24, 32, 3), np.uint8)),
            "camera front: the frame has 32x24 pixels, those before it 64x48",
        ),
    ],
)
def test_a_wrong_row_is_refused_by_number_and_nothing_is_left(
    tmp_path: Path, change: Callable[[Row], Row], says: str
) -> None:
    with EpisodeWriter(tmp_path / "episode_7", LAYOUT, OPTIONS) as writer:
        for number in range(4):
            writer.add(row(0, number))
        with pytest.raises(DatasetError, match=rf"episode_7, row 4.*{says}"):
            writer.add(change(row(0, 4)))
    assert list(tmp_path.iterdir()) == []


def test_an_episode_without_rows_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DatasetError, match="episode_0: an episode without rows"),
        EpisodeWriter(tmp_path / "episode_0", LAYOUT, OPTIONS) as writer,
    ):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_finish_leaves_nothing(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "episode", LAYOUT, OPTIONS) as writer:
        for number in range(5):
            writer.add(row(0, number))
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_half_written_is_replaced_and_what_is_whole_is_not(tmp_path: Path) -> None:
    (tmp_path / "episode.partial").mkdir()
    (tmp_path / "episode.partial/front.mp4").write_bytes(b"half")
    stage(tmp_path / "episode", 0, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["episode"]
    with pytest.raises(DatasetError, match="episode exists already"):
        EpisodeWriter(tmp_path / "episode", LAYOUT, OPTIONS)
    assert read_staged(tmp_path / "episode").length == 5


def test_an_episode_of_another_version_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected an episode that bag_to_dataset wrote"):
        read_staged(tmp_path)
    stage(tmp_path / "episode", 0, 5)
    record = tmp_path / "episode/episode.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"form": 0}))
    with pytest.raises(DatasetError, match="form 0, this version writes"):
        read_staged(tmp_path / "episode")
    del content["length"]
    record.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"damaged \('length'\)"):
        read_staged(tmp_path / "episode")


def test_a_robots_layout_has_its_keys_and_columns_in_the_yamls_order() -> None:
    robot = RobotConfig.from_file(robot_file("so101"))
    layout = Layout.from_robot(robot, 15.0)
    assert layout.video == tuple(robot.video)
    assert [key for key, _ in layout.state] == list(robot.state)
    assert [name for _, names in layout.action for name in names] == list(JOINTS)
    assert layout.fps == 15.0
