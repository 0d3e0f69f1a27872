# SPDX-License-Identifier: Apache-2.0
"""A planner at work without ROS: a policy that remembers, sources fed by hand, and what comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gr00t_ros.cadence import Cadence
from gr00t_ros.chunk import Chunk
from gr00t_ros.instruction import Instruction
from gr00t_ros.observation import ObservationBuilder
from gr00t_ros.planning import Planner
from gr00t_ros.progress import State
from gr00t_ros.robot import RobotConfig
from support_messages import compressed_image, grey_image, joint_state, modality
from support_robots import small_config

ROBOT = small_config()
MODALITY = modality(["front", "wrist"], ["arm", "gripper"], ["arm", "gripper"])
FRONT, WRIST, JOINTS = "/camera/front/image_raw", "/camera/wrist/image_raw/compressed", "/joint_states"
PIXELS = np.zeros((4, 6, 3), np.uint8)


class FakePolicy:
    """Remembers what it saw; takes ``latency_s``; does what ``behave`` says."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.latency_s = 0.0
        self.behave: Callable[[], np.ndarray] = lambda: np.zeros((1, 16, 2), np.float32)
        self.caught_up = 0
        self.unprepared: Exception | None = None
        self.release = threading.Event()
        self.release.set()

    def get_action(
        self, observation: Mapping[str, Any], *, t_obs_ns: int, seed: int, guidance: Any = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.seen.append({"t_obs_ns": t_obs_ns, "seed": seed, "guidance": guidance, **observation})
        time.sleep(self.latency_s)
        assert self.release.wait(20.0)
        arm = self.behave()
        timing = {"processing_s": 0.001, "inference_s": 0.002, "decoding_s": 0.003}
        return {"arm": arm, "gripper": np.zeros((1, 16, 1), np.float32)}, {"timing": timing}

    def catch_up(self) -> None:
        """Counts what follows each chunk, and fails when told to."""
        self.caught_up += 1
        if self.unprepared is not None:
            raise self.unprepared


class Bench:
    """A running planner with its inputs and outputs in reach."""

    def __init__(
        self, rate: float = 0.0, session: int = 7, chunking: Any = None, robot: RobotConfig = ROBOT
    ) -> None:
        self.policy = FakePolicy()
        self.instruction = Instruction("say it")
        self.chunks: list[Chunk] = []
        self.told: list[str] = []
        self.states: list[State] = []
        self.rate, self.replan_below = rate, 0.0
        self.cadence = Cadence(self.get_rate, lambda: self.replan_below)
        self.offset_ns = 0
        self.pace = 1.0  # of ROS time
        self._begin_ns = time.time_ns()
        self.changed: Callable[[], None] = lambda: self.states.append(self.planner.progress.state)
        self.planner = Planner(
            robot,
            self.policy,
            ObservationBuilder(robot, MODALITY),
            self.instruction,
            delta0=0,
            session=session,
            seed=3,
            cadence=self.cadence,
            now_ns=self.now_ns,
            publish=self.chunks.append,
            changed=lambda: self.changed(),
            warn=self.told.append,
            chunking=chunking,
            grace_s=0.15,
        )

    def get_rate(self) -> float:
        if self.rate < 0.0:
            raise RuntimeError("no rate")
        return self.rate

    def now_ns(self) -> int:
        passed_ns = time.time_ns() - self._begin_ns
        return self._begin_ns + round(passed_ns * self.pace) + self.offset_ns

    def feed(self, seconds: float = 0.0, *, joints: Any = None, skip: tuple[str, ...] = ()) -> None:
        """All sources once, or at 30 Hz for a while."""
        end = time.monotonic() + seconds
        while True:
            now = self.now_ns()
            if JOINTS not in skip:
                state = {"shoulder": 0.1, "elbow": 0.2, "gripper": 0.3} if joints is None else joints
                self.planner.add(JOINTS, joint_state(state, now))
            if WRIST not in skip:
                self.planner.add(WRIST, compressed_image(PIXELS, stamp_ns=now))
            if FRONT not in skip:
                self.planner.add(FRONT, grey_image(9, now))
            if time.monotonic() >= end:
                return
            time.sleep(1 / 30)

    def wait(self, condition: Callable[[], Any], timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, (self.planner.progress, self.told)
            time.sleep(0.005)
