# SPDX-License-Identifier: Apache-2.0
"""Leads the demo from episode to episode of the simulator's task, and counts. Used by ``demo_monitor``.

Between two episodes the simulator puts the arm elsewhere at once, which no real arm does. So the executor is
stopped before, as a person would who sets up the next try, and started after.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from gr00t_ros.nodes.sim_task import OUTCOMES, TOPIC
from gr00t_ros.sim.reaching import LATE, RUNNING, SUCCESS, WRONG
from gr00t_ros.sim.reaching_episodes import KINDS

# How long an outcome is looked at, and how long chunks of before may be under way, s.
_PAUSE_S, _SETTLE_S = 0.8, 0.4
# A service that has not answered for so long is called again, s.
_PATIENCE_S = 2.0
# What came of an episode, for people.
_WORDS = {SUCCESS: "reached", WRONG: "wrong object", LATE: "not reached"}
# So many episodes say something about a policy, and of them this share is the least to be called a success.
_ENOUGH, _LEAST = 4, 0.5


class TaskReferee:
    """``turn`` is called again and again by the thread that spins ``node``, once there are commands.

    ``again`` is told that the arm is about to be put elsewhere; ``ended`` gets what came of an episode, in
    two words, and a line about it.
    """

    def __init__(self, node: Node, *, again: Callable[[], None], ended: Callable[[str, str], None]) -> None:
        self._again, self._ended = again, ended
        self._counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}  # outcomes
        self._state: dict[str, float] = {}
        self._steps = (
            (node.create_client(Trigger, "executor/stop"), _PAUSE_S),
            (node.create_client(Trigger, "/so101_sim/reset"), _SETTLE_S),
            (node.create_client(Trigger, "executor/start"), 0.0),
        )
        # Which of the steps to the next episode is under way; None while an episode is. The one that the
        # simulator began with passes while the policy loads, so it is not counted.
        self._step: int | None = 0
        self._call: Any = None
        self._due_s = 0.0
        node.create_subscription(JointState, TOPIC, self._on_state, qos_profile_sensor_data)

    def _on_state(self, message: JointState) -> None:
        self._state = dict(zip(message.name, message.position, strict=True))

    def turn(self) -> None:
        """Does what is due."""
        now_s = time.monotonic()
        if self._step is None:
            outcome = OUTCOMES[round(self._state.get("outcome", 0.0))]
            if outcome != RUNNING:
                self._count(outcome)
                self._step, self._due_s = 0, now_s
            return
        client, pause_s = self._steps[self._step]
        if self._call is not None and self._call.done():
            self._call = None
            self._due_s = now_s + pause_s
            if client is self._steps[1][0]:
                self._state = {}
            self._step = self._step + 1 if self._step + 1 < len(self._steps) else None
        elif now_s >= self._due_s:
            self._ask(client, now_s)

    def _ask(self, client: Client, now_s: float) -> None:
        self._due_s = now_s + _PATIENCE_S
        if client.service_is_ready():
            self._again()
            self._call = client.call_async(Trigger.Request())

    def _count(self, outcome: str) -> None:
        kind, words = KINDS[round(self._state["kind"])], f"{_WORDS[outcome]}, {self._state['seconds']:.1f} s"
        self._counts[kind][outcome] += 1
        self._ended(words, f"episode {round(self._state['episode'])} ({kind}): {words}; {self.score}")

    @property
    def outcomes(self) -> Counter[str]:
        """How many episodes ended how."""
        return sum(self._counts.values(), Counter())

    @property
    def score(self) -> str:
        """The count so far, in words."""
        found = self.outcomes
        rest = ", ".join(f"{found[outcome]} {_WORDS[outcome]}" for outcome in (WRONG, LATE))
        return f"{found[SUCCESS]} of {found.total()} reached, {rest}"

    @property
    def score_by_kind(self) -> str:
        """How many of each kind were reached, in words."""
        counted = {kind: found for kind, found in self._counts.items() if found}
        return ", ".join(f"{kind} {found[SUCCESS]} of {found.total()}" for kind, found in counted.items())

    def problems(self) -> list[str]:
        """Why the run was no success."""
        found = self.outcomes
        if not found:
            return ["no episode came to its end"]
        if found.total() < _ENOUGH or found[SUCCESS] >= _LEAST * found.total():
            return []
        return [f"the named object was reached in {found[SUCCESS]} of {found.total()} episodes only"]
