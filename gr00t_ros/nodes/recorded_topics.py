# SPDX-License-Identifier: Apache-2.0
"""The recorder's subscriptions: as their publishers are, raw, and read by a thread of their own.

A message is never decoded, and rclpy's executor, which takes 0.3 to 0.7 ms for each, is not asked for it: the
thread takes what waits at every subscription in turn. To which time it belongs is what the middleware says
(``arrivals.py``), not when it was taken. Topics of the robot are subscribed to for as long as the node runs,
so that an episode begins with its first message; others for as long as an episode does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
# With simulated time, messages rest this long after they were taken, s: so that those of other topics, and of
# /clock, which were published before them are there as well. What is still on its way then comes too late.
REST_S = 0.05
# What may wait at a subscription while this process stands still: a second of frames, which are large, and
# of a controller at 1 kHz.
FRAMES_DEPTH, DEPTH = 30, 1000
_FRAMES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2")
_NS = 1_000_000_000

Sink = Callable[[str, bytes, int, "int | None"], None]


class Taken(NamedTuple):
    """One message: when it counts from, system time, and the number that its publisher gave it."""

    topic: str
    data: bytes
    moment_ns: int
    number: int | None = None


@dataclass
class _Entry:
    kind: str
    subscription: Subscription
    profile: tuple[ReliabilityPolicy, DurabilityPolicy]
    offered: tuple[Qos, ...]


class RecordedTopics:
    """Which topics are recorded and who brings their messages.

    ``wanted`` (topic to type) are recorded whenever there is a publisher; with ``everything`` all others are
    as well, but for ``ignored``. ``others`` gives what came on topics that somebody else subscribes to; it is
    called by the thread. ``sink`` gets topic, encoding, time (ROS time, ns) and the number that the publisher
    gave the message, None where there are several publishers; on the thread. ``connected`` gets topic, type
    and offered quality of service before its first message, on the thread that calls ``look``, and raises a
    Gr00tRosError when the topic cannot be recorded. ``odd`` gets a topic and a sentence about why it is not
    recorded.
    """

    def __init__(
        self,
        node: Node,
        wanted: Mapping[str, str],
        *,
        arrivals: Arrivals,
        everything: bool,
        ignored: Collection[str],
        others: Callable[[], Iterable[Taken]] = tuple,
        sink: Sink,
        connected: Callable[[str, str, Sequence[Qos]], None],
        odd: Callable[[str, str], None],
    ) -> None:
        self._node, self._wanted, self._everything, self._ignored = node, wanted, everything, ignored
        self._arrivals = arrivals
        self._others, self._sink, self._connected, self._odd = others, sink, connected, odd
        self._group = Polled()
        self._lock = threading.Lock()  # subscriptions come and go under it, and are read under it
        self._entries: dict[str, _Entry] = {}
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        # What was taken and when, monotonic s; the moment of the last message that went into the sink.
        self._resting: list[tuple[float, Taken]] = []
        self._rest_s = REST_S if arrivals.simulated else 0.0
        self._began_ns = self._passed_ns = 0
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
        self._resting.clear()
        self._began_ns, self._passed_ns = time.time_ns(), 0
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
                    self._rest(self._of(topic, old))
                    self._pass_on(self._rest_s)
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
                self._take(self._rest_s)
            self._take(0.0)
        except Exception as error:  # an episode of which nothing comes any more must end and say so
            self.failure = one_line(error) or type(error).__name__

    def _take(self, rest_s: float) -> None:
        """All that waits is taken; what has rested for ``rest_s`` since then goes into the sink."""
        with self._lock:
            taken_now = [
                message for topic, entry in self._entries.items() for message in self._of(topic, entry)
            ]
            self._rest([*taken_now, *self._others()])
            self._pass_on(rest_s)

    def _rest(self, messages: Iterable[Taken]) -> None:
        # The time is that of the end: what is taken first has rested when what is taken last has.
        messages = list(messages)
        now_s = time.monotonic()
        self._resting += [(now_s, message) for message in messages]

    def _pass_on(self, rest_s: float) -> None:
        """What has rested goes into the sink, in the order of its moments: after a standstill much does, and
        a reader that sorts by time holds only so much."""
        until_s = time.monotonic() - rest_s
        newest_ns = max((m.moment_ns for taken_s, m in self._resting if taken_s <= until_s), default=-1)
        due = [message for _, message in self._resting if message.moment_ns <= newest_ns]
        self._resting = [item for item in self._resting if item[1].moment_ns > newest_ns]
        for message in sorted(due, key=lambda message: message.moment_ns):
            moment_ns = message.moment_ns
            if self._rest_s:
                # In simulated time what comes too late for its place would be seconds behind, as if the clock
                # had been set back. It counts from now on.
                moment_ns = self._passed_ns = max(moment_ns, self._passed_ns)
            self._sink(message.topic, message.data, self._arrivals.at_ns(moment_ns), message.number)

    def _of(self, topic: str, entry: _Entry) -> Iterator[Taken]:
        """What waits at one subscription."""
        single = len(entry.offered) == 1
        latched = entry.profile[1] == DurabilityPolicy.TRANSIENT_LOCAL
        for _ in range(DEPTH):
            found = taken(entry.subscription)
            if found is None:
                return
            data, info = found
            moment_ns = self._arrivals.moment_ns(info)
            if latched:  # published whenever: it belongs to the episode
                moment_ns = max(moment_ns, self._began_ns)
            yield Taken(topic, data, moment_ns, sequence(info) if single else None)


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
