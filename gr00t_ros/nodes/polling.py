# SPDX-License-Identifier: Apache-2.0
"""Subscriptions that a thread of its own reads when it has time, instead of being called.

rclpy's executor builds a wait set, takes a message and runs a callback for each that comes in: 0.3 to 0.7
ms of interpreter time, however old the message is by then. A control thread that reads once a period takes
only what is newest, decodes no more than that, and is not slowed down by who floods the topic: what it does
not take is dropped by the middleware, which keeps the last ones only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.subscription import Subscription

EVENT_PERIOD_S = 1.0
EVENT_WINDOW_S = 0.02


class Polled(ReentrantCallbackGroup):
    """The callback group of subscriptions that no executor serves.

    Their events (a publisher whose quality of service does not fit) still reach the log, but are asked for
    once a second only: Fast DDS wakes whoever waits for events of a subscription also for each of its
    messages, until that is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[int, float] = {}  # when each event was last waited for

    def can_execute(self, entity: Any) -> bool:
        """Whether an executor may serve ``entity``."""
        if isinstance(entity, Subscription):
            return False
        now = time.monotonic()
        if now - self._asked.get(id(entity), -math.inf) >= EVENT_PERIOD_S:
            self._asked[id(entity)] = now
        # It is asked when the executor begins to wait, and again before what is ready is run.
        return now - self._asked[id(entity)] < EVENT_WINDOW_S and bool(super().can_execute(entity))


def nothing(message: Any) -> None:
    """The callback of a subscription in the group :class:`Polled`; never called."""


def taken(subscription: Subscription) -> Any:
    """The oldest message that waits at such a subscription and what the middleware knows about it, or
    None."""
    # What rclpy's executor does; rclpy has no public call for it.
    with subscription.handle:
        return subscription.handle.take_message(subscription.msg_type, subscription.raw)


def take(subscription: Subscription, most: int) -> Iterator[Any]:
    """The messages that wait at a subscription in the group :class:`Polled`, oldest first, ``most`` of them;
    bytes when it is ``raw``."""
    for _ in range(most):
        found = taken(subscription)
        if found is None:
            return
        yield found[0]
