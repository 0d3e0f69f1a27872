# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: nothing that is not whole looks whole, and what is there is never lost by mistake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gr00t_ros.training import saving
from gr00t_ros.training.options import TrainingError

CONTENT = {"deciding": {"seed": 0, "base's contents": "a"}, "order": {"lanes": 2, "processes": 1}}


def write(output: Path, step: int) -> Path:
    """A checkpoint as a run leaves it."""
    partial = output / saving.PARTIAL
    partial.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "optimizer.pt", saving.TRAINED_FILE):
        (partial / name).write_text(f"{name} {step}")
    (partial / saving.STATE_FILE).write_text(json.dumps({"global_step": step}))
    saving.publish(partial, saving.folder(output, step))
    return saving.folder(output, step)


def test_a_new_run_does_not_touch_what_is_there(tmp_path: Path) -> None:
    saving.begin(tmp_path / "new", CONTENT)
    assert saving.go_on(tmp_path / "new", CONTENT["deciding"]) == CONTENT["order"]
    saving.begin(tmp_path / "new", CONTENT)  # it has no checkpoint yet: nothing to lose
    write(tmp_path / "new", 3)
    with pytest.raises(TrainingError, match="another run already; --resume goes on with it"):
        saving.begin(tmp_path / "new", CONTENT)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(TrainingError, match=r"other files \(new, notes.txt\) already; choose another"):
        saving.begin(tmp_path, CONTENT)
    with pytest.raises(TrainingError, match="is a file"):
        saving.begin(tmp_path / "notes.txt", CONTENT)


def test_only_the_same_run_is_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"run.json is missing: there is no run to go on with"):
        saving.go_on(tmp_path, {})
    saving.begin(tmp_path / "run", CONTENT)
    with pytest.raises(TrainingError, match=r"seed was 0 and is 1; repeat its options"):
        saving.go_on(tmp_path / "run", {"seed": 1, "base's contents": "a"})
    with pytest.raises(TrainingError, match=r": base's contents is another; repeat"):
        saving.go_on(tmp_path / "run", {"seed": 0, "base's contents": "b"})
    with pytest.raises(TrainingError, match=r"seed was 0 and is None"):
        saving.go_on(tmp_path / "run", {"base's contents": "a"})
    (tmp_path / "run/run.json").write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        saving.go_on(tmp_path / "run", {})


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        write(tmp_path, step)
    assert saving.checkpoint_steps(tmp_path) == [8, 9, 10, 11]
    (tmp_path / "checkpoint-11" / saving.TRAINED_FILE).write_text("cut")
    (tmp_path / "checkpoint-10" / saving.CONTENTS_FILE).unlink()
    found, passed = saving.find_checkpoint(tmp_path, "")
    assert found == tmp_path / "checkpoint-9"
    assert "trained.safetensors has 3 bytes instead of 22" in passed[0]
    assert "contents.json is missing" in passed[1]
    assert saving.step_of(found) == 9
    assert saving.find_checkpoint(tmp_path, "checkpoint-8")[0] == tmp_path / "checkpoint-8"
    assert saving.find_checkpoint(tmp_path, str(found))[0] == found
    with pytest.raises(TrainingError, match=r"cannot go on from checkpoint-11: .* has 3 bytes"):
        saving.find_checkpoint(tmp_path, "checkpoint-11")
    with pytest.raises(TrainingError, match=r"cannot go on from checkpoint-99: .* does not exist"):
        saving.find_checkpoint(tmp_path, "checkpoint-99")
    (found / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-8" / saving.CONTENTS_FILE).write_text("[]")
    with pytest.raises(TrainingError, match=r"no whole checkpoint .*optimizer.pt is missing.*cannot be read"):
        saving.find_checkpoint(tmp_path, "")


def test_an_unfinished_checkpoint_is_none(tmp_path: Path) -> None:
    """What a killed process leaves: the folder that is written to, and one that is being removed."""
    saving.begin(tmp_path, CONTENT)
    (tmp_path / saving.PARTIAL).mkdir()
    (tmp_path / saving.PARTIAL / "model.safetensors").touch()
    write(tmp_path / "other", 1).rename(tmp_path / ".checkpoint-1.gone")
    assert saving.checkpoint_steps(tmp_path) == []
    with pytest.raises(
        TrainingError, match="holds no whole checkpoint to go on from; start without --resume"
    ):
        saving.find_checkpoint(tmp_path, "")
    saving.clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run.json"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    (folder / "left.txt").touch()
    assert write(tmp_path, 3) == folder
    assert not (folder / "left.txt").exists()
    assert saving.damage(folder) == ""


def test_one_that_was_about_to_be_replaced_is_not_lost(tmp_path: Path) -> None:
    """Killed between the two renames of a checkpoint that is written twice."""
    folder = write(tmp_path, 3)
    folder.rename(tmp_path / ".checkpoint-3.old")
    saving.clear(tmp_path)
    assert saving.damage(folder) == ""
    write(tmp_path / "other", 3).rename(tmp_path / ".checkpoint-3.old")  # killed a moment later
    (folder / "new.txt").touch()
    saving.clear(tmp_path)
    assert (folder / "new.txt").exists()
    assert not (tmp_path / ".checkpoint-3.old").exists()


def test_the_oldest_are_removed(tmp_path: Path) -> None:
    for step in (90, 100, 110):
        write(tmp_path, step)
    saving.prune(tmp_path, 2, newest=110)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-100", "checkpoint-110"]
    saving.prune(tmp_path, 5, newest=110)
    assert len(saving.checkpoint_steps(tmp_path)) == 2


def test_what_was_just_written_stays_and_damaged_ones_do_not_count(tmp_path: Path) -> None:
    for step in (80, 90, 100, 110, 120):
        write(tmp_path, step)
    for step in (90, 100, 120):
        (saving.folder(tmp_path, step) / saving.CONTENTS_FILE).unlink()
    saving.prune(tmp_path, 2, newest=110)
    assert saving.checkpoint_steps(tmp_path) == [80, 110, 120]
    saving.prune(tmp_path, 1, newest=110)
    assert saving.checkpoint_steps(tmp_path) == [110, 120]


def test_what_is_later_than_the_start_is_set_aside(tmp_path: Path) -> None:
    for step in (4, 5, 6):
        write(tmp_path, step)
    assert saving.set_aside(tmp_path, 5) == [tmp_path / "checkpoint-6.aside"]
    assert saving.checkpoint_steps(tmp_path) == [4, 5]
    write(tmp_path, 6)
    assert saving.set_aside(tmp_path, 4) == [tmp_path / "checkpoint-5.aside", tmp_path / "checkpoint-6.aside"]
    assert saving.newest_whole(tmp_path) == tmp_path / "checkpoint-4"


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [tmp_path / name for name in ("one", "two", "moved")]
    for number, run in enumerate(runs):
        saving.begin(run, {**CONTENT, "deciding": {"seed": number % 2}})
        write(run, 3)
    assert saving.find_checkpoint(runs[0], str(runs[2] / "checkpoint-3"))[0] == runs[2] / "checkpoint-3"
    with pytest.raises(TrainingError, match=r"it is of another run, see .*two/run\.json"):
        saving.find_checkpoint(runs[0], str(runs[1] / "checkpoint-3"))
    (runs[2] / "run.json").unlink()
    with pytest.raises(TrainingError, match=r"no run\.json beside it says of which run it is"):
        saving.find_checkpoint(runs[0], str(runs[2] / "checkpoint-3"))
    # A name is that of one of the run's own first, wherever the command is given.
    monkeypatch.chdir(runs[1])
    assert saving.find_checkpoint(runs[0], "checkpoint-3")[0] == runs[0] / "checkpoint-3"


@pytest.mark.parametrize("links", [True, False])
def test_what_is_deployed_lies_at_the_top_in_the_end(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError("no links on this disk")

        monkeypatch.setattr("os.link", refuse)
    (tmp_path / "config.json").write_text("of an earlier end")
    saving.finish(write(tmp_path, 7), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-7",
        "config.json",
        "model.safetensors",
    ]
    assert (tmp_path / "config.json").read_text() == "config.json 7"


def test_the_disk_must_hold_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=25_000_000_000))
    saving.check_space(tmp_path / "not/there/yet", 8_000_000_000, 2)
    with pytest.raises(
        TrainingError,
        match=r"2 checkpoints and one in passing take 27.0 GB \(9.0 GB each\), 25.0 GB are free",
    ):
        saving.check_space(tmp_path, 9_000_000_000, 2)
    saving.check_space(tmp_path, 9_000_000_000, 2, present=2)
