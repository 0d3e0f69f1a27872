# SPDX-License-Identifier: Apache-2.0
"""Chunks, the executor's decisions and the simulated arm in lock step: exact where that is possible, safe
always.

No topics and no clock but the loop's own, so the figures are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.execution import Execution
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from gr00t_ros.sim.controllers import PositionController, TrajectoryController
from gr00t_ros.sim.monitoring import DemoRecord
from gr00t_ros.sim.so101 import SimulatedSO101
from support_simulator import NEEDS_SIMULATOR

pytestmark = NEEDS_SIMULATOR

ROBOT = RobotConfig.from_file(robot_file("so101"))
JOINTS = SimulatedSO101.joint_names
MS = 1_000_000
T0 = 10**18
AGE_NS = 100 * MS  # of the picture behind a chunk when the chunk arrives


def run(chunk_values: Callable[[float], NDArray[np.float64]], seconds: float, every_s: float) -> DemoRecord:
    """Plays chunks [16, 6] of ``chunk_values(seconds since the start)``, a new one every ``every_s``, at 100
    Hz.
    """
    simulation = SimulatedSO101(cameras=())
    record = DemoRecord(ROBOT, 0.25)
    start = simulation.joint_positions()
    arm, gripper = TrajectoryController(JOINTS[:5], start[:5]), PositionController(JOINTS[5:], start[5:])
    execution = Execution(ROBOT, period_s=0.02, lookahead_s=0.2, hold_s=0.5)
    for tick in range(round(seconds * 100)):
        now = T0 + tick * 10 * MS
        commanded = np.concatenate([arm.sample(now), gripper.sample(now)])
        simulation.set_targets(dict(zip(JOINTS, commanded, strict=True)))
        simulation.step(0.01)
        positions = simulation.joint_positions().tolist()
        execution.measure(JOINTS, positions, now, now)
        record.on_joint_state(JOINTS, positions, now)
        if tick % round(every_s * 100) == 0:
            values = chunk_values((tick * 10 * MS - AGE_NS) / 1e9)
            groups = (
                ChunkGroup("arm", "joint_position", JOINTS[:5], values[:, :5]),
                ChunkGroup("gripper", "scalar", JOINTS[5:], values[:, 5:]),
            )
            begin = now - AGE_NS
            chunk = Chunk(1, tick, "move", begin, begin, 50 * MS, groups)
            execution.offer(chunk, now)
            record.on_chunk(chunk)
        if tick % 2 == 0:
            for command in execution.step(now, now):
                if command.group.key == "gripper":
                    gripper.accept(command.positions[0].tolist())
                    record.on_values("gripper", command.positions[0].tolist())
                    continue
                offsets = [round(due * 1e9) for due in command.times_s]
                told = (list(JOINTS[:5]), offsets, command.positions.tolist(), command.velocities.tolist())
                arm.accept(*told, stamp_ns=now, now_ns=now)
                record.on_trajectory("arm", *told, stamp_ns=now, now_ns=now)
    for rate in record.frames.values():
        rate.add()  # there are no cameras here
    return record


def test_a_motion_within_all_limits_is_commanded_exactly_and_followed_closely() -> None:
    start = SimulatedSO101(cameras=()).joint_positions()
    swing = np.array([0.5, 0.3, -0.3, -0.4, 0.8, -0.3])

    def smooth(seconds: float) -> NDArray[np.float64]:
        times = np.clip(seconds + 0.05 * np.arange(16), 0.0, None)[:, None]
        return start + swing * (1.0 - np.cos(times * np.pi / 2.0)) / 2.0

    record = run(smooth, 6.0, 0.25)
    assert record.problems() == []
    worst, rms, joint = record.tracking()
    assert worst < 0.05, f"{joint} lags too far behind"
    assert rms < 0.02
    assert record.comparison.points > 1000
    # A first motion goes over to its plan within the blend time: that many periods of five points.
    going_over = 5 * round(ROBOT.executor.blend_time / 0.02)
    assert record.comparison.exact >= record.comparison.points - going_over
    assert record.travel()["shoulder_pan"] == pytest.approx(0.5, abs=0.03)


def test_wild_chunks_keep_every_limit_and_the_arm_still_follows() -> None:
    """What random weights ask for: another place at every step, often beyond the limits."""
    rng = np.random.default_rng(0)
    start = SimulatedSO101(cameras=()).joint_positions()
    record = run(lambda seconds: start + 0.4 * rng.standard_normal((16, 6)), 20.0, 0.1)
    assert record.problems() == []
    assert record.tracking()[0] < 0.25
    assert min(record.travel().values()) > 0.3, "every joint must move"
