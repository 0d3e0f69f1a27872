# SPDX-License-Identifier: Apache-2.0
"""A recording gives, row for row, what the live node's ObservationBuilder makes of the same messages."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.data.bag_rows import PHASE
from gr00t_ros.errors import NotReady, RobotConfigError
from gr00t_ros.observation import ObservationBuilder
from support_bags import ARM, FRONT, GRIPPER, JOINTS, NS, START, WRIST, BagMaker, picture, told
from support_messages import modality
from support_rows import STEP, config, read, seconds, written


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


def test_an_arm_that_is_pushed_divides_the_episode(tmp_path: Path) -> None:
    """Where it is not where the row before commanded it; the rows are all there."""

    def recorded(**limits: Any) -> tuple[list[tuple[Any, list[Any]]], Any]:
        maker = told(BagMaker())
        for k in range(20):
            place = 0.01 * k + (0.1 if k >= 8 else 0.0) + (0.03 if k >= 14 else 0.0)
            joints = {"shoulder": place, "elbow": 0.0, "gripper": 0.9}
            maker.joints(k * STEP, joints, stamp=k * STEP)
            maker.image(k * STEP + 0.001, picture(k), stamp=k * STEP)
            maker.image(k * STEP + 0.002, picture(k), stamp=k * STEP, topic=WRIST)
            maker.array(k * STEP, [0.1])  # a gripper that holds something is no joint of the arm
            maker.trajectory(k * STEP, [(STEP, (place + 0.01, 0.0), ())])
        return read(written(tmp_path / str(len(limits)), maker), config(**limits))

    for limits, begins in (({}, [0]), ({"recording__max_following_error": 0.05}, [0, 8])):
        parts, reader = recorded(**limits)
        assert [len(rows) for _, rows in parts] == np.diff([*begins, 20]).tolist()
        assert reader.divided == len(begins) - 1
        if reader.divided:
            assert parts[1][0].because == "shoulder was 0.100 from where it had been commanded"
            assert "divided 1 times where a joint did not follow its command" in reader.notes
    with pytest.raises(RobotConfigError, match=r"max_following_error: found -1"):
        config(recording__max_following_error=-1.0)
    with pytest.raises(RobotConfigError, match="none with future_state"):
        config(recording__max_following_error=0.1, recording__action_source="future_state")


@pytest.mark.parametrize("odd", ["long ago", "not a number"])
def test_where_joints_are_is_not_known_from_what_is_old_or_no_number(tmp_path: Path, odd: str) -> None:
    """Then a first trajectory has no value before its first point."""
    maker = told(BagMaker()).run(1.0)
    maker.messages = [m for m in maker.messages if m[0] != ARM]
    if odd == "long ago":
        maker.messages = [m for m in maker.messages if not (m[0] == JOINTS and 0.3 < seconds(m[2]) < 0.55)]
    else:  # of a joint that is commanded, and no state: the message is used
        for topic, _, _, message in maker.messages:
            if topic == JOINTS:
                message.position[1] = np.nan
    maker.trajectory(0.5, [(0.2, (1.5, 0.5), ())])
    robot = config(recording__max_command_age=0.0, state__arm__joints=["shoulder"])
    [(_, rows)], _ = read(written(tmp_path, maker), robot)
    # The point is due at 0.7 s, and an action is what is commanded one step after its frame.
    assert seconds(rows[0].t_obs_ns) == pytest.approx(0.65)
    assert {tuple(row.action["arm"]) for row in rows} == {(1.5, 0.5)}


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
