# SPDX-License-Identifier: Apache-2.0
"""To which time a message belongs: with simulated time, what ``/clock`` had said when it was published."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from gr00t_ros.nodes import arrivals
from gr00t_ros.nodes.arrivals import TRUSTED_NS, Arrivals, published_ns
from support_processes import RosGraph

pytestmark = pytest.mark.ros

MS, S = 10**6, 10**9
NOW = 1_700_000_000 * S


def info(sent_ns: int, received_ns: int) -> dict[str, int]:
    return {"source_timestamp": sent_ns, "received_timestamp": received_ns}


@pytest.fixture
def simulated(graph: RosGraph) -> Iterator[Any]:
    """A node with simulated time, whose ``/clock`` nobody publishes."""
    override = Parameter("use_sim_time", Parameter.Type.BOOL, True)
    node = rclpy.create_node("listener", context=graph.node.context, parameter_overrides=[override])
    yield node
    node.destroy_node()


def hears(monkeypatch: pytest.MonkeyPatch, clocks: list[tuple[int, dict[str, int]]]) -> None:
    """``clocks`` (simulated ns, and what the middleware knows) wait on ``/clock``."""
    waiting = list(clocks)

    def taken(subscription: Any) -> Any:
        if not waiting:
            return None
        sim_ns, known = waiting.pop(0)
        return b"\0\1\0\0" + struct.pack("<iI", *divmod(sim_ns, S)), known

    monkeypatch.setattr(arrivals, "taken", taken)


def test_with_simulated_time_a_message_counts_from_its_publication(
    simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A millisecond between two clocks, 10 ms of simulated time; those from the second on arrive late.
    late = (1, 40, 41, 42, 43)
    clocks = [(10 * MS * k, info(NOW + k * MS, NOW + (k + late[k]) * MS)) for k in range(5)]
    hears(monkeypatch, clocks)
    times = Arrivals(simulated)
    for sent_ns, sim_ms in ((2 * MS, 20), (2 * MS + 1, 20), (3 * MS - 1, 20), (3 * MS, 30), (9 * MS, 40)):
        for waited_ns in (0, 5 * MS, 500 * MS, 3 * S):
            moment_ns = times.moment_ns(info(NOW + sent_ns, NOW + sent_ns + waited_ns))
            assert times.at_ns(moment_ns) == sim_ms * MS, (sent_ns, waited_ns)


def test_before_the_first_clock_time_is_the_first_one_or_unknown(
    simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Arrivals(simulated)
    hears(monkeypatch, [])
    assert times.now_ns() == 0
    hears(monkeypatch, [(7 * S, info(NOW, NOW))])
    assert times.at_ns(NOW - 1) == 7 * S


@pytest.mark.parametrize("off_ns", [1, 3600 * S, -TRUSTED_NS - 1, -3600 * S, -NOW])
def test_a_clock_that_is_off_is_not_trusted(off_ns: int) -> None:
    assert published_ns(info(NOW + off_ns, NOW)) == NOW


def test_a_simulator_whose_clock_is_off_still_tells_the_time(
    simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hears(monkeypatch, [(10 * MS * k, info(NOW + k * MS + 3600 * S, NOW + k * MS)) for k in range(5)])
    times = Arrivals(simulated)
    assert times.at_ns(times.moment_ns(info(NOW + 2 * MS, NOW + 9 * MS))) == 20 * MS


def test_without_simulated_time_a_message_counts_from_its_arrival(graph: RosGraph) -> None:
    times = Arrivals(graph.node)
    assert not times.simulated
    assert times.at_ns(times.moment_ns(info(NOW, NOW + 5 * MS))) == NOW + 5 * MS
    assert abs(times.moment_ns({}) - time.time_ns()) < 60 * S


def test_what_the_middleware_says_is_in_the_order_of_publication(graph: RosGraph, simulated: Any) -> None:
    """Clocks, really published: each moment belongs to the last one before it."""
    times, publisher = Arrivals(simulated), graph.node.create_publisher(Clock, "/clock", 10)
    moments: list[int] = []

    def heard(count: int) -> bool:
        return times.now_ns() == count * S

    graph.wait_until(publisher.get_subscription_count, "the listener")
    for count in range(1, 4):
        message = Clock()
        message.clock.sec = count
        publisher.publish(message)
        moments.append(time.time_ns())
        graph.wait_until(lambda count=count: heard(count), "what was published")
    assert [times.at_ns(moment) for moment in moments] == [S, 2 * S, 3 * S]
