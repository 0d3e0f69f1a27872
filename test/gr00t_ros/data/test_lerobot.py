# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets of every format: row k comes with frame k, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.errors import DatasetError
from support_datasets import CAMERAS, FIRST_TIME, JOINTS, frame, row_of, states, write_dataset

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module", params=["v2.0", "v2.1", "v3.0"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    folder = tmp_path_factory.mktemp(request.param)
    return LeRobotDataset(write_dataset(folder, version=request.param))


def test_columns_times_and_tasks_are_the_episodes_own(dataset: LeRobotDataset) -> None:
    assert list(dataset.episodes) == [0, 1]
    assert dataset.fps == 20.0
    for index, rows in ((0, 12), (1, 25)):
        episode = dataset.episode(index)
        assert len(episode) == rows
        np.testing.assert_array_equal(episode.state, states(index, rows))
        np.testing.assert_array_equal(episode.action, states(index, rows) + np.float32(0.5))
        first = 0.0 if dataset.version == "v3.0" else FIRST_TIME
        np.testing.assert_allclose(episode.timestamps, first + np.arange(rows) / 20.0)
        assert set(episode.instructions) == {f"task {index}"}


def test_row_k_comes_with_frame_k(dataset: LeRobotDataset) -> None:
    for index in (0, 1):
        episode = dataset.episode(index)
        for camera in CAMERAS:
            pictures = list(episode.frames(dataset.video(camera)))
            assert [row_of(picture, k) for k, picture in enumerate(pictures)] == list(range(len(episode)))
            expected = frame(3, camera).astype(int)
            assert np.abs(pictures[3].astype(int) - expected).max() < 6, "wrong colours: not RGB?"


def test_a_part_of_an_episode_starts_at_its_first_row(dataset: LeRobotDataset) -> None:
    pictures = list(dataset.episode(1).frames("observation.images.front", 13, 17))
    assert [row_of(picture, 13 + k) for k, picture in enumerate(pictures)] == [13, 14, 15, 16]
    assert list(dataset.episode(1).frames("observation.images.front", 5, 5)) == []


def test_groups_come_from_modality_json(dataset: LeRobotDataset) -> None:
    groups = dataset.groups("state")
    episode = dataset.episode(0)
    np.testing.assert_array_equal(episode.group(groups["arm"]), states(0, 12)[:, :5])
    np.testing.assert_array_equal(episode.group(groups["gripper"]), states(0, 12)[:, 5:])


def test_without_modality_json_a_column_is_one_group(tmp_path: Path) -> None:
    dataset = LeRobotDataset(write_dataset(tmp_path, modality=False))
    assert dataset.groups("action")["all"].width == 6
    assert dataset.names("action") == JOINTS
    assert dataset.video("wrist") == "observation.images.wrist"


def test_camera_without_files_is_a_warning_that_names_it(tmp_path: Path) -> None:
    dataset = LeRobotDataset(write_dataset(tmp_path, phantom="overhead"))
    assert dataset.video_keys == ("observation.images.front", "observation.images.wrist")
    assert len(dataset.warnings) == 1
    assert "observation.images.overhead" in dataset.warnings[0]
    with pytest.raises(DatasetError, match=r"'overhead'.*observation\.images\.front"):
        dataset.video("overhead")


def change_info(folder: Path, **changes: object) -> None:
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"info\.json is missing; expected the folder of a LeRobot dataset"
    ):
        LeRobotDataset(tmp_path)
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        LeRobotDataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version is v1.6; v2.0, v2.1, v3.0 can be read"),
        ({"fps": 0}, "fps is 0, expected a rate"),
        ({"data_path": "data/{nonsense}.parquet"}, "data_path is 'data/{nonsense}.parquet', expected a path"),
    ],
)
def test_wrong_info_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    write_dataset(tmp_path, lengths=(3,))
    change_info(tmp_path, **changes)
    with pytest.raises(DatasetError, match=said.replace("{", r"\{").replace(".", r"\.")):
        LeRobotDataset(tmp_path).episode(0)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    dataset = LeRobotDataset(write_dataset(tmp_path, lengths=(8, 8)))
    data = tmp_path / "data/chunk-000/episode_000000.parquet"
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"episode_000000\.parquet: not a readable parquet file"):
        dataset.episode(0)
    data.unlink()
    with pytest.raises(DatasetError, match=r"episode_000000\.parquet: missing"):
        dataset.episode(0)
    video = tmp_path / "videos/chunk-000/observation.images.front/episode_000001.mp4"
    video.write_bytes(video.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"episode_000001\.mp4: cannot be decoded"):
        list(dataset.episode(1).frames("observation.images.front"))
    video.unlink()
    with pytest.raises(DatasetError, match=r"episode_000001\.mp4: missing"):
        dataset.episode(1).frames("observation.images.front")


def test_a_video_that_is_shorter_than_its_episode_is_named(tmp_path: Path) -> None:
    dataset = LeRobotDataset(write_dataset(tmp_path, lengths=(8, 12)))
    folder = tmp_path / "videos/chunk-000/observation.images.front"
    (folder / "episode_000000.mp4").replace(folder / "episode_000001.mp4")
    with pytest.raises(DatasetError, match=r"episode_000001\.mp4: no frame at 0\.400 s \(it ends before\)"):
        list(dataset.episode(1).frames("observation.images.front"))


def test_an_index_that_does_not_fit_its_rows_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, lengths=(8,))
    path = tmp_path / "meta/episodes.jsonl"
    path.write_text(path.read_text().replace('"length": 8', '"length": 9'))
    with pytest.raises(DatasetError, match="episode 0 has 8 rows, the index says 9"):
        LeRobotDataset(tmp_path).episode(0)
    with pytest.raises(DatasetError, match="no episode 3; the dataset has 0 to 0"):
        LeRobotDataset(tmp_path).episode(3)
    path.write_text('{"episode_index": 0}\nnot json\n')
    with pytest.raises(DatasetError, match=r"episodes\.jsonl: line 2 is not valid JSON"):
        LeRobotDataset(tmp_path)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not beside the repository")
def test_the_public_gr1_sample_reads() -> None:
    dataset = LeRobotDataset(SAMPLES / "gr1_pick_and_place")
    assert [len(dataset.episode(i)) for i in dataset.episodes] == [416, 470, 470, 412, 328]
    assert "observation.images.egoview" in dataset.warnings[0]
    episode = dataset.episode(0)
    assert set(episode.instructions) == {"pick the pear from the counter and place it in the plate"}
    assert dataset.groups("state")["right_arm"].start == 22
    pictures = list(episode.frames(dataset.video("ego_view"), 410))
    assert len(pictures) == 6
    assert pictures[0].shape == (256, 256, 3)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not beside the repository")
def test_the_public_v3_sample_reads() -> None:
    dataset = LeRobotDataset(SAMPLES / "so101_lerobot_v3")
    assert [len(dataset.episode(i)) for i in dataset.episodes] == [383, 386, 379, 382, 90, 162]
    episode = dataset.episode(4)
    assert set(episode.instructions) == {"pick and place"}
    assert episode.videos["observation.images.wrist"].start == 51.0
    assert sum(1 for _ in episode.frames("observation.images.wrist")) == 90
