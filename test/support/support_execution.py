# SPDX-License-Identifier: Apache-2.0
"""An execution with its clocks, the SO-101 that it moves, and what its arm controller makes of that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.commands import GroupCommand
from gr00t_ros.execution import Execution
from gr00t_ros.faults import Fault
from gr00t_ros.robot import RobotConfig
from gr00t_ros.sim.controllers import TrajectoryController
from support_robots import shipped

ROBOT = shipped("so101")
ARM, GRIPPER = ROBOT.action["arm"], ROBOT.action["gripper"]
START_NS = 1_700_000_000_000_000_000
PERIOD_S = 0.02
LOOKAHEAD_S = 0.2
HOLD_S = 0.5


def chunk(
    t_ns: int, arm: np.ndarray, gripper: np.ndarray | None = None, sequence: int = 0, session: int = 1
) -> Chunk:
    """A chunk whose step 0 is due at ``t_ns``: arm [T, 5] rad."""
    if gripper is None:
        gripper = np.zeros((len(arm), 1))
    groups = (
        ChunkGroup("arm", "joint_position", ARM.joints, np.asarray(arm, np.float64)),
        ChunkGroup("gripper", "scalar", GRIPPER.joints, np.asarray(gripper, np.float64)),
    )
    return Chunk(session, sequence, "test", t_ns, t_ns, ROBOT.step_ns, groups)


def ramp(steps: int = 16, per_step: float = 0.02) -> np.ndarray:
    """All arm joints from 0 up, rad: 0.4 rad/s at 20 Hz."""
    return np.repeat(np.arange(steps)[:, None] * per_step, 5, axis=1)


@dataclass
class Rig:
    """An execution with its clocks, and a robot that stands where it was told."""

    execution: Execution
    now_ns: int = START_NS
    mono_ns: int = 5_000_000_000
    joints_come: bool = True
    follow: bool = True
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        self.positions = dict.fromkeys(ROBOT.joints, 0.0)

    def period(self, seconds: float = PERIOD_S) -> tuple[GroupCommand, ...]:
        """Lets one period pass."""
        self.now_ns += round(seconds * 1e9)
        self.mono_ns += round(seconds * 1e9)
        if self.joints_come:
            self.execution.measure(
                list(self.positions), list(self.positions.values()), self.now_ns, self.now_ns
            )
        commands = self.execution.step(self.now_ns, self.mono_ns, self.faults)
        if self.follow:
            for command in commands:
                self.positions.update(zip(command.group.joints, command.positions[0], strict=True))
        return commands

    def run(self, seconds: float) -> list[tuple[GroupCommand, ...]]:
        return [self.period() for _ in range(round(seconds / PERIOD_S))]

    def offer(self, arm: np.ndarray, **options: object) -> None:
        self.execution.offer(chunk(self.now_ns, arm, **options), self.now_ns)  # type: ignore[arg-type]


@dataclass
class Driven(Rig):
    """A robot whose arm is where a trajectory controller's reference is: cubic segments, each new trajectory
    from where that stands. ``speeds`` holds the reference's, every millisecond."""

    skew_ns: int = 0  # the controller's clock does not see the jumps of ROS time that the executor must see

    def __post_init__(self) -> None:
        super().__post_init__()
        self.arm = TrajectoryController(ARM.joints, np.zeros(5))
        self.gripper = [0.0]
        self.speeds: list[np.ndarray] = []

    def period(self, seconds: float = PERIOD_S) -> tuple[GroupCommand, ...]:
        begin = self.now_ns - self.skew_ns
        path = [self.arm.sample(begin + i * 1_000_000) for i in range(max(2, round(seconds * 1e3) + 1))]
        self.speeds.extend(np.diff(path, axis=0) / 1e-3)
        self.positions.update(zip(ARM.joints, path[-1], strict=True))
        self.positions["gripper"] = self.gripper[-1]
        self.follow = False
        commands = super().period(seconds)
        clock = self.now_ns - self.skew_ns
        for command in commands:
            if command.group.key != "arm":
                if command.group.key == "gripper":
                    self.gripper.append(float(command.positions[0, 0]))
                continue
            offsets = [round(due * 1e9) for due in command.times_s]
            points = command.positions.tolist(), command.velocities.tolist()
            self.arm.accept(ARM.joints, offsets, *points, stamp_ns=clock, now_ns=clock)
        return commands

    def stand(self, position: float) -> None:
        self.arm.reset(np.full(5, position))

    def assert_forward_within_limits(self) -> None:
        speeds = np.array(self.speeds)
        assert speeds.max() <= 1.1 * ROBOT.limits["shoulder_pan"].velocity
        assert speeds.min() >= -1e-3


def make(robot: RobotConfig = ROBOT, enabled: bool = True, period_s: float = PERIOD_S) -> Execution:
    return Execution(robot, period_s=period_s, lookahead_s=LOOKAHEAD_S, hold_s=HOLD_S, enabled=enabled)


def following(**options: object) -> RobotConfig:
    """The robot with other executor options."""
    return replace(ROBOT, executor=replace(ROBOT.executor, **options))  # type: ignore[arg-type]


def of(commands: tuple[GroupCommand, ...], key: str) -> GroupCommand:
    return next(command for command in commands if command.group.key == key)
