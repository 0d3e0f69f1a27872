# SPDX-License-Identifier: Apache-2.0
"""How good an episode turned out, judged when it ends and while the scene can still be set up again.

``good``: nothing to know about. ``usable``: frames will be missing or something is odd, the reasons say what.
``bad``: no dataset can be made of it, or of less than half of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gr00t_ros.recording.topic_audit import TopicAudit
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS

GOOD, USABLE, BAD = "good", "usable", "bad"
# A driver's own clock, and an episode of few frames, make a nominal rate a little smaller.
RATE_TOLERANCE = 0.95
# Beyond this share of an episode without a fresh message of a source, or of messages that are refused, most
# of its frames are dropped.
MOST = 0.5


@dataclass(frozen=True)
class Audit:
    """The judgement: one of ``good``, ``usable`` and ``bad``, why, and the topics it was made from."""

    verdict: str
    reasons: tuple[str, ...]
    topics: tuple[TopicAudit, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``episode.json``: topics by name."""
        topics = {}
        for topic in self.topics:
            values = {**asdict(topic), "used_by": list(topic.used_by)}
            topics[values.pop("topic")] = values
        return {"verdict": self.verdict, "reasons": list(self.reasons), "topics": topics}


def judge(topics: Sequence[TopicAudit], notes: Sequence[str] = ()) -> Audit:
    """The audit of an episode. ``notes`` are what is to know about it apart from its topics: with one it is
    no better than usable."""
    found = [problem for topic in topics for problem in _problems(topic)]
    reasons = (*notes, *(text for _, text in found))
    verdict = BAD if any(bad for bad, _ in found) else USABLE if reasons else GOOD
    return Audit(verdict, reasons, tuple(topics))


def _problems(topic: TopicAudit) -> Iterator[tuple[bool, str]]:
    """Sentences, each with whether it makes the episode bad."""
    where = f"{', '.join(topic.used_by)} ({topic.topic})" if topic.used_by else topic.topic
    if topic.dropped:
        yield (
            False,
            f"{where}: {topic.dropped} messages came faster than they could be written and are missing",
        )
    if not topic.used_by:  # nothing is expected of it
        return
    if topic.lost:
        yield False, f"{where}: {topic.lost} messages were lost on their way here"
    if not topic.messages:
        if topic.required:
            yield True, f"{where}: no message"
        return
    if topic.stamped and topic.zero_stamps:
        # Such a message is refused wherever observations are made.
        yield (
            topic.required and topic.zero_stamps > MOST * topic.messages,
            f"{where}: {topic.zero_stamps} of {topic.messages} messages have a zero stamp; "
            "if the driver has no clock, set 'stamp: receive' in the robot YAML",
        )
    if topic.backwards:
        yield False, f"{where}: time goes backwards {topic.backwards} times"
    yield from _offset_problems(topic, where)
    if topic.stale > MOST:
        yield (
            topic.required,
            f"{where}: without a message younger than {topic.max_age:g} s for {topic.stale:.0%} of the time",
        )
    elif topic.gaps:
        yield (
            False,
            f"{where}: {topic.gaps} gaps over {topic.max_age:g} s, the longest {topic.longest_gap:.3f} s",
        )
    if topic.messages > 1 and topic.rate < RATE_TOLERANCE * topic.least_rate:
        yield False, f"{where}: {topic.rate:.1f} Hz, expected at least {topic.least_rate:g} Hz"


def _offset_problems(topic: TopicAudit, where: str) -> Iterator[tuple[bool, str]]:
    if not topic.stamped or topic.offset_min is None or topic.offset_mean is None:
        return
    if topic.offset_min < -FUTURE_TOLERANCE_NS / 1e9:
        yield (
            False,
            f"{where}: stamps up to {-topic.offset_min:.3f} s after arrival: check the clocks",
        )
    if topic.max_age is not None and topic.offset_mean > topic.max_age:
        yield (
            False,
            f"{where}: stamps {topic.offset_mean:.3f} s before arrival, more than max_age "
            f"{topic.max_age:g} s: a policy would wait for younger ones; check the clocks",
        )
