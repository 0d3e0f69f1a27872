# SPDX-License-Identifier: Apache-2.0
"""rosbag2 folders of both storages read the same, in order; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gr00t_ros.data.bags import Bag
from gr00t_ros.errors import DatasetError
from support_datasets import BAG_START_NS, JOINTS, frame, states, write_bag


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
        assert joints[4].name == list(JOINTS)
        np.testing.assert_array_equal(joints[4].position, states(0, 10)[4].astype(np.float64))
        pictures = [bag.decode(m) for m in messages if m.topic == "/camera/front/image_raw"]
        np.testing.assert_array_equal(pictures[7].data, frame(7, "front").reshape(-1))


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


def test_folders_that_are_no_bags_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        Bag(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no metadata\.yaml; expected a rosbag2 folder"):
        Bag(tmp_path)


def test_a_bag_without_its_storage_file_is_named(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag")
    next(folder.glob("*.mcap")).unlink()
    with pytest.raises(DatasetError, match="bag: cannot be read as a rosbag2"), Bag(folder):
        pass


def test_a_cut_bag_is_named(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag")
    storage = next(folder.glob("*.mcap"))
    storage.write_bytes(storage.read_bytes()[:3000])
    with pytest.raises(DatasetError, match="bag"), Bag(folder) as bag:
        list(bag.messages())
