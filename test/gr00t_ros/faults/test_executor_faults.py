# SPDX-License-Identifier: Apache-2.0
"""Whatever reaches the executor, and whatever happens to it: limits kept, a stop in time, told, recovered
from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support_fault_scenarios import SCENARIOS
from support_faults import ExecutorRig, Scenario, play

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def rig() -> Iterator[ExecutorRig]:
    running = ExecutorRig()
    yield running
    running.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_fault(rig: ExecutorRig, scenario: Scenario) -> None:
    play(scenario, rig)
