# SPDX-License-Identifier: Apache-2.0
"""What cannot be used is left out, counted and named, and never joins what is apart in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gr00t_ros.data.bag_rows import BagRows
from gr00t_ros.data.bags import Bag
from gr00t_ros.errors import DatasetError, MessageError
from gr00t_ros.observation import ObservationBuilder
from support_bags import (
    ARM,
    FRONT,
    GRIPPER,
    INSTRUCTION,
    JOINTS,
    NS,
    SIZE,
    START,
    WRIST,
    BagMaker,
    picture,
    told,
)
from support_messages import modality
from support_rows import STEP, config, read, seconds, written


def test_a_clock_that_is_set_back_splits_and_mixes_nothing(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.5)
    for number in range(40, 70):
        maker.moment((number - 40) * STEP - 30.0 + 0.003, number)
    folder = maker.write(tmp_path / "bag")  # as recorded, not sorted
    parts, reader = read(folder)
    assert [len(rows) for _, rows in parts] == [29, 29]
    assert parts[1][0].because == "the clock was set back by 31.5 s"
    assert reader.notes == ["the clock was set back by 31.5 s"]
    for first, rows in ((1, parts[0][1]), (41, parts[1][1])):
        for k, row in enumerate(rows):
            np.testing.assert_array_equal(row.video["front"], picture(first + k))
            np.testing.assert_allclose(row.state["arm"][0], 0.01 * (first + k), atol=1e-6)


@pytest.mark.parametrize(
    ("topic", "cause"),
    [
        (FRONT, "video.front stale"),
        (JOINTS, "state.arm stale"),
        (ARM, "action.arm stale"),
        (GRIPPER, "action.gripper stale"),
    ],
)
def test_a_topic_that_is_missing_for_seconds(tmp_path: Path, topic: str, cause: str) -> None:
    maker = told(BagMaker()).run(6.0)
    maker.messages = [m for m in maker.messages if not (m[0] == topic and 2.0 < seconds(m[2]) < 4.0)]
    parts, reader = read(written(tmp_path, maker))
    assert len(parts) == 2
    # 2 s, less what is held until max_age: 0.2 s (camera), 0.1 s (state), 0.5 s (commands).
    held = {FRONT: 0.2, JOINTS: 0.1, ARM: 0.55, GRIPPER: 0.5}[topic]
    assert reader.drops[cause] == pytest.approx((2.0 - held) / STEP, abs=2)
    assert f"{reader.drops[cause]} rows" in parts[1][0].because
    assert topic in reader.texts[cause]
    for _, rows in parts:
        gaps = np.diff([row.t_obs_ns for row in rows]) / NS
        assert gaps.max() < 1.5 * STEP


def test_a_silence_of_years_is_counted_not_walked_through(tmp_path: Path) -> None:
    """A clock that is set for the first time leaps from 1970 to now."""
    maker = told(BagMaker()).run(1.0)
    maker.messages = [(t, k, r - START + NS, m) for t, k, r, m in maker.messages]
    for _, _, _, message in maker.messages:
        if hasattr(message, "header") and message.header.stamp.sec:
            message.header.stamp.sec -= START // NS - 1
    maker.run(1.0)
    parts, reader = read(maker.write(tmp_path / "bag"))
    # Before the leap the last frame holds for its max_age, 0.2 s.
    assert [len(rows) for _, rows in parts] == [22, 19]
    assert sum(reader.drops.values()) > 1e10


def test_a_resolution_change_begins_another_part(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0).run(1.0, begin=1.0, size=(2 * SIZE[0], 2 * SIZE[1]))
    parts, reader = read(written(tmp_path, maker))
    assert [len(rows) for _, rows in parts] == [19, 20]
    assert parts[1][0].because.startswith("video.front changes from 32x24 to 64x48 pixels")
    assert reader.notes == [parts[1][0].because]


def test_joints_in_another_order_in_every_message_are_found_by_name(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0)
    rng = np.random.default_rng(0)
    for topic, _, _, message in maker.messages:
        if topic == JOINTS:
            order = rng.permutation(3)
            message.name = [message.name[i] for i in order]
            message.position = message.position[order]
        elif topic == ARM and rng.integers(2):
            message.joint_names = message.joint_names[::-1]
            message.points[0].positions = message.points[0].positions[::-1].copy()
    [(_, rows)], reader = read(written(tmp_path, maker))
    assert not reader.refused
    for k, row in enumerate(rows, start=1):
        np.testing.assert_allclose(row.state["arm"], [0.01 * k, -0.01 * k], atol=1e-6)
        np.testing.assert_allclose(row.action["arm"].sum(), 2.0, atol=0.05)


def test_a_renamed_joint_is_named(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0)
    for topic, _, _, message in maker.messages:
        if topic == JOINTS:
            message.name[1] = "elbow_joint"
    parts, reader = read(written(tmp_path, maker))
    assert parts == []
    assert reader.refused == {JOINTS: 20}
    text = reader.texts[f"refused {JOINTS}"]
    assert "joint elbow missing; the message has shoulder, elbow_joint, gripper" in text


def test_states_that_are_not_finite_are_missing_not_zero(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(3.0)
    for topic, _, receive, message in maker.messages:
        if topic == JOINTS and 1.0 < seconds(receive) < 2.0:
            message.position[1] = np.nan
    parts, reader = read(written(tmp_path, maker))
    assert len(parts) == 2
    assert reader.refused == {JOINTS: 20}
    assert "elbow is nan" in reader.texts[f"refused {JOINTS}"]
    assert all(np.isfinite(row.state["arm"]).all() for _, rows in parts for row in rows)
    assert reader.drops["state.arm stale"] == pytest.approx(18, abs=1)


def test_stamps_that_are_zero_or_from_the_future_are_refused(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0)
    frames = [message for topic, _, _, message in maker.messages if topic == FRONT]
    frames[5].header.stamp.sec = frames[5].header.stamp.nanosec = 0
    frames[9].header.stamp.sec += 3600
    [(_, rows)], reader = read(written(tmp_path, maker))
    assert reader.refused == {FRONT: 2}
    assert "zero stamp" in reader.texts[f"refused {FRONT}"]
    assert len(rows) == 19


def test_frames_that_cannot_be_decoded_and_messages_that_are_damaged(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0)
    wrist = [i for i, message in enumerate(maker.messages) if message[0] == WRIST]
    cut = maker.messages[wrist[4]][3]
    cut.data = cut.data[: len(cut.data) // 2]  # without its end marker
    holed = maker.messages[wrist[8]][3]
    holed.data = np.concatenate([holed.data[:60], np.zeros(30, np.uint8), holed.data[90:]])
    topic, kind, receive, message = maker.messages[wrist[12]]
    maker.messages[wrist[12]] = (topic, kind, receive, bytes(maker.store.serialize_cdr(message, kind))[:30])
    [(_, rows)], reader = read(written(tmp_path, maker))
    assert len(rows) == 19
    assert sum(reader.refused.values()) == 3
    np.testing.assert_array_equal(rows[3].video["wrist"], picture(1003))  # of row 4: the one before


def test_a_bag_that_lacks_a_topic_or_has_another_type(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(0.2)
    without = BagMaker()
    without.messages = [m for m in maker.messages if m[0] != WRIST]
    with pytest.raises(DatasetError, match=f"no topic {WRIST}, which the robot small needs; the bag has"):
        read(written(tmp_path, without, "wrist"))
    without.messages = [m for m in maker.messages if m[0] != ARM]
    with pytest.raises(DatasetError, match=r"future_state takes actions from states"):
        read(written(tmp_path, without, "arm"))
    without.messages = [m for m in maker.messages if m[0] != INSTRUCTION]
    with pytest.raises(DatasetError, match=r"nothing says what the robot was told.*give --task"):
        read(written(tmp_path, without, "text"))
    [(_, rows)], _ = read(tmp_path / "text", task="stack", fps=20.0)
    assert {row.instruction for row in rows} == {"stack"}
    robot = config(video__front__type="compressed_image")
    with pytest.raises(DatasetError, match="front/image_raw holds sensor_msgs/msg/Image, the robot"):
        read(written(tmp_path, maker, "type"), robot)


def test_a_recording_with_one_frame_only(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(0.5)
    first = {topic: next(m for m in maker.messages if m[0] == topic) for topic in (FRONT, WRIST)}
    maker.messages = [m for m in maker.messages if m[0] not in first or m is first[m[0]]]
    maker.messages = [m for m in maker.messages if m[0] != JOINTS or seconds(m[2]) > 0.3]
    parts, reader = read(written(tmp_path, maker))
    assert parts == []
    assert reader.drops.keys() == {"state.arm no_message", "video.front stale"}
    assert reader.drops.total() == 9


def test_messages_are_refused_as_the_live_node_refuses_them(tmp_path: Path) -> None:
    """With the very sentence that its log would have."""
    maker = told(BagMaker()).run(1.0)
    found = {topic: [m for t, _, _, m in maker.messages if t == topic] for topic in (FRONT, WRIST, JOINTS)}
    found[JOINTS][4].header.stamp = maker.header_ns(0).stamp
    found[FRONT][7].header.stamp.sec += 60
    found[WRIST][9].data = np.zeros(99, np.uint8)
    robot = config()
    builder = ObservationBuilder(robot, modality(["front", "wrist"], ["arm", "gripper"], []))
    live: dict[str, str] = {}
    for topic, _, receive, message in maker.messages:
        if topic in found:
            try:
                builder.add(topic, message, receive)
            except MessageError as error:
                live[topic] = str(error)
    _, reader = read(written(tmp_path, maker), robot)
    assert reader.refused == dict.fromkeys((FRONT, WRIST, JOINTS), 1)
    assert {topic: reader.texts[f"refused {topic}"] for topic in live} == live


# ---- time ----------------------------------------------------------------------------------------


def in_simulated_time(maker: BagMaker) -> BagMaker:
    """Stamped by a simulator, recorded by the system's clock."""
    maker.messages = [(topic, kind, receive + 10**6 * NS, m) for topic, kind, receive, m in maker.messages]
    return maker


def test_headers_and_arrivals_of_two_clocks_are_told(tmp_path: Path) -> None:
    maker = in_simulated_time(told(BagMaker()).run(1.0))
    folder = written(tmp_path, maker)
    with pytest.raises(DatasetError, match=f"two clocks: .* on {JOINTS} are stamped .* on {INSTRUCTION} are"):
        read(folder)
    with pytest.raises(DatasetError, match=f"those on {ARM} are not.*--use-sim-time"):
        read(folder, task="pick")
    # Where nothing counts by its arrival, one clock is enough.
    [(_, rows)], reader = read(folder, config(recording__action_source="future_state"), task="pick")
    assert (len(rows), reader.drops) == (19, {"action no_next_state": 1})
    # Two frames from before a camera's clock was set are odd, and no more.
    maker = told(BagMaker()).run(1.0)
    for message in [m for topic, _, _, m in maker.messages if topic == FRONT][:2]:
        message.header.stamp.sec = 7
    [(_, rows)], _ = read(written(tmp_path, maker, "begun"))
    assert len(rows) == 18


def test_a_clock_that_is_set_back_by_less_than_messages_wait_is_told(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0)
    for number in range(20, 40):
        maker.moment(number * STEP - 0.42 + 0.003, number)
    parts, reader = read(maker.write(tmp_path / "bag"))  # as recorded, not sorted
    assert len(parts) == 1, "this is not where one stretch of time ends"
    # The first 8 of the new frames of each camera lie before the last one of the old.
    assert [note.partition(" are stamped before")[0] for note in reader.notes] == [
        f"{FRONT}: 8 frames",
        f"{WRIST}: 8 frames",
    ], reader.notes
    assert "by up to 0.370 s" in reader.notes[0]


def test_a_discarded_episode_is_not_walked_through(tmp_path: Path) -> None:
    """In which the clock leaps from 1970 to now."""
    maker = told(BagMaker()).run(1.0)
    maker.event(0.5, "START", "one", "pick")
    maker.messages = [(t, k, r - START + NS, m) for t, k, r, m in maker.messages]
    for _, _, _, message in maker.messages:
        if hasattr(message, "header") and message.header.stamp.sec:
            message.header.stamp.sec -= START // NS - 1
    maker.run(1.0)
    maker.event(1.1, "DISCARD", "one", "pick")
    maker.event(1.2, "START", "two", "pick")
    maker.run(1.0, begin=1.2)
    maker.messages.sort(key=lambda message: message[2])
    [(part, rows)], reader = read(maker.write(tmp_path / "bag"))
    assert (part.episode.name, len(rows)) == ("two", 20)
    assert not reader.drops


def test_a_trajectory_may_begin_later_than_it_came_but_not_at_any_time(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(1.0)
    trajectories = [m for topic, _, _, m in maker.messages if topic == ARM]
    for message, ahead in zip(trajectories[8:11], (0.1, 5.0, 3600.0), strict=True):
        message.header = maker.header(0.5 + ahead)
    folder = written(tmp_path, maker)
    [(_, rows)], reader = read(folder)
    assert len(rows) == 19
    assert reader.drops == {"action.arm no_message": 1}, "rows end with the recording, not with its plans"
    assert reader.refused == {ARM: 1}
    assert "3600" in reader.texts[f"refused {ARM}"] or "3599" in reader.texts[f"refused {ARM}"]
    # What waits holds itself, and not the chunk that it came in.
    with Bag(folder) as bag:
        arm = [t for t in BagRows(bag, config(), fps=20.0)._arrivals() if t.item.topic == ARM]
    assert [len(t.item.data.obj) == len(t.item.data) for t in arm][7:11] == [False, True, True, False]
