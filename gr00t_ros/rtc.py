# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: a new chunk begins with what the robot will have done by the time it arrives.

While the network computes, the executor goes on with the plan it has. A chunk that ignored this would start
somewhere else, and the arm would jerk at every border. So the plan that the executor says it is committed to
is given to the network (Black et al., "Real-Time Execution of Action Chunking Flow Policies", 2025): the
steps that will be over before the chunk arrives are frozen to it, later ones follow it less and less, and the
tail is free. The plan comes from ``ExecutorStatus`` alone. What the policy once proposed may have been
refused, cut or replaced, and an executor that is not executing has no plan.

No ROS types; ``nodes/policy_node`` turns the status into :class:`CommittedPlan`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.inference.guidance import Guidance
from gr00t_ros.chunk import Chunk
from gr00t_ros.group_values import to_checkpoint, to_quaternions
from gr00t_ros.observation import Observation
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import EE_POSE, QUATERNION

Values = NDArray[np.float64]

# Latencies remembered: some seconds of chunks, so that a change of load shows soon.
REMEMBERED = 50
# Of them, the share that the frozen part must cover. A chunk that comes later than that has its first steps
# skipped, as any late chunk has.
PERCENTILE = 95.0
# Between publishing a chunk and its first command lie the transport and, at most, one period of the executor.
DELIVERY_S = 0.03
# Plans remembered. A frame is older than the plan that is told when its chunk is begun, and what was
# commanded since then stands in the plans before: a second of them, and one for each chunk in it.
REMEMBERED_PLANS = 20
# A status this old (s) says nothing about now: the executor publishes ten a second.
MAX_STATUS_AGE_S = 0.5


@dataclass(frozen=True)
class CommittedPlan:
    """What the executor will command while nothing else comes in: step i of ``groups[key]`` (float64 [T, D],
    SI, absolute) is due at ``start_ns + i * step_ns``. ``said_ns`` is when it said so; all ROS time."""

    said_ns: int
    start_ns: int
    step_ns: int
    groups: Mapping[str, Values]

    @property
    def end_ns(self) -> int:
        """When the last step is due."""
        return self.start_ns + (len(next(iter(self.groups.values()))) - 1) * self.step_ns

    def at(self, times_ns: NDArray[np.int64]) -> dict[str, Values]:
        """The values [n, D] at these times: linear between steps, held before the first and past the last."""
        places = (times_ns - self.start_ns) / self.step_ns
        own = np.arange(len(next(iter(self.groups.values()))))
        return {
            key: np.stack([np.interp(places, own, column) for column in values.T], axis=-1)
            for key, values in self.groups.items()
        }


@dataclass(frozen=True)
class Guided:
    """How a chunk joins the plan: what the engine is given, and the leading steps that are kept as they are,
    ``kept[key]`` float64 [frozen, D], SI."""

    guidance: Guidance
    frozen: int
    kept: Mapping[str, Values]

    def join(self, chunk: Chunk) -> Chunk:
        """The chunk with the frozen steps as they were planned: decoding may have cut them off at the ends of
        the range that the dataset had."""
        groups = tuple(
            replace(group, values=np.concatenate((self.kept[group.key], group.values[self.frozen :])))
            for group in chunk.groups
        )
        return replace(chunk, groups=groups, frozen_steps=self.frozen)


class LatencyEstimate:
    """How long after a frame its chunk takes effect: a running percentile of what was measured [s]."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, seconds: float) -> None:
        """From the frame's stamp to the published chunk; nonsense of a clock that jumped is left out."""
        if 0.0 <= seconds < math.inf:
            self._seconds.append(seconds)

    def clear(self) -> None:
        """Forget all, after a pause."""
        self._seconds.clear()

    @property
    def seconds(self) -> float | None:
        """The percentile, delivery included; None until something was measured."""
        if not self._seconds:
            return None
        return float(np.percentile(self._seconds, PERCENTILE)) + DELIVERY_S


def weights(frozen: int, covered: int, horizon: int) -> NDArray[np.float32]:
    """How much each of ``horizon`` steps follows the network, float32 [horizon] in 0..1.

    0 for the first ``frozen``; rising to the last of the ``covered`` steps, for which there is a plan; 1 from
    there on. The ramp is the paper's: 1 - c (e^c - 1) / (e - 1) with c falling from 1 to 0.
    """
    weight = np.ones(horizon, np.float32)
    weight[:frozen] = 0.0
    ramp = np.arange(frozen, covered)
    c = (covered - ramp) / (covered - frozen + 1)
    weight[frozen:covered] = 1.0 - c * (np.exp(c) - 1.0) / (math.e - 1.0)
    return weight


class RealTimeChunking:
    """Makes the guidance of each chunk. ``hear`` and ``measure`` may run on other threads than ``guide``.

    Args:
        robot: units and groups.
        delta0: the checkpoint's first action step, in steps from t_obs.
        steps: of a chunk of this embodiment.
        horizon: of the network's chunk; the steps beyond ``steps`` are nobody's.
        num_steps: denoising steps.
        encode: actions ``{key: float32 [1, T, D], dataset units}`` and the observation's state to the
            network's normalised actions [1, horizon, width], unclipped.
    """

    def __init__(
        self,
        robot: RobotConfig,
        *,
        delta0: int,
        steps: int,
        horizon: int,
        num_steps: int,
        encode: Callable[[Mapping[str, Any], Mapping[str, Any]], NDArray[np.float32]],
    ) -> None:
        self._robot, self._delta0, self._steps = robot, delta0, steps
        self._horizon, self._num_steps, self._encode = horizon, num_steps, encode
        self._lock = threading.Lock()
        self._plans: deque[CommittedPlan] = deque(maxlen=REMEMBERED_PLANS)  # the newest last
        self.latency = LatencyEstimate()

    def hear(self, plan: CommittedPlan | None) -> None:
        """The executor's newest plan, or None when it is not executing one."""
        with self._lock:
            # Without a plan, or when the clock was set back, what was told before is void.
            if plan is None or (self._plans and plan.said_ns < self._plans[-1].said_ns):
                self._plans.clear()
            if plan is not None:
                self._plans.append(plan)

    def measure(self, seconds: float) -> None:
        """A chunk was published so long after its frame."""
        with self._lock:
            self.latency.add(seconds)

    def guide(self, observation: Observation, now_ns: int) -> Guided | None:
        """How the chunk for this observation joins the plan; None where there is nothing to join: no plan, an
        old one, one that ends before the chunk would begin, or no latency measured yet.

        Raises:
            Gr00tError: the plan cannot be encoded against the observation's state.
        """
        with self._lock:
            plans, latency_s = list(self._plans), self.latency.seconds
        plan = plans[-1] if plans else None
        if plan is None or latency_s is None or abs(now_ns - plan.said_ns) > MAX_STATUS_AGE_S * 1e9:
            return None
        if any(set(told.groups) != set(self._robot.action) for told in plans):
            return None
        start_ns = observation.t_obs_ns + self._delta0 * self._robot.step_ns
        due = start_ns + np.arange(self._steps) * self._robot.step_ns
        covered = int((due <= plan.end_ns).sum())
        late = int((due <= observation.t_obs_ns + round(latency_s * 1e9)).sum())
        frozen = min(late, covered)
        if not covered or due[covered - 1] < plan.start_ns:
            return None
        values = _told(plans, due)
        for key, group in self._robot.action.items():
            if group.representation == EE_POSE:  # between steps a quaternion is not of length 1
                values[key] = to_quaternions(values[key], QUATERNION)
        dataset = {
            key: to_checkpoint(self._robot, group, values[key]) for key, group in self._robot.action.items()
        }
        prefix = self._encode(
            {key: part[None].astype(np.float32) for key, part in dataset.items()}, observation.data["state"]
        )
        weight = np.ones((self._num_steps, self._horizon), np.float32)
        weight[:, : self._steps] = weights(frozen, covered, self._steps)
        guidance = Guidance(np.ascontiguousarray(prefix, np.float32), weight)
        return Guided(guidance, frozen, {key: part[:frozen] for key, part in values.items()})


def _told(plans: Sequence[CommittedPlan], due_ns: NDArray[np.int64]) -> dict[str, Values]:
    """What was told for these times, values [n, D] by key: by the newest plan, and for the time before it by
    those before it. Times before all of them have the first value there is."""
    values, open_times = plans[-1].at(due_ns), due_ns < plans[-1].start_ns
    for plan in reversed(plans[:-1]):
        if not open_times.any():
            break
        told = plan.at(due_ns)
        for key, part in values.items():
            part[open_times] = told[key][open_times]
        open_times &= due_ns < plan.start_ns
    return values
