# SPDX-License-Identifier: Apache-2.0
"""Where the episodes of a recording begin and end, and what the robot is told in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gr00t_ros.errors import DatasetError
from support_bags import BagMaker, beside, told
from support_rows import config, read, seconds, written


def test_an_instruction_that_changes_begins_another_episode(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(3.0)
    maker.instruction(1.0, "pick")  # again: nothing new
    maker.instruction(1.52, "place")
    parts, _ = read(written(tmp_path, maker))
    assert [(part.episode.name, {row.instruction for row in rows}) for part, rows in parts] == [
        ("bag", {"pick"}),
        ("bag 2", {"place"}),
    ]
    assert seconds(parts[1][1][0].t_obs_ns) == pytest.approx(1.55)
    [(_, rows)], _ = read(tmp_path / "bag", episodes="bag")
    assert [row.instruction for row in rows] == ["pick"] * 30 + ["place"] * 29
    [(_, rows)], _ = read(tmp_path / "bag", task="both")
    assert len(rows) == 59


def test_an_instruction_that_is_heard_before_the_first_row_is_the_first_one(tmp_path: Path) -> None:
    maker = BagMaker().run(1.0)
    maker.instruction(0.02, "pick")
    robot = config(instruction__default="wait")
    [(part, rows)], _ = read(written(tmp_path, maker), robot)
    assert part.episode.name == "bag"
    assert {row.instruction for row in rows} == {"pick"}


def test_an_instruction_that_is_taken_away_ends_the_episode(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(4.0)
    maker.instruction(1.02, "")
    maker.instruction(2.52, "pick")
    folder = written(tmp_path, maker)
    parts, reader = read(folder)
    assert [(part.episode.name, len(rows)) for part, rows in parts] == [("bag", 20), ("bag 2", 29)]
    assert not reader.drops.keys() - {"action.arm no_message"}
    parts, reader = read(folder, episodes="bag")  # within one episode it is a gap
    assert [part.part for part, _ in parts] == [0, 1]
    assert reader.drops["instruction instruction"] == 30
    assert len(read(folder, task="pick")[0]) == 1


def test_marks_split_label_and_discard(tmp_path: Path) -> None:
    maker = told(BagMaker(), "old").run(6.0)
    maker.event(0.52, "START", "episode_000000", "first")
    maker.event(1.52, "STOP", "episode_000000", "first")
    maker.event(2.0, "START", "episode_000001", "second")
    maker.event(3.0, "DISCARD", "episode_000001", "second")
    maker.event(3.52, "START", "episode_000002", "third")
    maker.event(4.52, "STOP", "episode_000002", "third")
    maker.event(4.6, "LABEL", "episode_000000", "first, corrected", "failure")
    maker.event(5.02, "START", "episode_000003", "fourth")
    parts, reader = read(written(tmp_path, maker))
    assert [(p.episode.name, p.episode.label, len(rows), rows[0].instruction) for p, rows in parts] == [
        ("episode_000000", "failure", 20, "first, corrected"),
        ("episode_000002", "", 20, "third"),
        ("episode_000003", "", 19, "fourth"),  # no STOP: to the end of the bag
    ]
    assert seconds(parts[0][1][0].t_obs_ns) == pytest.approx(0.55)
    assert seconds(parts[0][1][-1].t_obs_ns) == pytest.approx(1.5)
    assert not reader.drops  # what lies between episodes is not missing
    assert reader.notes == ["episode_000003 has no STOP: it goes on to the end of the recording"]
    with pytest.raises(DatasetError, match="no mark of the recorder"):
        read(written(tmp_path, told(BagMaker()).run(0.2), "none"), episodes="marks")


def test_what_the_recorder_wrote_beside_the_bag(tmp_path: Path) -> None:
    maker = told(BagMaker(), "old").run(1.0)
    maker.event(0.01, "START", "episode_000007", "old")
    folder = written(tmp_path, maker)
    beside(folder, "episode_000007", instruction="new", told="old", label="success")
    [(part, rows)], _ = read(folder)
    assert (part.episode.name, part.episode.label) == ("episode_000007", "success")
    assert {row.instruction for row in rows} == {"new"}
    (folder / "episode.json").write_text("{")
    with pytest.raises(DatasetError, match=r"episode\.json: cannot be read"):
        read(folder)


def test_a_storage_file_instead_of_its_folder_has_the_same_record(tmp_path: Path) -> None:
    folder = written(tmp_path, told(BagMaker(), "old").run(0.5), "episode_000007")
    beside(folder, "episode_000007", instruction="new", told="old", label="success")
    [file] = folder.glob("*.mcap")
    [(part, rows)], _ = read(file)
    assert (part.episode.label, {row.instruction for row in rows}) == ("success", {"new"})
    # Another file that lies there is not what the record is about.
    other = file.rename(folder / "other.mcap")
    [(part, rows)], _ = read(other)
    assert (part.episode.label, {row.instruction for row in rows}) == ("", {"old"})


def test_relative_topics_lie_in_the_recorders_namespace(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0)
    maker.event(0.0, "START", "one", "pick", topic="/left/episode_recorder/events")
    maker.messages = [(t if "left" in t else f"/left{t}", k, r, m) for t, k, r, m in maker.messages]
    robot = config(
        video__front__topic="camera/front/image_raw",
        video__wrist__topic="camera/wrist/image_raw/compressed",
        state__arm__topic="joint_states",
        state__gripper__topic="joint_states",
        action__arm__topic="arm_controller/joint_trajectory",
        action__gripper__topic="gripper_controller/commands",
        executor__joint_state_topic="joint_states",
        instruction__topic="gr00t/instruction",
    )
    [(part, rows)], reader = read(written(tmp_path, maker), robot)
    assert (part.episode.name, len(rows)) == ("one", 19)
    assert "/left/joint_states" in reader.topics
