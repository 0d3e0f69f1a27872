# SPDX-License-Identifier: Apache-2.0
"""Every oddity is found, named and placed; a sound dataset has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from gr00t_ros.data.lerobot import Episode, LeRobotDataset
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from gr00t_ros.findings import Finding, Level, worst
from gr00t_ros.training.dataset_report import report, unwell
from gr00t_ros.training.dataset_survey import ACTION, KEPT, STATE, Survey, survey
from support_datasets import CAMERAS, write_dataset
from support_evaluation import ARM, TAG, processor_for
from support_robots import shipped

Change = Callable[[NDArray[np.float64]], Any]
FPS = 20


def smooth(rows: int, offset: float = 0.0) -> NDArray[np.float64]:
    """[N, 6]: six joints that swing at different paces."""
    time = np.arange(rows)[:, None] / FPS
    return np.sin(time * (1.0 + 0.3 * np.arange(6)) + offset)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two episodes of 3 s of smooth motion; actions are 0.1 s ahead of the state."""
    folder = write_dataset(tmp_path / "dataset", lengths=(60, 60))
    for episode in range(2):
        put(folder, episode, state=lambda rows: smooth(len(rows)), action=lambda rows: smooth(len(rows), 0.1))
    return folder


def put(folder: Path, episode: int, **changes: Change) -> None:
    """Writes other values into columns of an episode: ``state``, ``action`` or a column's own name."""
    path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
    rows = pq.read_table(path).to_pydict()
    for name, change in changes.items():
        column = {"state": "observation.state"}.get(name, name)
        rows[column] = np.asarray(change(np.array(rows[column], np.float64))).tolist()
    pq.write_table(pa.table(rows), path)


def info(folder: Path, **changes: Any) -> None:
    path = folder / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def findings(folder: Path, **given: Any) -> list[Finding]:
    return report(LeRobotDataset(folder), **given)


def odd(folder: Path, **given: Any) -> Finding:
    """The only finding that is not good."""
    found = unwell(findings(folder, **given))
    assert len(found) == 1, found
    assert found[0].expected
    assert found[0].remedy
    return found[0]


def test_a_sound_dataset_has_no_odd_finding(folder: Path) -> None:
    processor = processor_for(ARM)
    statistics = {"state": {"arm": {"min": [-1.0] * 5, "max": [1.0] * 5}}}
    robot = shipped("so101")
    found = findings(folder, modality=processor.modality(TAG), statistics=statistics, robot=robot)
    assert unwell(found) == []
    parts = {finding.part for finding in found}
    assert {"episodes", "time", "instructions", "observation.state", "action", "robot", "modality"} <= parts
    assert {f"camera {camera}" for camera in CAMERAS} <= parts
    assert "statistics" in parts


def test_progress_is_told(folder: Path) -> None:
    told: list[int] = []
    findings(folder, tell=told.append)
    assert told == [1, 2]


# ---- streams -------------------------------------------------------------------------------------


def first(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(rows[:1], len(rows), axis=0)


@pytest.mark.parametrize(("column", "part"), [("state", "observation.state"), ("action", "action")])
def test_a_frozen_stream_fails(folder: Path, column: str, part: str) -> None:
    put(folder, 1, **{column: lambda rows: first(rows + 2.0)})
    finding = odd(folder)
    assert (finding.level, finding.part) == (Level.WARN, part)
    assert "frozen stream in episode 1" in finding.found
    put(folder, 0, **{column: first})
    finding = odd(folder)
    assert (finding.level, finding.part) == (Level.FAIL, part)
    assert "none of its 6 values changes in any of 2 episodes (120 rows), with other values" in finding.found


def test_a_state_that_stands_still_while_actions_move_is_told(folder: Path) -> None:
    def stuck(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        rows[35:] = rows[35]
        return rows

    put(folder, 1, state=stuck)
    finding = odd(folder)
    assert finding.part == "observation.state"
    assert "repeated for 1.2 s from row 35 of episode 1 on while actions move" in finding.found
    # Where the robot is told to stand still as well, nothing is odd.
    put(folder, 1, action=stuck)
    assert unwell(findings(folder)) == []


def test_pauses_do_not_hide_a_state_that_stands_still(folder: Path) -> None:
    """As many as are kept of what is odd, and more, are none; they are no place to stop looking at."""
    found = Survey()
    dataset = LeRobotDataset(folder)
    still = replace(dataset.episode(0), columns={**dataset.episode(0).columns})
    for name in (STATE, ACTION):
        still.columns[name] = np.concatenate([smooth(30), np.repeat(smooth(30)[-1:], 30, axis=0)])
    odd = replace(still, index=1000, columns={**still.columns, ACTION: smooth(60)})
    for number in range(KEPT + 1):
        found.add(replace(still, index=number), FPS)
    assert found.stuck == []
    found.add(odd, FPS)
    assert [place.episode for place in found.stuck] == [1000]
    # Episodes of a small range, in which the pause is a move, give way to those of a larger one.
    small = Survey()
    for number in range(KEPT + 1):
        faint = {STATE: still.columns[STATE], ACTION: 1e-3 * smooth(60)}
        small.add(replace(still, index=number, columns={**still.columns, **faint}), FPS)
    assert len(small.stuck) == KEPT
    small.add(odd, FPS)
    assert [place.episode for place in small.stuck] == [1000]


def test_of_an_episode_that_is_refused_nothing_is_counted(folder: Path) -> None:
    def refuse(episode: Episode) -> None:
        if episode.index == 1:
            raise DatasetError("another arm")

    found = survey(LeRobotDataset(folder), also=refuse)
    assert found.unreadable == {1: "another arm"}
    assert (list(found.lengths), found.rows, found.columns[STATE].rows) == ([0], 60, 60)
    other = LeRobotDataset(folder).episode(1)
    narrow = {**other.columns, ACTION: other.columns[ACTION][:, :5]}
    with pytest.raises(DatasetError, match="episode 1: action has 5 values, others have 6"):
        found.check(replace(other, columns=narrow))


def test_an_action_that_is_the_state_is_told(folder: Path) -> None:
    for episode in range(2):
        put(folder, episode, action=lambda rows: smooth(len(rows)))
    finding = odd(folder)
    assert finding.part == "action"
    assert "is the state of the same row" in finding.found


def test_an_action_that_is_the_next_state_is_as_it_should_be(folder: Path) -> None:
    for episode in range(2):
        put(
            folder,
            episode,
            action=lambda rows: np.concatenate([smooth(len(rows))[1:], smooth(len(rows))[-1:]]),
        )
    found = findings(folder)
    assert unwell(found) == []
    assert "is the state of the next row" in [finding.found for finding in found]


def test_values_that_are_no_numbers_fail_with_their_place(folder: Path) -> None:
    def nan(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        rows[7, 5] = np.nan
        rows[9, 2] = np.inf
        return rows

    put(folder, 1, state=nan)
    finding = odd(folder)
    assert (finding.level, finding.part) == (Level.FAIL, "observation.state")
    assert (
        "2 values are NaN or infinite, in episode 1; the first is gripper.gripper at row 7" in finding.found
    )


@pytest.mark.parametrize("column", ["state", "action"])
def test_a_leap_is_told_with_its_place(folder: Path, column: str) -> None:
    def wrapped(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        rows[30:, 4] += 2 * np.pi
        return rows

    put(folder, 1, **{column: wrapped})
    finding = odd(folder)
    assert "1 leaps of more than half" in finding.found
    assert "in arm.wrist_roll after row 29 of episode 1" in finding.found


def test_a_gripper_that_is_switched_does_not_leap(folder: Path) -> None:
    def switched(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        rows[:, 5] = np.where(np.arange(len(rows)) % 40 < 20, 0.0, 1.7)
        return rows

    for episode in range(2):
        put(folder, episode, action=switched)
    assert unwell(findings(folder)) == []


def test_noise_does_not_leap(folder: Path) -> None:
    rng = np.random.default_rng(0)

    def noisy(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        rows[:, 3] = rng.uniform(-1.0, 1.0, len(rows))
        return rows

    for episode in range(2):
        put(folder, episode, state=noisy)
    assert unwell(findings(folder)) == []


def test_values_that_never_change_are_listed(folder: Path) -> None:
    def held(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        rows[:, [1, 5]] = 0.25
        return rows

    for episode in range(2):
        put(folder, episode, action=held)
    found = findings(folder)
    assert unwell(found) == []
    assert "6 values, 4 of them change; constant: arm.shoulder_lift, gripper.gripper" in [
        f.found for f in found
    ]
    # A policy that is to move the gripper is told that it cannot learn to.
    finding = odd(folder, modality=processor_for(ARM).modality(TAG))
    assert finding.found == "action.gripper never change"


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fps", "level"), [(30, Level.FAIL), (20.5, Level.WARN)])
def test_a_wrong_fps_is_told(folder: Path, fps: float, level: Level) -> None:
    info(folder, fps=fps)
    found = unwell(findings(folder))
    (time,) = (finding for finding in found if finding.part == "time")
    assert time.level is level
    assert time.found == "timestamps are 50 ms apart (20 Hz) in 2 of 2 episodes"
    assert time.expected == f"fps of info.json, {fps:g}"
    # The videos say the same, and it is as bad.
    camera = [f for f in found if f.part == "camera front" and "frames a second" in f.found]
    assert [f.found for f in camera] == ["episode_000000.mp4 has 20 frames a second"]
    assert camera[0].level is level
    # What is a FAIL is what training refuses.
    dataset = LeRobotDataset(folder)
    reader = WindowReader(dataset, processor_for(ARM).modality(TAG), robot=shipped("so101"))
    with pytest.raises(DatasetError, match="runs at 20 frames") if level is Level.FAIL else nullcontext():
        reader.check_videos(dataset.episode(0))


def test_rows_that_are_missing_are_told(folder: Path) -> None:
    put(folder, 1, timestamp=lambda times: times + 0.25 * (np.arange(len(times)) > 40))
    found = unwell(findings(folder))
    (time,) = (finding for finding in found if finding.part == "time")
    assert "1 gaps between rows, the longest 0.3 s after row 40 of episode 1" in time.found


def test_a_robot_of_another_rate_fails(folder: Path) -> None:
    robot = shipped("so101")
    slow = type(robot)(**{**vars(robot), "step_rate": 10.0})
    finding = odd(folder, robot=slow)
    assert (finding.level, finding.part) == (Level.FAIL, "robot")
    assert (finding.found, finding.expected) == ("the dataset has 20 rows a second", "its step_rate, 10 Hz")


# ---- cameras, episodes, instructions -------------------------------------------------------------


def test_a_camera_without_files_is_told(tmp_path: Path) -> None:
    found = unwell(findings(write_dataset(tmp_path / "dataset", phantom="top")))
    (finding,) = (finding for finding in found if finding.part == "cameras")
    assert "names the camera observation.images.top, but it has no files" in finding.found
    assert str(tmp_path) not in finding.found


def test_videos_that_are_missing_short_or_none_fail(folder: Path) -> None:
    videos = folder / "videos/chunk-000"
    (videos / "observation.images.front/episode_000001.mp4").unlink()
    (videos / "observation.images.wrist/episode_000001.mp4").write_bytes(b"no video")
    found = unwell(findings(folder))
    assert [(f.level, f.part) for f in found] == [(Level.FAIL, "camera front"), (Level.FAIL, "camera wrist")]
    assert found[0].found == "no file for episode 1"
    assert "episode_000001.mp4: cannot be opened" in found[1].found


def test_a_video_that_ends_before_its_rows_fails(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", lengths=(40, 12))
    videos = folder / "videos/chunk-000/observation.images.front"
    (videos / "episode_000001.mp4").replace(videos / "episode_000000.mp4")
    found = unwell(findings(folder))
    texts = [finding.found for finding in found if finding.part == "camera front"]
    assert "no file for episode 1" in texts
    assert any("episode_000000.mp4 is 0.60 s long, episode 0 ends at 1.95 s" in text for text in texts)


def test_an_episode_that_cannot_be_read_fails_and_the_others_are_looked_at(folder: Path) -> None:
    (folder / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1")
    found = findings(folder)
    (finding,) = unwell(found)
    assert (finding.level, finding.part) == (Level.FAIL, "episode 0")
    assert "not a readable parquet file" in finding.found
    assert "1 with 60 rows, 60 to 60 each" in [f.found for f in found]


def test_only_the_chosen_episodes_are_looked_at(folder: Path) -> None:
    put(folder, 1, state=first)
    assert unwell(findings(folder, episodes=(0,))) == []
    assert unwell(findings(folder, episodes=(0, 9)))[0].part == "episode 9"


def test_instructions_that_are_missing_are_told(folder: Path) -> None:
    (folder / "meta/tasks.jsonl").write_text(
        '{"task_index": 0, "task": ""}\n{"task_index": 1, "task": "go"}\n'
    )
    finding = odd(folder)
    assert finding.part == "instructions"
    assert finding.found == "none in 1 of 2 episodes (0)"
    robot = shipped("so101")
    found = findings(folder, robot=robot)
    assert unwell(found) == []
    assert any(repr(robot.instruction.default) in f.found for f in found)


# ---- against a checkpoint ------------------------------------------------------------------------


def test_episodes_shorter_than_the_horizon_are_told(folder: Path) -> None:
    modality = processor_for(ARM, horizon=64).modality(TAG)
    finding = odd(folder, modality=modality)
    assert (finding.level, finding.part) == (Level.WARN, "length")
    assert "2 of 2 episodes are shorter than the horizon (0, 1)" in finding.found
    finding = odd(folder, modality=processor_for(ARM, past=(-70, 0)).modality(TAG))
    assert (finding.level, finding.part) == (Level.FAIL, "length")
    assert "too short for one observation" in finding.found


def test_a_modality_that_does_not_fit_fails(folder: Path) -> None:
    for processor, text in (
        (processor_for({"legs": 3}), "no group 'legs'"),
        (processor_for(ARM, {"legs": 3}), "no group 'legs'"),
        (processor_for(ARM, videos=("top",)), "no video for camera 'top'"),
    ):
        finding = odd(folder, modality=processor.modality(TAG))
        assert (finding.level, finding.part) == (Level.FAIL, "modality")
        assert text in finding.found


def test_values_outside_of_the_statistics_are_told(folder: Path) -> None:
    """Degrees for a checkpoint that was trained on radians, and a joint that now and then reaches further."""
    modality = processor_for(ARM).modality(TAG)
    wide = {"min": [-1.0] * 5, "max": [1.0] * 5}
    narrow = {"min": [-1.0] * 4 + [-0.7], "max": [1.0] * 4 + [0.8]}
    finding = odd(folder, modality=modality, statistics={"state": {"arm": narrow}, "action": {"arm": wide}})
    assert (finding.level, finding.part) == (Level.WARN, "state.arm")
    assert finding.found.startswith("wrist_roll lies outside in ")
    degrees = {"min": [-0.01] * 5, "max": [0.01] * 5}
    finding = odd(folder, modality=modality, statistics={"action": {"arm": degrees}})
    assert (finding.level, finding.part) == (Level.FAIL, "action.arm")
    assert "other units" in finding.remedy


def test_a_frozen_dataset_of_the_packed_format_fails(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", version="v3.0", modality=False)
    path = folder / "data/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pydict()
    for column in ("observation.state", "action"):
        rows[column] = [rows[column][0]] * len(rows[column])
    pq.write_table(pa.table(rows), path)
    found = unwell(findings(folder))
    assert [(f.level, f.part) for f in found] == [(Level.FAIL, "observation.state"), (Level.FAIL, "action")]
    assert all("with the same values in all" in f.found for f in found)
    assert worst(found) is Level.FAIL
