# SPDX-License-Identifier: Apache-2.0
"""The expert of the reaching task, in closed loop through topics, while ``episode_recorder`` records.

The simulator (``task: reach``, ``wait_for_commands``) holds its time after each picture until it is
commanded, so an episode is as repeatable as one without topics, and as fast as the machine allows. Two
commands answer each picture: the expert's own on the command topics, which is recorded, and the same with a
kick now and then on the topics below ``EXECUTED``, which the simulator follows (``command_prefix``). So the
recording shows how the expert comes back from where it would never have gone. The recorder begins and ends
while time stands still, at the picture before the first of the expert and at the one after the last:
so the rows of an episode are those of the expert, all and no others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from gr00t_ros.nodes.conversions import nanoseconds
from gr00t_ros.nodes.sim_task import OUTCOMES, TOPIC
from gr00t_ros.nodes.teacher import Teacher
from gr00t_ros.sim.expert import Expert
from gr00t_ros.sim.kinematics import Kinematics
from gr00t_ros.sim.reaching import RUNNING, SUCCESS
from gr00t_ros.sim.reaching_samples import AFTERWARDS_S, Kicks
from gr00t_ros.sim.scene import JOINTS
from gr00t_ros.sim.so101 import SimulatedSO101

EXECUTED = "/executed"
RESET = "/so101_sim/reset"
# Pictures at rest before the first one that is recorded: the recorder begins meanwhile.
_REST = 2

Values = NDArray[np.float64]


class ReachLesson:
    """Uses ``teacher`` from the thread that calls ``run``."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._kinematics = Kinematics.of(SimulatedSO101(cameras=()).model)
        self._executed = teacher.make_outputs(EXECUTED)
        self._reset = teacher.create_client(Trigger, RESET)
        self._state: dict[str, float] = {}
        self._stamp_ns = self._answered_ns = -1
        self._heard = 0
        teacher.create_subscription(JointState, TOPIC, self._on_state, 10)

    def _on_state(self, message: JointState) -> None:
        self._state = dict(zip(message.name, message.position, strict=True))
        self._stamp_ns = nanoseconds(message.header.stamp)
        self._heard += 1

    def run(self) -> int:
        """All episodes; 0 when as many as were asked for are recorded, 1 when it was stopped before. One in
        which the expert fails is thrown away."""
        teacher = self._teacher
        wanted, seed = teacher.parameters["episodes"], teacher.parameters["seed"]
        teacher.until(self._ready, "the simulator (its task, its controllers) and the episode recorder")
        # Whoever is found has not heard what was said before: until the simulator has repeated itself twice,
        # the recorder would know no time.
        heard = self._heard
        teacher.until(lambda: self._heard >= heard + 2, f"messages on {TOPIC}")
        kept = number = 0
        while kept < wanted and not teacher.stop.is_set():
            if number:
                teacher.call(self._reset, Trigger.Request())
            number += 1
            outcome = self._episode(number, seed + number - 1)
            if teacher.stop.is_set():
                break
            teacher.end_episode(keep=outcome == SUCCESS)
            kept += outcome == SUCCESS
            how = "recorded" if outcome == SUCCESS else f"thrown away: {outcome}"
            teacher.get_logger().info(f"episode {kept} of {wanted} {how}")
        return 0 if kept == wanted else 1

    def _ready(self) -> bool:
        taken = all(publisher.get_subscription_count() for publisher, *_ in self._executed)
        # The clean commands have one listener, the recorder.
        there = self._teacher.ready() and self._reset.service_is_ready()
        return taken and there and bool(self._state) and self._teacher.count_subscribers("/clock") > 0

    def _episode(self, number: int, seed: int) -> str:
        """Shows episode ``number`` of the simulator's; its outcome."""
        teacher, expert, kicks = self._teacher, None, Kicks(seed)
        rest, afterwards = _REST, round(AFTERWARDS_S / self._teacher.step)
        while True:
            state = self._next()
            if afterwards < 0 or teacher.stop.is_set():
                break  # a picture's row is due a little later than the picture: this one's is not recorded
            if round(state["episode"]) != number:
                continue  # of the episode before: the reset has ended the wait for an answer
            start = np.array([teacher.measured[joint] for joint in JOINTS])
            if rest > 0:
                rest -= 1
                if rest == 0:
                    teacher.begin_episode("")
                self._execute(*_step(start, np.zeros(len(JOINTS)), teacher.step))
                continue
            if expert is None:
                expert = Expert(self._kinematics, start)
            afterwards -= OUTCOMES[round(state["outcome"])] != RUNNING
            target = np.array([state["target_x"], state["target_y"], state["target_z"]])
            place = expert.place(expert.command, target)
            clean, speed = expert.follow(target, state["target_top"], teacher.step)
            kick = kicks.next(*place, teacher.step)
            expert.executed(clean + kick)
            places, speeds = _step(clean, speed, teacher.step)
            # The recorded one first: when the other arrives, time goes on.
            teacher.command(places, speeds, self._answered_ns)
            self._execute(places + kick, speeds)
        return OUTCOMES[round(self._state["outcome"])]

    def _next(self) -> dict[str, float]:
        """The state with the next picture. The simulator waits for an answer to it."""
        teacher = self._teacher
        teacher.until(lambda: self._stamp_ns > self._answered_ns, f"a message on {TOPIC}")
        self._answered_ns = self._stamp_ns
        return self._state

    def _execute(self, places: Values, speeds: Values) -> None:
        """Sends what is executed; the simulator's time goes on."""
        self._teacher.command(places, speeds, self._answered_ns, self._executed)


def _step(place: Values, speed: Values, step: float) -> tuple[Values, Values]:
    """A trajectory to ``place`` [6] (rad) at ``speed`` [6] (rad/s) in one step (s); should nothing more come,
    the arm comes to rest in the step after that. Places and speeds, [2, 6] each."""
    return np.stack([place, place + step / 2.0 * speed]), np.stack([speed, speed])
