# SPDX-License-Identifier: Apache-2.0
"""Policy, executor, cameras and joint states in a process each, and each of them killed and frozen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support_fault_system import SCENARIOS
from support_faults import Scenario, SystemRig, play

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def rig() -> Iterator[SystemRig]:
    running = SystemRig()
    yield running
    running.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_fault(rig: SystemRig, scenario: Scenario) -> None:
    play(scenario, rig)
