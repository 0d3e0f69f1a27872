# SPDX-License-Identifier: Apache-2.0
"""What the recorder's thread makes of messages that have waited."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from gr00t_ros.nodes import recorded_topics

pytestmark = pytest.mark.ros


def test_after_a_standstill_all_topics_come_in_the_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in another order than that of arrival would have to be sorted by who reads it, over the whole
    standstill."""
    waiting = {
        "/frames": deque([30, 130]),
        "/joints": deque([10, 20, 110, 120]),
        "/commands": deque([25, 125]),
    }
    monkeypatch.setattr(
        recorded_topics,
        "taken",
        lambda topic: (b"", waiting[topic].popleft()) if waiting[topic] else None,
    )
    monkeypatch.setattr(recorded_topics, "sequence", lambda info: 0)
    got: list[tuple[str, int]] = []
    node: Any = None
    arrivals: Any = SimpleNamespace(of=lambda info: info)
    topics = recorded_topics.RecordedTopics(
        node,
        {},
        arrivals=arrivals,
        everything=False,
        ignored=(),
        sink=lambda topic, data, at_ns, number: got.append((topic, at_ns)),
        connected=lambda *_: None,
        odd=lambda *_: None,
    )
    for topic in waiting:
        topics._entries[topic] = SimpleNamespace(subscription=topic, offered=(None,))
    topics._take()
    assert [at_ns for _, at_ns in got] == [10, 20, 25, 30, 110, 120, 125, 130]
    assert [topic for topic, _ in got][:4] == ["/joints", "/joints", "/commands", "/frames"]
