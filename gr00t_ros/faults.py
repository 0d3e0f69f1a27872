# SPDX-License-Identifier: Apache-2.0
"""What was found wrong in a period, and what the robot does about it.

A watchdog (``gr00t_ros.watchdogs``) says what it missed and how grave that is; the execution acts on the
gravest of a period. Both import this and not each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Fault", "Reaction"]


class Reaction(IntEnum):
    """What a fault makes the executor do; the higher number is the graver one.

    HOLD: no new motion, what is under way ends where it would have ended by itself. Goes on once the fault is
    over. STOP: the plan is dropped and the joints are braked as fast as their limits allow. Goes on with the
    next chunk once the fault is over (joints that were not measured for a while keep their plan). LATCH: as
    STOP, and stopped until ``executor/start``.
    """

    HOLD = 0
    STOP = 1
    LATCH = 2


@dataclass(frozen=True)
class Fault:
    """One thing found wrong in one period.

    Attributes:
        reason: A sentence for people, without a full stop: status, diagnostics and log repeat it.
        reaction: What is done about it for as long as it lasts.
    """

    reason: str
    reaction: Reaction
