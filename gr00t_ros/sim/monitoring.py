# SPDX-License-Identifier: Apache-2.0
"""What a demo run has to show, and the verdict: did pictures become chunks, chunks commands, commands motion?
No ROS.

``nodes/demo_monitor.py`` feeds a ``DemoRecord`` with what it hears; the record keeps running figures and, in
rings of fixed size, what the picture at the end is drawn from. It judges from outside: commanded positions
come from the command topics, measured ones from the joint states, limits from the robot description, nothing
from the executor's own account.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk
from gr00t_ros.errors import MessageError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_TRAJECTORY
from gr00t_ros.sim.controllers import PositionController, TrajectoryController
from gr00t_ros.timeline import ACTIVE, Timeline

_NS = 1_000_000_000
# The plots show this much at the end of a run, at this rate: some hundred kB however long the run is.
WINDOW_S = 120.0
_PLOT_RATE_HZ = 20.0
# A commanded point counts as the chunk's own within this many rad. The arm's servos resolve 2 pi / 4096 =
# 1.5e-3 rad; below that nothing reaches the robot. (An executor that bounds acceleration rounds the chunk's
# corners by 1e-4.)
EXACT_RAD = 1e-3
# Share of commands that may come too late for a controller to take: scheduling on a loaded machine, not a
# fault.
_MAX_REFUSED = 0.05
# Rounding of a limit in a YAML against a float64 command.
_LIMIT_SLACK = 1e-9


class Rate:
    """Events per second over the last few seconds, from monotonic time."""

    def __init__(self, window_s: float = 3.0) -> None:
        self._window = window_s
        self._times: collections.deque[float] = collections.deque(maxlen=2000)
        self.count = 0

    def add(self) -> None:
        """One event, now."""
        self.count += 1
        self._times.append(time.monotonic())

    def hertz(self) -> float:
        """The present rate; 0 when nothing came for a window."""
        now = time.monotonic()
        while self._times and self._times[0] < now - self._window:
            self._times.popleft()
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)


@dataclass(frozen=True)
class PlotSample:
    """One column of the plots: ROS time (ns), commanded (NaN before the first command) and measured positions
    [D].
    """

    time_ns: int
    commanded: NDArray[np.float64]
    measured: NDArray[np.float64]


@dataclass
class Comparison:
    """How commanded trajectory points relate to the chunks that they came from."""

    points: int = 0
    exact: int = 0

    def add(self, deviation: float) -> None:
        """One point and its distance (rad) from the chunk's own value at its time."""
        self.points += 1
        self.exact += deviation <= EXACT_RAD


@dataclass
class DemoRecord:
    """Everything seen in one run. Call from one thread.

    max_tracking_error: rad; how far a measured joint may be from where it is commanded at that moment.
    """

    robot: RobotConfig
    max_tracking_error: float
    frames: dict[str, Rate] = field(init=False)
    chunks: Rate = field(default_factory=Rate)
    commands: dict[str, Rate] = field(init=False)

    def __post_init__(self) -> None:
        self.joints = self.robot.joints
        self.frames = {key: Rate() for key in self.robot.video}
        self.commands = {key: Rate() for key in self.robot.action}
        self.comparison = Comparison()
        self.violations: dict[str, float] = {}  # joint: worst command outside its limits
        self.not_finite = 0
        self.refused = 0  # commands that a controller would not have taken
        self.last_refusal = ""
        self.plot: collections.deque[PlotSample] = collections.deque(maxlen=round(WINDOW_S * _PLOT_RATE_HZ))
        # Observation time and start of the chunks; at most 20 a second is more than any policy gives.
        self.chunk_times: collections.deque[int] = collections.deque(maxlen=round(WINDOW_S * 20))
        self.instruction = ""
        # As the executor follows them; the two differ where a hand-over begins, by when a chunk arrived.
        self._timeline = Timeline.of(self.robot, max_chunks=8)
        self._measured: dict[str, float] = {}
        self._controllers: dict[str, TrajectoryController | PositionController] = {}
        self._error_squares = np.zeros(len(self.joints))
        self._error_max = np.zeros(len(self.joints))
        self._errors = 0
        self._low = np.full(len(self.joints), np.inf)
        self._high = np.full(len(self.joints), -np.inf)

    # What is heard.

    def on_chunk(self, chunk: Chunk) -> None:
        """A chunk that the policy published."""
        self.chunks.add()
        self.instruction = chunk.instruction
        self.chunk_times.append(chunk.t_obs_ns)
        self._timeline.add(chunk)

    def on_joint_state(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> None:
        """Measured positions, rad; compared with what is commanded at ``stamp_ns``."""
        for name, position in zip(names, positions, strict=False):
            self._measured[name] = position
        if any(joint not in self._measured for joint in self.joints):
            return
        measured = np.array([self._measured[joint] for joint in self.joints])
        self._low, self._high = np.minimum(self._low, measured), np.maximum(self._high, measured)
        commanded = self._commanded(stamp_ns)
        error = np.abs(commanded - measured)
        if np.isfinite(error).all():
            self._errors += 1
            self._error_squares += error**2
            self._error_max = np.maximum(self._error_max, error)
        if np.isnan(commanded).all():
            return  # the plots begin with the first command
        last = self.plot[-1].time_ns if self.plot else -_NS
        if stamp_ns - last >= _NS / _PLOT_RATE_HZ or stamp_ns < last:
            self.plot.append(PlotSample(stamp_ns, commanded, measured))

    def _commanded(self, now_ns: int) -> NDArray[np.float64]:
        values: dict[str, float] = {}
        for controller in self._controllers.values():
            values |= dict(zip(controller.joints, controller.sample(now_ns), strict=True))
        return np.array([values.get(joint, math.nan) for joint in self.joints])

    def on_trajectory(
        self,
        key: str,
        names: Sequence[str],
        offsets_ns: Sequence[int],
        positions: Sequence[Sequence[float]],
        velocities: Sequence[Sequence[float]],
        *,
        stamp_ns: int,
        now_ns: int,
    ) -> None:
        """A JointTrajectory for the action group ``key``; arguments as ``TrajectoryController.accept``."""
        self.commands[key].add()
        for row in positions:
            self._check_limits(names, row)
        controller = self._controller(key)
        if not isinstance(controller, TrajectoryController):
            return
        try:
            controller.accept(names, offsets_ns, positions, velocities, stamp_ns=stamp_ns, now_ns=now_ns)
        except MessageError as error:
            self._refuse(error)
            return
        self._compare(key, names, offsets_ns, positions, stamp_ns or now_ns)

    def on_values(self, key: str, values: Sequence[float]) -> None:
        """A Float64MultiArray or JointState command for the group ``key``, in the order of its joints."""
        self.commands[key].add()
        self._check_limits(self.robot.action[key].joints, values)
        controller = self._controller(key)
        if not isinstance(controller, PositionController):
            return
        try:
            controller.accept(values)
        except MessageError as error:
            self._refuse(error)

    def forget(self) -> None:
        """The arm is put elsewhere: nothing that was commanded before is compared with what comes after."""
        self._controllers.clear()

    def _refuse(self, error: MessageError) -> None:
        self.refused += 1
        self.last_refusal = str(error)

    def _controller(self, key: str) -> TrajectoryController | PositionController | None:
        """What follows this group's commands; None until its joints have been measured."""
        if key not in self._controllers:
            group = self.robot.action[key]
            if any(joint not in self._measured for joint in group.joints):
                return None
            start = np.array([self._measured[joint] for joint in group.joints])
            kind = TrajectoryController if group.interface == JOINT_TRAJECTORY else PositionController
            self._controllers[key] = kind(group.joints, start)
        return self._controllers[key]

    def _check_limits(self, names: Sequence[str], values: Sequence[float]) -> None:
        for name, value in zip(names, values, strict=False):
            if not math.isfinite(value):
                self.not_finite += 1
                continue
            limits = self.robot.limits.get(name)
            if limits is None or not limits.min - _LIMIT_SLACK <= value <= limits.max + _LIMIT_SLACK:
                worst = self.violations.get(name, 0.0)
                self.violations[name] = value if abs(value) > abs(worst) else worst

    def _compare(
        self,
        key: str,
        names: Sequence[str],
        offsets_ns: Sequence[int],
        positions: Sequence[Sequence[float]],
        start_ns: int,
    ) -> None:
        """Compares all points but the last with the chunk at their times; the last is where the arm comes to
        rest.
        """
        for offset, row in zip(offsets_ns[:-1], positions[:-1], strict=False):
            deviation = chunk_deviation(self._timeline, key, names, row, start_ns + offset)
            if deviation is not None:
                self.comparison.add(deviation)

    # What it amounts to.

    @property
    def total_commands(self) -> int:
        """Commands heard, all groups together."""
        return sum(rate.count for rate in self.commands.values())

    def tracking(self) -> tuple[float, float, str]:
        """Largest error (rad), root mean square (rad) over all joints, and the joint with the largest."""
        if not self._errors:
            return math.nan, math.nan, ""
        worst = int(np.argmax(self._error_max))
        rms = float(np.sqrt(self._error_squares.sum() / self._errors / len(self.joints)))
        return float(self._error_max[worst]), rms, self.joints[worst]

    def travel(self) -> dict[str, float]:
        """How far each joint moved: highest less lowest measured position, rad."""
        spans = np.maximum(self._high - self._low, 0.0)
        return dict(zip(self.joints, map(float, spans), strict=True))

    def problems(self) -> list[str]:
        """Why the run is no success; empty when the whole chain ran and every limit was kept."""
        found = [f"no pictures of camera {key}" for key, rate in self.frames.items() if not rate.count]
        if not self._measured:
            found.append("no joint states")
        if not self.chunks.count:
            found.append("no action chunks")
        found += [f"no commands for {key}" for key, rate in self.commands.items() if not rate.count]
        if self.not_finite:
            found.append(f"{self.not_finite} commanded values were not finite")
        found += [
            f"{joint} was commanded to {value:.4f} rad, outside its limits"
            for joint, value in self.violations.items()
        ]
        if self.refused > _MAX_REFUSED * self.total_commands:
            found.append(f"controllers would have refused {self.refused} commands: {self.last_refusal}")
        worst, _, joint = self.tracking()
        if self.total_commands and math.isnan(worst):
            found.append("commanded and measured joints could not be compared")
        elif worst > self.max_tracking_error:
            found.append(
                f"{joint} was {worst:.3f} rad from its command, more than {self.max_tracking_error:g} rad"
            )
        return found

    def summary(self) -> list[str]:
        """The figures of the run, one a line."""
        worst, rms, joint = self.tracking()
        frames = ", ".join(f"{key} {rate.count}" for key, rate in self.frames.items())
        commands = ", ".join(f"{key} {rate.count}" for key, rate in self.commands.items())
        moved = ", ".join(f"{name} {span:.2f}" for name, span in self.travel().items() if math.isfinite(span))
        lines = [
            f"frames: {frames}; chunks: {self.chunks.count}; commands: {commands}",
            f"tracking error: max {worst:.3f} rad ({joint}), RMS {rms:.3f} rad; "
            f"limit {self.max_tracking_error:g} rad",
            f"commands outside limits: {len(self.violations)}; not finite: {self.not_finite}",
            f"measured travel (rad): {moved}",
        ]
        if self.refused:
            lines.append(f"commands that controllers would refuse: {self.refused} ({self.last_refusal})")
        if self.comparison.points:
            share = 100.0 * self.comparison.exact / self.comparison.points
            lines.append(
                f"commanded points equal to the chunk at their time: {share:.0f}% of "
                f"{self.comparison.points}; the others were held back by limits"
            )
        return lines


def chunk_deviation(
    timeline: Timeline, key: str, names: Sequence[str], positions: Sequence[float], due_ns: int
) -> float | None:
    """How far (rad, worst joint) a commanded point is from what the chunks say for its time.

    None where no chunk is active. Joints are matched by name. With chunks that ask for nothing beyond a
    robot's limits an executor's points deviate by rounding only.
    """
    sample = timeline.sample(due_ns)
    if sample.status != ACTIVE or sample.chunk is None or key not in sample.values:
        return None
    group = next(group for group in sample.chunk.groups if group.key == key)
    wanted = dict(zip(group.names, sample.values[key], strict=True))
    if set(names) != set(wanted):
        return None
    return max(abs(value - wanted[name]) for name, value in zip(names, positions, strict=True))
