# SPDX-License-Identifier: Apache-2.0
"""To which time messages belong, in ROS time, whenever they are taken.

The middleware stamps what arrives with the system's clock, and what is published with that of its publisher.
Without simulated time a message counts from its arrival. With ``use_sim_time`` it counts from what ``/clock``
had said when it was *published*: simulated time may run many times as fast as the system's, and messages of
different topics wait for their reader differently long, those on ``/clock`` among them.

That compares the system clocks of two publishers, the message's and the simulator's. On one machine they are
one clock. On several they are assumed to agree, as PTP or chrony keep them: by what they differ, real time,
the message counts too early or too late. No message is taken to be published after it arrived, or more than
``TRUSTED_NS`` before. Then a clock is off, or the message was kept for late subscribers, and it counts from
its arrival.
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
# How long a message is on its way at most, a process that stands still included.
TRUSTED_NS = 10_000_000_000


class Arrivals:
    """Turns what the middleware knows about a message into its time. Any thread.

    That takes two steps. The moment of a message is by the system's clock, and known when it is taken. What
    ``/clock`` had said by then is certain only when everything that was published before has arrived.
    """

    def __init__(self, node: Node) -> None:
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
        return self.at_ns(time.time_ns())

    @property
    def simulated(self) -> bool:
        """Whether ROS time is what ``/clock`` says."""
        return self._subscription is not None

    def moment_ns(self, info: Any) -> int:
        """The moment of a message, system time: of its publication where time is simulated, else of its
        arrival."""
        return published_ns(info) if self.simulated else received_ns(info)

    def at_ns(self, system_ns: int) -> int:
        """ROS time at a moment of the system's clock."""
        if self._subscription is None:
            return system_ns
        with self._lock:
            while (found := taken(self._subscription)) is not None:
                data, info = found
                # A Clock holds what a header begins with.
                sim_ns = header_stamp_ns(data)
                if sim_ns is not None:
                    self._heard.append((published_ns(info), sim_ns))
            place = bisect.bisect_right(self._heard, (system_ns, 2**63))
            if place == 0:
                return self._heard[0][1] if self._heard else 0
            return self._heard[place - 1][1]


def received_ns(info: Any) -> int:
    """When a message arrived, system time; now, where the middleware does not say."""
    return int(known(info, "received_timestamp") or 0) or time.time_ns()


def published_ns(info: Any) -> int:
    """When a message was published, system time; when it arrived, where its publisher's clock is of no
    use."""
    sent, received = sent_ns(info), received_ns(info)
    return sent if 0 <= received - sent <= TRUSTED_NS else received


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
