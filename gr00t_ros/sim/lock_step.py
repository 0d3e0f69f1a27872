# SPDX-License-Identifier: Apache-2.0
"""The whole chain in one process and in simulated time, from pictures to the moving arm. No ROS.

Everything between the simulated camera and the simulated servos is the code of the nodes: the observation
builder, the policy, the chunk's place in time, real-time chunking, the executor with its safety filter and
watchdogs, the controllers. Only transport and threads are missing. Time stands still while the network
computes, and a chunk arrives a set latency after its frame: so the same seed gives the same run on every
machine, up to the network's own rounding. ``bench/closed_loop.py`` measures with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk, chunk_from_actions
from gr00t_ros.commands import GroupCommand
from gr00t_ros.errors import ChunkRefused, NotReady
from gr00t_ros.execution import Execution
from gr00t_ros.observation import Observation, ObservationBuilder
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import BLEND, JOINT_TRAJECTORY
from gr00t_ros.rtc import CommittedPlan, RealTimeChunking
from gr00t_ros.sim.controllers import PositionController, TrajectoryController
from gr00t_ros.sim.reaching import RUNNING, ReachingTask
from gr00t_ros.watchdogs import Watchdogs

# How chunks follow each other: the executor's three ways, and real-time chunking, whose chunks it blends.
RTC = "rtc"
# As the nodes' defaults: joint states at 100 Hz, commands at 50 Hz, the executor's status at 10 Hz.
_TICK_NS = 10_000_000
_EXECUTOR_TICKS, _STATUS_TICKS = 2, 10
_LOOKAHEAD_S, _HOLD_S = 0.2, 0.5
# Each episode has a time of its own, and with it noise of its own: seconds between two seeds.
_EPISODE_S = 1000
_EPOCH_S = 1_000_000_000
_NS = 1_000_000_000


class Policy(Protocol):
    """What the chain needs of ``Gr00tPolicy``."""

    @property
    def modality(self) -> Mapping[str, Any]:
        """Keys and steps, by ``video``, ``state``, ``action`` and ``language``."""

    def get_action(
        self, observation: Mapping[str, Any], *, t_obs_ns: int, seed: int, guidance: Any = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Actions in the dataset's units and timing, see ``Gr00tPolicy.get_action``."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a run is measured under.

    interval: steps from one chunk's frame to the next one's. latency_s: from a chunk's beginning, when the
    newest frame is taken, to its arrival. drop: share of frames that are lost. noise: standard deviation of
    what is added to every pixel, of 255. mode: ``replace``, ``blend``, ``ensemble``, or ``rtc``. seed: of
    chunk noise, losses and pixels.
    """

    interval: int = 4
    latency_s: float = 0.0
    drop: float = 0.0
    noise: float = 0.0
    mode: str = BLEND
    seed: int = 0


@dataclass
class Run:
    """What came of one episode. Times in simulated seconds from its beginning.

    touched_s: when the first object was touched, None where none was; changed_s: when the episode's change
    came. inference_s: real seconds of each chunk. stops: how often the executor came to rest for want of a
    plan. clipped: its periods in which a limit held something back.
    """

    seed: int
    kind: str
    outcome: str = RUNNING
    seconds: float = 0.0
    touched_s: float | None = None
    changed_s: float | None = None
    chunks: int = 0
    refused: int = 0
    stops: int = 0
    clipped: int = 0
    inference_s: list[float] = field(default_factory=list)


class LockStep:
    """A policy and a robot description, for episode after episode of one task."""

    def __init__(
        self, robot: RobotConfig, policy: Policy, task: ReachingTask, conditions: Conditions
    ) -> None:
        merge = BLEND if conditions.mode == RTC else conditions.mode
        self._robot = replace(robot, executor=replace(robot.executor, merge=merge))
        self._policy, self._task, self._conditions = policy, task, conditions
        self._delta0 = min(policy.modality["action"].delta_indices)
        self._frame_ticks = max(1, round(_NS / robot.step_rate / _TICK_NS))

    def run(self, seed: int, kind: str) -> Run:
        """One episode from its beginning to its outcome."""
        self._task.begin(seed, kind)
        result = Run(seed, kind)
        start_ns = (_EPOCH_S + seed * _EPISODE_S) * _NS
        self._begin(start_ns, seed)
        tick = 0
        while self._task.outcome == RUNNING:
            now_ns = start_ns + tick * _TICK_NS
            self._sense(now_ns, picture=tick % self._frame_ticks == 0)
            self._receive(now_ns)
            self._look(now_ns, result)
            if tick % _STATUS_TICKS == 0:
                self._tell(now_ns)
            if tick % _EXECUTOR_TICKS == 0:
                self._command(now_ns)
            for controller in self._controllers.values():
                targets = zip(controller.joints, controller.sample(now_ns), strict=True)
                self._task.arm.set_targets(dict(targets))
            self._task.step(_TICK_NS / _NS)
            tick += 1
        counters = self._execution.counters
        result.outcome, result.seconds = self._task.outcome, self._task.time
        result.touched_s, result.changed_s = self._task.touched_s, self._task.changed_s
        result.refused, result.stops = counters.chunks_refused, counters.stops
        result.clipped = counters.commands_clipped
        return result

    def _begin(self, start_ns: int, seed: int) -> None:
        """Everything anew, as if all nodes had just been started."""
        robot, arm = self._robot, self._task.arm
        self._rng = np.random.default_rng([self._conditions.seed, seed])
        self._builder = ObservationBuilder(robot, self._policy.modality)
        self._execution = Execution(
            robot, period_s=_EXECUTOR_TICKS * _TICK_NS / _NS, lookahead_s=_LOOKAHEAD_S, hold_s=_HOLD_S
        )
        self._watchdogs = Watchdogs(robot.executor, (), start_ns)
        positions = dict(zip(arm.joint_names, arm.joint_positions(), strict=True))
        self._controllers: dict[str, TrajectoryController | PositionController] = {}
        for key, group in robot.action.items():
            kind = TrajectoryController if group.interface == JOINT_TRAJECTORY else PositionController
            self._controllers[key] = kind(
                group.joints, np.array([positions[joint] for joint in group.joints])
            )
        self._chunking = self._make_chunking() if self._conditions.mode == RTC else None
        self._under_way: tuple[int, Chunk] | None = None  # when it arrives
        self._next_ns = start_ns  # the earliest frame for the next chunk
        self._used_ns: int | None = None
        self._sequence = 0

    def _make_chunking(self) -> RealTimeChunking:
        policy: Any = self._policy
        return RealTimeChunking(
            self._robot,
            delta0=self._delta0,
            steps=policy.horizon,
            horizon=policy.config.action_horizon,
            num_steps=policy.num_steps,
            encode=policy.encode_plan,
        )

    # What the robot's drivers publish.

    def _sense(self, now_ns: int, *, picture: bool) -> None:
        arm, robot = self._task.arm, self._robot
        names, positions = list(arm.joint_names), arm.joint_positions()
        for topic in {source.topic for source in robot.state.values()} & set(self._builder.topics):
            message = SimpleNamespace(
                header=_header(now_ns),
                name=names,
                position=positions,
                velocity=arm.joint_velocities(),
                effort=[],
            )
            self._builder.add(topic, message, now_ns)
        self._execution.measure(names, positions.tolist(), now_ns, now_ns)
        if not picture:
            return
        for key, source in robot.video.items():
            lost = self._rng.uniform() < self._conditions.drop
            if lost or source.topic not in self._builder.topics:
                continue
            self._builder.add(source.topic, _image(self._seen(arm.render(key)), now_ns), now_ns)

    def _seen(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture as a noisy camera gives it."""
        if not self._conditions.noise:
            return pixels
        noisy = pixels + self._rng.normal(0.0, self._conditions.noise, pixels.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)

    # What the policy node does.

    def _look(self, now_ns: int, result: Run) -> None:
        """Begins a chunk, where one is due and there is a picture for it."""
        newest = self._builder.newest_frame_ns
        if self._under_way is not None or newest is None or newest == self._used_ns or newest < self._next_ns:
            return
        try:
            observation = self._builder.assemble(now_ns, self._task.instruction)
        except NotReady:
            return
        begun = time.perf_counter()
        chunk = self._infer(observation, now_ns)
        result.inference_s.append(time.perf_counter() - begun)
        result.chunks += 1
        self._sequence += 1
        self._used_ns = observation.t_obs_ns
        self._next_ns = observation.t_obs_ns + self._conditions.interval * self._robot.step_ns
        self._under_way = (now_ns + round(self._conditions.latency_s * _NS), chunk)
        self._receive(now_ns)

    def _infer(self, observation: Observation, now_ns: int) -> Chunk:
        guided = None if self._chunking is None else self._chunking.guide(observation, now_ns)
        actions, _ = self._policy.get_action(
            observation.data,
            t_obs_ns=observation.t_obs_ns,
            seed=self._conditions.seed,
            guidance=None if guided is None else guided.guidance,
        )
        chunk = chunk_from_actions(
            self._robot,
            actions,
            t_obs_ns=observation.t_obs_ns,
            delta0=self._delta0,
            session=1,
            sequence=self._sequence,
            instruction=observation.instruction,
        )
        return chunk if guided is None else guided.join(chunk)

    def _receive(self, now_ns: int) -> None:
        """The chunk that is under way reaches the executor, where it is time."""
        if self._under_way is None or now_ns < self._under_way[0]:
            return
        chunk, self._under_way = self._under_way[1], None
        if self._chunking is not None:
            self._chunking.measure((now_ns - chunk.t_obs_ns) / _NS)
        try:
            self._execution.offer(chunk, now_ns)
        except ChunkRefused:
            return  # the execution has counted it
        self._watchdogs.accepted(chunk.t_obs_ns, chunk.end_ns, now_ns)

    # What the executor node does.

    def _tell(self, now_ns: int) -> None:
        """The executor's status reaches the policy."""
        self._watchdogs.heard(now_ns)
        if self._chunking is None:
            return
        plan = self._execution.plan(now_ns)
        if plan is None:
            self._chunking.hear(None)
            return
        groups = {group.key: group.values for group in plan.groups}
        self._chunking.hear(CommittedPlan(now_ns, plan.start_ns, plan.step_ns, groups))

    def _command(self, now_ns: int) -> None:
        faults = self._watchdogs.check(now_ns, now_ns, 0)
        for command in self._execution.step(now_ns, now_ns, faults):
            controller = self._controllers[command.group.key]
            if isinstance(controller, TrajectoryController):
                _send(controller, command, now_ns)
            else:
                controller.accept(command.positions[0].tolist())


def _send(controller: TrajectoryController, command: GroupCommand, now_ns: int) -> None:
    """A command as the trajectory that ``nodes/conversions`` makes of it."""
    due = list(zip(command.times_s, command.positions, command.velocities, strict=True))
    if command.begin is not None:
        due.insert(0, (0.0, *command.begin))
    times, positions, velocities = zip(*due, strict=True)
    offsets = [round(at * _NS) for at in times]
    controller.accept(command.group.joints, offsets, positions, velocities, stamp_ns=now_ns, now_ns=now_ns)


def _header(stamp_ns: int) -> SimpleNamespace:
    return SimpleNamespace(stamp=SimpleNamespace(sec=stamp_ns // _NS, nanosec=stamp_ns % _NS), frame_id="")


def _image(pixels: NDArray[np.uint8], stamp_ns: int) -> SimpleNamespace:
    """pixels [H, W, 3] RGB as a ``sensor_msgs/Image`` has them."""
    height, width, _ = pixels.shape
    return SimpleNamespace(
        header=_header(stamp_ns),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )
