# SPDX-License-Identifier: Apache-2.0
"""The demo's verdict: only a run in which the whole chain worked passes; what was wrong is named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from gr00t_ros.sim.monitoring import DemoRecord, chunk_deviation
from gr00t_ros.sim.picture import COLUMNS, Shot, draw, evenly
from gr00t_ros.timeline import Timeline

MS = 1_000_000
T0 = 10**18
ROBOT = RobotConfig.from_file(robot_file("so101"))
ARM = ROBOT.action["arm"].joints
JOINTS = ROBOT.joints


def chunk(sequence: int = 0, t_ns: int = T0) -> Chunk:
    """16 steps of 50 ms: joint k of the arm moves at 0.1 * (k + 1) rad/s, the gripper stands at 0.5."""
    times = 0.05 * np.arange(16)[:, None]
    arm = ChunkGroup("arm", "joint_position", ARM, times * 0.1 * np.arange(1, 6))
    gripper = ChunkGroup("gripper", "scalar", ("gripper",), np.full((16, 1), 0.5))
    return Chunk(1, sequence, "pick up the cube", t_ns, t_ns, 50 * MS, (arm, gripper))


def arm_at(time_ns: int) -> list[float]:
    """What ``chunk`` asks of the arm."""
    return ((time_ns - T0) / 1e9 * 0.1 * np.arange(1, 6)).tolist()


def good_run(lag_rad: float = 0.0, **limits: float) -> DemoRecord:
    """0.6 s in which everything works and joints are ``lag_rad`` behind their commands."""
    record = DemoRecord(ROBOT, limits.get("max_tracking_error", 0.1))
    record.on_joint_state(JOINTS, [0.0] * 5 + [0.5], T0 - 10 * MS)
    record.on_chunk(chunk())
    for camera in record.frames.values():
        camera.add()
    for tick in range(60):
        now = T0 + tick * 10 * MS
        if tick % 2 == 0:
            ahead = [20 * MS, 40 * MS, 100 * MS]
            rows = [arm_at(now + offset) for offset in ahead]
            record.on_trajectory("arm", ARM, ahead, rows, [[]] * 3, stamp_ns=now, now_ns=now)
            record.on_values("gripper", [0.5])
        commanded = np.array([*arm_at(now), 0.5])
        record.on_joint_state(JOINTS, (commanded - lag_rad).tolist(), now)
    return record


def test_a_run_in_which_all_works_has_no_problems() -> None:
    record = good_run(lag_rad=0.02)
    assert record.problems() == []
    worst, rms, _ = record.tracking()
    # The very first command starts where the arm is, a little behind the chunk.
    assert worst == pytest.approx(0.02, abs=0.012)
    assert rms == pytest.approx(0.02, abs=0.003)
    assert record.comparison.points == 60
    assert record.comparison.exact == 60
    text = "\n".join(record.summary())
    assert "tracking error: max 0.0" in text
    assert "100% of 60" in text
    assert record.travel()["wrist_roll"] == pytest.approx(0.59 * 0.5, abs=0.03)


def test_an_arm_that_does_not_follow_fails_and_names_the_joint() -> None:
    problems = good_run(lag_rad=0.15).problems()
    assert len(problems) == 1
    assert "from its command, more than 0.1 rad" in problems[0]


def test_each_missing_part_is_named() -> None:
    problems = "\n".join(DemoRecord(ROBOT, 0.1).problems())
    for part in (
        "no pictures of camera front",
        "no pictures of camera wrist",
        "no joint states",
        "no action chunks",
        "no commands for arm",
        "no commands for gripper",
    ):
        assert part in problems


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2.5, "shoulder_pan was commanded to 2.5000 rad, outside its limits"),
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
    ],
)
def test_one_command_outside_the_limits_fails_the_run(value: float, said: str) -> None:
    record = good_run()
    now = T0 + 600 * MS
    row = arm_at(now)
    row[0] = value
    record.on_trajectory("arm", ARM, [20 * MS], [row], [[]], stamp_ns=now, now_ns=now)
    assert any(said in problem for problem in record.problems())


def test_a_gripper_command_outside_its_limits_fails_the_run() -> None:
    record = good_run()
    record.on_values("gripper", [-0.2])
    assert any("gripper was commanded to -0.2000 rad" in problem for problem in record.problems())


def test_memory_is_bounded() -> None:
    record = good_run()
    for i in range(10_000):
        record.on_joint_state(JOINTS, [0.0] * 6, T0 + i * 50 * MS)
        record.chunk_times.append(T0)
    assert len(record.plot) == 2400
    assert len(record.chunk_times) == 2400


def test_deviation_from_the_chunk_is_that_of_the_worst_joint_at_its_time() -> None:
    timeline = Timeline()
    timeline.add(chunk())
    due = T0 + 125 * MS  # between two steps: the chunk is followed in straight lines
    names = ARM[::-1]
    wanted = arm_at(due)[::-1]
    assert chunk_deviation(timeline, "arm", names, wanted, due) == pytest.approx(0.0, abs=1e-12)
    wanted[2] += 0.03
    assert chunk_deviation(timeline, "arm", names, wanted, due) == pytest.approx(0.03)
    assert chunk_deviation(timeline, "arm", names, wanted, T0 - 1) is None
    assert chunk_deviation(timeline, "arm", names, wanted, T0 + 10**10) is None
    assert chunk_deviation(timeline, "legs", names, wanted, due) is None


def test_the_picture_shows_frames_and_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the demo's picture needs the extra 'demo'")
    record = good_run(lag_rad=0.02)
    red, blue = np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32, 3), np.uint8)
    red[:, :, 0] = blue[:, :, 2] = 255
    shots = {
        "front": [Shot(T0 + i * 50 * MS, red) for i in range(12)],
        "wrist": [Shot(T0 + i * 50 * MS, blue) for i in range(3)],
    }
    path = tmp_path / "new" / "demo.png"
    draw(path, record, shots, "so101", "The weights are random.")
    picture = cv2.imread(str(path))[:, :, ::-1].astype(int)
    pure_red = (picture[:, :, 0] > 250) & (picture[:, :, 1:].max(axis=2) < 5)
    pure_blue = (picture[:, :, 2] > 250) & (picture[:, :, :2].max(axis=2) < 5)
    # Eight frames of the front camera and three of the wrist camera, equally large.
    assert pure_red.sum() / pure_blue.sum() == pytest.approx(COLUMNS / 3, rel=0.05)
    assert pure_red.sum() > 0.05 * picture.shape[0] * picture.shape[1]
    measured_colour = np.abs(picture - np.array([0x1F, 0x77, 0xB4])).sum(axis=2) < 80
    assert measured_colour.sum() > 500, "no measured joints in the plots"


def test_shots_are_spread_evenly_over_the_run() -> None:
    shots = [Shot(i, np.zeros((1, 1, 3), np.uint8)) for i in range(29)]
    assert [shot.time_ns for shot in evenly(shots, 8)] == [0, 4, 8, 12, 16, 20, 24, 28]
    assert evenly(shots[:3], 8) == shots[:3]
