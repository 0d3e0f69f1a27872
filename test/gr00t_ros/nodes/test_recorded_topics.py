# SPDX-License-Identifier: Apache-2.0
"""The recorder's subscriptions follow the publishers, and nothing that has come is lost when they do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from std_msgs.msg import String

from gr00t_ros.nodes import recorded_topics
from gr00t_ros.nodes.arrivals import Arrivals
from support_processes import RosGraph
from support_recorder import delivered

pytestmark = pytest.mark.ros


def test_what_waits_at_a_subscription_that_is_replaced_is_taken_first(
    graph: RosGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_topics, "TAKE_PERIOD_S", 1000.0)  # whoever takes is late
    robot = rclpy.create_node("robot", context=graph.node.context)
    taken: list[str] = []
    topics = recorded_topics.RecordedTopics(
        graph.node,
        {"/a": "std_msgs/msg/String"},
        arrivals=Arrivals(graph.node),
        everything=False,
        ignored=(),
        sink=lambda topic, data, receive_ns, number: taken.append(topic),
        connected=lambda topic, kind, offered: None,
        odd=lambda topic, text: None,
    )

    def asked_for(reliability: ReliabilityPolicy) -> bool:
        topics.look()
        entry = topics._entries.get("/a")
        return entry is not None and entry.profile[0] == reliability

    try:
        publisher = robot.create_publisher(String, "/a", 10)
        graph.wait_until(lambda: asked_for(ReliabilityPolicy.RELIABLE), "a subscription")
        graph.wait_until(publisher.get_subscription_count, "the publisher to know it")
        topics.begin()
        publisher.publish(String(data="waits"))
        delivered(publisher)
        robot.create_publisher(String, "/a", qos_profile_sensor_data)
        graph.wait_until(lambda: asked_for(ReliabilityPolicy.BEST_EFFORT), "another subscription")
        assert taken == ["/a"]
    finally:
        topics.close()
        robot.destroy_node()


def test_with_simulated_time_messages_take_their_place_and_none_goes_back(graph: RosGraph) -> None:
    """What was published before is taken after: in another pass, or so late that its place is gone."""
    passes = [[20, 30], [10, 25], [40]]
    given: list[int] = []

    def others() -> list[recorded_topics.Taken]:
        batch = passes.pop(0) if passes else []
        given.extend(batch)
        return [recorded_topics.Taken("/a", b"%d" % moment, moment) for moment in batch]

    arrivals: Any = SimpleNamespace(simulated=True, at_ns=lambda moment_ns: 1000 + moment_ns)
    sunk: list[tuple[bytes, int]] = []
    topics = recorded_topics.RecordedTopics(
        graph.node,
        {},
        arrivals=arrivals,
        everything=False,
        ignored=(),
        others=others,
        sink=lambda topic, data, time_ns, number: sunk.append((data, time_ns)),
        connected=lambda topic, kind, offered: None,
        odd=lambda topic, text: None,
    )
    try:
        topics.begin()
        graph.wait_until(lambda: len(sunk) == 5, "all messages")
        assert sunk == [(b"%d" % moment, 1000 + moment) for moment in (10, 20, 25, 30, 40)]
        passes.append([15])
        graph.wait_until(lambda: len(sunk) == 6, "one that comes too late")
        assert sunk[-1] == (b"15", 1040)
        passes.append([50])
        graph.wait_until(lambda: given[-1] == 50, "the last one")
        topics.end()
        assert sunk[-1] == (b"50", 1050)
    finally:
        topics.close()
