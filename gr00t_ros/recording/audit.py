# SPDX-License-Identifier: Apache-2.0
"""How good an episode turned out, judged when it ends and while the scene can still be set up again.

``good``: nothing to know about. ``usable``: frames will be missing or something is odd, the reasons say what.
``bad``: no dataset can be made of it, or of less than half of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gr00t_ros.recorded_time import window_ns
from gr00t_ros.recording.topic_audit import TopicAudit

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
    latest = _latest(topics)
    found = [problem for topic in topics for problem in _problems(topic, latest)]
    reasons = (*notes, *(text for _, text in found))
    verdict = BAD if any(bad for bad, _ in found) else USABLE if reasons else GOOD
    return Audit(verdict, reasons, tuple(topics))


def _latest(topics: Sequence[TopicAudit]) -> float:
    """How long after its stamp (s) a message may come and still meet those of the other topics, as the
    converter has it."""
    needed = [topic for topic in topics if topic.required and topic.messages]
    seen = [t for t in needed if any(path.startswith(("video.", "state.")) for path in t.used_by)]
    window = window_ns(t.max_age for t in seen if t.max_age is not None) / 1e9
    return min(map(_lag, needed), default=0.0) + window


def _lag(topic: TopicAudit) -> float:
    """By how much (s) messages come after the time that counts for them."""
    return 0.0 if topic.max_ahead is None or topic.offset_mean is None else topic.offset_mean


def _problems(topic: TopicAudit, latest: float) -> Iterator[tuple[bool, str]]:
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
    yield from _offset_problems(topic, where, latest)
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


def _offset_problems(topic: TopicAudit, where: str, latest: float) -> Iterator[tuple[bool, str]]:
    if topic.max_ahead is None or topic.offset_min is None or topic.offset_mean is None:
        return
    if topic.ahead:
        # Refused as well, live and by the converter.
        yield (
            topic.required and topic.ahead > MOST * topic.messages,
            f"{where}: {topic.ahead} of {topic.messages} messages have stamps after their arrival, by up to "
            f"{-topic.offset_min:.3f} s: check the clocks",
        )
    if topic.max_age is not None and topic.offset_mean > topic.max_age:
        yield (
            topic.required and topic.offset_mean - latest > topic.max_age,
            f"{where}: stamps {topic.offset_mean:.3f} s before arrival, more than max_age "
            f"{topic.max_age:g} s: too late for a policy; check the clocks",
        )
