# SPDX-License-Identifier: Apache-2.0
"""Real recordings: what is odd with them is found, and a network is evaluated on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gr00t_model.policy import Gr00tPolicy
from gr00t_ros.cli import evaluate
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.findings import Level, worst
from gr00t_ros.training.dataset_report import report, unwell
from gr00t_ros.training.open_loop import Chosen, OpenLoop
from gr00t_ros.training.open_loop_report import Wanted, summarize
from support_checkpoints import tiny_checkpoint
from support_evaluation import Oracle, processor_for
from support_robots import shipped
from support_samples import SAMPLES

pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="the sample recordings are not beside the repository"
)
GR1, SO101 = SAMPLES / "gr1_pick_and_place", SAMPLES / "so101_lerobot_v3"


def test_the_frozen_streams_of_the_so101_sample_are_called_out() -> None:
    found = report(LeRobotDataset(SO101))
    assert worst(found) is Level.FAIL
    assert [(f.level, f.part) for f in unwell(found)] == [
        (Level.FAIL, "observation.state"),
        (Level.FAIL, "action"),
    ]
    for finding in unwell(found):
        assert finding.found == (
            "a frozen stream: none of its 6 values changes in any of 6 episodes (1782 rows), with the same "
            "values in all"
        )
    texts = {finding.part: finding.found for finding in found}
    assert texts["time"] == "rows follow at 30 Hz"
    assert texts["camera wrist"] == "files for all episodes, 360 x 640 pixels"


def test_the_gr1_sample_lacks_a_camera_and_is_sound_otherwise() -> None:
    robot = shipped("gr1")
    found = report(LeRobotDataset(GR1), robot=robot)
    (finding,) = unwell(found)
    assert (finding.level, finding.part) == (Level.WARN, "cameras")
    assert "observation.images.egoview, but it has no files" in finding.found
    texts = {finding.part: finding.found for finding in found}
    assert texts["episodes"] == "5 with 2096 rows, 328 to 470 each"
    assert texts["time"] == "rows follow at 20 Hz"
    assert texts["robot"] == "20 rows a second"
    assert texts["instructions"].startswith("5 different: 'pick the pear from the counter")
    assert texts["observation.state"] == (
        "44 values, 26 of them change; constant: left_leg, neck, right_leg, waist"
    )
    assert texts["action"] == (
        "44 values, 19 of them change; constant: left_hand, left_leg, neck, right_hand.motor_34, right_leg, "
        "waist"
    )


def test_a_tiny_network_is_evaluated_on_the_gr1_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights: the figures mean nothing but that holding still is better, and which joints move."""
    given = ["--checkpoint", str(tiny_checkpoint("gr1")), "--dataset", str(GR1), "--robot", "gr1"]
    given += ["--device", "cpu", "--limit", "4", "--plot", str(tmp_path / "gr1.png")]
    assert evaluate.main([*given, "--better-than-hold-still"]) == evaluate.MISSED
    printed = capsys.readouterr().out
    assert "state.waist, action.left_hand, action.waist never change" in printed
    assert "4 chunks of 16 steps, one every 16 rows of 4 episodes" in printed
    assert "not better than holding still" in printed
    assert (tmp_path / "gr1.png").stat().st_size > 0


def test_holding_still_on_the_gr1_sample_is_what_the_columns_say() -> None:
    """Worked out from the recorded columns once more, without the reader, its windows and its sums."""
    robot = shipped("gr1")
    processor = processor_for(
        {key: source.width for key, source in robot.state.items()},
        {key: group.width for key, group in robot.action.items()},
        tag=robot.embodiment_tag,
        videos=("ego_view",),
    )
    chosen = Chosen(episodes=(4,), interval=100)
    dataset = LeRobotDataset(GR1)

    class Zero(Oracle):
        def get_action(self, observation, *, t_obs_ns, seed):  # type: ignore[no-untyped-def]
            horizon = processor.modality("gr1")["action"].horizon
            chunk = {
                key: np.zeros((1, horizon, width), np.float32)
                for key, width in processor.action_widths("gr1").items()
            }
            return chunk, {}

    evaluation = OpenLoop(dataset, processor, "gr1", robot=robot, chosen=chosen).run(Zero())
    summary = summarize(evaluation)
    assert summary is not None
    episode, groups = dataset.episode(4), dataset.groups("action")
    for key, values in summary.values.items():
        group = groups[key]
        action, state = (
            column[:, group.start : group.end].astype(np.float32).astype(float)
            for column in (episode.action, episode.state)
        )
        chunks = [(action[row : row + 8], state[row]) for row in (0, 100, 200, 300)]
        moved = np.concatenate([chunk - now for chunk, now in chunks])
        done = np.concatenate([chunk for chunk, _ in chunks])
        for i, value in enumerate(values):
            assert value.figures.mse_hold_still == pytest.approx((moved[:, i] ** 2).mean(), rel=1e-9)
            assert value.figures.mse == pytest.approx((done[:, i] ** 2).mean(), rel=1e-9)
            assert value.span == pytest.approx(np.ptp(done[:, i]), rel=1e-9)
    assert summary.moving == [
        *(f"left_arm.left_arm_{i}" for i in range(7)),
        *(f"right_arm.right_arm_{i}" for i in range(7)),
        *(f"right_hand.right_hand_{i}" for i in range(5)),
    ]


def test_the_packed_sample_is_evaluated_and_no_joint_moves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Format v3.0, AV1, no modality.json: the whole column is one key. Nothing can be better than holding
    still where nothing moves, and that is said instead of a ratio."""
    processor = processor_for({"all": 6}, videos=("wrist",))
    loop = OpenLoop(LeRobotDataset(SO101), processor, "new_embodiment", chosen=Chosen(limit=3))

    class Still(Oracle):
        def get_action(self, observation, *, t_obs_ns, seed):  # type: ignore[no-untyped-def]
            assert observation["video"]["wrist"].shape == (1, 1, 360, 640, 3)
            now = observation["state"]["all"][:, -1:]
            return {"all": np.repeat(now, 8, axis=1)}, {}

    summary = summarize(loop.run(Still()))
    assert summary is not None
    assert [value.name for value in summary.values["all"]] == [f"j{i}" for i in range(6)]
    assert summary.total.mse == pytest.approx(summary.total.mse_hold_still)
    assert summary.moving == []
    (text,) = Wanted({}, {}, better_than_hold_still=True).missed(summary)
    assert "no joint moves in the evaluated rows" in text


def test_the_gr1_sample_does_not_fit_another_robot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Gr00tPolicy, "__init__", lambda *_, **__: pytest.fail("the policy was opened"))
    given = ["--checkpoint", str(tiny_checkpoint("so101")), "--dataset", str(GR1), "--robot", "so101"]
    assert evaluate.main(given) == 1
    assert (
        "no video for camera 'front'; those with files are observation.images.ego_view"
        in capsys.readouterr().err
    )
