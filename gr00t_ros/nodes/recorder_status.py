# SPDX-License-Identifier: Apache-2.0
"""What the episode recorder says about itself: in ``/diagnostics``, and in the log when an episode ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from gr00t_ros.nodes.recorder_parameters import MEGABYTE
from gr00t_ros.recording.audit import Audit
from gr00t_ros.recording.episode import Episode
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.marked_episode import MarkedEpisode


def summary(record: EpisodeRecord, audit: Audit, size: int) -> str:
    """A finished episode in one line. ``size`` is in bytes, before compression."""
    text = (
        f"{record.episode}: {record.duration_s:.1f} s, {record.messages} messages, {size / MEGABYTE:.1f} MB: "
        f"{audit.verdict}"
    )
    return f"{text}: {'; '.join(audit.reasons)}" if audit.reasons else text


def topic_lines(audit: Audit) -> Iterator[str]:
    """What came of each topic that something is expected of."""
    for topic in audit.topics:
        if topic.required or (topic.used_by and topic.messages):
            yield topic.line()


def diagnosis(
    running: Episode | MarkedEpisode | None, now_ns: int, free_bytes: int | None, problem: str
) -> DiagnosticStatus:
    """How it goes, but for the node's name. ``problem`` is why the last episode ended as it should not
    have."""
    level, text, values = _state(running, now_ns, problem)
    values["free space [MB]"] = "unknown" if free_bytes is None else free_bytes // MEGABYTE
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, message=text, values=pairs)


def _state(
    running: Episode | MarkedEpisode | None, now_ns: int, problem: str
) -> tuple[bytes, str, dict[str, Any]]:
    """Level, sentence and values."""
    if running is None:
        return (DiagnosticStatus.ERROR, problem, {}) if problem else (DiagnosticStatus.OK, "no episode", {})
    record = running.record
    text = f"recording {record.episode}"
    values: dict[str, Any] = {
        "episode": record.episode,
        "instruction": record.instruction,
        "duration [s]": f"{(now_ns - record.start_ns) / 1e9:.1f}",
    }
    if isinstance(running, MarkedEpisode):
        return DiagnosticStatus.OK, f"{text}, marks only", values
    silent, dropped = running.silent(), running.dropped
    values |= {
        "messages": running.messages,
        "size [MB]": f"{running.written_bytes / MEGABYTE:.1f}",
        "waiting for the disk [MB]": f"{running.queued_bytes / MEGABYTE:.1f}",
        "dropped messages": dropped,
        "silent topics": ", ".join(silent) or "none",
    }
    reasons = [*silent.values(), *([f"{dropped} messages dropped"] if dropped else ())]
    if reasons:
        return DiagnosticStatus.WARN, f"{text}: {'; '.join(reasons)}", values
    return DiagnosticStatus.OK, text, values
