# SPDX-License-Identifier: Apache-2.0
"""Shows the simulated SO-101 a task, again and again, while ``episode_recorder`` records each time.

Two tasks. ``park``: the paths of ``gr00t_ros.sim.demonstrations``, from anywhere to one pose, in real time.
``reach``: the reaching task of ``gr00t_ros.sim.reaching`` (``nodes/reach_lesson.py``). Commands go to the
controllers that the robot description names, at its step rate, as an executor would send them: so what is
recorded is what a policy would have had to command. Meant for the simulator only: it obeys no limits but its
own.
"""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.demonstrating import PARK
from gr00t_ros.nodes.parameters import ParameterSpec
from gr00t_ros.nodes.plain import refuse_arguments, run_plain
from gr00t_ros.nodes.reach_lesson import ReachLesson
from gr00t_ros.nodes.teacher import Teacher
from gr00t_ros.sim.demonstrations import INSTRUCTION, PARKED, path, pose, random_start
from gr00t_ros.sim.scene import JOINTS
from gr00t_ros.system import REACH

# Steps of the path in each trajectory: what an executor's default lookahead of 0.2 s is at 20 Hz.
_AHEAD = 4
# At rest before an episode and after it, s: servos settle in less, and the end of the task is shown as well.
_SETTLE_S = 0.4

SPECS = (
    ParameterSpec("task", PARK, "what is shown", read_only=True, choices=(PARK, REACH)),
    ParameterSpec("episodes", 20, "episodes to record", "", 1, 100_000, read_only=True),
    ParameterSpec("seed", 0, "where the episodes begin", "", 0, 2**31 - 1, read_only=True),
    ParameterSpec("instruction", INSTRUCTION, "what the task park is called", read_only=True),
)

DESCRIPTION = f"""so101_teacher: demonstrates a task on the simulated SO-101 and has every episode recorded.

usage: so101_teacher --ros-args --params-file ROBOT_YAML [-p name:=value ...]

parameters:
{chr(10).join(f"  {spec.name} (default {spec.default}): {spec.description}" for spec in SPECS)}"""


def park(teacher: Teacher) -> int:
    """All episodes of the task park; 0 when every one was recorded, 1 when it was stopped before.

    The way to an episode's start is not recorded.
    """
    rng = np.random.default_rng(teacher.parameters["seed"])
    episodes, instruction = teacher.parameters["episodes"], teacher.parameters["instruction"]
    teacher.until(
        lambda: teacher.ready() and set(JOINTS) <= set(teacher.measured),
        "the simulator (joint states, its controllers) and the episode recorder",
    )
    place = np.array([teacher.measured[joint] for joint in JOINTS])
    for number in range(episodes):
        start = random_start(rng)
        _follow(teacher, place, start)
        teacher.begin_episode(instruction)
        place = _follow(teacher, start, pose(PARKED))
        teacher.end_episode()
        if teacher.stop.is_set():
            return 1
        teacher.get_logger().info(f"episode {number + 1} of {episodes} recorded")
    return 0


def _follow(teacher: Teacher, start: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
    """From ``start`` to ``goal`` [6] and a moment of rest; returns where the command ended."""
    places, speeds = path(start, goal, teacher.step)
    rest = round(_SETTLE_S / teacher.step)
    places = np.concatenate([places, np.repeat(places[-1:], rest + _AHEAD, axis=0)])
    speeds = np.concatenate([speeds, np.zeros((rest + _AHEAD, len(JOINTS)))])
    begin = time.monotonic()
    for row in range(len(places) - _AHEAD):
        if teacher.stop.is_set():
            break
        ahead = slice(row + 1, row + 1 + _AHEAD)
        teacher.command(places[ahead], speeds[ahead], teacher.get_clock().now().nanoseconds)
        teacher.spin_until(begin + (row + 1) * teacher.step)
    return places[-1]


def _body(arguments: list[str], stop: threading.Event) -> int:
    refuse_arguments(arguments)
    teacher = Teacher(stop, SPECS)
    try:
        return ReachLesson(teacher).run() if teacher.parameters["task"] == REACH else park(teacher)
    finally:
        teacher.destroy_node()


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``so101_teacher``."""
    return run_plain(_body, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
