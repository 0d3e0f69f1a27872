# SPDX-License-Identifier: Apache-2.0
"""The instruction topic as the recorder hears it: each text once, and from when on it counts.

A subscription that asks for latched samples does not match a plain publisher, and one that does not ask gets
none, so there are two, and what a latched publisher says comes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from std_msgs.msg import String

from gr00t_ros.nodes.arrivals import Arrivals, sent_ns
from gr00t_ros.nodes.polling import Polled, nothing, taken
from gr00t_ros.nodes.qos import silent_event_callbacks

# Texts that wait at most, and those remembered to know a repetition: more in one look are no instructions.
DEPTH = 10


@dataclass(frozen=True)
class Heard:
    """One text, as it came: ``moment_ns`` as :class:`Arrivals` has it, system time, ``sent_ns`` by the
    publisher's system clock. ``latched`` says that it was sent before its publisher and this node knew each
    other."""

    text: str
    data: bytes
    moment_ns: int
    sent_ns: int
    latched: bool = False

    def counts_from_ns(self, began_ns: int, told: bool) -> int | None:
        """From which moment on it counts in an episode that began at ``began_ns``, system time; None when it
        does not. ``told``: whether the episode was begun with an instruction.

        A latched text from before the episode that discovery brings only now is not news, and must not take
        the place of what the episode was begun with. (What a known publisher says is, whatever the clock of
        its machine has it.)
        """
        if self.latched and 0 < self.sent_ns < began_ns and told:
            return None
        return max(self.moment_ns, began_ns)


class InstructionTopic:
    """Two subscriptions to one topic. One thread at a time uses it."""

    def __init__(self, node: Node, topic: str, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        group = Polled()
        self._known: deque[tuple[int, bytes]] = deque(maxlen=2 * DEPTH)
        self._subscriptions = [
            node.create_subscription(
                String,
                topic,
                nothing,
                QoSProfile(depth=DEPTH, durability=durability),
                callback_group=group,
                event_callbacks=silent_event_callbacks(),
                raw=True,
            )
            for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
        ]

    def new(self) -> Iterator[Heard]:
        """What came since the last time, oldest first within each subscription."""
        plain, latched = self._subscriptions
        # In this order: what is published now comes to both, and only what was before to the second alone.
        waiting = list(_waiting(latched))
        for found, only_latched in (*((f, False) for f in _waiting(plain)), *((f, True) for f in waiting)):
            data, info = found
            sent = sent_ns(info)
            if sent and (sent, data) in self._known:
                continue
            self._known.append((sent, data))
            text = deserialize_message(data, String).data
            yield Heard(text, data, self._arrivals.moment_ns(info), sent, only_latched)


def _waiting(subscription: Subscription) -> Iterator[tuple[bytes, Any]]:
    while (found := taken(subscription)) is not None:
        yield found
