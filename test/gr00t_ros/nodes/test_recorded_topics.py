# SPDX-License-Identifier: Apache-2.0
"""The recorder's subscriptions follow the publishers, and nothing that has come is lost when they do."""

from __future__ import annotations

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
