# SPDX-License-Identifier: Apache-2.0
"""Policy, executor and simulated robot together: the scenarios of ``test/launch`` without ``launch``.

The programs are the launch files' own (``gr00t_ros.system``), in real processes over real DDS.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from gr00t_ros.system import demo_programs
from support_checkpoints import tiny_checkpoint
from support_graph import WholeGraph
from support_processes import NodeProcess, ProcessStarter, RosGraph, claim_domain
from support_simulator import NEEDS_SIMULATOR

pytestmark = [
    pytest.mark.ros,
    NEEDS_SIMULATOR,
]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[WholeGraph, dict[str, NodeProcess]]]:
    """The demo's programs but its monitor."""
    domain, lock = claim_domain()
    starter = ProcessStarter(domain)
    try:
        with RosGraph(domain) as graph:
            whole = WholeGraph(graph)
            programs = demo_programs({"checkpoint": str(tiny_checkpoint())})
            yield whole, {p.name: starter.program(p) for p in programs if p.name != "demo_monitor"}
    finally:
        starter.close()
        lock.close()


def test_observations_become_motion(running: tuple[WholeGraph, dict[str, NodeProcess]]) -> None:
    whole, _ = running
    whole.both_nodes_become_active()
    whole.chunks_become_motion()


def test_stop_holds_until_start(running: tuple[WholeGraph, dict[str, NodeProcess]]) -> None:
    running[0].stop_holds_until_start()


def test_the_arm_holds_when_the_policy_dies(running: tuple[WholeGraph, dict[str, NodeProcess]]) -> None:
    whole, processes = running
    whole.the_arm_holds_when_the_policy_dies(lambda: processes["policy"].send(signal.SIGKILL))


def test_the_others_end_cleanly(running: tuple[WholeGraph, dict[str, NodeProcess]]) -> None:
    _, processes = running
    for name in ("chunk_executor", "so101_sim"):
        assert processes[name].stop() == 0, processes[name].output
        assert "Traceback" not in processes[name].output
