# SPDX-License-Identifier: Apache-2.0
"""What a run is made of is found, and every mistake about data is said in one line before training begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gr00t_model import Gr00tProcessor
from gr00t_model.errors import Gr00tError
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.share import robot_file
from gr00t_ros.training.options import TrainingError
from gr00t_ros.training.preparing import parse_dataset
from support_checkpoints import checkpoint_without_statistics
from support_datasets import write_dataset
from support_network import edit_json
from support_training import base, prepared, recording, recordings

EVERYTHING_WRONG = (Gr00tRosError, Gr00tError)


def test_forms_of_a_dataset(tmp_path: Path) -> None:
    assert parse_dataset("some/where") == (Path("some/where"), None, 1.0)
    assert parse_dataset("some/where:gr1") == (Path("some/where"), "gr1", 1.0)
    assert parse_dataset("some/where::0.5") == (Path("some/where"), None, 0.5)
    (tmp_path / "a:b").mkdir()
    assert parse_dataset(f"{tmp_path}/a:b") == (tmp_path / "a:b", None, 1.0)
    for text, message in (
        ("d:tag:0", "the weight is '0', expected a number above 0"),
        ("d:tag:much", "the weight is 'much'"),
        ("d:tag:1:2", "expected DIR, DIR:TAG or DIR:TAG:WEIGHT"),
    ):
        with pytest.raises(TrainingError, match=message):
            parse_dataset(text)


def test_robot_and_tag_are_found_where_they_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(recording(), folder)
    (plain,) = recordings(folder)
    assert (plain.tag, plain.robot) == ("new_embodiment", None)
    text = robot_file("so101").read_text().replace("embodiment_tag: new_embodiment", "embodiment_tag: mine")
    (folder / "meta/robot.yaml").write_text(text)
    (own,) = recordings(folder)
    assert own.tag == "mine"
    assert own.robot_path == folder / "meta/robot.yaml"
    (named,) = recordings(folder, robot="so101")
    assert named.tag == "new_embodiment"
    (tagged,) = recordings(folder, embodiment_tag="other")
    assert tagged.tag == "other"
    (exact,) = recordings(f"{folder}:exact:2.5", embodiment_tag="other")
    assert (exact.tag, exact.weight, exact.training.weight) == ("exact", 2.5, 2.5)


def test_held_out_episodes_are_not_learned_from() -> None:
    (found,) = recordings(eval_episodes=1)
    assert found.evaluation.episodes == (1,)
    assert found.training.episodes == (0, 2)
    (none,) = recordings()
    assert none.training.episodes is None
    with pytest.raises(
        TrainingError, match=r"--eval-episodes 3: .* has 3 episodes; at least one must be left"
    ):
        recordings(eval_episodes=3)


def test_skipped_episodes_are_in_no_part(tmp_path: Path) -> None:
    (found,) = recordings(skip_episodes=("1",), eval_episodes=1)
    assert (found.training.episodes, found.evaluation.episodes) == ((0,), (2,))
    assert found.identity()["skipped_episodes"] == [1]
    with pytest.raises(TrainingError, match=r"--eval-episodes 1: .* has 1 episodes; at least one must"):
        recordings(skip_episodes=("0-1",), eval_episodes=1)


def test_what_the_base_s_images_do_not_know(tmp_path: Path) -> None:
    """Sizes of its other image route would be taken and never used."""
    path = tmp_path / "base"
    shutil.copytree(base(), path)
    sizes = {"use_albumentations": False, "image_target_size": [256, 256], "image_crop_size": [230, 230]}
    edit_json(path / "processor_config.json", lambda c: c["processor_kwargs"].update(sizes))
    for changes in ({"image_edge": 112}, {"crop_fraction": 0.9}):
        with pytest.raises(TrainingError, match=r"--(image-edge|crop-fraction): .* use_albumentations false"):
            prepared(base=str(path), **changes)


def test_a_new_robot_s_processor() -> None:
    processor, told = prepared(
        robot="so101", horizon=8, crop_fraction=0.9, color_jitter=(0.1, 0.2, 0.3, 0.05)
    )
    assert processor.state_widths("new_embodiment") == {"arm": 5, "gripper": 1}
    assert processor.modality("new_embodiment")["action"].horizon == 8
    assert processor.options.crop_fraction == 0.9
    assert processor.options.color_jitter_params.saturation == 0.3
    assert processor.options.max_action_horizon == 50
    assert told[0].startswith("new_embodiment: cameras front, wrist; states arm, gripper; 8 steps of arm rel")


def test_what_the_base_knows_stays(tmp_path: Path) -> None:
    """Other tags keep their configuration and statistics; the run's own are measured, or the base's."""
    path = tmp_path / "base"
    shutil.copytree(base(), path)

    def twice(content: dict[str, Any]) -> None:
        configs = content.get("processor_kwargs", {}).get("modality_configs", content)
        configs["gr1"] = configs["new_embodiment"]

    edit_json(path / "processor_config.json", twice)
    edit_json(path / "statistics.json", twice)
    before = Gr00tProcessor.from_pretrained(path)
    processor, _ = prepared(base=str(path))
    processor.save_pretrained(tmp_path / "after")
    after = Gr00tProcessor.from_pretrained(tmp_path / "after")
    assert after.modality_configs == before.modality_configs
    assert after.options == before.options
    state = {key: value[0] for key, value in before.neutral_state("gr1").items()}
    assert {key: value[0].tolist() for key, value in after.neutral_state("gr1").items()} == {
        key: value.tolist() for key, value in state.items()
    }
    statistics = {kind: prepared(base=str(path), statistics=kind)[0]._statistics for kind in ("data", "base")}
    assert statistics["data"]["gr1"] == statistics["base"]["gr1"]
    assert statistics["data"]["new_embodiment"] != statistics["base"]["new_embodiment"]


def test_a_tag_of_one_s_own_gets_a_free_number(tmp_path: Path) -> None:
    processor, _ = prepared(f"{recording()}:left_robot", f"{recording()}:right_robot")
    numbers = [processor.embodiment_id(tag) for tag in ("left_robot", "right_robot")]
    assert numbers == [3, 4]
    processor.save_pretrained(tmp_path)
    assert Gr00tProcessor.from_pretrained(tmp_path).embodiment_id("right_robot") == 4


def spoiled(tmp_path: Path, file: str, change: Any) -> Path:
    folder = tmp_path / "spoiled"
    shutil.copytree(recording(), folder)
    edit_json(folder / file, change)
    return folder


def test_a_rate_that_is_not_the_robot_s(tmp_path: Path) -> None:
    folder = spoiled(tmp_path, "meta/info.json", lambda info: info.update(fps=30))
    with pytest.raises(
        Gr00tRosError, match=r"info.json: fps is 30, but .*so101.yaml has a step_rate of 20 Hz"
    ):
        recordings(folder, robot="so101")
    with pytest.raises(Gr00tRosError, match=r"fps is 30, .* of the same embodiment new_embodiment has 20"):
        recordings(recording(), folder)
    assert len(recordings(recording(), f"{folder}:other")) == 2


def test_rows_that_contradict_the_fps(tmp_path: Path) -> None:
    """fps is wrong in info.json, and no robot says so."""
    folder = spoiled(tmp_path, "meta/info.json", lambda info: info.update(fps=30))
    with pytest.raises(Gr00tRosError, match=r"timestamps are 50\.0 ms apart"):
        prepared(folder)


def test_a_modality_json_that_does_not_fit(tmp_path: Path) -> None:
    folder = spoiled(tmp_path, "meta/modality.json", lambda content: content["state"].pop("gripper"))
    with pytest.raises(Gr00tRosError, match=r"modality.json: state has no group 'gripper'; it has arm"):
        prepared(folder, base=str(base()))
    edit_json(folder / "meta/modality.json", lambda c: c["state"].update(gripper={"start": 5, "end": 9}))
    with pytest.raises(Gr00tRosError, match="gripper"):
        prepared(folder, robot="so101")


def test_statistics_that_are_missing() -> None:
    with pytest.raises(
        TrainingError, match=r"'new_embodiment' has no statistics.*--statistics data measures them in"
    ):
        prepared(base=str(checkpoint_without_statistics()), statistics="base")
    processor, _ = prepared(base=str(checkpoint_without_statistics()))
    processor.require_statistics("new_embodiment")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "base"}, "the base knows no embodiment 'new_embodiment', it knows none"),
        ({"horizon": 51, "robot": "so101"}, "needs max_action_horizon of at least 51, found 50"),
        ({"base": "BASE", "relative": ("arm",)}, "brings its own configuration.*need --modality new"),
        ({"base": "BASE", "horizon": 7}, "new_embodiment, with 16 steps; --horizon, .*need --modality new"),
        ({"robot": "so102"}, "neither a YAML file nor one of the shipped robots"),
    ],
)
def test_options_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    if changes.get("base") == "BASE":
        changes = {**changes, "base": str(base())}
    with pytest.raises(EVERYTHING_WRONG, match=message):
        prepared(**changes)


def test_constant_and_frozen_values_are_said(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "still", lengths=(5,), names=("a",) * 6)
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        still = pa.array([[1.0] * 6] * table.num_rows, table["observation.state"].type)
        table = table.set_column(table.column_names.index("observation.state"), "observation.state", still)
        pq.write_table(table, path)
    _, told = prepared(folder)
    assert any("state.arm" in line and "never change" in line for line in told)
    assert any("no state changes in all episodes: a frozen stream" in line for line in told)


def test_actions_chosen_to_be_relative_are_so_whatever_the_base_has(tmp_path: Path) -> None:
    """The switch of the base's processor is for its own configurations; it is off in one made without any."""
    folder = tmp_path / "base"
    shutil.copytree(base(), folder)
    edit_json(
        folder / "processor_config.json",
        lambda content: content["processor_kwargs"].update(use_relative_action=False),
    )
    kept, _ = prepared(base=str(folder), robot="so101")
    assert not kept.options.use_relative_action
    made, told = prepared(base=str(folder), robot="so101", modality="new")
    assert "arm relative" in told[0]
    assert made.options.use_relative_action
    none, _ = prepared(base=str(folder), robot="so101", modality="new", absolute=("all",))
    assert not none.options.use_relative_action
