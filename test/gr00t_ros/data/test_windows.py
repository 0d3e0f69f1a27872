# SPDX-License-Identifier: Apache-2.0
"""What belongs to a row: its frames, states, task and the actions after it; what does not fit is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from support_datasets import CAMERAS, JOINTS, row_of, states, write_dataset
from support_robots import shipped
from support_samples import HORIZON, SAMPLES, modality

DATA = "data/chunk-000/episode_000000.parquet"


@pytest.fixture(scope="module", params=["v2.0", "v2.1", "v3.0"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    folder = tmp_path_factory.mktemp(request.param)
    return LeRobotDataset(write_dataset(folder, version=request.param, lengths=(12, 25)))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("windows") / "dataset", lengths=(12,))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A dataset of its own for a test that spoils it."""
    return Path(shutil.copytree(written, tmp_path / "dataset"))


def test_an_observation_is_the_row_and_its_past(dataset: LeRobotDataset) -> None:
    reader = WindowReader(dataset, modality(past=(-3, 0)))
    episode = dataset.episode(1)
    assert reader.rows(episode) == range(3, 25)
    for row in (3, 17, 24):
        seen = reader.observation(episode, row)
        for camera in CAMERAS:
            pictures = seen["video"][camera]
            assert pictures.shape == (1, 2, 48, 64, 3)
            assert [row_of(pictures[0, 0], row - 3), row_of(pictures[0, 1], row)] == [row - 3, row]
        expected = states(1, 25)[[row - 3, row]]
        np.testing.assert_array_equal(seen["state"]["arm"], expected[None, :, :5])
        np.testing.assert_array_equal(seen["state"]["gripper"], expected[None, :, 5:])
        assert seen["state"]["arm"].dtype == np.float32
        assert seen["language"] == {"annotation.human.task_description": [["task 1"]]}


def test_many_rows_in_one_pass_are_the_same_as_one_by_one(dataset: LeRobotDataset) -> None:
    reader = WindowReader(dataset, modality(past=(-2, 0)))
    episode = dataset.episode(1)
    rows = [2, 3, 4, 9, 10, 23]
    for row, seen in zip(rows, reader.observations(episode, rows), strict=True):
        alone = reader.observation(episode, row)
        for camera in CAMERAS:
            np.testing.assert_array_equal(seen["video"][camera], alone["video"][camera])
        np.testing.assert_array_equal(seen["state"]["arm"], alone["state"]["arm"])
    assert list(reader.observations(episode, [])) == []


def test_a_chunk_beyond_the_end_repeats_the_last_action_and_says_what_is_real(
    dataset: LeRobotDataset,
) -> None:
    reader = WindowReader(dataset, modality())
    episode = dataset.episode(0)
    recorded = states(0, 12) + np.float32(0.5)
    for row, real in ((0, HORIZON), (4, HORIZON), (5, 7), (11, 1)):
        chunk, steps = reader.actions(episode, row)
        assert steps == real
        assert chunk["arm"].shape == (1, HORIZON, 5)
        np.testing.assert_array_equal(chunk["arm"][0, :real], recorded[row : row + real, :5])
        np.testing.assert_array_equal(
            chunk["gripper"][0, real:], np.repeat(recorded[-1:, 5:], HORIZON - real, 0)
        )


def test_rows_have_their_past_and_one_action_at_least(dataset: LeRobotDataset) -> None:
    def rows(past: tuple[int, ...], steps: range, length: int) -> range:
        return WindowReader(dataset, modality(past=past, steps=steps)).rows_in(length)

    assert rows((0,), range(8), 12) == range(12)
    assert rows((-5, 0), range(8), 12) == range(5, 12)
    assert rows((0,), range(2, 10), 12) == range(10)
    assert rows((0,), range(-1, 7), 12) == range(1, 12)
    assert not rows((-20, 0), range(8), 12)


def test_the_language_key_names_the_annotation(folder: Path) -> None:
    table = pq.read_table(folder / DATA)
    numbers = pa.array([2] * 6 + [1] * 6)
    pq.write_table(table.append_column("annotation.human.coarse", numbers), folder / DATA)
    tasks = [
        {"task_index": i, "task": text} for i, text in enumerate(("task 0", "second half", "first half"))
    ]
    (folder / "meta/tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    plain = WindowReader(LeRobotDataset(folder), modality())
    episode = plain.dataset.episode(0)
    assert plain.instruction(episode, 0) == "task 0"
    change(
        folder / "meta/modality.json",
        annotation={"human.task_description": {"original_key": "annotation.human.coarse"}},
    )
    named = WindowReader(LeRobotDataset(folder), modality())
    assert [named.instruction(episode, row) for row in (0, 11)] == ["first half", "second half"]


def test_an_instruction_that_the_dataset_lacks_is_the_robots(folder: Path) -> None:
    (folder / "meta/tasks.jsonl").write_text("")
    dataset = LeRobotDataset(folder)
    episode = dataset.episode(0)
    assert WindowReader(dataset, modality()).instruction(episode, 0) == ""
    robot = shipped("so101")
    assert WindowReader(dataset, modality(), robot=robot).instruction(episode, 0) == robot.instruction.default


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def spoil(folder: Path, column: str, row: int, place: int, value: float) -> None:
    table = pq.read_table(folder / DATA)
    values = np.stack(table[column].to_numpy(zero_copy_only=False))
    values[row, place] = value
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, column, pa.array(values.tolist())), folder / DATA)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_named(folder: Path, value: float) -> None:
    spoil(folder, "observation.state", 7, 5, value)
    spoil(folder, "action", 9, 2, value)
    reader = WindowReader(LeRobotDataset(folder), modality())
    episode = reader.dataset.episode(0)
    assert reader.observation(episode, 6)["state"]["gripper"].shape == (1, 1, 1)
    said = rf"episode_000000\.parquet: episode 0, row 7: value 5 of observation\.state is {value}"
    with pytest.raises(DatasetError, match=said):
        reader.observation(episode, 7)
    with pytest.raises(DatasetError, match=r"row 7: value 5 of observation\.state"):
        reader.states(episode)
    assert reader.actions(episode, 1)[1] == HORIZON
    with pytest.raises(DatasetError, match=r"episode 0, row 9: value 2 of action is"):
        reader.actions(episode, 2)


def test_an_fps_that_contradicts_the_timestamps_is_named(folder: Path) -> None:
    change(folder / "meta/info.json", fps=30)
    reader = WindowReader(LeRobotDataset(folder), modality())
    said = r"episode 0: its timestamps are 50\.0 ms apart \(20 Hz\), meta/info\.json says fps 30; correct fps"
    with pytest.raises(DatasetError, match=said):
        reader.rows(reader.dataset.episode(0))


def test_an_fps_that_contradicts_the_video_is_named(folder: Path) -> None:
    """Someone corrected fps and the timestamps, and forgot that the frames know better."""
    change(folder / "meta/info.json", fps=40)
    table = pq.read_table(folder / DATA)
    at = table.column_names.index("timestamp")
    pq.write_table(table.set_column(at, "timestamp", pa.array(np.arange(12) / 40.0)), folder / DATA)
    reader = WindowReader(LeRobotDataset(folder), modality())
    episode = reader.dataset.episode(0)
    assert len(reader.rows(episode)) == 12
    with pytest.raises(
        DatasetError, match=r"front/episode_000000\.mp4: runs at 20 frames a second, info.json says fps 40"
    ):
        reader.check_videos(episode)


def test_a_video_that_is_too_short_or_damaged_is_named(folder: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", lengths=(6,))
    video = "videos/chunk-000/observation.images.wrist/episode_000000.mp4"
    shutil.copy(other / video, folder / video)
    reader = WindowReader(LeRobotDataset(folder), modality())
    episode = reader.dataset.episode(0)
    with pytest.raises(
        DatasetError, match=r"episode_000000\.mp4: 0\.30 s long, but episode 0 has rows until 0\.55 s"
    ):
        reader.check_videos(episode)
    (folder / video).write_bytes(b"no video")
    with pytest.raises(DatasetError, match=r"wrist/episode_000000\.mp4: cannot be opened"):
        reader.check_videos(episode)
    WindowReader(LeRobotDataset(other), modality()).check_videos(LeRobotDataset(other).episode(0))


def test_a_modality_json_that_does_not_fit_is_named(folder: Path) -> None:
    def reader() -> WindowReader:
        return WindowReader(LeRobotDataset(folder), modality())

    groups = {"arm": {"start": 0, "end": 5}, "gripper": {"start": 5, "end": 6}}
    path = folder / "meta/modality.json"
    change(path, state={"arm": groups["arm"]})
    with pytest.raises(DatasetError, match=r"modality\.json: state has no group 'gripper'; it has arm"):
        reader()
    change(path, state={**groups, "gripper": {"start": 5}})
    with pytest.raises(
        DatasetError, match=r"modality\.json: state\.gripper is \{'start': 5\}, expected start and end"
    ):
        reader()
    change(path, state={**groups, "gripper": {"start": 5, "end": 9}})
    found = reader()
    with pytest.raises(
        DatasetError, match=r"episode 0: observation\.state has 6 values, number 8 is asked for; correct"
    ):
        found.observation(found.dataset.episode(0), 0)
    change(path, state=groups, action={"arm": groups["arm"]})
    found = reader()  # calibration needs no actions
    with pytest.raises(DatasetError, match=r"modality\.json: action has no group 'gripper'"):
        found.actions(found.dataset.episode(0), 0)
    with pytest.raises(DatasetError, match=r"state\.arm has 5 values, the robot's group has 4 joints"):
        WindowReader(LeRobotDataset(folder), modality(), state_widths={"arm": 4, "gripper": 1})


def test_without_modality_json_the_robot_or_a_single_key_says_what_is_where(tmp_path: Path) -> None:
    names = [f"{joint}.pos" for joint in reversed(JOINTS)]
    dataset = LeRobotDataset(write_dataset(tmp_path, modality=False, names=names, lengths=(3,)))
    with pytest.raises(DatasetError, match=r"no meta/modality\.json says where state 'arm' lies"):
        WindowReader(dataset, modality())
    reader = WindowReader(dataset, modality(), robot=shipped("so101"))
    episode = dataset.episode(0)
    np.testing.assert_array_equal(reader.states(episode)["arm"], states(0, 3)[:, :0:-1])
    np.testing.assert_array_equal(
        reader.action_rows(episode)["gripper"], states(0, 3)[:, :1] + np.float32(0.5)
    )
    whole = WindowReader(dataset, modality(state=("all",), action=("joints",)))
    assert whole.states(episode)["all"].shape == (3, 6)
    assert whole.actions(episode, 0)[0]["joints"].shape == (1, HORIZON, 6)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not beside the repository")
def test_the_samples() -> None:
    groups = ("right_arm", "right_hand")
    gr1 = WindowReader(
        LeRobotDataset(SAMPLES / "gr1_pick_and_place"),
        modality(("ego_view",), groups, groups, steps=range(16)),
    )
    episode = gr1.dataset.episode(4)
    gr1.check_videos(episode)
    assert gr1.rows(episode) == range(328)
    seen = list(gr1.observations(episode, (0, 200, 327)))
    assert [one["video"]["ego_view"].shape for one in seen] == [(1, 1, 256, 256, 3)] * 3
    chunk, real = gr1.actions(episode, 320)
    assert (chunk["right_arm"].shape, real) == ((1, 16, 7), 8)
    so101 = WindowReader(
        LeRobotDataset(SAMPLES / "so101_lerobot_v3"), modality(("wrist",), ("all",), ("all",))
    )
    episode = so101.dataset.episode(4)
    so101.check_videos(episode)
    assert so101.rows(episode) == range(90)
    assert next(so101.observations(episode, (89,)))["video"]["wrist"].shape == (1, 1, 360, 640, 3)
    assert not np.ptp(so101.states(episode)["all"], axis=0).any(), (
        "this recording's arm is known to be frozen"
    )
