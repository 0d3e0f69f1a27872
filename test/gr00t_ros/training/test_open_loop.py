# SPDX-License-Identifier: Apache-2.0
"""Policies whose errors are known exactly: the evaluation finds those errors, where they are, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.errors import DatasetError, Gr00tRosError
from gr00t_ros.training.open_loop import Chosen, Evaluation, OpenLoop
from gr00t_ros.training.open_loop_report import Wanted, summarize, table, to_mapping
from support_datasets import JOINTS, write_dataset
from support_evaluation import ARM, HORIZON, TAG, Chunk, Oracle, processor_for
from support_robots import shipped

LENGTHS = (12, 25)
STEP = 0.01
EVERYTHING = Chosen()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("open_loop") / "dataset", lengths=LENGTHS)


def evaluate(folder: Path, policy: Oracle, chosen: Chosen = EVERYTHING, **options: Any) -> Evaluation:
    loop = OpenLoop(LeRobotDataset(folder), processor_for(ARM), TAG, chosen=chosen, **options)
    result = loop.run(policy)
    assert result.rows + result.refused_rows == loop.planned or not result.complete
    return result


def bias(chunk: Chunk) -> None:
    chunk["arm"][..., 2] += 0.1


def test_a_bias_on_one_joint_is_an_error_of_that_joint_only(folder: Path) -> None:
    summary = summarize(evaluate(folder, Oracle(bias)))
    assert summary is not None
    for key, values in summary.values.items():
        for i, value in enumerate(values):
            biased = (key, i) == ("arm", 2)
            assert value.figures.mse == pytest.approx(0.01 if biased else 0.0, abs=1e-6)
            assert value.figures.mae == pytest.approx(0.1 if biased else 0.0, abs=1e-6)
            assert value.worst == pytest.approx(0.1 if biased else 0.0, abs=1e-6)
    assert summary.groups["arm"].mse == pytest.approx(0.01 / 5, abs=1e-6)
    assert summary.groups["gripper"].mse == pytest.approx(0.0, abs=1e-9)
    assert summary.total.mse == pytest.approx(0.01 / 6, abs=1e-6)
    assert [f and f.mse for f in summary.steps["arm"]] == pytest.approx([0.01 / 5] * HORIZON, abs=1e-6)
    # info.json's names, without a robot.
    assert [value.name for value in summary.values["arm"]] == list(JOINTS[:5])


def test_an_error_of_one_step_is_found_at_that_step(folder: Path) -> None:
    def late(chunk: Chunk) -> None:
        chunk["gripper"][0, 3] -= 0.2

    summary = summarize(evaluate(folder, Oracle(late)))
    assert summary is not None
    by_step = [f and f.mse for f in summary.steps["gripper"]]
    assert by_step == pytest.approx([0.04 if step == 3 else 0.0 for step in range(HORIZON)], abs=1e-6)
    assert [f and f.mse for f in summary.steps["all"]][3] == pytest.approx(0.04 / 6, abs=1e-6)


def test_holding_still_is_wrong_by_what_the_robot_does(folder: Path) -> None:
    """By 0.5, which commands are ahead of the state, and by 0.01 more at every step."""
    evaluation = evaluate(folder, Oracle(), Chosen(interval=1))
    summary = summarize(evaluation)
    assert summary is not None
    for key in ("arm", "gripper"):
        for step, figures in enumerate(summary.steps[key]):
            assert figures is not None
            assert figures.mse_hold_still == pytest.approx((0.5 + STEP * step) ** 2, abs=1e-5)
    value = summary.values["arm"][0]
    counts = np.array([sum(n - step for n in LENGTHS) for step in range(HORIZON)])
    expected = (counts * (0.5 + STEP * np.arange(HORIZON)) ** 2).sum() / counts.sum()
    assert value.figures.mse_hold_still == pytest.approx(expected, abs=1e-5)
    assert value.span == pytest.approx(1.0 + STEP * (LENGTHS[1] - 1), abs=1e-5)
    assert summary.moving_ratio == pytest.approx(0.0, abs=1e-9)
    assert len(summary.moving) == 6


def test_steps_beyond_the_end_of_an_episode_do_not_count(folder: Path) -> None:
    """There the recording repeats its last action, and the oracle goes on."""
    evaluation = evaluate(folder, Oracle(), Chosen(interval=1))
    assert evaluation.rows == sum(LENGTHS)
    for errors in evaluation.errors.values():
        assert errors.count.tolist() == [sum(n - step for n in LENGTHS) for step in range(HORIZON)]
        assert errors.worst.max() < 1e-6


def test_each_step_is_predicted_once_unless_an_interval_is_given(folder: Path) -> None:
    oracle = Oracle()
    evaluation = evaluate(folder, oracle)
    assert [round(state / STEP) for state in oracle.states] == [0, 8, 100, 108, 116, 124]
    assert evaluation.episodes == [0, 1]
    assert sum(errors.steps for errors in evaluation.errors.values()) == 2 * sum(LENGTHS)
    assert evaluation.inference_s == 0.25 * 6


def test_episodes_and_interval_are_as_asked_for(folder: Path) -> None:
    oracle = Oracle()
    evaluation = evaluate(folder, oracle, Chosen(episodes=(1,), interval=10))
    assert [round(state / STEP) for state in oracle.states] == [100, 110, 120]
    assert evaluation.episodes == [1]
    with pytest.raises(DatasetError, match="no episode 2, 7; the dataset has 0 to 1"):
        evaluate(folder, oracle, Chosen(episodes=(7, 0, 2)))


@pytest.mark.parametrize("limit", [1, 5, 36, 37, 1000])
def test_a_limit_is_spread_over_the_recording(folder: Path, limit: int) -> None:
    oracle = Oracle()
    evaluation = evaluate(folder, oracle, Chosen(interval=1, limit=limit))
    assert evaluation.rows == min(limit, sum(LENGTHS))
    if limit == 5:
        rows = [round(state / STEP) for state in oracle.states]
        places = [row if row < 100 else row - 100 + LENGTHS[0] for row in rows]
        assert np.diff(places).tolist() == pytest.approx([sum(LENGTHS) / 5] * 4, abs=1)


def test_rows_that_lie_far_apart_are_the_recorded_ones(tmp_path: Path) -> None:
    """The video is then sought in, not decoded through; the oracle's errors show a wrong row."""
    folder = write_dataset(tmp_path / "dataset", lengths=(260,))
    seen: list[float] = []

    class Looking(Oracle):
        def get_action(self, observation: Any, **given: int) -> Any:
            seen.append(float(observation["video"]["front"].mean()))
            return super().get_action(observation, **given)

    policy = Looking()
    evaluation = evaluate(folder, policy, Chosen(interval=125))
    assert [round(state / STEP) for state in policy.states] == [0, 125, 250]
    assert seen == pytest.approx([30 + 12 * (row % 16) for row in (0, 125, 250)], abs=4)
    assert evaluation.errors["arm"].worst.max() < 1e-6


# ---- repeatable ----------------------------------------------------------------------------------


def test_the_noise_of_a_row_does_not_depend_on_the_others(folder: Path) -> None:
    every, some = Oracle(), Oracle()
    evaluate(folder, every, Chosen(interval=1), seed=3)
    evaluate(folder, some, Chosen(episodes=(1,), interval=5), seed=3)
    known = dict(zip(every.states, every.calls, strict=True))
    assert [known[state] for state in some.states] == some.calls
    assert len(set(every.calls)) == len(every.calls)
    assert {seed for _, seed in every.calls} == {3}


# ---- interrupted, damaged ------------------------------------------------------------------------


def test_interrupted_it_gives_what_there_is(folder: Path) -> None:
    calls = []

    def third(chunk: Chunk) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        bias(chunk)

    evaluation = evaluate(folder, Oracle(third))
    assert not evaluation.complete
    assert evaluation.rows == 2
    summary = summarize(evaluation)
    assert summary is not None
    assert summary.values["arm"][2].figures.mse == pytest.approx(0.01, abs=1e-6)
    assert to_mapping(evaluation, summary)["complete"] is False


def test_interrupted_at_once_there_are_no_figures(folder: Path) -> None:
    def stop(chunk: Chunk) -> None:
        raise KeyboardInterrupt

    assert summarize(evaluate(folder, Oracle(stop))) is None


def spoil_rows(folder: Path, episode: int, **columns: Any) -> None:
    """Writes other values into columns of a v2 episode."""
    path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
    rows = pq.read_table(path).to_pydict()
    for name, change in columns.items():
        rows[name.replace("state", "observation.state")] = change(
            rows[name.replace("state", "observation.state")]
        )
    pq.write_table(pa.table(rows), path)


def test_rows_that_cannot_be_read_are_told_and_the_others_count(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", lengths=(12, 25, 12))
    (folder / "videos/chunk-000/observation.images.wrist/episode_000001.mp4").unlink()

    def nan(rows: list[list[float]]) -> list[list[float]]:
        rows[10][3] = float("nan")
        return rows

    spoil_rows(folder, 2, action=nan)
    evaluation = evaluate(folder, Oracle(bias))
    assert evaluation.episodes == [0, 2]
    # All four of the episode without a video, and the one chunk with a NaN in it.
    assert (evaluation.rows, evaluation.refused_rows) == (3, 5)
    assert {(one.episode, one.row) for one in evaluation.refused} == {
        *((1, row) for row in (0, 8, 16, 24)),
        (2, 8),
    }
    assert "episode_000001.mp4" in evaluation.refused[0].reason
    assert "row 10" in evaluation.refused[-1].reason
    summary = summarize(evaluation)
    assert summary is not None
    assert summary.values["arm"][2].figures.mse == pytest.approx(0.01, abs=1e-6)
    assert any(
        "5 could not be evaluated; the first is episode 1, row 0" in line
        for line in table(evaluation, summary)
    )


def test_an_episode_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", lengths=(12, 25, 12))
    (folder / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1")
    evaluation = evaluate(folder, Oracle())
    assert evaluation.episodes == [1, 2]
    assert [(one.episode, one.row) for one in evaluation.refused] == [(0, None)]


def test_a_wrong_fps_is_refused_with_the_rates(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", lengths=(12, 12))
    path = folder / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fps": 30}))
    with pytest.raises(DatasetError, match=r"none of its rows .* 50\.0 ms apart \(20 Hz\).* says fps 30"):
        evaluate(folder, Oracle())


def test_what_does_not_fit_is_refused_before_anything_runs(folder: Path) -> None:
    dataset = LeRobotDataset(folder)
    with pytest.raises(DatasetError, match="no group 'legs'"):
        OpenLoop(dataset, processor_for(ARM, {"legs": 2}), TAG)
    with pytest.raises(DatasetError, match=r"action\.arm has 5 values"):
        OpenLoop(dataset, processor_for(ARM, {"arm": 7}), TAG)
    with pytest.raises(DatasetError, match="no video for camera 'top'"):
        OpenLoop(dataset, processor_for(ARM, videos=("top",)), TAG)
    with pytest.raises(DatasetError, match="no episode 5"):
        OpenLoop(dataset, processor_for(ARM), TAG, trace=5)


def test_an_action_without_a_state_has_no_error_of_holding_still(folder: Path) -> None:
    loop = OpenLoop(LeRobotDataset(folder), processor_for({"arm": 5}, ARM), TAG)
    evaluation = loop.run(Oracle())
    summary = summarize(evaluation)
    assert summary is not None
    assert summary.values["arm"][0].figures.mse_hold_still is not None
    assert summary.values["gripper"][0].figures.mse_hold_still is None
    assert summary.total.mse_hold_still is None, "a mean over fewer values could not be compared"
    assert any(
        "hold still, gripper: none: the checkpoint has no state key gripper" in line
        for line in table(evaluation, summary)
    )


# ---- with a robot --------------------------------------------------------------------------------


def test_a_robot_gives_names_units_and_si(folder: Path) -> None:
    robot = shipped("so101")
    units = {"elbow_flex": type(robot.unit("elbow_flex"))(scale=np.pi / 180, offset=0.3, sign=-1)}
    degrees = type(robot)(**{**vars(robot), "units": units})
    summary = summarize(evaluate(folder, Oracle(bias), robot=degrees))
    assert summary is not None
    elbow = summary.values["arm"][2]
    assert (elbow.name, elbow.unit) == ("elbow_flex", "deg")
    assert summary.values["arm"][0].unit == "SI"
    evaluation = evaluate(folder, Oracle(bias), robot=degrees)
    plain = to_mapping(evaluation, summary)["groups"]["arm"]["values"]["elbow_flex"]
    assert plain["mae"] == pytest.approx(0.1, abs=1e-6)
    assert plain["si"]["mae"] == pytest.approx(np.deg2rad(0.1), abs=1e-7)
    assert plain["si"]["mse"] == pytest.approx(np.deg2rad(0.1) ** 2, abs=1e-8)
    assert any("MAE in SI" in line for line in table(evaluation, summary))


# ---- what was asked for --------------------------------------------------------------------------


def test_thresholds_are_of_all_of_a_key_or_of_a_joint(folder: Path) -> None:
    evaluation = evaluate(folder, Oracle(bias))
    summary = summarize(evaluation)
    assert summary is not None

    def missed(mse: dict[str, float] | None = None, mae: dict[str, float] | None = None) -> int:
        wanted = Wanted(mse or {}, mae or {})
        wanted.check(evaluation.compared)
        return len(wanted.missed(summary))

    assert missed() == 0
    assert missed({"all": 0.0017, "arm": 0.0021, "arm.elbow_flex": 0.0101, "gripper": 1e-6}) == 0
    assert missed({"all": 0.0016, "arm": 0.0019, "arm.elbow_flex": 0.0099, "gripper": 0.1}) == 3
    assert missed(mae={"arm.elbow_flex": 0.09, "arm.wrist_roll": 0.09}) == 1
    for unknown in ("leg", "arm.knee", "arm.", "gripper.elbow_flex"):
        with pytest.raises(Gr00tRosError, match="expected all, arm, gripper, or a joint"):
            missed({unknown: 1.0})


def test_better_than_holding_still_goes_by_what_moves(folder: Path, tmp_path: Path) -> None:
    def wrong_by(amount: float) -> list[str]:
        def spoil(chunk: Chunk) -> None:
            for values in chunk.values():
                values += amount

        summary = summarize(evaluate(folder, Oracle(spoil)))
        assert summary is not None
        return Wanted({}, {}, True).missed(summary)

    assert wrong_by(0.4) == []
    (text,) = wrong_by(0.7)
    assert "times that of holding still" in text
    still = write_dataset(tmp_path / "dataset", lengths=(12, 12))
    for episode in range(2):
        spoil_rows(
            still,
            episode,
            action=lambda rows: [rows[0]] * len(rows),
            state=lambda rows: [[1.0] * 6] * len(rows),
        )
    loop = OpenLoop(LeRobotDataset(still), processor_for(ARM), TAG, chosen=Chosen(episodes=(0,)))
    summary = summarize(loop.run(Oracle()))
    assert summary is not None
    (text,) = Wanted({}, {}, True).missed(summary)
    assert "no joint moves" in text


def test_the_json_holds_every_figure(folder: Path) -> None:
    evaluation = evaluate(folder, Oracle(bias), seed=7)
    summary = summarize(evaluation)
    assert summary is not None
    plain = json.loads(json.dumps(to_mapping(evaluation, summary), allow_nan=False))
    assert (plain["chunks"], plain["seed"], plain["horizon"], plain["episodes"]) == (6, 7, HORIZON, [0, 1])
    assert plain["groups"]["arm"]["values"]["elbow_flex"]["mse"] == pytest.approx(0.01, abs=1e-6)
    by_step = plain["by_step_and_value"]["arm"]["elbow_flex"]
    assert [at["mse"] for at in by_step] == pytest.approx([0.01] * HORIZON, abs=1e-6)
    assert len(plain["by_step"]["all"]) == HORIZON
    assert plain["moving_mse_over_hold_still"] == summary.moving_ratio
