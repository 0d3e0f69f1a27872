# SPDX-License-Identifier: Apache-2.0
"""When messages came, in ROS time, whenever they are taken.

The middleware stamps what arrives with the system's clock. With ``use_sim_time`` the time that counts is what
``/clock`` had said by then; rclpy's own clock may have heard of it before or after that.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosgraph_msgs.msg import Clock

from gr00t_ros.nodes.polling import Polled, nothing, taken
from gr00t_ros.nodes.qos import silent_event_callbacks
from gr00t_ros.recorded_time import header_stamp_ns

# Clock messages remembered: those of several seconds, which is longer than messages wait to be taken.
CLOCKS = 4096


class Arrivals:
    """Turns what the middleware knows about a message into its time of arrival. Any thread."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._lock = threading.Lock()
        self._heard: deque[tuple[int, int]] = deque(maxlen=CLOCKS)  # system time, simulated time
        self._subscription: Subscription | None = None
        if node.get_parameter("use_sim_time").value:
            self._subscription = node.create_subscription(
                Clock,
                "/clock",
                nothing,
                QoSProfile(depth=CLOCKS, reliability=ReliabilityPolicy.BEST_EFFORT),
                callback_group=Polled(),
                event_callbacks=silent_event_callbacks(),
                raw=True,
            )

    def now_ns(self) -> int:
        """ROS time; 0 when it is simulated and nothing has come on ``/clock``."""
        return self.at_ns(time.time_ns()) if self._subscription is not None else time.time_ns()

    def of(self, info: Any) -> int:
        """The time of arrival of a message; now, where the middleware does not say."""
        received_ns = int(known(info, "received_timestamp") or 0) or time.time_ns()
        return received_ns if self._subscription is None else self.at_ns(received_ns)

    def at_ns(self, system_ns: int) -> int:
        """Simulated time at a moment of the system's clock."""
        assert self._subscription is not None
        with self._lock:
            while (found := taken(self._subscription)) is not None:
                data, info = found
                # A Clock holds what a header begins with.
                sim_ns = header_stamp_ns(data)
                if sim_ns is not None:
                    heard_ns = int(known(info, "received_timestamp") or 0) or time.time_ns()
                    self._heard.append((heard_ns, sim_ns))
            place = bisect.bisect_right(self._heard, (system_ns, 2**63))
            if place == 0:
                return self._heard[0][1] if self._heard else 0
            return self._heard[place - 1][1]


def sent_ns(info: Any) -> int:
    """When a message was published, by its publisher's clock; 0 where the middleware does not say."""
    return int(known(info, "source_timestamp") or 0)


def sequence(info: Any) -> int | None:
    """The number that its publisher gave the message, where the middleware says so."""
    number = known(info, "publication_sequence_number")
    return None if number is None else int(number)


def known(info: Any, name: str) -> Any:
    """What the middleware knows about a message: a mapping in rclpy since Humble."""
    return info.get(name) if isinstance(info, Mapping) else getattr(info, name, None)
