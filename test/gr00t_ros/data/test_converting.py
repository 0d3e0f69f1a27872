# SPDX-License-Identifier: Apache-2.0
"""Bags are jobs: done once, done again when anything about them changed, and each on its own: the process of
one that dies is one bag that failed."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from gr00t_ros.data.bag_order import SetBack, Timed, by_time
from gr00t_ros.data.converting import Converted, ConvertOptions, Job, Progress, convert_bag, finished
from gr00t_ros.data.converting_jobs import Failed, run_jobs
from gr00t_ros.data.lerobot_writing import read_staged
from gr00t_ros.errors import DatasetError
from support_bags import JOINTS, NS, START, BagMaker, beside, crashed, told
from support_robots import small_robot


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("robot") / "robot.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"robot": small_robot()}}}))
    return path


def job(tmp_path: Path, robot: Path, name: str = "bag", seconds: float = 1.0) -> Job:
    bag = told(BagMaker()).run(seconds).write(tmp_path / name)
    return Job(bag, robot, tmp_path / "staged" / name, ConvertOptions(20.0))


def test_a_bag_is_converted_once_and_again_when_anything_changed(tmp_path: Path, robot: Path) -> None:
    first = job(tmp_path, robot)
    assert finished(first) is None
    made = convert_bag(first)
    assert (made.name, made.rows, made.skipped) == ("bag", 19, False)
    assert read_staged(made.episodes[0]).source["bag"] == "bag"
    assert convert_bag(first) == replace(made, skipped=True)
    assert finished(replace(first, options=ConvertOptions(10.0))) is None
    changed = tmp_path / "changed.yaml"
    changed.write_text(robot.read_text().replace("20.0", "25.0"))
    assert finished(replace(first, robot=changed)) is None
    # A staged episode that somebody removed, a record that was cut.
    (made.episodes[0] / "episode.json").rename(tmp_path / "away")
    assert finished(first) is None
    (tmp_path / "away").rename(made.episodes[0] / "episode.json")
    assert finished(first) is not None
    record = first.folder / "bag.json"
    text = record.read_text()
    record.write_text(text[: len(text) // 2])
    assert finished(first) is None
    record.write_text(text)
    with next(first.bag.glob("*.mcap")).open("ab") as file:  # the recording went on
        file.write(b"\0")
    assert finished(first) is None


def test_an_episode_with_an_unwanted_label_is_no_mistake_and_a_label_may_be_corrected(
    tmp_path: Path, robot: Path
) -> None:
    """With a bag for each episode, as the recorder makes them."""
    work = job(tmp_path, robot)
    unwanted = replace(work, options=ConvertOptions(20.0, leave_out=("failure",)))
    beside(work.bag, label="failure")
    made = convert_bag(unwanted)
    assert made.episodes == ()
    assert made.notes == ("bag is labelled failure and left out",)
    beside(work.bag, label="success")
    assert finished(unwanted) is None
    assert len(convert_bag(unwanted).episodes) == 1


def test_an_episode_that_breaks_off_for_a_moment_at_its_end_has_gaps_too(tmp_path: Path, robot: Path) -> None:
    """What is left after the gap is too short to be kept, and what was before it is no whole episode."""
    maker = told(BagMaker()).run(2.0)
    maker.messages = [m for m in maker.messages if not (m[0] == JOINTS and 1.5 < (m[2] - START) / NS < 1.75)]
    bag = maker.write(tmp_path / "bag")
    work = Job(bag, robot, tmp_path / "staged", ConvertOptions(20.0))
    assert [path.name for path in convert_bag(work).episodes] == ["episode_000000"]
    made = convert_bag(replace(work, options=ConvertOptions(20.0, gaps="leave-out")))
    assert made.episodes == ()
    assert [note.split(" and ")[0].split(":")[0] for note in made.notes] == [
        "bag (part 2) has 5 rows (0.25 s)",
        "bag is left out",
    ]
    assert (made.drops["too short"], made.drops["episode with gaps"]) == (5, 31)


def test_a_bag_whose_episodes_were_all_discarded_is_no_mistake(tmp_path: Path, robot: Path) -> None:
    """Whatever namespace the recorder had."""
    maker, topic = told(BagMaker()), "/left/episode_recorder/events"
    maker.event(0.0, "START", "one", "pick", topic=topic)
    maker.run(1.0).event(1.1, "DISCARD", "one", topic=topic)
    work = Job(maker.write(tmp_path / "bag"), robot, tmp_path / "staged", ConvertOptions(20.0))
    assert convert_bag(work).episodes == ()


def test_what_a_killed_run_left_is_removed_first(tmp_path: Path, robot: Path) -> None:
    work = job(tmp_path, robot)
    (work.folder / "episode_000000.partial").mkdir(parents=True)
    (work.folder / "episode_000000.partial" / "front.mp4").write_bytes(b"half a video")
    (work.folder / "episode_000001").mkdir()
    assert len(convert_bag(work).episodes) == 1
    assert sorted(path.name for path in work.folder.iterdir()) == ["bag.json", "episode_000000"]


def test_joints_that_never_move_are_no_problem(tmp_path: Path, robot: Path) -> None:
    bag = told(BagMaker()).run(1.0, position=0.3).write(tmp_path / "still")
    made = convert_bag(Job(bag, robot, tmp_path / "staged", ConvertOptions(20.0)))
    states = np.stack(read_staged(made.episodes[0]).table()["observation.state"].to_numpy())
    np.testing.assert_array_equal(states, np.tile(states[:1], (19, 1)))


def test_an_episode_without_rows_is_a_mistake_with_a_reason(tmp_path: Path, robot: Path) -> None:
    """Of no length: one message of each topic; and one whose recorder was killed before it wrote any."""
    maker = told(BagMaker()).run(0.05)
    work = Job(maker.write(tmp_path / "short"), robot, tmp_path / "staged", ConvertOptions(20.0))
    reason = r"no episode could be made; 1 rows left out: action\.arm: no command"
    with pytest.raises(DatasetError, match=reason):
        convert_bag(work)
    assert finished(work) is None
    empty = crashed(BagMaker().run(0.05).write(tmp_path / "empty"), keep=0.0)
    with pytest.raises(DatasetError, match="not an MCAP file"):
        convert_bag(replace(work, bag=empty))


def test_progress_is_told_and_what_it_raises_leaves_nothing(tmp_path: Path, robot: Path) -> None:
    work = job(tmp_path, robot, seconds=2.0)

    def stop(progress: Progress) -> None:
        assert 0.0 <= progress.share <= 1.0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_bag(work, stop)
    assert finished(work) is None
    assert not list(work.folder.glob("*.partial"))


def test_a_process_that_dies_is_one_bag_that_failed(tmp_path: Path, robot: Path) -> None:
    """As when the system ends one that takes too much memory; the other bags are converted."""
    jobs = [job(tmp_path, robot, f"bag{i}", seconds=6.0 if i == 0 else 1.0) for i in range(3)]
    killed = []

    def kill(number: int, progress: Progress) -> None:
        if number == 0 and not killed:
            [process, *_] = sorted(multiprocessing.active_children(), key=lambda p: p.name)
            killed.append(process)
            process.kill()

    outcomes = dict(run_jobs(jobs, 2, kill))
    assert len(killed) == 1
    assert isinstance(outcomes[0], Failed)
    assert "its process was ended by SIGKILL: out of memory? Try fewer --jobs" in outcomes[0].text
    assert [type(outcomes[i]) for i in (1, 2)] == [Converted, Converted]
    assert not multiprocessing.active_children()


def test_stopping_ends_the_processes(tmp_path: Path, robot: Path) -> None:
    jobs = [job(tmp_path, robot, f"bag{i}", seconds=3.0) for i in range(2)]
    calls = []

    def check() -> None:
        calls.append(None)
        if len(calls) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(jobs, 2, lambda *_: None, check))
    assert not multiprocessing.active_children()
    assert not (tmp_path / "staged" / "bag0" / "bag.json").exists()


def test_a_signal_to_all_processes_is_an_interruption(tmp_path: Path, robot: Path) -> None:
    """As `timeout` or a cluster sends it: the bags are not what failed."""
    jobs = [job(tmp_path, robot, f"bag{i}", seconds=3.0) for i in range(2)]
    ended: list[object] = []
    asked: list[object] = []
    outcomes: list[object] = []

    def end(number: int, progress: Progress) -> None:
        ended.append([process.terminate() for process in multiprocessing.active_children()])

    def check() -> None:
        if ended:
            asked.append(None)
        if len(asked) > 1:  # not before there was something to wait for
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcomes.extend(run_jobs(jobs, 2, end, check))  # keeps what came before
    assert not outcomes
    assert not multiprocessing.active_children()


# ---- the order of messages -----------------------------------------------------------------------


def arrivals(*pairs: tuple[float, float]) -> list[Timed[int]]:
    """(stamp, arrival) in s."""
    return [Timed(round(t * 1e9), round(r * 1e9), i) for i, (t, r) in enumerate(pairs)]


def test_messages_are_ordered_by_their_stamps_within_the_window() -> None:
    found = list(
        by_time(arrivals((1.0, 1.1), (0.95, 1.12), (1.3, 1.31), (1.05, 1.32), (0.9, 1.33)), 200_000_000)
    )
    assert [timed.item for timed in found if isinstance(timed, Timed)] == [1, 0, 3, 4, 2]


def test_a_clock_that_is_set_back_is_told_once_and_never_mixed() -> None:
    found = list(by_time(arrivals((9.0, 9.0), (9.5, 9.5), (1.0, 1.0), (1.5, 1.5)), 200_000_000))
    assert [f.by_ns if isinstance(f, SetBack) else f.item for f in found] == [0, 1, 8_500_000_000, 2, 3]
    ahead = list(by_time(arrivals((9.4, 9.0), (9.01, 9.0), (1.0, 1.0), (4.0, 1.0)), 200_000_000))
    assert [f.by_ns if isinstance(f, SetBack) else f.item for f in ahead] == [1, 8_000_000_000, 2]
    slow = list(by_time(arrivals((9.0, 9.0), (8.5, 8.5)), 200_000_000))  # less than a second: another thread
    assert not any(isinstance(f, SetBack) for f in slow)
