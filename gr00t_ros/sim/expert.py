# SPDX-License-Identifier: Apache-2.0
"""The scripted expert of the reaching task: from anywhere, where would the next command be? No ROS.

It is a feedback law: the next command follows from the last executed one, its speed, and where the named
object is now. So whatever pushes the arm off its way, a kick, a moved object, another instruction, is
answered from there on, and what is recorded meanwhile shows a policy how to recover.

The tip flies at a height at which it clears all objects and comes down on the named one, along a funnel: the
nearer, the lower. Used by ``nodes/so101_teacher.py``, ``bench/closed_loop.py`` and ``reaching_samples.py``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.sim.kinematics import Kinematics

Values = NDArray[np.float64]

# How far the hand points below the horizontal, rad: with it the whole work area is within every joint's
# range, at every height that is flown.
PITCH = 1.05
# The tip's height on the way, m: above the objects, whose tops are at 0.04, with room for a policy's error.
CRUISE = 0.085
# It comes down within this distance of the object, m, on a slope of about 55 degrees ...
FUNNEL = 0.012
SLOPE = 1.4
# ... to this far below its top, so that a touch is a push and not a brush.
PRESS = 0.012
# The way that is left is covered with this time constant, s, at no more than these speeds: rad/s, m/s.
TIME_CONSTANT = 0.35
PAN_SPEED = 0.55
REACH_SPEED = 0.11
SINK_SPEED = 0.10
# Of each joint: rad/s and rad/s^2, below the limits of the robot description (2.0 and 10).
SPEED = 1.2
ACCELERATION = 4.0
# A closed gripper, rad: a finger to point with.
CLOSED = 0.0
# The law is integrated in steps of this length, s, so that the acceleration limit shapes the motion.
_FINE = 0.01


class Expert:
    """Keeps the last command [6] (rad) and its speed [6]; ``follow`` gives the next one."""

    def __init__(self, kinematics: Kinematics, joints: Values) -> None:
        """At rest at ``joints`` [6]."""
        self._kinematics = kinematics
        self.command = np.array(joints, np.float64)
        self.speed = np.zeros(len(self.command))

    def follow(self, target: Values, top: float, step: float) -> tuple[Values, Values]:
        """The command [6] and its speed [6] one ``step`` (s) later, on the way to the object whose centre is
        at ``target`` [3] (m) and whose top is at the height ``top``. What was executed is given to
        ``executed`` if it was something else."""
        steps = max(1, round(step / _FINE))
        for _ in range(steps):
            wanted = self._wanted(target, top)
            change = np.clip(wanted - self.speed, -ACCELERATION * step / steps, ACCELERATION * step / steps)
            self.speed = self.speed + change
            self.command = self.command + self.speed * (step / steps)
        return self.command.copy(), self.speed.copy()

    def executed(self, command: Values) -> None:
        """The arm was sent somewhere else: the way goes on from there."""
        self.command = np.array(command, np.float64)

    def place(self, command: Values, target: Values) -> tuple[float, float]:
        """Of the tip at ``command`` [6] (rad): its height, and how far it is along the table from the object
        whose centre is at ``target`` [3]; m."""
        tip = self._kinematics.tip(command)
        here = self._kinematics.point(tip)
        return tip[2], math.hypot(target[0] - here[0], target[1] - here[1])

    def _wanted(self, target: Values, top: float) -> Values:
        """The speed of every joint [6] that the law asks for here, rad/s."""
        pan, reach, height = self._kinematics.tip(self.command)
        goal = self._kinematics.pose(target)
        here = self._kinematics.point((pan, reach, height))
        distance = math.hypot(target[0] - here[0], target[1] - here[1])
        low = top - PRESS
        descent = min(max(CRUISE, low), low + SLOPE * max(0.0, distance - FUNNEL))
        # Where the tip would be one time constant later. The arm that was kicked up is too short for the way
        # out: it comes down first.
        carrot = (
            pan + _bounded(goal[0] - pan, PAN_SPEED * TIME_CONSTANT),
            reach + _bounded(goal[1] - reach, REACH_SPEED * TIME_CONSTANT),
            height + _bounded(descent - height, SINK_SPEED * TIME_CONSTANT),
        )
        carrot = self._kinematics.within_reach(carrot, PITCH)
        aim = np.array([*self._kinematics.solve(carrot, PITCH), 0.0, CLOSED])
        wanted = (aim - self.command) / TIME_CONSTANT
        return wanted * min(1.0, SPEED / max(float(np.abs(wanted).max()), 1e-9))


def _bounded(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)
