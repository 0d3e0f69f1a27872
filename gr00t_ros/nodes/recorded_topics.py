# SPDX-License-Identifier: Apache-2.0
"""The recorder's subscriptions: as their publishers are, raw, and read by a thread of their own.

A message is never decoded, and rclpy's executor, which takes 0.3 to 0.7 ms for each, is not asked for it: the
thread takes what waits at every subscription in turn. When it came is what the middleware says, not when it
was taken. Topics of the robot are subscribed to for as long as the node runs, so that an episode begins with
its first message; others for as long as an episode does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from gr00t_ros.causes import one_line
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.nodes.arrivals import Arrivals, sequence
from gr00t_ros.nodes.polling import Polled, nothing, taken
from gr00t_ros.nodes.qos import silent_event_callbacks
from gr00t_ros.nodes.replay_sources import message_class

# Seconds between two looks at what waits. What it costs is a call into the middleware for each topic.
TAKE_PERIOD_S = 0.01
# What may wait at a subscription while this process stands still: a second of frames, which are large, and
# of a controller at 1 kHz.
FRAMES_DEPTH, DEPTH = 30, 1000
_FRAMES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2")
_NS = 1_000_000_000

Sink = Callable[[str, bytes, int, "int | None"], None]


@dataclass
class _Entry:
    kind: str
    subscription: Subscription
    profile: tuple[ReliabilityPolicy, DurabilityPolicy]
    offered: tuple[Qos, ...]


class RecordedTopics:
    """Which topics are recorded and who brings their messages.

    ``wanted`` (topic to type) are recorded whenever there is a publisher; with ``everything`` all others are
    as well, but for ``ignored``. ``sink`` gets topic, encoding, time of arrival (ROS time, ns) and the number
    that the publisher gave the message, None where there are several publishers; on the thread. ``connected``
    gets topic, type and offered quality of service before its first message, on the thread that calls
    ``look``, and raises a Gr00tRosError when the topic cannot be recorded. ``odd`` gets a topic and a
    sentence about why it is not recorded.
    """

    def __init__(
        self,
        node: Node,
        wanted: Mapping[str, str],
        *,
        arrivals: Arrivals,
        everything: bool,
        ignored: Collection[str],
        sink: Sink,
        connected: Callable[[str, str, Sequence[Qos]], None],
        odd: Callable[[str, str], None],
    ) -> None:
        self._node, self._wanted, self._everything, self._ignored = node, wanted, everything, ignored
        self._arrivals = arrivals
        self._sink, self._connected, self._odd = sink, connected, odd
        self._group = Polled()
        self._lock = threading.Lock()  # subscriptions come and go under it, and are read under it
        self._entries: dict[str, _Entry] = {}
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self.failure = ""  # why nothing is read any more

    # The node's thread.

    def look(self) -> None:
        """Fits the subscriptions to the publishers that there are now."""
        for topic, kind in self._topics().items():
            self._fit(topic, kind)

    def drain(self) -> None:
        """Throws away what waits: it came before the episode."""
        with self._lock:
            for entry in self._entries.values():
                while taken(entry.subscription) is not None:
                    pass

    def begin(self) -> None:
        """From here on messages go into the sink. What is latched comes once more."""
        self._ending.clear()
        self.failure = ""
        self._thread = threading.Thread(target=self._run, name="recorded topics", daemon=True)
        for topic, entry in list(self._entries.items()):
            self._connected(topic, entry.kind, entry.offered)
            if entry.profile[1] == DurabilityPolicy.TRANSIENT_LOCAL:
                self._replace(topic, entry.kind, entry.profile, entry.offered)
        self._thread.start()
        self.look()

    def end(self) -> None:
        """Takes what waits a last time, and no more after that."""
        if self._thread is None:
            return
        self._ending.set()
        self._thread.join()
        self._thread = None
        for topic in [topic for topic in self._entries if topic not in self._wanted]:
            self._remove(topic)

    def close(self) -> None:
        """Ends all subscriptions."""
        self.end()
        for topic in list(self._entries):
            self._remove(topic)

    def _topics(self) -> dict[str, str]:
        topics = dict(self._wanted)
        if self._everything and self._thread is not None:
            for topic, kinds in self._node.get_topic_names_and_types():
                # As `ros2 bag record --all`: a part of the name that begins with _ hides the topic.
                if topic not in self._ignored and "/_" not in topic:
                    topics.setdefault(topic, kinds[0])
        return topics

    def _fit(self, topic: str, kind: str) -> None:
        own = (self._node.get_name(), self._node.get_namespace())
        infos = [
            info
            for info in self._node.get_publishers_info_by_topic(topic)
            if (info.node_name, info.node_namespace) != own
        ]
        fitting = [info for info in infos if info.topic_type == kind]
        if len(fitting) < len(infos):
            others = ", ".join(sorted({info.topic_type for info in infos} - {kind}))
            self._odd(topic, f"{topic}: a publisher of {others} is not recorded, expected {kind}")
        if not fitting:
            return
        profile = _profile([info.qos_profile for info in fitting])
        offered = tuple(_offered(info.qos_profile) for info in fitting)
        entry = self._entries.get(topic)
        if entry is None or entry.profile != profile:
            self._replace(topic, kind, profile, offered)
        else:
            entry.offered = offered

    def _replace(
        self,
        topic: str,
        kind: str,
        profile: tuple[ReliabilityPolicy, DurabilityPolicy],
        offered: tuple[Qos, ...],
    ) -> None:
        try:
            message = message_class(kind)
            if self._thread is not None:
                self._connected(topic, kind, offered)
        except Gr00tRosError as error:
            self._odd(topic, f"{topic} is not recorded: {one_line(error)}")
            return
        reliability, durability = profile
        depth = FRAMES_DEPTH if kind in _FRAMES else DEPTH
        with self._lock:
            old = self._entries.pop(topic, None)
            if old is not None:
                if self._thread is not None and self._thread.is_alive():
                    self._take_from(topic, old)
                self._node.destroy_subscription(old.subscription)
            subscription = self._node.create_subscription(
                message,
                topic,
                nothing,
                QoSProfile(depth=depth, reliability=reliability, durability=durability),
                callback_group=self._group,
                # Publishers that do not fit are found by `look`, which then asks for less.
                event_callbacks=silent_event_callbacks(),
                raw=True,
            )
            self._entries[topic] = _Entry(kind, subscription, profile, offered)

    def _remove(self, topic: str) -> None:
        with self._lock:
            self._node.destroy_subscription(self._entries.pop(topic).subscription)

    # The thread.

    def _run(self) -> None:
        try:
            while not self._ending.wait(TAKE_PERIOD_S):
                self._take()
            self._take()
        except Exception as error:  # an episode of which nothing comes any more must end and say so
            self.failure = one_line(error) or type(error).__name__

    def _take(self) -> None:
        """All that waits goes into the sink, in the order of arrival: after a standstill much does, and a
        reader that sorts by time holds only so much."""
        with self._lock:
            waiting = [
                message for topic, entry in self._entries.items() for message in self._of(topic, entry)
            ]
            for message in sorted(waiting, key=lambda message: message[2]):
                self._sink(*message)

    def _take_from(self, topic: str, entry: _Entry) -> None:
        for message in self._of(topic, entry):
            self._sink(*message)

    def _of(self, topic: str, entry: _Entry) -> Iterator[tuple[str, bytes, int, int | None]]:
        """What waits at one subscription, as the sink takes it."""
        single = len(entry.offered) == 1
        for _ in range(DEPTH):
            found = taken(entry.subscription)
            if found is None:
                return
            data, info = found
            yield topic, data, self._arrivals.of(info), sequence(info) if single else None


def _profile(offers: Sequence[QoSProfile]) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
    """The most that all of the publishers offer; to ask one of them for more is to hear nothing of it."""
    reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
    latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    return (
        ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _offered(profile: QoSProfile) -> Qos:
    """Quality of service as a bag keeps it, for who plays it."""
    return Qos(
        QosHistory(int(profile.history)),
        int(profile.depth),
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        _time(profile.deadline),
        _time(profile.lifespan),
        QosLiveliness(int(profile.liveliness)),
        _time(profile.liveliness_lease_duration),
        bool(profile.avoid_ros_namespace_conventions),
    )


def _time(duration: Any) -> QosTime:
    return QosTime(*divmod(int(duration.nanoseconds), _NS))
