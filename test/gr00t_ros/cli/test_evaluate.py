# SPDX-License-Identifier: Apache-2.0
"""``evaluate`` as a user calls it: the figures, the files, and an exit code for each way that it can end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gr00t_model.policy import Gr00tPolicy
from gr00t_ros.cli import evaluate
from support_checkpoints import checkpoint_without_statistics, tiny_checkpoint
from support_datasets import write_dataset
from support_robots import REPOSITORY

# The tiny network of random_checkpoint.
HORIZON = 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("evaluate") / "recording", lengths=(24, 20))


def run(dataset: Path, *arguments: str | Path, checkpoint: Path | None = None) -> int:
    where = checkpoint or tiny_checkpoint()
    given = ["--checkpoint", where, "--dataset", dataset, "--device", "cpu", *arguments]
    return evaluate.main([str(one) for one in given])


# ---- what it gives -------------------------------------------------------------------------------


def test_a_process_prints_the_table_and_writes_both_files(dataset: Path, tmp_path: Path) -> None:
    picture, file = tmp_path / "picture.png", tmp_path / "figures.json"
    command = [sys.executable, "-m", "gr00t_ros.cli.evaluate"]
    command += ["--checkpoint", str(tiny_checkpoint()), "--dataset", str(dataset), "--robot", "so101"]
    command += ["--device", "cpu", "--plot", str(picture), "--json", str(file), "--seed", "5"]
    ended = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    for words in ("4 chunks of 16 steps, one every 16 rows of 2 episodes (0-1), seed 5", "shoulder_pan"):
        assert words in ended.stdout, ended.stdout
    for words in ("hold still", "MSE by horizon step", "than holding still on those that move"):
        assert words in ended.stdout, ended.stdout
    # Progress is apart from results.
    assert "evaluating" in ended.stderr
    assert "evaluating" not in ended.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    content = json.loads(file.read_text())
    assert (content["chunks"], content["seed"], content["complete"]) == (4, 5, True)
    assert content["checkpoint"]["name"] == tiny_checkpoint().name
    assert content["checkpoint"]["embodiment_tag"] == "new_embodiment"
    assert (content["dataset"]["name"], content["dataset"]["episodes"]) == ("recording", 2)
    assert content["robot"] == "so101"
    assert content["versions"]["torch"]
    assert content["missed"] == []
    pan = content["groups"]["arm"]["values"]["shoulder_pan"]
    assert pan["si"]["mse"] == pytest.approx(pan["mse"])
    assert (pan["unit"], pan["moves"]) == ("SI", True)
    assert len(content["by_step"]["all"]) == HORIZON
    assert {finding["part"] for finding in content["findings"]} >= {"episodes", "time", "robot"}

    # The same again in this process gives the same numbers, bit for bit.
    again = tmp_path / "again.json"
    assert run(dataset, "--robot", "so101", "--seed", "5", "--json", again) == 0
    repeated = json.loads(again.read_text())
    assert repeated["by_step_and_value"] == content["by_step_and_value"]
    assert repeated["groups"] == content["groups"]


def test_another_seed_is_another_chunk(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for seed in ("1", "2"):
        assert run(dataset, "--limit", "1", "--seed", seed) == 0
        tables.append(capsys.readouterr().out.replace(f"seed {seed}", ""))
    assert tables[0] != tables[1]


def test_rows_and_episodes_are_chosen(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dataset, "--episodes", "1", "--interval", "10") == 0
    assert "2 chunks of 16 steps, one every 10 rows of 1 episode (1)" in capsys.readouterr().out
    assert run(dataset, "--episodes", "0-1", "--interval", "1", "--limit", "3") == 0
    assert "3 chunks of 16 steps, one every 1 rows of 2 episodes (0-1)" in capsys.readouterr().out


def test_the_robot_of_the_checkpoint_is_used(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine-tuned checkpoint brings its robot, and with it names and units."""
    checkpoint = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "tuned"))
    shutil.copy(REPOSITORY / "config/robots/so101.yaml", checkpoint / "robot.yaml")
    assert run(dataset, "--limit", "1", checkpoint=checkpoint) == 0
    printed = capsys.readouterr()
    assert "robot.yaml" in printed.err
    assert "the present state of the same joints" in printed.out
    tagged = ("--limit", "1", "--embodiment-tag", "new_embodiment")
    assert run(dataset, *tagged, checkpoint=checkpoint) == 0
    assert "the present state of the same joints" in capsys.readouterr().out
    # One that is known by its tag goes before it, and one of another tag is not meant.
    shutil.copy(checkpoint / "robot.yaml", checkpoint / "robot_new_embodiment.yaml")
    assert run(dataset, *tagged, checkpoint=checkpoint) == 0
    assert "robot_new_embodiment.yaml" in capsys.readouterr().err
    (checkpoint / "robot_new_embodiment.yaml").unlink()
    text = (checkpoint / "robot.yaml").read_text()
    other = text.replace("embodiment_tag: new_embodiment", "embodiment_tag: other")
    (checkpoint / "robot.yaml").write_text(other)
    assert run(dataset, *tagged, checkpoint=checkpoint) == 0
    printed = capsys.readouterr()
    assert "robot.yaml" not in printed.err
    assert "the present state arm" in printed.out
    # A checkpoint of the hub brings its own as well.
    (checkpoint / "robot.yaml").write_text(text)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(checkpoint))
    assert run(dataset, "--limit", "1", checkpoint=Path("somebody/tuned")) == 0
    assert "the present state of the same joints" in capsys.readouterr().out


# ---- thresholds ----------------------------------------------------------------------------------


def test_thresholds_decide_the_exit_code(
    dataset: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(dataset, "--limit", "1", "--max-mse", "1000", "--max-mae", "arm=1000") == 0
    file = tmp_path / "figures.json"
    code = run(dataset, "--limit", "1", "--max-mse", "1000", "--max-mse", "gripper.gripper=0", "--json", file)
    assert code == evaluate.MISSED == 3
    assert "evaluate: MSE of gripper.gripper is" in capsys.readouterr().err
    content = json.loads(file.read_text())
    assert len(content["missed"]) == 1
    assert content["wanted"]["max_mse"] == {"all": 1000.0, "gripper.gripper": 0.0}


def test_better_than_holding_still_decides_the_exit_code(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recorded actions are 0.5 to 0.65 away from the state: to be 0.1 off is better, 0.9 is not."""
    for off, code in ((0.1, 0), (0.9, 3)):

        def answer(self: Any, observation: Any, *, off: float = off, **_: Any) -> Any:
            steps = 0.5 + off + 0.01 * np.arange(HORIZON, dtype=np.float32)[:, None]
            chunk = {key: (now[:, -1:] + steps[None]) for key, now in observation["state"].items()}
            return chunk, {"timing": {"inference_s": 0.0}}

        monkeypatch.setattr(Gr00tPolicy, "get_action", answer)
        assert run(dataset, "--better-than-hold-still") == code
        printed = capsys.readouterr()
        assert ("not better than holding still" in printed.out) == (code == 3)
        assert ("times that of holding still" in printed.err) == (code == 3)


# ---- interrupted ---------------------------------------------------------------------------------


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as a shell's program has it, also where the tests run in the background and would not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_prints_the_figures_so_far(
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    sound, calls = Gr00tPolicy.get_action, []

    def second(self: Any, *arguments: Any, **given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(number)
        return sound(self, *arguments, **given)

    monkeypatch.setattr(Gr00tPolicy, "get_action", second)
    file = tmp_path / "figures.json"
    assert run(dataset, "--json", file) == evaluate.INTERRUPTED == 130
    printed = capsys.readouterr()
    assert "1 chunks of 16 steps" in printed.out
    assert "3 chunks were still to come; the figures are those so far" in printed.err
    assert "evaluate: interrupted" in printed.err
    assert not file.exists()
    # Before the first chunk there is nothing to print.
    calls[:] = [1]
    assert run(dataset) == 130
    printed = capsys.readouterr()
    assert "evaluate: interrupted" in printed.err
    assert "chunks" not in printed.out


# ---- mistakes ------------------------------------------------------------------------------------

MISTAKES = [
    pytest.param(["--robot", "so102"], "so102", id="unknown robot"),
    pytest.param(["--robot", "gr1"], "gr1", id="another robot"),
    pytest.param(["--embodiment-tag", "gr1"], "gr1", id="unknown tag"),
    pytest.param(["--device", "cuda:7"], "cuda:7", id="no such device"),
    pytest.param(["--episodes", "0,7-8"], "no episode 7, 8; the dataset has 0 to 1", id="no such episode"),
    pytest.param(
        ["--max-mse", "leg=1"], "no error of 'leg' is known; expected all, arm, gripper", id="no such key"
    ),
    pytest.param(["--json", "/nowhere/figures.json"], "/nowhere/figures.json", id="no folder for the file"),
    pytest.param(["--plot", "/nowhere/picture.png"], "/nowhere/picture.png", id="no folder for the picture"),
    pytest.param(["--plot-episode", "1"], "there is no --plot", id="episode without a picture"),
    pytest.param(["--num-steps", "1001"], "num_steps", id="too many steps"),
]


@pytest.mark.parametrize(("arguments", "word"), MISTAKES)
def test_a_mistake_is_one_line(
    dataset: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    assert run(dataset, *arguments) == 1
    assert word in only_line(capsys)


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("evaluate: ")]
    assert len(said) == 1, said
    return said[0]


USAGE = ["--episodes=5-3", "--episodes=a", "--interval=0", "--limit=-1", "--max-mse=-1", "--max-mae=arm=x"]


@pytest.mark.parametrize("argument", USAGE)
def test_an_impossible_option_is_refused_by_its_form(dataset: Path, argument: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(dataset, argument)
    assert ended.value.code == 2


def test_missing_statistics_are_told(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--embodiment-tag", "new_embodiment"]
    assert run(dataset, *given, checkpoint=checkpoint_without_statistics()) == 1
    assert "'new_embodiment' has no statistics" in only_line(capsys)


def test_a_dataset_that_does_not_fit_is_refused_before_the_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Gr00tPolicy, "__init__", lambda *_, **__: pytest.fail("the policy was opened"))
    folder = write_dataset(tmp_path / "dataset")
    path = folder / "meta/modality.json"
    modality = json.loads(path.read_text())
    modality["action"]["claw"] = modality["action"].pop("gripper")
    path.write_text(json.dumps(modality))
    assert run(folder) == 1
    assert "action has no group 'gripper'; it has arm, claw" in only_line(capsys)


def test_a_wrong_fps_is_told_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a finding, and as the reason why nothing could be evaluated."""
    folder = write_dataset(tmp_path / "dataset")
    path = folder / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fps": 30}))
    assert run(folder) == 1
    printed = capsys.readouterr()
    assert "timestamps are 50 ms apart (20 Hz) in 2 of 2 episodes" in printed.out
    assert re.search(r"evaluate: .*none of its rows.*fps 30", printed.err)


def test_rows_that_cannot_be_evaluated_are_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dataset(tmp_path / "dataset")
    (folder / "videos/chunk-000/observation.images.front/episode_000000.mp4").unlink()
    assert run(folder, "--max-mse", "1000") == 1
    printed = capsys.readouterr()
    assert "2 chunks of 16 steps" in printed.out
    assert "1 could not be evaluated; the first is episode 0, row 0" in printed.out
    assert "evaluate: 1 chunks could not be evaluated" in printed.err


# ---- without a checkpoint ------------------------------------------------------------------------


def test_without_a_checkpoint_it_says_what_is_in_the_dataset(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    assert evaluate.main(["--dataset", str(dataset), "--robot", "so101", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "recording: LeRobot v2.1, 2 episodes, 20 fps" in printed
    assert "2 with 44 rows, 20 to 24 each" in printed
    content = json.loads(file.read_text())
    assert {finding["level"] for finding in content["findings"]} == {"OK"}
    assert content["dataset"]["name"] == "recording"


def test_a_dataset_that_should_not_be_trained_on_is_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dataset(tmp_path / "dataset", lengths=(12,))
    path = folder / "data/chunk-000/episode_000000.parquet"
    rows = pq.read_table(path).to_pydict()
    rows["observation.state"] = [rows["observation.state"][0]] * 12
    pq.write_table(pa.table(rows), path)
    assert evaluate.main(["--dataset", str(folder)]) == 3
    assert "a frozen stream" in capsys.readouterr().out


def test_the_robot_that_a_dataset_was_converted_with_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dataset(tmp_path / "dataset")
    shutil.copy(REPOSITORY / "config/robots/so101.yaml", folder / "meta/robot.yaml")
    assert evaluate.main(["--dataset", str(folder)]) == 0
    assert "step_rate of so101" in capsys.readouterr().out
    text = (folder / "meta/robot.yaml").read_text()
    (folder / "meta/robot.yaml").write_text(text.replace("step_rate: 20.0", "step_rate: 10.0"))
    assert evaluate.main(["--dataset", str(folder)]) == 3
    assert "its step_rate, 10 Hz" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--plot", "picture.png"], ["--max-mse", "1"], ["--better-than-hold-still"]]
)
def test_predictions_need_a_checkpoint(
    dataset: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert evaluate.main(["--dataset", str(dataset), *arguments]) == 1
    assert "no --checkpoint is given" in only_line(capsys)


def test_a_folder_that_is_no_dataset_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--dataset", str(tmp_path / "nothing")]) == 1
    assert "expected the folder of a LeRobot dataset" in only_line(capsys)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "--better-than-hold-still" in printed
    assert "130" in printed
