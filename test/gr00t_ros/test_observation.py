# SPDX-License-Identifier: Apache-2.0
"""Observations keep the rules of time (t_obs, the latest at or before it, ages, history)."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros import sample_buffer
from gr00t_ros.errors import MessageError, NotReady, RobotConfigError
from gr00t_ros.observation import MAX_INSTRUCTION_CHARS, ObservationBuilder, check_instruction
from gr00t_ros.robot import RobotConfig
from support_messages import array, compressed_image, grey_image, joint_state, modality, pose
from support_robots import small_config, small_robot

MS = 1_000_000
S = 1_000 * MS
NOW = 1_000 * S
FRONT, WRIST, JOINTS = "/camera/front/image_raw", "/camera/wrist/image_raw/compressed", "/joint_states"
POSITIONS = {"gripper": 0.2, "elbow": 0.7, "shoulder": -0.3, "camera_pan": math.nan}
MODALITY = modality(["front", "wrist"], ["arm", "gripper"], ["arm", "gripper"])


def wrist(value: int, stamp_ns: int) -> Any:
    return compressed_image(np.full((4, 6, 3), value, np.uint8), "png", stamp_ns)


def builder(**changes: Any) -> ObservationBuilder:
    return ObservationBuilder(small_config(), changes.get("modality", MODALITY))


def filled(front: int = NOW, wrist_at: int = NOW, joints: int = NOW) -> ObservationBuilder:
    """All sources, one message each."""
    b = builder()
    b.add(FRONT, grey_image(10, front), front)
    b.add(WRIST, wrist(20, wrist_at), wrist_at)
    b.add(JOINTS, joint_state(POSITIONS, joints), joints)
    return b


def causes(b: ObservationBuilder, now: int, instruction: str = "pick") -> list[tuple[str, str]]:
    with pytest.raises(NotReady) as error:
        b.assemble(now, instruction)
    assert all(cause.text in str(error.value) for cause in error.value.causes)
    return [(cause.kind, cause.source) for cause in error.value.causes]


def test_an_observation_has_the_reference_form_in_dataset_units() -> None:
    observation = filled(NOW, NOW - 5 * MS, NOW - 2 * MS).assemble(NOW + 30 * MS, "  pick the pear ")
    assert observation.t_obs_ns == NOW
    assert observation.instruction == "pick the pear"
    video, state = observation.data["video"], observation.data["state"]
    assert list(video) == ["front", "wrist"]
    assert video["front"].shape == (1, 1, 4, 6, 3)
    assert video["front"].dtype == np.uint8
    assert (video["front"] == 10).all()
    assert (video["wrist"] == 20).all()
    assert state["arm"].dtype == np.float32
    np.testing.assert_array_equal(state["arm"], np.array([[[-0.3, 0.7]]], np.float32))
    # si = -0.01 * dataset + 0.5, so 0.2 rad is 30 in the dataset.
    np.testing.assert_allclose(state["gripper"], [[[30.0]]], rtol=1e-6)
    assert observation.data["language"] == {"annotation.human.task_description": [["pick the pear"]]}
    assert observation.stamps == {
        "video.front": NOW,
        "video.wrist": NOW - 5 * MS,
        "state.arm": NOW - 2 * MS,
        "state.gripper": NOW - 2 * MS,
    }


def test_topics_are_those_that_the_checkpoint_uses() -> None:
    assert builder().topics == (FRONT, WRIST, JOINTS)
    only_front = ObservationBuilder(small_config(), modality(["front"], ["arm"], ["arm", "gripper"]))
    assert only_front.topics == (FRONT, JOINTS)
    with pytest.raises(MessageError, match="no camera or state of the checkpoint uses this topic"):
        only_front.add(WRIST, wrist(0, NOW), NOW)


def test_t_obs_is_the_newest_camera_frame_and_nothing_later_is_used() -> None:
    b = filled()
    b.add(WRIST, wrist(21, NOW + 20 * MS), NOW + 20 * MS)
    b.add(JOINTS, joint_state({**POSITIONS, "elbow": 1.5}, NOW + 21 * MS), NOW + 21 * MS)
    assert b.newest_frame_ns == NOW + 20 * MS
    observation = b.assemble(NOW + 25 * MS, "pick")
    assert observation.t_obs_ns == NOW + 20 * MS
    assert (observation.data["video"]["wrist"] == 21).all()
    assert (observation.data["video"]["front"] == 10).all()
    assert observation.data["state"]["arm"][0, 0, 1] == np.float32(0.7), "the state after t_obs is not used"


def test_a_state_with_exactly_the_frames_stamp_is_used() -> None:
    b = filled()
    b.add(JOINTS, joint_state({**POSITIONS, "elbow": 1.5}, NOW), NOW)
    assert b.assemble(NOW, "pick").data["state"]["arm"][0, 0, 1] == np.float32(1.5), "the same stamp replaces"


@settings(max_examples=60, deadline=None)
@given(
    offsets=st.lists(st.integers(-90, 30), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_late_and_unordered_messages_change_nothing(offsets: list[int], order: Any) -> None:
    """Any order of arrival gives the state of the latest stamp at or before t_obs."""
    b = filled(joints=NOW - 95 * MS)
    messages = [(NOW + ms * MS, float(i)) for i, ms in enumerate(offsets)]
    order.shuffle(messages)
    latest = dict(messages)  # of two messages with one stamp, the one that arrives later counts
    for stamp, value in messages:
        b.add(JOINTS, joint_state({**POSITIONS, "elbow": value}, stamp), NOW + 100 * MS)
    usable = [stamp for stamp in latest if stamp <= NOW]
    expected = latest[max(usable)] if usable else 0.7
    assert b.assemble(NOW, "pick").data["state"]["arm"][0, 0, 1] == np.float32(expected)


def test_nothing_arrived_names_every_source_once() -> None:
    assert causes(builder(), NOW) == [
        ("no_message", "video.front"),
        ("no_message", "video.wrist"),
        ("no_message", "state.arm"),
        ("no_message", "state.gripper"),
    ]
    assert builder().newest_frame_ns is None


def test_a_missing_camera_is_named_although_another_is_fresh() -> None:
    b = builder()
    b.add(FRONT, grey_image(1, NOW), NOW)
    b.add(JOINTS, joint_state(POSITIONS, NOW), NOW)
    assert causes(b, NOW) == [("no_message", "video.wrist")]


def test_an_old_newest_frame_is_stale_against_now() -> None:
    b = filled()
    b.assemble(NOW + 200 * MS, "pick")
    assert causes(b, NOW + 200 * MS + 1) == [("stale", "video.front")]


def test_other_sources_are_stale_against_t_obs_not_against_now() -> None:
    b = filled(joints=NOW - 100 * MS, wrist_at=NOW - 200 * MS)
    b.assemble(NOW + 150 * MS, "pick")
    assert causes(filled(joints=NOW - 100 * MS - 1), NOW) == [
        ("stale", "state.arm"),
        ("stale", "state.gripper"),
    ]
    assert causes(filled(wrist_at=NOW - 200 * MS - 1), NOW) == [("stale", "video.wrist")]


def test_a_state_that_began_after_the_frame_is_behind() -> None:
    assert causes(filled(joints=NOW + 5 * MS), NOW + 5 * MS) == [
        ("behind", "state.arm"),
        ("behind", "state.gripper"),
    ]


def test_stamps_from_the_future_are_refused_and_never_stay_newest() -> None:
    b = filled()
    with pytest.raises(MessageError, match=r"video.front: found a stamp 5.000 s ahead of node time"):
        b.add(FRONT, grey_image(1, NOW + 5 * S), NOW)
    assert b.newest_frame_ns == NOW
    b.add(FRONT, grey_image(1, NOW + 15 * MS), NOW)  # within what clocks of one robot differ


def test_after_a_clock_jump_back_the_future_frame_is_the_only_cause_until_cleared() -> None:
    b = filled()
    assert causes(b, NOW - 10 * S) == [("future", "video.front")]
    b.clear()
    assert b.newest_frame_ns is None
    then = NOW - 10 * S
    b.add(FRONT, grey_image(1, then), then)
    b.add(WRIST, wrist(1, then), then)
    b.add(JOINTS, joint_state(POSITIONS, then), then)
    assert b.assemble(then, "pick").t_obs_ns == then


def test_a_zero_stamp_is_refused_unless_receive_time_counts() -> None:
    with pytest.raises(MessageError, match=r"video.front: found a zero stamp .*set 'stamp: receive'"):
        builder().add(FRONT, grey_image(1, 0), NOW)
    robot = small_robot()
    robot["video"]["front"]["stamp"] = "receive"
    b = ObservationBuilder(RobotConfig.from_mapping(robot), MODALITY)
    b.add(FRONT, grey_image(1, 0), NOW)
    assert b.newest_frame_ns == NOW


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            joint_state({"shoulder": 0.0, "gripper": 0.0}, NOW),
            "state.arm: joint elbow missing; the message has shoulder",
        ),
        (joint_state({**POSITIONS, "elbow": math.nan}, NOW), "state.arm: elbow is nan in position"),
        (joint_state({**POSITIONS, "gripper": math.inf}, NOW), "state.gripper: gripper is inf in position"),
        (joint_state(POSITIONS, NOW, position=[1.0]), "found 1 values of position for 4 names"),
    ],
)
def test_a_refused_joint_state_leaves_no_trace(message: Any, expected: str) -> None:
    """Also not in the other group of the same message: a message counts as a whole."""
    b = filled(joints=NOW - 20 * MS)
    with pytest.raises(MessageError) as error:
        b.add(JOINTS, message, NOW)
    assert expected in str(error.value)
    assert b.assemble(NOW, "pick").stamps["state.gripper"] == NOW - 20 * MS


def test_groups_may_come_from_different_publishers_on_one_topic() -> None:
    b = filled(joints=NOW - 50 * MS)
    b.add(JOINTS, joint_state({"shoulder": 1.0, "elbow": 1.0}, NOW - 10 * MS), NOW)
    b.add(JOINTS, joint_state({"gripper": 0.5}, NOW - 5 * MS), NOW)
    stamps = b.assemble(NOW, "pick").stamps
    assert (stamps["state.arm"], stamps["state.gripper"]) == (NOW - 10 * MS, NOW - 5 * MS)


def test_a_broken_header_is_refused_on_arrival_and_broken_data_when_decoded() -> None:
    b = filled()
    short = grey_image(1, NOW + MS)
    short.data = short.data[:-1]
    with pytest.raises(MessageError, match=r"video.front: found 71 bytes, expected 72"):
        b.add(FRONT, short, NOW + MS)
    damaged = wrist(1, NOW + 2 * MS)
    damaged.data = damaged.data[:20] + bytes(20) + damaged.data[40:]
    b.add(WRIST, damaged, NOW + 2 * MS)
    with pytest.raises(MessageError, match=r"video.wrist: the compressed image"):
        b.assemble(NOW + 3 * MS, "pick")
    assert b.assemble(NOW + 3 * MS, "pick").t_obs_ns == NOW, (
        "the damaged frame is dropped, the one before it serves"
    )


def history(b: ObservationBuilder, count: int = 8, period: int = 50 * MS, until: int = NOW) -> None:
    for i in range(count):
        stamp = until - i * period
        b.add(FRONT, grey_image(100 - i, stamp), NOW)
        b.add(WRIST, wrist(200 - i, stamp), NOW)
        b.add(JOINTS, joint_state({**POSITIONS, "elbow": -float(i)}, stamp), NOW)


def test_history_goes_back_by_steps() -> None:
    deltas = modality(["front"], ["arm"], [], video_deltas=[-4, -1, 0], state_deltas=[-2, 0])
    b = ObservationBuilder(small_config(), deltas)
    for i in range(8):
        stamp = NOW - i * 50 * MS
        b.add(FRONT, grey_image(100 - i, stamp), NOW)
        b.add(JOINTS, joint_state({"shoulder": 0.0, "elbow": -float(i)}, stamp), NOW)
    observation = b.assemble(NOW, "pick")
    assert observation.data["video"]["front"].shape == (1, 3, 4, 6, 3)
    assert observation.data["video"]["front"][0, :, 0, 0, 0].tolist() == [96, 99, 100]
    assert observation.data["state"]["arm"][0, :, 1].tolist() == [-2.0, 0.0]
    assert observation.stamps["video.front"] == NOW


def test_history_survives_stamps_rounded_to_nanoseconds() -> None:
    """A 20 Hz camera whose stamps are cut to whole nanoseconds must not lose a frame to one of them."""
    b = ObservationBuilder(small_config(), modality(["front"], [], [], video_deltas=[-1, 0]))
    b.add(FRONT, grey_image(1, NOW - 100 * MS), NOW)
    b.add(FRONT, grey_image(2, NOW - 50 * MS + 1), NOW)
    b.add(FRONT, grey_image(3, NOW), NOW)
    assert b.assemble(NOW, "pick").data["video"]["front"][0, :, 0, 0, 0].tolist() == [2, 3]


def test_missing_history_is_its_own_cause() -> None:
    deltas = modality(["front"], ["arm"], [], video_deltas=[-4, 0], state_deltas=[-20, 0])
    b = ObservationBuilder(small_config(), deltas)
    b.add(FRONT, grey_image(1, NOW), NOW)
    b.add(JOINTS, joint_state({"shoulder": 0.0, "elbow": 0.0}, NOW), NOW)
    assert causes(b, NOW) == [("history", "video.front"), ("history", "state.arm")]


def test_frames_of_two_sizes_in_one_history_are_refused() -> None:
    b = ObservationBuilder(small_config(), modality(["front"], [], [], video_deltas=[-1, 0]))
    b.add(FRONT, grey_image(1, NOW - 50 * MS, (4, 8)), NOW)
    b.add(FRONT, grey_image(2, NOW), NOW)
    with pytest.raises(MessageError, match=r"video.front: found frames of 8x4, 6x4 pixels"):
        b.assemble(NOW, "pick")


def test_later_deltas_and_missing_keys_are_refused_at_once() -> None:
    with pytest.raises(RobotConfigError, match=r"video: the checkpoint's delta_indices are \[0, 1\]"):
        builder(modality=modality(["front"], [], [], video_deltas=[0, 1]))
    with pytest.raises(RobotConfigError, match=r"robot.video.top: missing"):
        builder(modality=modality(["top"], [], []))
    with pytest.raises(RobotConfigError, match="uses no camera"):
        builder(modality=modality([], ["arm"], []))


def test_velocities_take_their_scale_but_no_offset_and_efforts_neither() -> None:
    robot = small_robot()
    robot["state"]["keys"] = ["arm", "speed", "force"]
    del robot["state"]["gripper"]
    robot["state"]["speed"] = {"topic": JOINTS, "joints": ["gripper"], "field": "velocity"}
    robot["state"]["force"] = {"topic": JOINTS, "joints": ["gripper"], "field": "effort"}
    b = ObservationBuilder(RobotConfig.from_mapping(robot), modality(["front"], ["speed", "force"], []))
    b.add(FRONT, grey_image(1, NOW), NOW)
    b.add(JOINTS, joint_state({"gripper": 0.0}, NOW, velocity=[0.3], effort=[0.3]), NOW)
    state = b.assemble(NOW, "pick").data["state"]
    np.testing.assert_allclose(state["speed"], [[[-30.0]]], rtol=1e-6)
    np.testing.assert_allclose(state["force"], [[[0.3]]], rtol=1e-6)


def test_array_and_pose_sources() -> None:
    robot = small_robot()
    robot["state"]["keys"] = ["arm", "gripper", "force", "eef"]
    robot["state"]["force"] = {"topic": "/force", "type": "float64_multi_array", "indices": [1]}
    robot["state"]["eef"] = {"topic": "/pose", "type": "pose", "rotation": "rotvec"}
    b = ObservationBuilder(RobotConfig.from_mapping(robot), modality(["front"], ["force", "eef"], []))
    b.add(FRONT, grey_image(1, NOW), NOW)
    b.add("/force", array([1.0, 2.0]), NOW - MS)
    b.add("/pose", pose([1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0], NOW), NOW)
    observation = b.assemble(NOW, "pick")
    assert observation.data["state"]["force"].tolist() == [[[2.0]]]
    assert observation.data["state"]["eef"].tolist() == [[[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]]]
    assert observation.stamps["state.force"] == NOW - MS, "an array counts from its arrival"


@pytest.mark.parametrize("text", ["", "   ", "\n", "...", "x" * 10_000])
def test_unusable_instructions_are_a_cause_of_their_own(text: str) -> None:
    assert causes(filled(), NOW, text) == [("instruction", "instruction")]
    with pytest.raises(MessageError, match="instruction: found") as error:
        check_instruction(text)
    assert len(str(error.value)) < 200


def test_instructions_of_any_language_pass_up_to_the_limit() -> None:
    for text in ("pick the pear", "Nimm die Birne!", "拿起梨", "x" * MAX_INSTRUCTION_CHARS):
        assert check_instruction(f" {text} ") == text


def test_memory_is_bounded_in_time_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    b = filled()
    for i in range(2000):
        stamp = NOW + i * 10 * MS
        b.add(FRONT, grey_image(i % 256, stamp), stamp)
    cameras = [buffer for buffer in b._buffers if buffer.path == "video.front"]
    # max_age 0.2 s of its own, 0.2 s for the oldest frame, half a second to spare: 0.9 s at 100 Hz.
    assert len(cameras[0].stamps) == 91
    monkeypatch.setattr(sample_buffer, "MAX_SAMPLES", 50)
    b.add(FRONT, grey_image(1, NOW + 20 * S), NOW + 20 * S)
    for i in range(200):
        b.add(FRONT, grey_image(1, NOW + 20 * S + i), NOW + 20 * S)
    assert len(cameras[0].stamps) == 50
    size = len(grey_image(1, 1).data)
    monkeypatch.setattr(sample_buffer, "MAX_BYTES", 10 * size)
    b.add(FRONT, grey_image(1, NOW + 20 * S + 500), NOW + 20 * S)
    assert len(cameras[0].stamps) == 10
    assert cameras[0]._bytes == 10 * size
    b.clear()
    assert cameras[0]._bytes == 0


def test_adding_and_assembling_on_two_threads() -> None:
    """The worker assembles while messages arrive: every observation keeps the rules."""
    robot = small_robot()
    for source in robot["video"]["keys"]:
        robot["video"][source]["max_age"] = 1.0
    b = ObservationBuilder(RobotConfig.from_mapping(robot), MODALITY)
    for topic, msg in (
        (FRONT, grey_image(1, NOW)),
        (WRIST, wrist(1, NOW)),
        (JOINTS, joint_state(POSITIONS, NOW)),
    ):
        b.add(topic, msg, NOW)
    done = threading.Event()

    def publish() -> None:
        for i in range(1, 400):
            stamp = NOW + i * MS
            b.add(JOINTS, joint_state({**POSITIONS, "elbow": stamp / S}, stamp), stamp)
            b.add(WRIST, wrist(i % 256, stamp), stamp)
            b.add(FRONT, grey_image(i % 256, stamp), stamp)
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    seen = 0
    while not done.is_set() or seen == 0:
        observation = b.assemble(NOW + 400 * MS, "pick")
        assert all(stamp <= observation.t_obs_ns for stamp in observation.stamps.values())
        assert observation.stamps["state.arm"] == observation.t_obs_ns
        seen += 1
    thread.join()
    assert b.assemble(NOW + 399 * MS, "pick").t_obs_ns == NOW + 399 * MS


def test_a_message_about_other_joints_is_refused_only_until_ours_have_come() -> None:
    b, wheels = builder(), joint_state({"wheel_left": 1.0}, NOW)
    with pytest.raises(MessageError, match="none of shoulder, elbow, gripper; it has wheel_left"):
        b.add(JOINTS, wheels, NOW)
    b.add(JOINTS, joint_state({"shoulder": 0.0, "elbow": 0.0}, NOW), NOW)
    with pytest.raises(MessageError, match="wheel_left"):
        b.add(JOINTS, wheels, NOW)  # the gripper's name may be the misspelt one
    assert b.add(JOINTS, joint_state({"gripper": 0.0}, NOW), NOW)
    b.clear()
    assert not b.add(JOINTS, wheels, NOW), "a clock that jumps changes no names"
