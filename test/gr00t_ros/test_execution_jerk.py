# SPDX-License-Identifier: Apache-2.0
"""A joint with a jerk limit changes its acceleration no faster while it follows a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.execution import State
from support_execution import ROBOT, Driven, make

JERK = 120.0


@pytest.mark.parametrize("limited", [True, False])
def test_a_jump_of_the_plan_is_followed_within_the_jerk_limit(limited: bool) -> None:
    limits = {name: replace(x, jerk=JERK if limited else None) for name, x in ROBOT.limits.items()}
    driven = Driven(make(replace(ROBOT, limits=limits)))
    jump = np.where(np.arange(60)[:, None] < 16, 0.0, 0.4)
    driven.offer(np.repeat(jump, 5, axis=1), gripper=jump)
    driven.run(2.6)
    assert driven.execution.state == State.EXECUTING
    np.testing.assert_allclose(driven.arm.sample(driven.now_ns), np.full(5, 0.4), atol=2e-3)
    assert driven.gripper[-1] == pytest.approx(0.4, abs=5e-3)
    # What one period changes, of the arm's reference and of the gripper's commands.
    arm = np.diff(np.array(driven.speeds)[10::20], 2, axis=0) / 0.02**2
    gripper = np.diff(driven.gripper, 3) / 0.02**3
    for jerk in (np.abs(arm).max(), np.abs(gripper).max()):
        assert (jerk <= 1.1 * JERK) == limited
