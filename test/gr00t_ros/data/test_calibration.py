# SPDX-License-Identifier: Apache-2.0
"""Recorded observations are what the policy would have been given at those rows, all over the recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import ObservationError
from gr00t_model.noise import chunk_noise
from gr00t_model.processing import Gr00tProcessor, KeyStatistics, ModalityConfig
from gr00t_ros.data.calibration import recorded_observations
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.mapping import map_dataset
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from support_datasets import CAMERAS, JOINTS, states, write_dataset
from support_robots import shipped

torch.set_num_threads(1)

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"
CONFIG = Gr00tN1d6Config.tiny()


def processor_for(
    tag: str, videos: tuple[str, ...], widths: dict[str, int], past: tuple[int, ...] = (0,)
) -> Gr00tProcessor:
    limits = {key: KeyStatistics.from_limits([-4.0] * width, [4.0] * width) for key, width in widths.items()}
    modality = {
        "video": ModalityConfig(past, videos),
        "state": ModalityConfig(past, tuple(widths)),
        "action": ModalityConfig(tuple(range(16)), tuple(widths)),
        "language": ModalityConfig((0,), ("annotation.human.task_description",)),
    }
    return Gr00tProcessor(
        {tag: modality},
        {tag: {"state": limits, "action": limits}},
        max_state_dim=CONFIG.max_state_dim,
        max_action_dim=CONFIG.max_action_dim,
        max_action_horizon=CONFIG.action_horizon,
    )


def arm(past: tuple[int, ...] = (0,)) -> Gr00tProcessor:
    return processor_for("new_embodiment", CAMERAS, {"arm": 5, "gripper": 1}, past)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_they_are_the_recorded_rows(tmp_path: Path, version: str) -> None:
    """State and pictures of one row belong together: pictures tell their row by their brightness."""
    folder = write_dataset(tmp_path / "dataset", version=version, lengths=(12, 25))
    processor = arm()
    found = recorded_observations(folder, processor, "new_embodiment", 6, seed=3)
    found.check_fit(processor, "new_embodiment", CONFIG)
    assert found.source == "recorded: dataset, 2 episodes, seed 3"
    dataset = LeRobotDataset(folder)
    rows = []
    for number, one in enumerate(found):
        values = np.concatenate([one.state["arm"][0, 0], one.state["gripper"][0, 0]])
        at = [
            (episode, row)
            for episode, length in ((0, 12), (1, 25))
            for row in range(length)
            if np.array_equal(states(episode, length)[row], values)
        ]
        ((episode, row),) = at
        rows.append((episode, row))
        recorded = dataset.episode(episode)
        pictures = {key: next(recorded.frames(dataset.video(key), row, row + 1)) for key in CAMERAS}
        expected = processor.encode(
            {
                "video": {key: picture[None, None] for key, picture in pictures.items()},
                "state": {"arm": values[None, None, :5], "gripper": values[None, None, 5:]},
                "language": {"annotation.human.task_description": [[f"task {episode}"]]},
            },
            "new_embodiment",
            pixels="uint8",
        )
        for name in ("input_ids", "attention_mask", "state", "embodiment_id"):
            assert torch.equal(one.inputs[name], expected[name]), name
        assert all(map(torch.equal, one.inputs["pixel_values"], expected["pixel_values"]))
        noise = chunk_noise(3, number, CONFIG.action_horizon, CONFIG.max_action_dim)
        np.testing.assert_array_equal(one.noise, noise)
    assert [episode for episode, _ in rows] == [0, 0, 0, 1, 1, 1]
    # One of each third of an episode.
    assert [row // 4 for _, row in rows[:3]] == [0, 1, 2]
    assert [int(row // (25 / 3)) for _, row in rows[3:]] == [0, 1, 2]


def test_the_same_seed_gives_the_same_ones(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset")
    first = recorded_observations(folder, arm(), "new_embodiment", 4, seed=1)
    assert recorded_observations(folder, arm(), "new_embodiment", 4, seed=1).digest == first.digest
    assert recorded_observations(folder, arm(), "new_embodiment", 4, seed=2).digest != first.digest


def test_more_episodes_than_observations(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", lengths=(3, 3, 3, 3))
    found = recorded_observations(folder, arm(), "new_embodiment", 2)
    assert [int(one.state["arm"][0, 0, 0]) for one in found] == [0, 2]


def test_the_past_is_read_where_the_checkpoint_looks_back(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", lengths=(12,))
    found = recorded_observations(folder, arm(past=(-2, 0)), "new_embodiment", 4)
    for one in found:
        before, now = one.state["arm"][0, :, 0]
        assert now - before == pytest.approx(0.02, abs=1e-5)
        assert len(one.inputs["pixel_values"]) == 4
    with pytest.raises(DatasetError, match="episode 0 has 12 rows; the checkpoint looks back 30"):
        recorded_observations(folder, arm(past=(-30, 0)), "new_embodiment", 1)


def test_without_modality_json_joints_are_found_by_the_robots_names(tmp_path: Path) -> None:
    names = [f"{joint}.pos" for joint in reversed(JOINTS)]
    folder = write_dataset(tmp_path / "dataset", modality=False, names=names)
    robot = shipped("so101")
    (one,) = recorded_observations(folder, arm(), "new_embodiment", 1, robot=robot)
    # Columns differ by 0.1, and the robot's names are in the opposite order.
    assert np.diff(one.state["arm"][0, 0]) == pytest.approx([-0.1] * 4, abs=1e-5)
    (plain,) = recorded_observations(folder, arm(), "new_embodiment", 1)
    assert np.diff(plain.state["arm"][0, 0]) == pytest.approx([0.1] * 4, abs=1e-5)


def test_states_stay_in_dataset_units(tmp_path: Path) -> None:
    """The robot's units belong to what it is sent, not to what the network sees."""
    folder = write_dataset(tmp_path / "dataset")
    robot = shipped("so101")
    units = {"gripper": type(robot.unit("gripper"))(scale=0.01, offset=0.2, sign=-1)}
    scaled = RobotConfig(**{**vars(robot), "units": units})
    plain = recorded_observations(folder, arm(), "new_embodiment", 2, robot=robot)
    assert recorded_observations(folder, arm(), "new_embodiment", 2, robot=scaled).digest == plain.digest


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset")
    with pytest.raises(DatasetError, match="no video for camera 'top'"):
        recorded_observations(folder, processor_for("gr1", ("top",), {"arm": 5}), "gr1")
    with pytest.raises(DatasetError, match="has no group 'legs'"):
        recorded_observations(folder, processor_for("gr1", CAMERAS, {"legs": 5}), "gr1")
    with pytest.raises(DatasetError, match=r"state\.arm has 5 values"):
        recorded_observations(folder, processor_for("gr1", CAMERAS, {"arm": 7}), "gr1")
    with pytest.raises(DatasetError, match="state arm: the robot has 5 joints, the checkpoint 7 values"):
        recorded_observations(
            folder, processor_for("gr1", CAMERAS, {"arm": 7}), "gr1", robot=shipped("so101")
        )
    for count in (0, 33):
        with pytest.raises(ObservationError, match=rf"{count} observations, expected 1 to 32"):
            recorded_observations(folder, arm(), "new_embodiment", count)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not beside the project")
def test_a_real_recording() -> None:
    robot = shipped("gr1")
    widths = {key: source.width for key, source in robot.state.items()}
    processor = processor_for(robot.embodiment_tag, tuple(robot.video), widths)
    folder = SAMPLES / "gr1_pick_and_place"
    found = recorded_observations(folder, processor, robot.embodiment_tag, 5, robot=robot)
    assert recorded_observations(folder, processor, robot.embodiment_tag, 5).digest == found.digest
    mapping = map_dataset(LeRobotDataset(folder), robot)
    assert set(found[0].state) == set(mapping.states)
    assert len({one.state["right_arm"].tobytes() for one in found}) == 5
