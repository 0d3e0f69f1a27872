# SPDX-License-Identifier: Apache-2.0
"""A policy that replays a smooth motion, wrong by a little in every chunk: what ``border_jerk.py`` measures
with.

What is real: ``RealTimeChunking`` with the plan that ``Execution`` says it is committed to, ten times a
second, the measured latency, ``Guidance`` and its formula over four denoising steps, ``Guided.join``. What
stands in for the network is a flow whose velocity leads from anywhere straight to its prediction,
v = (prediction - x)/(1 - t). The prediction is the motion itself plus an error of the chunk's own: an offset
and a drift, as a policy has that looks at another picture. Two ways of it:

- ``own``: the tail does not know what the beginning was guided to; nothing but the ramp of the guidance joins
  the two. (So it is for differences of some mrad: at the last of four denoising steps the noise in what the
  network sees is many times as large.)
- ``continued``: the tail is correlated with the beginning, as the steps of a trained network's chunk are. The
  chunk's error is a Gaussian process with a squared exponential kernel of ``CORRELATED_S``, conditioned on
  the frozen steps: it begins at their error and goes over to its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.chunk import Chunk, ChunkGroup
from gr00t_ros.execution import Execution
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rtc import CommittedPlan, Guided, RealTimeChunking

Values = NDArray[np.float64]

NONE, OWN, CONTINUED = "none", "own", "continued"
LATENCY_S = 0.15
NUM_STEPS = 4
# How often the executor tells its plan.
STATUS_S = 0.1
CORRELATED_S = 0.3
# Of the variance: keeps the kernel's matrix well conditioned.
NUGGET = 0.01
START_NS = 10**18


def motion(t: Values, joints: int = 6) -> Values:
    """Positions [T, joints], rad: at most 0.5 rad, 1.2 rad/s and 4 rad/s^2 about the middle of the range."""
    phases = np.random.default_rng(3).uniform(0, 2 * np.pi, (3, joints))
    scale = np.linspace(1.0, 1.3, joints)
    parts = [
        amplitude * np.sin(2 * np.pi * hertz * scale * t[:, None] + phase)
        for amplitude, hertz, phase in zip((0.25, 0.15, 0.06), (0.15, 0.4, 0.8), phases, strict=True)
    ]
    return np.sum(parts, axis=0) + np.r_[np.zeros(joints - 1), 0.7]


def _columns(groups: Mapping[str, Any], _state: object = None) -> Any:
    """All groups side by side: what a processor that normalises nothing encodes."""
    return np.concatenate([np.asarray(values) for values in groups.values()], axis=-1)


class Policy:
    """Looks every ``every_s`` seconds; each chunk comes ``LATENCY_S`` later. The same seeds give the same
    errors to every setting."""

    def __init__(
        self, robot: RobotConfig, *, horizon: int, every_s: float, error: float, guidance: str = NONE
    ) -> None:
        """``error``: standard deviation of a chunk's offset, rad, and of its drift, rad/s."""
        self._robot, self._horizon, self._every_s, self._error = robot, horizon, every_s, error
        self._guidance = guidance
        self._errors, self._noise = np.random.default_rng(7), np.random.default_rng(8)
        self._chunking = RealTimeChunking(
            robot, delta0=0, steps=horizon, horizon=horizon, num_steps=NUM_STEPS, encode=_columns
        )
        self._looked = self._told = self._sent = 0
        self._ready: Chunk | None = None

    def hear(self, execution: Execution, t: float) -> None:
        """The executor's status, where one is due at ``t`` seconds."""
        if self._guidance == NONE or t < self._told * STATUS_S - 1e-9:
            return
        self._told += 1
        now_ns = _ns(t)
        plan = execution.plan(now_ns)
        if plan is None:
            self._chunking.hear(None)
            return
        groups = {group.key: group.values for group in plan.groups}
        self._chunking.hear(CommittedPlan(now_ns, plan.start_ns, plan.step_ns, groups))

    def send(self, t: float) -> Chunk | None:
        """The chunk that comes out at ``t`` seconds, if one does."""
        if t < self._sent * self._every_s + LATENCY_S - 1e-9:
            return None
        self._sent += 1
        self._chunking.measure(LATENCY_S)
        return self._ready

    def look(self, t: float) -> None:
        """Takes a picture, where one is due at ``t`` seconds, and begins its chunk."""
        if t < self._looked * self._every_s - 1e-9:
            return
        ahead = np.arange(self._horizon) / self._robot.step_rate
        offset, drift = self._errors.normal(0, self._error, (2, 6))
        true, wrong = motion(t + ahead), offset + ahead[:, None] * drift
        observation: Any = SimpleNamespace(t_obs_ns=_ns(t), data={"state": {}})
        guided = None if self._guidance == NONE else self._chunking.guide(observation, _ns(t))
        if guided is not None and self._guidance == CONTINUED:
            wrong = _continued(wrong, _columns(guided.kept) - true[: guided.frozen], ahead)
        values, begin, groups = self._denoise(true + wrong, guided), 0, []
        for key, group in self._robot.action.items():
            part = values[:, begin : begin + len(group.joints)]
            groups.append(ChunkGroup(key, group.representation, group.joints, part))
            begin += len(group.joints)
        stamp = _ns(t)
        chunk = Chunk(1, self._looked, "", stamp, stamp, self._robot.step_ns, tuple(groups))
        self._ready = chunk if guided is None else guided.join(chunk)
        self._looked += 1

    def _denoise(self, prediction: Values, guided: Guided | None) -> Values:
        """Euler steps from noise, as the engine takes them."""
        noise = self._noise.normal(size=prediction.shape)
        x = noise
        for s in range(NUM_STEPS):
            x = x + (prediction - x) / (1 - s / NUM_STEPS) / NUM_STEPS
            if guided is not None:
                t, weight = (s + 1) / NUM_STEPS, guided.guidance.weight[s][:, None].astype(np.float64)
                x = weight * x + (1 - weight) * ((1 - t) * noise + t * guided.guidance.prefix[0])
        return x


def _continued(own: Values, frozen: Values, ahead: Values) -> Values:
    """A draw of the process, ``own`` [T, D], as it is when its first steps are ``frozen`` [F, D]."""
    kernel = np.exp(-0.5 * ((ahead[:, None] - ahead) / CORRELATED_S) ** 2)
    count = len(frozen)
    known = kernel[:count, :count] + NUGGET * np.eye(count)
    return own + kernel[:, :count] @ np.linalg.solve(known, frozen - own[:count])


def _ns(t: float) -> int:
    return START_NS + round(t * 1e9)
