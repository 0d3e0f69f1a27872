# SPDX-License-Identifier: Apache-2.0
"""Datasets made of staged episodes read back sample for sample, in both formats and codecs."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gr00t_ros.data.assembling import assemble
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.lerobot_v3_writing import V3Writer
from gr00t_ros.data.lerobot_writing import EpisodeWriter
from gr00t_ros.data.rows import Layout, Row
from gr00t_ros.data.video_writing import VideoOptions
from gr00t_ros.errors import DatasetError
from support_datasets import CAMERAS, grey, states
from support_writing import GROUPS, LAYOUT, START_NS, stage, task, write_episodes

LENGTHS = (24, 37, 18)


@pytest.fixture(
    scope="module", params=[("v2.1", "h264"), ("v3.0", "h264"), ("v2.1", "av1"), ("v3.0", "av1")], ids=str
)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    fmt, codec = request.param
    folder = tmp_path_factory.mktemp("assembled")
    return LeRobotDataset(write_episodes(folder, LENGTHS, fmt, options=VideoOptions(codec=codec, crf=10)))


def test_every_sample_is_the_row_that_was_written(dataset: LeRobotDataset) -> None:
    assert list(dataset.episodes) == [0, 1, 2]
    assert dataset.warnings == []
    index = 0
    for number, rows in enumerate(LENGTHS):
        episode = dataset.episode(number)
        np.testing.assert_array_equal(episode.state, states(number, rows))
        np.testing.assert_array_equal(episode.action, states(number, rows) + np.float32(0.5))
        np.testing.assert_allclose(episode.timestamps, np.arange(rows) / 20, atol=1e-6)
        np.testing.assert_array_equal(episode.columns["frame_index"], np.arange(rows))
        np.testing.assert_array_equal(episode.columns["index"], index + np.arange(rows))
        np.testing.assert_array_equal(episode.columns["episode_index"], np.full(rows, number))
        assert episode.instructions == tuple(task(number, k) for k in range(rows))
        index += rows


def test_row_k_comes_with_frame_k(dataset: LeRobotDataset) -> None:
    for number, rows in enumerate(LENGTHS):
        episode = dataset.episode(number)
        for camera in CAMERAS:
            frames = list(episode.frames(dataset.video(camera)))
            assert len(frames) == rows
            for k, frame in enumerate(frames):
                assert abs(float(frame[:, :, 0].mean()) - grey(k + 3 * number)) < 5.0
                if camera == "wrist":
                    assert frame[:, :, 2].mean() < 8.0


def test_modality_json_names_the_groups_cameras_and_the_instruction(dataset: LeRobotDataset) -> None:
    assert dataset.modality is not None
    assert {key: (g.start, g.end) for key, g in dataset.groups("state").items()} == {
        "arm": (0, 5),
        "gripper": (5, 6),
    }
    assert dataset.groups("action")["arm"].column == "action"
    assert dataset.video("wrist") == "observation.images.wrist"
    assert dataset.modality["annotation"] == {
        "human.task_description": {"original_key": "annotation.human.task_description"}
    }
    episode = dataset.episode(1)
    column = episode.columns["annotation.human.task_description"]
    assert [dataset.tasks[int(i)] for i in column] == list(episode.instructions)


def test_statistics_are_numpys_over_all_rows(dataset: LeRobotDataset) -> None:
    stats = json.loads((dataset.path / "meta/stats.json").read_text())
    all_states = np.concatenate([states(number, rows) for number, rows in enumerate(LENGTHS)])
    for name, values in (("observation.state", all_states), ("action", all_states + np.float32(0.5))):
        exact = values.astype(np.float64)
        np.testing.assert_allclose(stats[name]["mean"], exact.mean(0), rtol=1e-12)
        np.testing.assert_allclose(stats[name]["std"], exact.std(0), rtol=1e-12)
        np.testing.assert_array_equal(stats[name]["max"], exact.max(0))
        np.testing.assert_allclose(stats[name]["q99"], np.quantile(exact, 0.99, axis=0), rtol=1e-12)
    brightness = np.concatenate([[grey(k + 3 * n) for k in range(rows)] for n, rows in enumerate(LENGTHS)])
    wrist = stats["observation.images.wrist"]
    np.testing.assert_allclose(np.ravel(wrist["mean"]), [*([brightness.mean() / 255] * 2), 0.0], atol=1e-12)


def test_relative_statistics_are_actions_minus_the_rows_own_state(dataset: LeRobotDataset) -> None:
    found = json.loads((dataset.path / "meta/relative_stats.json").read_text())
    chunks = []
    for number, rows in enumerate(LENGTHS):
        state = states(number, rows).astype(np.float64)
        action = (states(number, rows) + np.float32(0.5)).astype(np.float64)
        chunks += [action[k : k + 16, :5] - state[k, :5] for k in range(rows - 15)]
    wanted = np.stack(chunks)
    assert set(found) == {"arm", "gripper"}
    for name, value in (("min", wanted.min(0)), ("max", wanted.max(0)), ("mean", wanted.mean(0))):
        assert np.shape(found["arm"][name]) == (16, 5)
        np.testing.assert_allclose(found["arm"][name], value, atol=1e-12)
    np.testing.assert_allclose(found["arm"]["std"], wanted.std(0), atol=1e-9)


def test_the_conversion_is_told(dataset: LeRobotDataset) -> None:
    record = json.loads((dataset.path / "meta/conversion.json").read_text())
    assert [episode["source"] for episode in record["episodes"]] == [{"bag": f"bag_{k}"} for k in range(3)]
    assert record["report"]["drops"] == {"stale": 3}
    assert record["relative_horizon"] == 16
    assert (dataset.path / "meta/contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_v3_files_stay_below_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = functools.partial(V3Writer, data_bytes=3000, video_bytes=6000)
    monkeypatch.setattr("gr00t_ros.data.assembling.V3Writer", small)
    made = LeRobotDataset(write_episodes(tmp_path, (24, 20, 18, 22), "v3.0"))
    assert len(list(made.path.glob("data/*/*.parquet"))) > 1
    videos = list(made.path.glob("videos/observation.images.front/*/*.mp4"))
    assert len(videos) > 1
    for number in made.episodes:
        episode = made.episode(number)
        np.testing.assert_array_equal(episode.state, states(number, len(episode)))
        seen = [frame[:, :, 0].mean() for frame in episode.frames("observation.images.front")]
        np.testing.assert_allclose(seen, [grey(k + 3 * number) for k in range(len(episode))], atol=5.0)


def test_the_robot_yaml_is_kept_beside_the_data(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text("robot: {}\n")
    made = write_episodes(
        tmp_path, (20,), robot_yaml=tmp_path / "robot.yaml", conversion={"command": "convert"}, horizon=4
    )
    assert (made / "meta/robot.yaml").read_text() == "robot: {}\n"
    assert json.loads((made / "meta/conversion.json").read_text())["command"] == "convert"
    assert np.shape(json.loads((made / "meta/relative_stats.json").read_text())["arm"]["min"]) == (4, 5)


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, again = write_episodes(tmp_path, (20, 21)), write_episodes(tmp_path / "again", (20, 21))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for file in files:
        assert (first / file).read_bytes() == (again / file).read_bytes(), file


def test_episodes_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    good = stage(tmp_path / "a", 0, 20).path
    slower = stage(tmp_path / "b", 0, 20, layout=dataclasses.replace(LAYOUT, fps=10.0)).path
    smaller = stage(tmp_path / "c", 0, 20, VideoOptions(size=32)).path
    with pytest.raises(DatasetError, match="b: was converted with other columns or another rate"):
        assemble([good, slower], tmp_path / "out", LAYOUT)
    with pytest.raises(DatasetError, match=r"c: camera front is 42x32 h264, in the episodes before 64x48"):
        assemble([good, smaller], tmp_path / "out", LAYOUT)
    with pytest.raises(DatasetError, match="no episodes"):
        assemble([], tmp_path / "out", LAYOUT)
    with pytest.raises(DatasetError, match="format 'v1': expected one of"):
        assemble([good], tmp_path / "out", LAYOUT, "v1")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="out exists already"):
        assemble([good], tmp_path / "out", LAYOUT)


NAMES = st.text("abcdefgh_", min_size=1, max_size=4)
WIDTHS = st.lists(st.tuples(NAMES, st.integers(1, 3)), min_size=1, max_size=3, unique_by=lambda part: part[0])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WIDTHS, WIDTHS, st.integers(1, 9), st.sampled_from(["v2.1", "v3.0"]), st.sampled_from([7.5, 20.0]))
def test_any_layout_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    state: list[tuple[str, int]],
    action: list[tuple[str, int]],
    rows: int,
    fmt: str,
    fps: float,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    named = [
        tuple((key, tuple(f"{key}{i}" for i in range(width))) for key, width in part)
        for part in (state, action)
    ]
    layout = Layout("robot", fps, ("eye",), *named)
    rng = np.random.default_rng(rows)
    written = []
    with EpisodeWriter(folder / "staged", layout) as writer:
        for number in range(rows):
            values = [
                {key: rng.normal(size=width).astype(np.float32) for key, width in part}
                for part in (state, action)
            ]
            written.append(values)
            frame = np.full((32, 32, 3), 25 * number, np.uint8)
            writer.add(Row(START_NS, START_NS, {"eye": frame}, *values, "task"))
        writer.finish()
    episode = LeRobotDataset(assemble([folder / "staged"], folder / "out", layout, fmt)).episode(0)
    for place, column in enumerate((episode.state, episode.action)):
        rows_written = [np.concatenate(list(values[place].values())) for values in written]
        np.testing.assert_array_equal(column, np.stack(rows_written))
    assert len(list(episode.frames("observation.images.eye"))) == rows


def test_groups_with_columns_of_one_name_keep_them_apart(tmp_path: Path) -> None:
    groups = (("left", ("x", "y")), ("right", ("x", "y")))
    layout = Layout("robot", 20.0, (), groups, GROUPS)
    with EpisodeWriter(tmp_path / "staged", layout) as writer:
        for number in range(3):
            two = np.full(2, number, np.float32)
            arm = {"arm": np.zeros(5, np.float32), "gripper": np.zeros(1, np.float32)}
            writer.add(Row(START_NS, START_NS, {}, {"left": two, "right": two + 1}, arm, ""))
        writer.finish()
    made = LeRobotDataset(assemble([tmp_path / "staged"], tmp_path / "out", layout))
    assert made.names("observation.state") == ("left_x", "left_y", "right_x", "right_y")
    assert made.episode(0).instructions == ("", "", "")
