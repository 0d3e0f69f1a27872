# SPDX-License-Identifier: Apache-2.0
"""A recording gives, row for row, what the live node's ObservationBuilder makes of the same messages; what
cannot be used is left out, counted and named, and never joins what is apart in time."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.data.bag_rows import PHASE, BagRows, Part
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.rows import Row
from gr00t_ros.errors import DatasetError, MessageError, NotReady
from gr00t_ros.observation import ObservationBuilder
from gr00t_ros.robot import RobotConfig
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
from support_robots import small_robot

STEP = 0.05


def config(**changes: Any) -> RobotConfig:
    """The small robot; keys are dotted paths with __ for dots, such as recording__action_source."""
    values = small_robot()
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        level = values
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return RobotConfig.from_mapping(values)


def read(
    folder: Path, robot: RobotConfig | None = None, **options: Any
) -> tuple[list[tuple[Part, list[Row]]], BagRows]:
    """The parts of a recording with their rows, and the reader for its counts."""
    with Bag(folder) as bag:
        rows = BagRows(bag, robot or config(), fps=options.pop("fps", 20.0), **options)
        parts: list[tuple[Part, list[Row]]] = []
        for item in rows:
            if isinstance(item, Part):
                parts.append((item, []))
            else:
                parts[-1][1].append(item)
    return parts, rows


def seconds(ns: int) -> float:
    return (ns - START) / NS


def written(tmp_path: Path, maker: BagMaker, name: str = "bag") -> Path:
    """In the order of receive times."""
    maker.messages.sort(key=lambda message: message[2])
    return maker.write(tmp_path / name)


def test_rows_of_a_recording_without_anything_odd(tmp_path: Path) -> None:
    folder = written(tmp_path, told(BagMaker()).run(1.0))
    [(part, rows)], reader = read(folder)
    # The first frame comes before any command: it has no action.
    assert reader.drops == {"action.arm no_message": 1}
    assert (part.episode.name, part.part, len(rows)) == ("bag", 0, 19)
    for k, row in enumerate(rows, start=1):
        assert seconds(row.stamp_ns) == pytest.approx((k + PHASE) * STEP, abs=1e-9)
        assert seconds(row.t_obs_ns) == pytest.approx(k * STEP, abs=1e-9)
        np.testing.assert_array_equal(row.video["front"], picture(k))
        np.testing.assert_array_equal(row.video["wrist"], picture(k + 1000))
        np.testing.assert_allclose(row.state["arm"], [0.01 * k, -0.01 * k], atol=1e-7)
        # Dataset units of the gripper: si = -0.01 * value + 0.5.
        np.testing.assert_allclose(row.state["gripper"], [(0.5 - 0.1 - 0.001 * k) / 0.01], atol=1e-4)
        # The command that came 3 ms after the frame before: for trajectories one step later than the frame.
        j = k - 1
        np.testing.assert_allclose(row.action["gripper"], [(0.5 - 0.2 - 0.001 * j) / 0.01], atol=1e-4)
        assert row.action["arm"].dtype == row.state["arm"].dtype == np.float32
        assert row.instruction == "pick"


def test_the_first_trajectory_begins_where_the_joints_are(tmp_path: Path) -> None:
    maker = told(BagMaker())
    for k in range(10):
        maker.joints(k * STEP, {"shoulder": 0.5, "elbow": -0.5, "gripper": 0.1}, stamp=k * STEP)
        maker.image(k * STEP + 0.001, picture(k), stamp=k * STEP)
        maker.image(k * STEP + 0.002, picture(k), stamp=k * STEP, topic=WRIST)
        maker.array(k * STEP, [0.1])
    maker.trajectory(2 * STEP, [(0.2, (1.5, 0.5), ())])
    [(_, rows)], _ = read(written(tmp_path, maker), config(recording__max_command_age=0.0))
    # Straight from 0.5 to 1.5 in four steps, evaluated one step after each frame.
    expected = np.minimum(0.5 + 0.25 * np.arange(1, 9), 1.5)
    np.testing.assert_allclose([row.action["arm"][0] for row in rows], expected, atol=1e-6)


def test_header_or_receive_time_as_the_yaml_says(tmp_path: Path) -> None:
    maker = told(BagMaker())
    for k in range(30):
        maker.moment(k * STEP + 0.003, k)
    # Joint states whose stamps are half a second behind: by their headers too old, by arrival good.
    for i, (topic, kind, receive, message) in enumerate(maker.messages):
        if topic == JOINTS:
            message.header.stamp.sec -= 1
            maker.messages[i] = (topic, kind, receive, message)
    folder = written(tmp_path, maker)
    parts, reader = read(folder)
    assert parts == []
    assert reader.drops["state.arm stale"] >= 28
    robot = config(state__arm__stamp="receive", state__gripper__stamp="receive")
    [(_, rows)], _ = read(folder, robot)
    # By arrival the state of frame k comes 3 ms after it.
    np.testing.assert_allclose(
        rows[5].state["arm"],
        [0.01 * (rows[5].t_obs_ns - START) / NS / STEP - 0.01] * np.array([1, -1]),
        atol=1e-6,
    )


# ---- the same as live ----------------------------------------------------------------------------

messages = st.lists(
    st.tuples(
        st.integers(0, 1200),  # stamp, ms after the first frame of all
        st.integers(0, 190),  # how much later it arrives, ms: within the window
        st.sampled_from(["front", "wrist", "joints", "joints", "command"]),
    ),
    min_size=10,
    max_size=90,
    unique_by=lambda m: (m[0], m[2]),
)


@settings(max_examples=30, deadline=None)
@given(found=messages, fps=st.sampled_from([10.0, 20.0, 30.0]))
def test_every_row_is_what_the_live_builder_makes(
    found: list[tuple[int, int, str]], fps: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    maker = told(BagMaker())
    for at, (ms, late_ms, kind) in enumerate(found):
        stamp, receive = 0.01 + ms / 1000, 0.01 + (ms + late_ms) / 1000
        if kind == "front":
            maker.image(receive, picture(at, (4, 6)), stamp)
        elif kind == "wrist":
            maker.image(receive, picture(at, (4, 6)), stamp, WRIST)
        elif kind == "joints":
            maker.joints(receive, {"elbow": ms / 1e3, "gripper": at / 1e3, "shoulder": at / 1e2}, stamp)
        else:
            maker.array(stamp, [at / 1e3])  # without a header its time is that of its arrival
    # The arm is commanded once, for good.
    maker.trajectory(0.0, [(0.0, (0.25, 0.5), ())])
    for topic in (FRONT, WRIST):  # so that the bag has the topic
        maker.image(3.0, picture(1, (4, 6)), 2.999, topic)
    maker.joints(3.0, {"elbow": 0.0, "gripper": 0.0, "shoulder": 0.0}, 2.999)
    maker.array(3.0, [0.0])
    robot = config(recording__max_command_age=0.0)
    parts, reader = read(written(tmp_path_factory.mktemp("live"), maker), robot, fps=fps)

    builder = ObservationBuilder(robot, modality(["front", "wrist"], ["arm", "gripper"], []))
    waiting = sorted(
        (m.header.stamp.sec * NS + m.header.stamp.nanosec, i, topic, receive, m)
        for i, (topic, _, receive, m) in enumerate(maker.messages)
        if topic in (FRONT, WRIST, JOINTS)
    )

    def told_by(row_ns: int) -> Any:
        """What the node's builder, fed with everything stamped up to then, assembles at that time."""
        while waiting and waiting[0][0] <= row_ns:
            _, _, topic, receive, message = waiting.pop(0)
            builder.add(topic, message, receive)
        try:
            return builder.assemble(row_ns, "pick")
        except NotReady:
            return None

    rows = {row.stamp_ns: row for _, part in parts for row in part}
    frames = [
        m.header.stamp.sec * NS + m.header.stamp.nanosec
        for t, _, _, m in maker.messages
        if t in (FRONT, WRIST)
    ]
    step = NS / fps
    start, end = min(frames) + round(PHASE * step), max(frames) + round(step / 2)
    commands = sorted((r, m.data[0]) for t, _, r, m in maker.messages if t == GRIPPER)
    k = 0
    while (due := start + round(k * step)) < end:
        live, row = told_by(due), rows.pop(due, None)
        gripper = [value for time, value in commands if live is not None and time <= live.t_obs_ns]
        assert (row is not None) == (live is not None and bool(gripper)), seconds(due)
        if row is not None:
            assert row.t_obs_ns == live.t_obs_ns
            for key, frames_ in live.data["video"].items():
                np.testing.assert_array_equal(row.video[key], frames_[0, 0])
            for key, values in live.data["state"].items():
                np.testing.assert_array_equal(row.state[key], values[0, 0])
            np.testing.assert_allclose(row.action["gripper"], [(0.5 - gripper[-1]) / 0.01], rtol=1e-6)
        k += 1
    assert not rows
    assert sum(reader.drops.values()) + sum(len(part) for _, part in parts) == k
    for _, part in parts:  # rows that follow each other are one step apart
        assert all(abs(b.stamp_ns - a.stamp_ns - step) <= 1 for a, b in itertools.pairwise(part))


def test_what_comes_later_than_the_window_is_used_for_later_rows_only(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(2.0)
    # The state of 1.0 s comes 0.4 s late; those around it are there.
    late = next(m for m in maker.messages if m[0] == JOINTS and abs(seconds(m[2]) - 1.003) < 1e-6)
    maker.messages.remove(late)
    maker.messages.append((late[0], late[1], late[2] + round(0.4 * NS), late[3]))
    [(_, rows)], reader = read(written(tmp_path, maker))
    states = [round(float(row.state["arm"][0]), 4) for row in rows]
    assert states[18:21] == [0.19, 0.19, 0.21]
    assert reader.drops == {"action.arm no_message": 1}


# ---- bad data ------------------------------------------------------------------------------------


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


# ---- episodes ------------------------------------------------------------------------------------


def test_an_instruction_that_changes_begins_another_episode(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(3.0)
    maker.instruction(1.0, "pick")  # again: nothing new
    maker.instruction(1.52, "place")
    parts, _ = read(written(tmp_path, maker))
    assert [(part.episode.name, {row.instruction for row in rows}) for part, rows in parts] == [
        ("bag", {"pick"}),
        ("bag 2", {"place"}),
    ]
    assert seconds(parts[1][1][0].t_obs_ns) == pytest.approx(1.55)
    [(_, rows)], _ = read(tmp_path / "bag", episodes="bag")
    assert [row.instruction for row in rows] == ["pick"] * 30 + ["place"] * 29
    [(_, rows)], _ = read(tmp_path / "bag", task="both")
    assert len(rows) == 59


def test_an_instruction_that_is_heard_before_the_first_row_is_the_first_one(tmp_path: Path) -> None:
    maker = BagMaker().run(1.0)
    maker.instruction(0.02, "pick")
    robot = config(instruction__default="wait")
    [(part, rows)], _ = read(written(tmp_path, maker), robot)
    assert part.episode.name == "bag"
    assert {row.instruction for row in rows} == {"pick"}


def test_an_instruction_that_is_taken_away_ends_the_episode(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(4.0)
    maker.instruction(1.02, "")
    maker.instruction(2.52, "pick")
    folder = written(tmp_path, maker)
    parts, reader = read(folder)
    assert [(part.episode.name, len(rows)) for part, rows in parts] == [("bag", 20), ("bag 2", 29)]
    assert not reader.drops.keys() - {"action.arm no_message"}
    parts, reader = read(folder, episodes="bag")  # within one episode it is a gap
    assert [part.part for part, _ in parts] == [0, 1]
    assert reader.drops["instruction instruction"] == 30
    assert len(read(folder, task="pick")[0]) == 1


def test_marks_split_label_and_discard(tmp_path: Path) -> None:
    maker = told(BagMaker(), "old").run(6.0)
    maker.event(0.52, "START", "episode_000000", "first")
    maker.event(1.52, "STOP", "episode_000000", "first")
    maker.event(2.0, "START", "episode_000001", "second")
    maker.event(3.0, "DISCARD", "episode_000001", "second")
    maker.event(3.52, "START", "episode_000002", "third")
    maker.event(4.52, "STOP", "episode_000002", "third")
    maker.event(4.6, "LABEL", "episode_000000", "first, corrected", "failure")
    maker.event(5.02, "START", "episode_000003", "fourth")
    parts, reader = read(written(tmp_path, maker))
    assert [(p.episode.name, p.episode.label, len(rows), rows[0].instruction) for p, rows in parts] == [
        ("episode_000000", "failure", 20, "first, corrected"),
        ("episode_000002", "", 20, "third"),
        ("episode_000003", "", 19, "fourth"),  # no STOP: to the end of the bag
    ]
    assert seconds(parts[0][1][0].t_obs_ns) == pytest.approx(0.55)
    assert seconds(parts[0][1][-1].t_obs_ns) == pytest.approx(1.5)
    assert not reader.drops  # what lies between episodes is not missing
    with pytest.raises(DatasetError, match="no mark of the recorder"):
        read(written(tmp_path, told(BagMaker()).run(0.2), "none"), episodes="marks")


def test_what_the_recorder_wrote_beside_the_bag(tmp_path: Path) -> None:
    maker = told(BagMaker(), "old").run(1.0)
    maker.event(0.01, "START", "episode_000007", "old")
    folder = written(tmp_path, maker)
    record = '{"episode": "episode_000007", "instruction": "new", "told": "old", "label": "success"}'
    (folder / "episode.json").write_text(record)
    [(part, rows)], _ = read(folder)
    assert (part.episode.name, part.episode.label) == ("episode_000007", "success")
    assert {row.instruction for row in rows} == {"new"}
    (folder / "episode.json").write_text("{")
    with pytest.raises(DatasetError, match=r"episode\.json: cannot be read"):
        read(folder)


# ---- the state one step later --------------------------------------------------------------------


def test_future_state_is_the_next_row(tmp_path: Path) -> None:
    maker = told(BagMaker()).run(2.0)
    maker.messages = [m for m in maker.messages if not (m[0] == FRONT and 0.8 < seconds(m[2]) < 1.2)]
    parts, reader = read(written(tmp_path, maker), config(recording__action_source="future_state"))
    assert len(parts) == 2
    assert reader.drops["action no_next_state"] == 2
    for _, rows in parts:
        for row, after in itertools.pairwise(rows):
            for key in row.action:
                np.testing.assert_array_equal(row.action[key], after.state[key])


def test_messages_are_refused_as_the_live_node_refuses_them() -> None:
    """The sentence is the builder's own."""
    builder = ObservationBuilder(config(), modality(["front", "wrist"], ["arm", "gripper"], []))
    stamp = SimpleNamespace(sec=0, nanosec=0)
    message = SimpleNamespace(header=SimpleNamespace(stamp=stamp), name=[], position=[])
    with pytest.raises(MessageError, match="zero stamp"):
        builder.add(JOINTS, message, 1)
