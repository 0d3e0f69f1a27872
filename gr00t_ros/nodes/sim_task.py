# SPDX-License-Identifier: Apache-2.0
"""The reaching task on topics: what is asked, and what the simulator measured. Used by ``so101_sim``.

With every picture, and with its stamp, ``/task/state`` tells how the episode stands. It is a JointState,
which has names, values and a stamp, so that a robot description can read it and a recording hold it; the
names are ``STATE``. The instruction goes where the policy and the recorder listen for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.sim.reaching import LATE, RUNNING, SUCCESS, WRONG, ReachingTask
from gr00t_ros.sim.reaching_episodes import KINDS
from gr00t_ros.system import REACH

if TYPE_CHECKING:
    from gr00t_ros.nodes.so101_sim import SO101Sim

TASKS = ("", REACH)
TOPIC = "/task/state"
# How an episode stands, by number.
OUTCOMES = (RUNNING, SUCCESS, WRONG, LATE)
# The named object in the front camera's picture, from the left and from the top, in shares of its size; its
# centre (m, base frame) and the height of its top; which episode of this run it is, counted from 1, of which
# kind (in KINDS), how it stands (in OUTCOMES), and how long it has lasted, s.
STATE = (
    "named_object_u",
    "named_object_v",
    "target_x",
    "target_y",
    "target_z",
    "target_top",
    "episode",
    "kind",
    "outcome",
    "seconds",
)


class TaskTopics:
    """Owns the task and its publishers. Episode n has the seed ``seed + n - 1``, and ``kinds``, separated by
    commas, in turn."""

    def __init__(self, node: SO101Sim, task: ReachingTask, seed: int, kinds: str, instruction: str) -> None:
        self.task = task
        self._kinds = [kind.strip() for kind in kinds.split(",")]
        wrong = [kind for kind in self._kinds if kind not in KINDS]
        if wrong:
            raise Gr00tRosError(f"parameter kinds: found {wrong[0]!r}, expected {', '.join(KINDS)}")
        self._node, self._seed, self._number = node, seed, 0
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._instruction = node.create_publisher(String, instruction, latched)
        self._state = node.create_publisher(JointState, TOPIC, 10)
        self._said = ""
        self.begin()

    def begin(self) -> str:
        """Begins the next episode; returns a sentence about it."""
        seed, kind = self._seed + self._number, self._kinds[self._number % len(self._kinds)]
        self._number += 1
        self.task.begin(seed, kind)
        self._outcome = RUNNING
        self._say()
        text = f"episode {self._number} (seed {seed}, {kind}): {self.task.instruction}"
        self._node.get_logger().info(text)
        return text

    def step(self, dt: float) -> None:
        """Advances the simulation by ``dt`` seconds, and logs what came of it."""
        self.task.step(dt)
        outcome = self.task.outcome
        if outcome != self._outcome:
            self._outcome = outcome
            touched = f", touched {self.task.touched}" if self.task.touched else ""
            self._node.get_logger().info(
                f"episode {self._number}: {outcome} after {self.task.time:.1f} s{touched}"
            )

    def say(self) -> None:
        """Publishes a new instruction. Only with a picture, and before it: an instruction has no stamp, and
        one that comes between two pictures could be taken for that of the first."""
        if self.task.instruction != self._said:
            self._say()

    def _say(self) -> None:
        self._said = self.task.instruction
        self._instruction.publish(String(data=self._said))

    def tell(self, stamp: Time) -> None:
        """Publishes the state of the episode, with the stamp of the picture that goes with it."""
        centre, top = self.task.target()
        values = (
            *self.task.where_named(),
            *map(float, centre),
            top,
            float(self._number),
            float(KINDS.index(self.task.episode.kind)),
            float(OUTCOMES.index(self.task.outcome)),
            self.task.time,
        )
        message = JointState(name=list(STATE), position=list(values))
        message.header.stamp = stamp
        self._state.publish(message)
