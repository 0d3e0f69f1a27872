# SPDX-License-Identifier: Apache-2.0
"""Statistics that a checkpoint scales by: of the recorded values, all of them, and in the form it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gr00t_model.processing import ActionConfig, Gr00tProcessor
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from gr00t_ros.training.stream import DatasetSource, training_statistics
from support_datasets import states, write_dataset
from support_samples import CONFIG, HORIZON, SAMPLES, SMALL_IMAGES, TAG, modality

FIELDS = ["min", "max", "mean", "std", "q01", "q99"]
RELATIVE = ActionConfig("RELATIVE")
POSE = ActionConfig("RELATIVE", "EEF", "XYZ_ROTVEC")


def write(folder: Path, lengths: tuple[int, ...] = (12, 25), **actions: Any) -> Path:
    """A dataset whose actions are ``actions[episode](states)`` where that is given."""
    write_dataset(folder, lengths=lengths)
    for name, values in actions.items():
        path = folder / f"data/chunk-000/{name}.parquet"
        table = pq.read_table(path)
        at = table.column_names.index("action")
        pq.write_table(table.set_column(at, "action", pa.array(np.asarray(values).tolist())), path)
    return folder


def expected(values: np.ndarray) -> dict[str, np.ndarray]:
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    return dict(
        zip(FIELDS, (values.min(0), values.max(0), values.mean(0), values.std(0), q01, q99), strict=True)
    )


def check(found: dict[str, list[Any]], values: np.ndarray) -> None:
    assert list(found) == FIELDS
    for name, value in expected(values).items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def test_they_are_of_all_rows_of_all_datasets_of_an_embodiment(tmp_path: Path) -> None:
    sources = [
        DatasetSource(write(tmp_path / "a", (12, 25)), TAG, 5.0),
        DatasetSource(write(tmp_path / "b", (7, 9, 30)), TAG, 1.0, episodes=(0, 2)),
    ]
    told: list[str] = []
    found = training_statistics(sources, {TAG: modality()}, told.append)
    rows = np.concatenate([states(0, 12), states(1, 25), states(0, 7), states(2, 30)]).astype(np.float64)
    assert list(found) == [TAG]
    check(found[TAG]["state"]["arm"], rows[:, :5])
    check(found[TAG]["state"]["gripper"], rows[:, 5:])
    check(found[TAG]["action"]["arm"], rows[:, :5] + 0.5)
    assert found[TAG]["relative_action"] == {}
    assert told == []


def test_relative_ones_are_per_step_and_of_real_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    actions = [rng.normal(size=(length, 6)).astype(np.float32) for length in (12, 25)]
    folder = write(tmp_path, episode_000000=actions[0], episode_000001=actions[1])
    configs = modality(configs=(RELATIVE, ActionConfig()))
    found = training_statistics([DatasetSource(folder, TAG)], {TAG: configs})[TAG]
    assert list(found["relative_action"]) == ["arm"]
    assert np.shape(found["relative_action"]["arm"]["q01"]) == (HORIZON, 5)
    for step in range(HORIZON):
        differences = np.concatenate(
            [
                action[step:, :5].astype(np.float64) - states(episode, len(action))[: len(action) - step, :5]
                for episode, action in enumerate(actions)
            ]
        )
        check({name: found["relative_action"]["arm"][name][step] for name in FIELDS}, differences)


@pytest.mark.parametrize("past", [(0,), (-2, -1)])
def test_the_processor_scales_every_real_step_into_the_range_and_reaches_its_ends(
    tmp_path: Path, past: tuple[int, ...]
) -> None:
    """Poses included, and whatever state an action is relative to: the processor says what that means."""
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1.0, 1.0, (20, 6)).astype(np.float32)
    folder = write(tmp_path, (20,), episode_000000=actions)
    groups = {"hand": {"start": 0, "end": 6}}
    (folder / "meta/modality.json").write_text(json.dumps({"state": groups, "action": groups}))
    configs = modality(state=("hand",), action=("hand",), configs=(POSE,), past=past)
    statistics = training_statistics([DatasetSource(folder, TAG)], {TAG: configs})
    processor = Gr00tProcessor(
        {TAG: configs},
        statistics,
        max_state_dim=CONFIG.max_state_dim,
        max_action_dim=CONFIG.max_action_dim,
        max_action_horizon=CONFIG.action_horizon,
        **SMALL_IMAGES,
    )
    reader = WindowReader(LeRobotDataset(folder), configs)
    episode = reader.dataset.episode(0)
    scaled = np.full((20, HORIZON, 6), np.nan)
    for row in reader.rows(episode):
        chunk, real = reader.actions(episode, row)
        state = {"hand": reader.states(episode)["hand"][[row + delta for delta in past]][None]}
        values, _ = processor.encode_action(chunk, state, TAG, clip=False)
        scaled[row, :real] = values[0, :real, :6]
    np.testing.assert_allclose(np.nanmin(scaled, axis=0), -1.0, atol=1e-5)
    np.testing.assert_allclose(np.nanmax(scaled, axis=0), 1.0, atol=1e-5)


def test_episodes_that_are_too_short_for_a_sample_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, (2, 2))
    configs = modality(configs=(RELATIVE, ActionConfig()), past=(-2, -1))
    with pytest.raises(DatasetError, match=r"no episode is long enough for a sample; the checkpoint looks 2"):
        training_statistics([DatasetSource(folder, TAG)], {TAG: configs})


def test_what_never_changes_is_told_and_scales_without_dividing_by_zero(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, lengths=(6, 9))
    for episode, rows in enumerate((6, 9)):
        path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
        table = pq.read_table(path)
        still = np.tile(states(0, 1), (rows, 1))
        moving = states(episode, rows) if episode else still
        for name, values in (("observation.state", moving), ("action", still)):
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array(values.tolist()))
        pq.write_table(table, path)
    told: list[str] = []
    configs = modality(configs=(RELATIVE, ActionConfig()))
    found = training_statistics([DatasetSource(folder, TAG)], {TAG: configs}, told.append)
    assert sorted(told) == [
        f"{folder}: no state changes in episode 0: a frozen stream, or a robot that did not move",
        "new_embodiment: action.arm never changes (all of it); nothing is learned from that",
        "new_embodiment: action.gripper never changes (all of it); nothing is learned from that",
    ]
    assert found[TAG]["action"]["gripper"]["std"] == [0.0]
    processor = Gr00tProcessor({TAG: configs}, found, max_action_horizon=CONFIG.action_horizon)
    chunk = {"arm": np.full((1, 8, 5), 0.1), "gripper": np.full((1, 8, 1), 0.5)}
    state = {"arm": np.zeros((1, 1, 5)), "gripper": np.zeros((1, 1, 1))}
    assert np.isfinite(processor.encode_action(chunk, state, TAG)[0]).all()


def test_steps_that_no_episode_reaches_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path, (5, 3))
    told: list[str] = []
    configs = modality(configs=(RELATIVE, RELATIVE))
    found = training_statistics([DatasetSource(folder, TAG)], {TAG: configs}, told.append)[TAG]
    assert told[0].startswith("new_embodiment: action.arm: no episode is long enough for steps 5 to 7 of the")
    assert np.shape(found["relative_action"]["arm"]["min"]) == (HORIZON, 5)
    np.testing.assert_allclose(found["relative_action"]["arm"]["mean"][7], 0.54, atol=1e-5)


def test_rows_without_a_task_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path, (5, 3))
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "move"}\n')
    told: list[str] = []
    training_statistics([DatasetSource(folder, TAG)], {TAG: modality()}, told.append)
    assert told == [
        f"{folder}: rows without a task text in episode 1; the network is given an empty instruction there"
    ]


def test_a_value_that_is_no_number_stops_it_and_is_named(tmp_path: Path) -> None:
    actions = states(1, 25)
    actions[20, 3] = np.nan
    folder = write(tmp_path, episode_000001=actions)
    with pytest.raises(
        DatasetError, match=r"episode_000001\.parquet: episode 1, row 20: value 3 of action is nan"
    ):
        training_statistics([DatasetSource(folder, TAG)], {TAG: modality()})
    assert training_statistics([DatasetSource(folder, TAG, episodes=(0,))], {TAG: modality()})
    with pytest.raises(DatasetError, match="no modality configs for its embodiment 'gr1'"):
        training_statistics([DatasetSource(folder, "gr1")], {TAG: modality()})


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not beside the repository")
def test_the_samples() -> None:
    """GR1's own stats.json agrees; the arm of the other recording is known to be frozen."""
    gr1, so101 = SAMPLES / "gr1_pick_and_place", SAMPLES / "so101_lerobot_v3"
    groups = LeRobotDataset(gr1).groups("state")
    keys = [key for key in groups if key not in ("left_leg", "neck", "right_leg")]
    modalities = {
        "gr1": modality(("ego_view",), keys, keys, steps=range(16), configs=[RELATIVE] * len(keys)),
        TAG: modality(("wrist",), ("all",), ("all",)),
    }
    told: list[str] = []
    sources = [DatasetSource(gr1, "gr1"), DatasetSource(so101, TAG)]
    found = training_statistics(sources, modalities, told.append)
    recorded = json.loads((gr1 / "meta/stats.json").read_text())
    for kind, column in (("state", "observation.state"), ("action", "action")):
        for key in keys:
            place = slice(groups[key].start, groups[key].end)
            for name in ("min", "max", "mean", "std"):
                np.testing.assert_allclose(
                    found["gr1"][kind][key][name],
                    recorded[column][name][place],
                    atol=1e-4,
                    err_msg=f"{kind}.{key}",
                )
    assert np.shape(found["gr1"]["relative_action"]["right_arm"]["std"]) == (16, 7)
    assert f"{so101}: no state changes in all episodes: a frozen stream, or a robot that did not move" in told
