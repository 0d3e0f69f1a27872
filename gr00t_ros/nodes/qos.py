# SPDX-License-Identifier: Apache-2.0
"""Quality-of-service details that differ between ROS 2 distributions."""

from __future__ import annotations

from typing import Any

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks  # type: ignore[no-redef]


def silent_event_callbacks() -> Any:
    """For a subscription that is meant not to match some publishers of its topic: no warning about them."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)
