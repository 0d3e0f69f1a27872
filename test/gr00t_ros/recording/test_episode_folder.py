# SPDX-License-Identifier: Apache-2.0
"""Names that count on, labels that last, and nothing half deleted that looks whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gr00t_ros.errors import RecordingError
from gr00t_ros.recording.episode_folder import EpisodeFolder
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.marked_episode import MarkedEpisode

RECORD = EpisodeRecord("episode_000003", "so101", "pick", "pick", 1_000_000_000, 3_500_000_000, "stop")


def episode(path: Path, name: str = "episode_000003") -> Path:
    (path / name).mkdir(parents=True)
    RECORD.write(path / name / "episode.json")
    return path / name


def test_names_count_on_from_whatever_is_there(tmp_path: Path) -> None:
    folder = EpisodeFolder(tmp_path)
    assert [folder.new_name(), folder.new_name()] == ["episode_000000", "episode_000001"]
    for name in ("episode_000007", "episode_000011.recording", "episode_000009.json", "episode_5", "notes"):
        (tmp_path / name).mkdir()
    assert folder.new_name() == "episode_000012"
    assert EpisodeFolder(tmp_path).new_name() == "episode_000012"
    (tmp_path / "episode_1234567").mkdir()
    assert folder.new_name() == "episode_1234568"


def test_a_discarded_name_is_not_used_again(tmp_path: Path) -> None:
    folder = EpisodeFolder(tmp_path)
    name = folder.new_name()
    (tmp_path / f"{name}.recording").mkdir()
    folder.discard(name)
    assert folder.new_name() == "episode_000001"


def test_leftovers_are_listed_and_stay(tmp_path: Path) -> None:
    for name in ("episode_000002.recording", "episode_000001.recording", "episode_000000"):
        (tmp_path / name).mkdir()
    folder = EpisodeFolder(tmp_path)
    assert [path.name for path in folder.leftovers()] == [
        "episode_000001.recording", "episode_000002.recording",
    ]  # fmt: skip


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = episode(tmp_path) / "episode.json"
    assert EpisodeRecord.read(file) == RECORD
    assert json.loads(file.read_text())["duration_s"] == 2.5
    assert [path.name for path in file.parent.iterdir()] == ["episode.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "episode": "x"}', "\xff"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "episode.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(RecordingError, match=r"episode\.json"):
        EpisodeRecord.read(file)


def test_labels_by_name(tmp_path: Path) -> None:
    file = episode(tmp_path) / "episode.json"
    folder = EpisodeFolder(tmp_path)
    assert folder.label("episode_000003", "failure", "").label == "failure"
    corrected = folder.label("episode_000003", "", "place")
    assert EpisodeRecord.read(file) == corrected
    assert (corrected.label, corrected.instruction, corrected.told) == ("failure", "place", "pick")
    for name, said in (
        ("episode_000004", "there is no episode episode_000004 in"),
        ("../episode_000003", "is not an episode's name"),
        ("", "is not an episode's name"),
    ):
        with pytest.raises(RecordingError, match=said):
            folder.label(name, "success", "")


def test_discarding_deletes_one_episode(tmp_path: Path) -> None:
    episode(tmp_path)
    episode(tmp_path, "episode_000004")
    EpisodeFolder(tmp_path).discard("episode_000003")
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000004"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match=r"parameter output: .*file/below cannot be made a folder"):
        EpisodeFolder(tmp_path / "file" / "below").prepare()


def test_a_disk_that_is_almost_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = EpisodeFolder(tmp_path)
    free = 64_000_000

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free)

    monkeypatch.setattr("shutil.disk_usage", usage)
    assert folder.almost_full() == ""
    free = 63_400_000
    assert folder.almost_full() == "the disk is full: 63 MB are left"
    assert EpisodeFolder(tmp_path / "gone").almost_full(), "asked of the same disk"
    monkeypatch.undo()
    assert EpisodeFolder(tmp_path / "gone").almost_full() == ""


def test_an_episode_of_marks_is_one_file(tmp_path: Path) -> None:
    folder = EpisodeFolder(tmp_path)
    name = folder.new_name()
    marked = MarkedEpisode(folder, EpisodeRecord(name, "so101", "pick", "pick", 5))
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000000.json"]
    marked.label("success", "")
    marked.finish(9, "stop")
    folder.label(name, "", "place")
    record = EpisodeRecord.read(tmp_path / "episode_000000.json")
    assert (record.label, record.instruction, record.stop_ns) == ("success", "place", 9)
    assert folder.new_name() == "episode_000001"
    marked.discard()
    assert list(tmp_path.iterdir()) == []
