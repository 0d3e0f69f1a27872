# SPDX-License-Identifier: Apache-2.0
"""rosbag2 folders of both storages read the same, compressed or not, in the order of recording; what is wrong
is named, and a recording that broke off reads as far as it goes."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import lz4.frame
import numpy as np
import pytest

from gr00t_ros.data.bags import Bag
from gr00t_ros.data.bags_packed import decompressed
from gr00t_ros.errors import DatasetError
from gr00t_ros.zstd import zstd_library
from support_bags import FRONT, GRIPPER, JOINTS, START, BagMaker, crashed, picture
from support_datasets import BAG_START_NS, frame, states, write_bag
from support_datasets import JOINTS as NAMES

KINDS = [
    ("mcap", "none"),
    ("mcap", "file"),
    ("mcap", "message"),
    ("mcap", "storage"),
    ("sqlite3", "none"),
    ("sqlite3", "file"),
    ("sqlite3", "message"),
]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_messages_come_in_order_and_decode(tmp_path: Path, storage: str) -> None:
    with Bag(write_bag(tmp_path / "bag", storage=storage)) as bag:
        assert bag.topics["/camera/front/image_raw"] == "sensor_msgs/msg/Image"
        assert bag.counts["/joint_states"] == 10
        messages = list(bag.messages())
        times = [message.receive_ns for message in messages]
        assert times == sorted(times)
        assert (times[0], len(times)) == (BAG_START_NS, 31)
        joints = [bag.decode(message) for message in messages if message.topic == "/joint_states"]
        assert joints[4].name == list(NAMES)
        np.testing.assert_array_equal(joints[4].position, states(0, 10)[4].astype(np.float64))
        pictures = [bag.decode(m) for m in messages if m.topic == "/camera/front/image_raw"]
        np.testing.assert_array_equal(pictures[7].data, frame(7, "front").reshape(-1))
        assert bag.recovered == ""


def test_topics_and_times_can_be_chosen(tmp_path: Path) -> None:
    with Bag(write_bag(tmp_path / "bag")) as bag:
        start, stop = BAG_START_NS + 60_000_000, BAG_START_NS + 210_000_000
        chosen = list(bag.messages(["/joint_states"], start, stop))
        assert {message.topic for message in chosen} == {"/joint_states"}
        assert [message.receive_ns - BAG_START_NS for message in chosen] == [
            60_000_000,
            110_000_000,
            160_000_000,
        ]
        assert list(bag.messages([])) == []
        with pytest.raises(DatasetError, match="no topic /camera/top; the bag has /camera/front/image_raw"):
            list(bag.messages(["/camera/top"]))


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_every_storage_and_compression_reads_the_same(tmp_path: Path, storage: str, compression: str) -> None:
    maker = BagMaker().run(0.3)
    folder = maker.write(tmp_path / "bag", storage=storage, compression=compression)
    with Bag(folder) as bag:
        assert bag.recovered == ""
        found = list(bag.stored())
        assert [(m.topic, m.receive_ns) for m in found] == [(t, r) for t, _, r, _ in maker.messages]
        pictures = [bag.types.decode(m.type, m.data, m.topic) for m in found if m.topic == FRONT]
        for number, message in enumerate(pictures):
            np.testing.assert_array_equal(message.data, picture(number).reshape(-1))
        assert sum(bag.counts.values()) == len(maker.messages)


@pytest.mark.parametrize("compression", ["LZ4", "ZSTD", "NONE"])
@pytest.mark.parametrize("chunked", [True, False])
def test_mcap_of_another_writer(tmp_path: Path, compression: str, chunked: bool) -> None:
    """rosbag2's own writer (libmcap) writes checksums and lz4 chunks; with fastwrite no chunks at all."""
    mcap = pytest.importorskip("mcap.writer", reason="needs another writer of MCAP")
    maker = BagMaker().run(0.2)
    path = tmp_path / "other.mcap"
    with path.open("wb") as file:
        kind = mcap.CompressionType[compression]
        writer = mcap.Writer(file, chunk_size=4000, compression=kind, use_chunking=chunked)
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        for topic, kind, receive, message in maker.messages:
            if topic not in channels:
                text = maker.store.generate_msgdef(kind, ros_version=2)[0].encode()
                schema = writer.register_schema(kind, "ros2msg", text)
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            data = bytes(maker.store.serialize_cdr(message, kind))
            writer.add_message(channels[topic], receive, data, receive)
        writer.finish()
    with Bag(path) as bag:
        assert len(list(bag.stored())) == len(maker.messages) == sum(bag.counts.values())
        assert bag.recovered == ""
    whole = path.read_bytes()
    for share in (0.35, 0.8):
        path.write_bytes(whole[: round(len(whole) * share)])
        with Bag(path) as bag:
            found = [(m.topic, m.receive_ns) for m in bag.stored()]
            assert found == [(t, r) for t, _, r, _ in maker.messages][: len(found)]
            assert len(found) > 0.2 * share * len(maker.messages)
            # A cut in the index, behind the data, loses nothing.
            assert "breaks off after" in bag.recovered or len(found) == len(maker.messages)


def by_topic(path: Path, maker: BagMaker, chunked: bool) -> None:
    """One topic behind the other, as a tool writes them that converts bags."""
    mcap = pytest.importorskip("mcap.writer", reason="needs another writer of MCAP")
    with path.open("wb") as file:
        writer = mcap.Writer(file, chunk_size=4000, use_chunking=chunked)
        writer.start(profile="ros2", library="test")
        for topic in sorted({message[0] for message in maker.messages}):
            kind = next(k for t, k, _, _ in maker.messages if t == topic)
            text = maker.store.generate_msgdef(kind, ros_version=2)[0].encode()
            channel = writer.register_channel(topic, "cdr", writer.register_schema(kind, "ros2msg", text))
            for _, _, receive, message in (m for m in maker.messages if m[0] == topic):
                data = bytes(maker.store.serialize_cdr(message, kind))
                writer.add_message(channel, receive, data, receive)
        writer.finish()


@pytest.mark.parametrize("chunked", [True, False])
def test_mcap_that_was_written_topic_by_topic_is_read_by_time(tmp_path: Path, chunked: bool) -> None:
    maker = BagMaker().run(2.0)
    by_topic(tmp_path / "tool.mcap", maker, chunked)
    with Bag(tmp_path / "tool.mcap") as bag:
        found = [(m.topic, m.receive_ns) for m in bag.stored()]
        assert sorted(found) == sorted((t, r) for t, _, r, _ in maker.messages)
        assert [time for _, time in found] == sorted(time for _, time in found)
        assert len(list(bag.stored([JOINTS]))) == 40


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_no_more_is_unpacked_than_was_asked_for(compression: str) -> None:
    """Damage, or somebody's malice, may claim any length."""
    zeros = bytes(10_000_000)
    packed = lz4.frame.compress(zeros) if compression == "lz4" else zstd_library().compress(zeros)
    assert len(decompressed(memoryview(packed), compression, 1000)) == 1000
    assert decompressed(memoryview(packed), compression, len(zeros)) == zeros


def test_a_damaged_chunk_is_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    maker = BagMaker().run(1.0, size=(120, 160))
    folder = maker.write(tmp_path / "bag", compression="storage")
    file = next(folder.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 64] = bytes(64)
    file.write_bytes(data)
    with Bag(folder) as bag:
        found = list(bag.stored())
        assert 0 < len(found) < len(maker.messages)
        assert "chunk at byte" in bag.recovered


def test_a_damaged_message_is_left_out_and_told(tmp_path: Path) -> None:
    maker = BagMaker().run(0.5, size=(120, 160))
    folder = maker.write(tmp_path / "bag", storage="sqlite3", compression="message")
    with sqlite3.connect(next(folder.glob("*.db3"))) as database:
        [data] = database.execute("SELECT data FROM messages WHERE id = 24").fetchone()
        database.execute("UPDATE messages SET data = ? WHERE id = 24", (data[:9] + bytes(40) + data[49:],))
    with Bag(folder) as bag:
        assert len(list(bag.stored())) == len(maker.messages) - 1
        assert f"a message on {maker.messages[23][0]} is left out (zstd data is damaged" in bag.recovered


def test_a_recording_that_broke_off_reads_as_far_as_it_goes(tmp_path: Path) -> None:
    maker = BagMaker().run(1.0, size=(120, 160))
    for compression in ("none", "storage"):
        folder = crashed(maker.write(tmp_path / compression, compression=compression), keep=0.7)
        with Bag(folder) as bag:
            found = [(m.topic, m.receive_ns) for m in bag.stored()]
            assert found == [(t, r) for t, _, r, _ in maker.messages][: len(found)]
            assert len(found) > 0.55 * len(maker.messages)
            assert bag.counts[JOINTS] == sum(topic == JOINTS for topic, _ in found)
            assert bag.end_ns == found[-1][1]
            assert "no metadata.yaml; " in bag.recovered
            assert "breaks off after" in bag.recovered
            assert f"{len(found)} messages over 0." in bag.recovered


def test_a_recording_of_which_nothing_came_to_the_disk(tmp_path: Path) -> None:
    folder = crashed(BagMaker().run(0.1).write(tmp_path / "bag"))
    file = next(folder.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:40])
    with Bag(folder) as bag:
        assert list(bag.stored()) == []
        assert "0 messages over 0.0 s" in bag.recovered
    file.write_bytes(b"")
    with pytest.raises(DatasetError, match="not an MCAP file"), Bag(folder):
        pass


def test_sqlite_without_metadata_and_with_a_journal(tmp_path: Path) -> None:
    maker = BagMaker().run(0.3)
    folder = crashed(maker.write(tmp_path / "bag", storage="sqlite3"))
    with Bag(folder) as bag:
        assert len(list(bag.stored())) == len(maker.messages)
        assert bag.recovered.startswith("no metadata.yaml; ")
    # A killed recorder leaves what it wrote last in the journal beside the file.
    file = next(folder.glob("*.db3"))
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("DELETE FROM messages WHERE id % 2 = 0")
    database.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for path in folder.iterdir():
        shutil.copy2(path, killed / path.name)
    database.close()
    with Bag(killed) as bag:
        assert len(list(bag.stored())) == (len(maker.messages) + 1) // 2


def test_a_damaged_sqlite_file_reads_up_to_the_damage(tmp_path: Path) -> None:
    maker = BagMaker().run(1.0, size=(120, 160))
    folder = maker.write(tmp_path / "bag", storage="sqlite3")
    file = next(folder.glob("*.db3"))
    data = bytearray(file.read_bytes())
    del data[len(data) // 2 :]
    file.write_bytes(data)
    with Bag(folder) as bag:
        assert 0 < len(list(bag.stored())) < len(maker.messages)
        assert "is damaged after" in bag.recovered


def test_bags_without_definitions_and_with_strange_ones(tmp_path: Path) -> None:
    maker = BagMaker().run(0.1)
    with Bag(maker.write(tmp_path / "old", storage="sqlite3", typeless=True)) as bag:
        joints = next(m for m in bag.stored([JOINTS]))
        assert bag.decode(joints).name == ["shoulder", "elbow", "gripper"]
    # A custom message that nobody can parse disturbs only who asks for it.
    folder = maker.write(tmp_path / "strange", storage="sqlite3")
    with sqlite3.connect(next(folder.glob("*.db3"))) as database:
        database.execute("INSERT INTO topics VALUES (99, '/odd', 'odd_msgs/msg/Odd', 'cdr', '', '')")
        database.execute("INSERT INTO messages VALUES (9999, 99, ?, x'0001000001')", (START,))
        database.execute(
            "INSERT INTO message_definitions VALUES (99, 'odd_msgs/msg/Odd', 'ros2msg', 'what?! ; this', '')"
        )
    with Bag(folder) as bag:
        assert bag.topics["/odd"] == "odd_msgs/msg/Odd"
        assert len(list(bag.stored([GRIPPER]))) == 2
        with pytest.raises(DatasetError, match="/odd: the definition of odd_msgs/msg/Odd in the bag cannot"):
            bag.decode(next(bag.stored(["/odd"])))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_file_of_one_topic_after_another_is_read_by_time(tmp_path: Path, storage: str) -> None:
    """As a tool writes it; a clock that was set back looks different: then the topics themselves go back."""
    maker = BagMaker().run(3.0, size=(120, 160))
    by_topic = BagMaker()
    by_topic.messages = sorted(maker.messages, key=lambda m: m[0])
    with Bag(by_topic.write(tmp_path / "topics", storage=storage)) as bag:
        times = [message.receive_ns for message in bag.stored()]
        assert len(times) == len(maker.messages)
        assert times == sorted(times)
    back = BagMaker().run(3.0, size=(120, 160)).run(3.0, begin=-60.0, size=(120, 160))
    with Bag(back.write(tmp_path / "back", storage=storage)) as bag:
        assert [m.receive_ns for m in bag.stored()] == [r for _, _, r, _ in back.messages]


def test_split_bags_and_what_metadata_does_not_know(tmp_path: Path) -> None:
    first, second = BagMaker().run(0.2), BagMaker().run(0.2, begin=0.2)
    folder = first.write(tmp_path / "bag")
    other = second.write(tmp_path / "other")
    shutil.copy2(next(other.glob("*.mcap")), folder / "bag_10.mcap")
    with Bag(folder) as bag:
        assert len(list(bag.stored())) == len(first.messages) + len(second.messages)
        assert bag.recovered.startswith("bag_10.mcap not in metadata.yaml, taken too; ")
    next(folder.glob("bag.mcap")).unlink()
    with Bag(folder) as bag:
        assert "bag.mcap missing, which metadata.yaml names" in bag.recovered
        assert f"{len(second.messages)} messages" in bag.recovered


def test_folders_that_are_no_bags_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        Bag(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no recording; expected a rosbag2 folder"):
        Bag(tmp_path)
    (tmp_path / "notes.txt").write_text("no bag")
    with pytest.raises(DatasetError, match=r"notes\.txt is not a recording"):
        Bag(tmp_path / "notes.txt")


def test_a_bag_without_its_storage_file_is_named(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag")
    next(folder.glob("*.mcap")).unlink()
    with pytest.raises(DatasetError, match=r"cannot be read as a rosbag2: bag\.mcap missing"):
        Bag(folder)
