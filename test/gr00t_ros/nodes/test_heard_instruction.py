# SPDX-License-Identifier: Apache-2.0
"""What the recorder hears on the instruction topic: every text once, and whether it is news."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from gr00t_ros.nodes.arrivals import Arrivals
from gr00t_ros.nodes.heard_instruction import Heard, InstructionTopic
from support_processes import RosGraph

pytestmark = pytest.mark.ros

TOPIC = "/gr00t/instruction"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_what_was_said_before_is_told_from_what_is_said_now(graph: RosGraph) -> None:
    publisher = graph.node.create_publisher(String, TOPIC, LATCHED)
    publisher.publish(String(data="before"))
    heard: list[Heard] = []
    topic = InstructionTopic(graph.node, TOPIC, Arrivals(graph.node))

    def hears(text: str) -> bool:
        heard.extend(topic.new())
        return any(item.text == text for item in heard)

    graph.wait_until(lambda: hears("before"), "the latched text")
    graph.wait_until(lambda: publisher.get_subscription_count() == 2, "both subscriptions")
    publisher.publish(String(data="now"))
    graph.wait_until(lambda: hears("now"), "the new text")
    assert [(item.text, item.latched) for item in heard] == [("before", True), ("now", False)]


@pytest.mark.parametrize(
    ("latched", "told", "from_s"), [(False, True, 11), (True, True, None), (True, False, 11)]
)
def test_a_text_from_a_machine_whose_clock_is_behind_is_news_all_the_same(
    latched: bool, told: bool, from_s: int | None
) -> None:
    heard = Heard("put them back", b"", 11 * 10**9, sent_ns=9 * 10**9, latched=latched)
    assert heard.counts_from_ns(10 * 10**9, told) == (None if from_s is None else from_s * 10**9)


def test_a_text_that_is_heard_after_the_episode_began_counts_from_its_beginning() -> None:
    heard = Heard("put them back", b"", moment_ns=9 * 10**9, sent_ns=9 * 10**9)
    assert heard.counts_from_ns(10 * 10**9, told=True) == 10 * 10**9
