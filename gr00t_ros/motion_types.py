# SPDX-License-Identifier: Apache-2.0
"""What ``execution`` asks of an action group, whatever the group commands: joints, speeds or a pose.

One :class:`Motion` a group, made by ``motion_factory.motion_for``. ``execution`` decides whether the plan is
followed or what is under way ends; a motion knows how its own kind of group does that inside its limits, and
what holding means for it: the last commanded position, or the speed zero. No ROS types, no threads; times are
ROS time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gr00t_ros.commands import GroupCommand
from gr00t_ros.robot_types import ActionGroupConfig
from gr00t_ros.timeline import Window


@dataclass(frozen=True)
class Move:
    """What one group does in one period; it counts once it is handed to :meth:`Motion.sent`, whose own
    ``last`` is. ``clipped`` and ``behind`` say that it is not on the plan: limits were in the way, or it is
    still going over to it."""

    last: Any
    clipped: bool
    command: GroupCommand
    behind: bool = False


class Motion(Protocol):
    """One action group. Not thread safe.

    ``measured`` is positions (rad, m) by joint name, and the parts of poses (m, quaternion) as
    ``ActionGroupConfig.measured`` names them, finite; it holds at least ``joints``.
    """

    @property
    def group(self) -> ActionGroupConfig:
        """What is commanded."""
        ...

    @property
    def joints(self) -> tuple[str, ...]:
        """What must have been measured lately for this group to move: joints, the parts of a pose, nothing
        for a twist."""
        ...

    @property
    def begun(self) -> bool:
        """Whether the last command of this group is known; before that there is nothing to hold."""
        ...

    @property
    def moving(self) -> bool:
        """Whether the last command runs on by itself, and must be brought to rest by :meth:`hold`: a velocity
        that is not zero, a pose on its way."""
        ...

    def forget(self) -> None:
        """The next motion starts where the robot is measured."""
        ...

    def shift(self, by_ns: int) -> None:
        """ROS time jumped: what was sent is now dated ``by_ns`` later."""
        ...

    def leave(self, measured: Mapping[str, float]) -> None:
        """Nothing is sent from here on, and others may move the robot."""
        ...

    def anew(self, now_ns: int) -> None:
        """``executor/start`` has been called since the last command, and meanwhile anybody may have moved the
        robot, or its own weight: what is at rest by now is forgotten. A scalar group keeps its hold, and what
        is under way stays known: it is gone on from."""
        ...

    def resume(self, window: Window, measured: Mapping[str, float], now_ns: int) -> None:
        """The plan is followed from now on, and was not a period ago: go over to it smoothly from what is
        under way, or from where the robot is measured at the first motion and where somebody moved it after
        :meth:`leave`. Raises UnsafeCommand where nothing may begin."""
        ...

    def follow(self, window: Window, measured: Mapping[str, float], now_ns: int, dt: float) -> Move:
        """The next command on the way along the plan; ``dt`` (s) has passed since the last one. Raises
        UnsafeCommand; changes nothing."""
        ...

    def sent(self, move: Move, now_ns: int) -> None:
        """Remembers ``move`` as what is commanded now."""
        ...

    def hold(self, now_ns: int, dt: float, *, brake: bool) -> GroupCommand:
        """What ends the motion, and then keeps its end: where it would have ended by itself, or with
        ``brake`` as soon as the limits allow. Asked only when ``begun``."""
        ...
