# SPDX-License-Identifier: Apache-2.0
"""The topic ``episode_recorder/events``: what happens to episodes, as marks in time. They go into the running
bag as well, and split a recording that something else makes."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from gr00t_ros.msg import EpisodeEvent
from gr00t_ros.nodes.replay_sources import time_of
from gr00t_ros.recording.definitions import Definitions
from gr00t_ros.recording.episode import Episode, Mark
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.names import EVENT_TYPE, EVENTS

TEXT_TYPE = "std_msgs/msg/String"


class EpisodeMarks:
    """Publishes marks, and puts them into the running bag."""

    def __init__(self, node: Node, definitions: Definitions, running: Callable[[], Episode | None]) -> None:
        """Raises RecordingError when the marks' own definition is not installed."""
        self._running = running
        self.topic = node.resolve_topic_name(EVENTS)
        self._event, self._text = definitions.of(EVENT_TYPE), definitions.of(TEXT_TYPE)
        self._publisher = node.create_publisher(EpisodeEvent, EVENTS, 10)

    @property
    def unheard(self) -> str:
        """A sentence where nobody listens to the marks, so that no bag will have them; else empty."""
        return "" if self._publisher.get_subscription_count() else f"nobody records {self.topic}"

    def give(self, kind: int, record: EpisodeRecord, time_ns: int) -> None:
        """One mark, of one of EpisodeEvent's kinds."""
        message = EpisodeEvent(
            event=kind, episode=record.episode, instruction=record.instruction, label=record.label
        )
        message.header.stamp = time_of(time_ns)
        self._publisher.publish(message)
        episode = self._running()
        if episode is not None:
            episode.mark(Mark(self.topic, self._event, serialize_message(message)), time_ns)

    def tell(self, topic: str, episode: Episode) -> None:
        """Puts the instruction that the episode begins with into its bag, as if it came at that moment."""
        episode.connect(topic, self._text)
        text = episode.record.instruction
        if text:
            data = serialize_message(String(data=text))
            episode.mark(Mark(topic, self._text, data), episode.record.start_ns)
