# SPDX-License-Identifier: Apache-2.0
"""bag_to_dataset: whole datasets from bags, in one process or several, whole or in shares, after whatever
interruption; and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gr00t_ros.cli.bag_to_dataset import main
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.whole_files import alone
from support_bags import JOINTS, BagMaker, beside, crashed, picture
from support_robots import REPOSITORY, small_robot

COMMAND = [sys.executable, "-m", "gr00t_ros.cli.bag_to_dataset"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the robot's YAML and three bags, as a recorder leaves them."""
    folder = tmp_path_factory.mktemp("recordings")
    values = {"/**": {"ros__parameters": {"robot": small_robot()}}}
    (folder / "robot.yaml").write_text(yaml.safe_dump(values))
    for number, (seconds, task) in enumerate([(1.0, "pick"), (2.0, "place"), (1.5, "pick")]):
        maker = BagMaker()
        maker.instruction(0.0, task)
        storage = "sqlite3" if number == 1 else "mcap"
        maker.run(seconds).write(folder / "bags" / f"episode_{number:06d}", storage=storage)
    return folder


def convert(place: Path, *options: Any) -> int:
    return main([*map(str, options), "--robot", str(place / "robot.yaml")])


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one line about a mistake."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bag_to_dataset: ")]
    return "\n".join(lines)


def contents(dataset: Path) -> dict[str, bytes]:
    """Every file but what says where the data came from."""
    files = (path for path in dataset.rglob("*") if path.is_file() and path.name != "conversion.json")
    return {str(path.relative_to(dataset)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """All three bags in one process."""
    output = place / "whole"
    assert convert(place, place / "bags", "--output", output, "--jobs", 1) == 0
    return output


def test_a_folder_of_bags_becomes_a_dataset(place: Path, whole: Path) -> None:
    dataset = LeRobotDataset(whole)
    assert [len(dataset.episode(i).timestamps) for i in dataset.episodes] == [19, 39, 29]
    assert [dataset.episode(i).instructions[0] for i in dataset.episodes] == ["pick", "place", "pick"]
    episode = dataset.episode(1)
    np.testing.assert_allclose(episode.timestamps, np.arange(39) / 20.0, atol=1e-5)
    np.testing.assert_allclose(episode.column("observation.state")[4, :2], [0.05, -0.05], atol=1e-6)
    frames = list(episode.frames("observation.images.front", 0, 39))
    assert np.abs(frames[7].astype(int) - picture(8)).mean() < 8
    record = json.loads((whole / "meta/conversion.json").read_text())
    assert [bag["rows"] for bag in record["bags"]] == [19, 39, 29]
    assert record["options"]["fps"] == 20.0
    assert record["episodes"][1]["source"]["bag"] == "episode_000001"
    assert (whole / "meta/robot.yaml").read_bytes() == (place / "robot.yaml").read_bytes()
    assert not whole.with_name("whole.partial").exists()


def test_processes_and_shares_give_the_same(place: Path, whole: Path, capsys: Any) -> None:
    output = place / "parallel"
    assert convert(place, place / "bags", "--output", output, "--jobs", 2) == 0
    assert contents(output) == contents(whole)
    shares = [place / f"share_{i}" for i in (1, 2)]
    for i, share in enumerate(shares, start=1):
        arguments = (place / "bags", "--output", share, "--shard", f"{i}/2", "--jobs", 1)
        assert convert(place, *arguments) == 0
    capsys.readouterr()
    joined = place / "joined"
    assert main(["--merge", *map(str, shares), "--output", str(joined)]) == 0
    assert "3 episodes, 87 rows" in capsys.readouterr().out
    assert contents(joined) == contents(whole)
    again = ("--output", place / "again")
    assert "share_2: is the same share 2/2 as" in refused(capsys, "--merge", *shares, shares[1], *again)
    assert "share 1/2 is missing: a merge" in refused(capsys, "--merge", shares[1], *again)
    # Its report is that of both: also rows that no episode tells of are counted.
    drops = [json.loads((d / "meta/conversion.json").read_text())["report"]["drops"] for d in (whole, joined)]
    assert drops[0] == drops[1] == {"action.arm no_message": 3}


def test_two_commands_do_not_make_one_output(place: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    with alone(tmp_path / "out.partial"):
        text = refused(capsys, place / "bags", "--robot", place / "robot.yaml", "--output", output)
        assert "out.partial: another process works there" in text
        assert "another process works there" in refused(
            capsys, "--merge", place / "whole", "--output", output
        )
    assert convert(place, place / "bags" / "episode_000000", "--output", output, "--jobs", 1) == 0
    assert not (tmp_path / "out.partial").exists()


def test_the_other_format_another_rate_and_size(place: Path, capsys: Any) -> None:
    output = place / "small"
    bag = place / "bags" / "episode_000001"
    options = ("--format", "v3.0", "--fps", 10, "--size", 16, "--task", "tidy up", "--jobs", 1)
    assert convert(place, bag, "--output", output, *options) == 0
    dataset = LeRobotDataset(output)
    assert dataset.version == "v3.0"
    assert dataset.fps == 10.0
    episode = dataset.episode(0)
    assert len(episode.timestamps) == 19
    assert set(episode.instructions) == {"tidy up"}
    assert "note: rows are 10 a second, the robot's step_rate is 20: " in capsys.readouterr().out
    [frame] = list(episode.frames("observation.images.wrist", 3, 4))
    assert frame.shape == (16, 22, 3)  # even: 4:2:0


def test_what_is_odd_is_said(place: Path, tmp_path: Path, capsys: Any) -> None:
    maker = BagMaker()
    maker.instruction(0.0, "pick")
    maker.run(2.0)
    gap = [m for m in maker.messages if m[0] == JOINTS][20:30]
    maker.messages = [m for m in maker.messages if not any(m is g for g in gap)]
    gapped = maker.write(tmp_path / "gapped")
    cut = crashed(BagMaker().run(2.0, size=(120, 160)).write(tmp_path / "cut.recording"), keep=0.8)
    beside(cut, "episode_000003", instruction="cut off")
    bags = (gapped, cut, place / "bags" / "episode_000000")
    assert convert(place, *bags, "--output", tmp_path / "out", "--jobs", 1) == 0
    out = capsys.readouterr().out
    assert "note: cut: no metadata.yaml; " in out
    assert "breaks off after" in out
    assert "state.arm stale" in out
    assert "the latest message on /joint_states is 0.1" in out
    # A dataset has one size; the other recording is left out, and said to be.
    assert "episode_000003, " in out
    assert "is left out: front 160x120, wrist 160x120, the others have front 32x24" in out
    assert "contact sheet: " in out
    assert re.search(r"\d\d  another picture size", out)
    dataset = LeRobotDataset(tmp_path / "out")
    lengths = [len(dataset.episode(i).timestamps) for i in dataset.episodes]
    assert len(lengths) == 3
    assert sum(lengths[:2]) == pytest.approx(39 - 8, abs=1)
    assert lengths[2] == 19
    # The same, with episodes that have gaps left out.
    options = ("--gaps", "leave-out", "--output", tmp_path / "clean", "--jobs", 1)
    assert convert(place, gapped, *bags[2:], *options, "--skip-bad") == 0
    assert [len(e) for e in (LeRobotDataset(tmp_path / "clean").episode(0).timestamps,)] == [19]


def test_short_parts_and_unwanted_labels_are_left_out(place: Path, tmp_path: Path, capsys: Any) -> None:
    maker = BagMaker()
    maker.instruction(0.0, "pick")
    maker.run(4.0)
    maker.event(0.0, "START", "episode_0", "pick")
    maker.event(1.0, "STOP", "episode_0", "pick", "failure")
    maker.event(1.1, "START", "episode_1", "pick")
    maker.event(1.3, "STOP", "episode_1", "pick")
    maker.event(2.0, "START", "episode_2", "pick")
    maker.event(3.0, "STOP", "episode_2", "pick")
    maker.event(3.1, "LABEL", "episode_0", "pick", "failure")
    maker.event(3.2, "START", "episode_3", "pick")  # no row: nothing comes after it
    maker.event(3.2, "STOP", "episode_3", "pick")
    maker.messages.sort(key=lambda message: message[2])
    bag = maker.write(tmp_path / "bag")
    assert convert(place, bag, "--output", tmp_path / "out", "--leave-out", "failure", "--jobs", 1) == 0
    out = capsys.readouterr().out
    assert "episode_0 is labelled failure and left out" in out
    assert "episode_1 has 4 rows (0.20 s) and is left out: shorter than 0.5 s" in out
    assert "24 rows left out (54.5%):" in out
    assert "19  label failure" in out
    assert "4  too short" in out
    assert "rows left out for label failure, the first: episode_0 is labelled failure" in out
    dataset = LeRobotDataset(tmp_path / "out")
    assert len(list(dataset.episodes)) == 1
    record = json.loads((tmp_path / "out/meta/conversion.json").read_text())
    assert record["episodes"][0]["source"]["episode"] == "episode_2"


def test_mistakes_are_one_line_and_leave_what_is_converted(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, robot, output = place / "bags" / "episode_000000", place / "robot.yaml", tmp_path / "out"
    common = ("--robot", robot, "--jobs", 1)
    maker = BagMaker()
    maker.instruction(0.0, "pick")
    maker.run(1.0)
    for topic, _, _, message in maker.messages:
        if topic == JOINTS:
            message.name[2] = "claw"
    bad = maker.write(tmp_path / "bad")
    text = refused(capsys, good, bad, "--output", output, *common)
    assert "bad: no episode could be made; 20 rows left out: state.gripper: no message yet on " in text
    assert "/joint_states with gripper" in text
    assert "1 of 2 bags could not be converted; 1 converted bags are kept in" in text
    assert not output.exists()
    assert main([*map(str, (good, bad, "--output", output, *common, "--skip-bad"))]) == 0
    assert "note: left out: " in capsys.readouterr().out
    assert f"{output} exists; --force replaces it" in refused(capsys, good, "--output", output, *common)
    assert main([*map(str, (good, "--output", output, *common, "--force"))]) == 0
    (tmp_path / "empty").mkdir()
    for arguments, expected in [
        ((tmp_path / "nowhere",), "nowhere does not exist"),
        ((tmp_path / "empty",), "no recording in it"),
        ((good, "--episodes", "marks"), "no mark of the recorder"),
        ((good, "--shard", "1/2"), "share 1 of 2 of 1 bags is empty"),
        ((good, "--task", " "), "--task is empty"),
        ((good, "--size", 4), "video size 4"),
    ]:
        assert expected in refused(capsys, *arguments, "--output", tmp_path / "other", *common)
    assert "give one BAG or more, and --robot" in refused(capsys, good, "--output", tmp_path / "other")
    assert "--merge joins datasets" in refused(
        capsys, good, "--merge", output, "--output", tmp_path / "other"
    )
    assert "robot 'nobody' is neither" in refused(
        capsys, good, "--robot", "nobody", "--output", tmp_path / "other"
    )
    assert not (tmp_path / "other").exists()


# ---- interruptions -------------------------------------------------------------------------------


@pytest.fixture
def long_bags(place: Path, tmp_path: Path) -> list[Path]:
    """One bag that is soon done and one that takes a while."""
    bags = []
    for name, seconds in (("short", 1.0), ("long", 15.0)):
        maker = BagMaker()
        maker.instruction(0.0, "pick")
        bags.append(maker.run(seconds, size=(120, 160)).write(tmp_path / name))
    return bags


def start(arguments: list[Any], **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    }
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + 60.0
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_was_converted_before_an_interruption_is_not_converted_again(
    place: Path, tmp_path: Path, long_bags: list[Path], number: signal.Signals, capsys: Any
) -> None:
    output = tmp_path / "out"
    arguments = [*long_bags, "--output", output, "--robot", place / "robot.yaml", "--jobs", 1]
    process = start(arguments)
    staged = output.with_name("out.partial") / "bags"
    # The second bag is under way: its first episode is being written.
    wait_for(lambda: list(staged.glob("long-*/*.partial")), process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    [done] = staged.glob("*/bag.json")
    assert done.parent.name.startswith("short-")
    assert not output.exists()
    if number == signal.SIGINT:
        assert process.returncode == 130, errors
        assert "bag_to_dataset: interrupted; 1 converted bags are kept in" in errors
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    assert "1 of 2 bags had been converted by an earlier run" in capsys.readouterr().out
    dataset = LeRobotDataset(output)
    assert [len(dataset.episode(i).timestamps) for i in dataset.episodes] == [19, 299]
    assert not staged.exists()


def test_a_full_disk_stops_everything_and_keeps_what_is_whole(
    place: Path, tmp_path: Path, long_bags: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for a disk that is full in the middle of a video."""
    output = tmp_path / "out"
    arguments = [*long_bags, "--output", output, "--robot", place / "robot.yaml", "--jobs", 1]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    process = start(arguments, preexec_fn=limit)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    told = [line for line in errors.splitlines() if line.startswith("bag_to_dataset: ")]
    assert "largest size" in told[0]
    assert "1 converted bags are kept in" in told[1]
    assert not output.exists()
    assert len(list(output.with_name("out.partial").glob("bags/*/bag.json"))) == 1
    assert not list(output.with_name("out.partial").glob("bags/long-*/episode_*/episode.json"))
    assert main([str(argument) for argument in arguments]) == 0
    assert LeRobotDataset(output).episode(1).timestamps.size == 299
