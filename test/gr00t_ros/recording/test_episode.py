# SPDX-License-Identifier: Apache-2.0
"""An episode from begin to end, without ROS: what is written is what came, whatever the disk does."""

from __future__ import annotations

import os
import re
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import Reader

from gr00t_ros.data.bags import Bag
from gr00t_ros.errors import RecordingError
from gr00t_ros.recording import bag_writing
from gr00t_ros.recording.audit import BAD, GOOD, USABLE
from gr00t_ros.recording.episode import Episode, Mark
from gr00t_ros.recording.episode_record import EpisodeRecord
from support_recording import (
    ARM,
    EXPECTED,
    FRONT,
    GRIPPER,
    HASH,
    INSTRUCTION,
    JOINTS,
    MS,
    START_NS,
    WRIST,
    FullDisk,
    begin,
    definition,
    instead_of_write,
    message,
)

Sent = list[tuple[str, int, bytes]]


def feed(episode: Episode, rows: int, size: int = 1000) -> Sent:
    """Twenty rows a second of everything that the robot has."""
    sent: Sent = []
    for row in range(rows):
        at_ns = START_NS + (50 * row + 5) * MS
        for topic in (JOINTS, FRONT, WRIST, ARM, GRIPPER):
            data = message(at_ns - 2 * MS, size if topic in (FRONT, WRIST) else 40)
            episode.add(topic, data, at_ns)
            sent.append((topic, at_ns, data))
    return sent


def stop_ns(rows: int) -> int:
    return START_NS + 50 * rows * MS


def in_bag(folder: Path) -> Sent:
    with Bag(folder) as bag:
        return sorted((m.topic, m.receive_ns, m.data) for m in bag.messages())


def chunks(file: Path) -> list[str]:
    """How the chunks of an MCAP file are compressed, as far as they are there."""
    data, at, found = file.read_bytes(), 8, []
    while at + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, at)
        if opcode == 0x06 and at + 9 + length <= len(data):
            # After two times, a size and a checksum.
            (letters,) = struct.unpack_from("<I", data, at + 9 + 28)
            found.append(data[at + 9 + 32 : at + 9 + 32 + letters].decode())
        at += 9 + length
    return found


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def test_every_byte_is_in_the_bag_and_the_audit_says_so(tmp_path: Path) -> None:
    episode = begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000000.recording"]
    text = Mark(INSTRUCTION, definition("std_msgs/msg/String"), b"\0\1\0\0text")
    episode.mark(text, START_NS)
    sent = feed(episode, 40)
    # What came before the episode, and of what nobody spoke, is not part of it.
    episode.add(FRONT, message(START_NS, 10), START_NS - 1)
    episode.add("/unknown", message(START_NS, 10), START_NS + MS)
    record = episode.finish(stop_ns(40), "stop")

    folder = tmp_path / "episode_000000"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert in_bag(folder) == sorted([*sent, (INSTRUCTION, START_NS, text.data)])
    assert record == EpisodeRecord.read(folder / "episode.json")
    assert (record.messages, record.ended_by, record.duration_s) == (len(sent) + 1, "stop", 2.0)
    assert record.audit["verdict"] == GOOD, record.audit["reasons"]
    front = record.audit["topics"][FRONT]
    assert (front["messages"], front["gaps"], front["used_by"]) == (40, 0, ["video.front"])
    assert front["rate"] == pytest.approx(20.0)
    assert front["offset_mean"] == pytest.approx(0.002)


def test_the_file_has_zstd_chunks_definitions_and_one_name(tmp_path: Path) -> None:
    episode = begin(tmp_path)
    sent = feed(episode, 3, size=1_200_000)
    episode.finish(stop_ns(3), "stop")
    folder = tmp_path / "episode_000000"
    assert sorted(path.name for path in folder.iterdir()) == [
        "episode.json", "episode_000000.mcap", "metadata.yaml",
    ]  # fmt: skip
    described = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert described["relative_file_paths"] == ["episode_000000.mcap"]
    assert described["message_count"] == 15
    assert len(chunks(folder / "episode_000000.mcap")) > 3
    assert set(chunks(folder / "episode_000000.mcap")) == {"zstd"}
    # By another reader than ours, which goes by the index at the end of the file.
    with Reader(folder) as reader:
        assert {c.topic: (c.msgtype, c.msgcount) for c in reader.connections} == {
            topic: (EXPECTED[topic].message_type, 3) for topic in (FRONT, WRIST, JOINTS, ARM, GRIPPER)
        }
        assert {c.digest for c in reader.connections} == {HASH}
        got = sorted((c.topic, at_ns, data) for c, at_ns, data in reader.messages())
    assert got == sorted(sent)


def test_damage_in_what_does_not_compress_is_found(tmp_path: Path) -> None:
    """Pictures of a real camera are noise: zstd stores them as they are, and only a checksum guards them."""
    episode, noise = begin(tmp_path), np.random.default_rng(0)
    sent = [
        (FRONT, START_NS + (k + 1) * MS, message(START_NS, 40) + noise.bytes(1_200_000)) for k in range(3)
    ]
    for topic, at_ns, data in sent:
        episode.add(topic, data, at_ns)
    episode.finish(stop_ns(3), "stop")
    file = tmp_path / "episode_000000" / "episode_000000.mcap"
    data = bytearray(file.read_bytes())
    data[600_000:600_064] = bytes(64)
    file.write_bytes(data)
    with Bag(file.parent) as bag:
        got = [m.data for m in bag.messages() if m.topic == FRONT]
        assert got == [data for _, _, data in sent[1:]]
        assert "damaged" in bag.recovered


def test_a_clock_that_is_set_back_costs_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gr00t_ros.recording.episode.EARLY_S", 0.0)
    episode = begin(tmp_path)
    sent = feed(episode, 20)
    early = (FRONT, START_NS - 10_000 * MS, message(START_NS - 10_000 * MS, 40))
    episode.add(early[0], early[2], early[1])
    record = episode.finish(stop_ns(20), "stop")
    assert in_bag(tmp_path / "episode_000000") == sorted([*sent, early])
    assert any("backwards" in reason for reason in record.audit["reasons"])


def test_missing_topics_make_a_bad_episode(tmp_path: Path) -> None:
    episode = begin(tmp_path)
    for row in range(20):
        for topic in (JOINTS, FRONT, ARM, GRIPPER):
            episode.add(topic, message(START_NS + 50 * row * MS), START_NS + 50 * row * MS)
    record = episode.finish(stop_ns(20), "stop")
    assert record.audit["verdict"] == BAD
    assert record.audit["reasons"] == [f"video.wrist ({WRIST}): no message"]


def test_silent_topics_are_named_while_it_runs(tmp_path: Path) -> None:
    episode = begin(tmp_path)
    until(lambda: len(episode.silent()) == 3, "cameras and joints are silent beyond their max_age")
    told = episode.silent()
    assert told[FRONT].startswith(f"video.front: nothing on {FRONT} for 0.")
    assert told[FRONT].endswith("s (at most 0.2 s)")
    episode.add(FRONT, message(START_NS + MS), START_NS + MS)
    assert FRONT not in episode.silent() or "for 0.2 s" in episode.silent()[FRONT]
    episode.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_label_is_kept_with_the_running_episode(tmp_path: Path) -> None:
    episode = begin(tmp_path)
    episode.label("success", "")
    at_once = EpisodeRecord.read(tmp_path / "episode_000000.recording/episode.json")
    assert (at_once.label, at_once.stop_ns, at_once.ended_by) == ("success", 0, "")
    episode.label("", "put it down")
    feed(episode, 1)
    record = episode.finish(stop_ns(1), "stop")
    assert (record.label, record.instruction, record.told) == ("success", "put it down", "pick up the cube")


def test_what_a_slow_disk_does_not_take_is_counted_and_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = threading.Event()

    def slow(file: int, data: memoryview) -> int:
        assert moving.wait(60.0)
        return os.write(file, data)

    episode = begin(tmp_path, queue_bytes=5_000_000)
    instead_of_write(monkeypatch, slow)
    most = 0
    for row in range(40):
        episode.add(FRONT, message(START_NS, 1_000_000), START_NS + row * MS)
        most = max(most, episode.queued_bytes)
    assert most <= 5_000_000
    assert episode.dropped >= 40 - 5 - 1  # a chunk holds at most two that the writer has taken already
    moving.set()
    record = episode.finish(START_NS + 40 * MS, "stop")
    dropped = record.audit["topics"][FRONT]["dropped"]
    assert len(in_bag(tmp_path / "episode_000000")) == record.messages == 40 - dropped
    assert f"video.front ({FRONT}): {dropped} messages came faster" in record.audit["reasons"][0]


@settings(max_examples=25)
@given(limit=st.integers(30_000, 3_500_000))
def test_a_full_disk_ends_the_bag_behind_its_last_whole_chunk(limit: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        disk = FullDisk(patch, limit)
        episode = begin(folder)
        sent = feed(episode, 10, size=300_000)
        problem = ""
        try:
            episode.finish(stop_ns(10), "stop")
        except RecordingError as error:
            problem = str(error)
        assert disk.refused
        if problem:  # not even one chunk and the index have room: what there is stays
            assert limit < 1_500_000
            assert re.search("nothing could be written|cannot be ended", problem)
            assert [path.name for path in folder.iterdir()] == ["episode_000000.recording"]
            return
        record = episode.record
        kept = in_bag(folder / "episode_000000")
        assert sorted(sent[: len(kept)]) == kept
        assert len(sent) > len(kept) == record.messages > 0
        assert record.audit["verdict"] in (USABLE, BAD)
        assert "cut short: [Errno 28] No space left on device" in record.audit["reasons"]


def test_a_failure_is_known_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, 50_000)
    episode = begin(tmp_path)
    feed(episode, 10, size=300_000)
    until(lambda: episode.failure, "the failure of the writer")
    assert "No space left on device" in episode.failure
    assert episode.dropped == 0, "what a failed disk does not take is not a matter of speed"
    episode.discard()


def test_what_a_killed_recorder_leaves_holds_all_but_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bag_writing, "FLUSH_PERIOD_S", 0.01)
    episode = begin(tmp_path)
    sent = feed(episode, 5)
    folder = tmp_path / "episode_000000.recording"
    # Nothing is closed: this is what is on the disk while the recorder runs.
    until(lambda: chunks(folder / "episode_000000.mcap") and in_bag(folder) == sorted(sent), "all messages")
    with Bag(folder) as bag:
        assert bag.recovered
    assert not (folder / "metadata.yaml").exists()
    episode.discard()


def test_an_episode_is_never_put_in_the_place_of_another(tmp_path: Path) -> None:
    episode = begin(tmp_path)
    feed(episode, 1)
    (tmp_path / "episode_000000").mkdir()
    with pytest.raises(RecordingError, match="exists already; the episode stays"):
        episode.finish(stop_ns(1), "stop")
    assert len(in_bag(tmp_path / "episode_000000.recording")) == 5


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "episode_000000.recording").write_text("a file")
    episode = begin(tmp_path)
    assert episode.record.episode == "episode_000001"
    episode.discard()
    with pytest.raises(RecordingError, match="cannot be written"):
        bag_writing.BagWriter(tmp_path / "episode_000000.recording", 1000)
