# SPDX-License-Identifier: Apache-2.0
"""To which time a recorded message belongs: its header's, that of its arrival, or none.

Where rows are made of both, headers and arrivals must come from one clock. A recorder of a simulated robot
that is not told to use simulated time stamps arrivals with the system's: then nothing fits anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from gr00t_ros.data.bag_actions import Commands
from gr00t_ros.data.bag_episodes import read_mark
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.bags_storage import Stored, apart
from gr00t_ros.errors import DatasetError, MessageError
from gr00t_ros.recorded_time import by_header, header_stamp_ns
from gr00t_ros.recording.names import EVENT_TYPE
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import HEADER
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS

# No message waits this long anywhere: what is stamped so long before it came was stamped by another clock.
_ANOTHER_CLOCK_NS = 3600 * 10**9
# A single frame from before a clock was set says nothing about the clock; so many at a topic's beginning do.
_SURE = 3


class MessageTimes:
    """Of one bag. ``refuse`` is called with a message of a camera or a state whose stamp is refused, and
    raises the MessageError that the live node would log."""

    def __init__(
        self, bag: Bag, robot: RobotConfig, commands: Mapping[str, Commands], refuse: Callable[[Stored], None]
    ) -> None:
        self._bag, self._commands, self._refuse = bag, commands, refuse
        self._by_header = {s.topic for _, s in robot.sources() if s.stamp == HEADER}
        self._near: str = ""  # a topic whose messages came about when they are stamped
        self._far: str = ""  # one whose messages are stamped by another clock
        self._told: set[str] = set()  # the topics of which that is known
        self._count: Counter[str] = Counter()
        # The newest stamp of each camera in this stretch of time; how many later ones went back, and by how
        # much at most (ns).
        self._newest = {s.topic: 0 for s in robot.video.values() if s.stamp == HEADER}
        self._back: Counter[str] = Counter()
        self._furthest_ns: Counter[str] = Counter()
        self._arrived_ns = 0

    def of(self, stored: Stored) -> int:
        """The time to which a message belongs.

        Raises:
            MessageError: the message is refused.
            DatasetError: headers and arrivals come from two clocks.
        """
        time = self._time(stored)
        if stored.topic not in self._told:
            self._compare(stored.topic, stored.receive_ns - time)
        if stored.topic in self._newest:
            self._order(stored.topic, time, stored.receive_ns)
        return time

    @property
    def notes(self) -> list[str]:
        """The cameras whose stamps are not in order, though nothing says that the recorder's clock was
        set."""
        return [
            f"{topic}: {count} frames are stamped before the frame that came before them, by up to "
            f"{self._furthest_ns[topic] / 1e9:.3f} s, and are taken in the order of their stamps: was a "
            "clock set back, do two cameras publish there, or does the recorder compress with several "
            "threads?"
            for topic, count in self._back.items()
        ]

    def _time(self, stored: Stored) -> int:
        topic = stored.topic
        if topic in self._by_header:
            time = _header(stored)
            if not 0 < time <= stored.receive_ns + FUTURE_TOLERANCE_NS:
                self._refuse(stored)
            return time
        if topic in self._commands:
            commands = self._commands[topic]
            header = _header(stored) if by_header(commands.group) else None
            return commands.time_of(header, stored.receive_ns)
        if stored.type == EVENT_TYPE:
            return read_mark(self._bag.types, stored).time_ns
        return stored.receive_ns

    def _order(self, topic: str, time_ns: int, receive_ns: int) -> None:
        if apart(self._arrived_ns, receive_ns):
            self._newest = dict.fromkeys(self._newest, 0)
        self._arrived_ns = receive_ns
        if time_ns < self._newest[topic]:
            self._back[topic] += 1
            self._furthest_ns[topic] = max(self._furthest_ns[topic], self._newest[topic] - time_ns)
        self._newest[topic] = max(self._newest[topic], time_ns)

    def _compare(self, topic: str, late_ns: int) -> None:
        if late_ns <= _ANOTHER_CLOCK_NS:
            self._near = self._near or topic
        else:
            self._count[topic] += 1
            if self._count[topic] < _SURE:
                return
            self._far = self._far or topic
        self._told.add(topic)
        if self._near and self._far:
            raise DatasetError(
                f"{self._bag.path}: found two clocks: messages on {self._far} are stamped more than an hour "
                f"before they came, those on {self._near} are not, or count by arrival. Record simulated "
                "robots with --use-sim-time; where a driver has a clock of its own, set 'stamp: receive' for "
                "its topic; an instruction can be given by --task"
            )


def _header(stored: Stored) -> int:
    time = header_stamp_ns(stored.data)
    if time is None:
        raise MessageError(
            f"found {len(stored.data)} bytes on {stored.topic}, expected a message that begins with a header"
        )
    return time
