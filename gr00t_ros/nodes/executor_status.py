# SPDX-License-Identifier: Apache-2.0
"""What the executor tells about itself: ``executor/status`` and its values in ``/diagnostics``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from gr00t_ros.execution import Counters, Execution, State
from gr00t_ros.msg import ExecutorStatus
from gr00t_ros.nodes.conversions import duration_msg, group_msgs, time_msg
from gr00t_ros.pacing import Pace
from gr00t_ros.timeline import Plan

LEVELS = {State.HOLDING: DiagnosticStatus.WARN, State.STOPPED: DiagnosticStatus.ERROR}


@dataclass(frozen=True)
class Snapshot:
    """The execution at one moment: taken under the lock, told without it."""

    now_ns: int
    state: State
    reason: str
    accepted: tuple[int, int] | None
    plan: Plan | None
    counters: Counters

    @classmethod
    def of(cls, execution: Execution, now_ns: int) -> Snapshot:
        """What is true at ``now_ns`` (ROS time)."""
        return cls(
            now_ns,
            execution.state,
            execution.reason,
            execution.accepted,
            execution.plan(now_ns),
            replace(execution.counters),
        )


def status_message(
    shot: Snapshot, pace: Pace, faults: Sequence[str], *, realtime: bool, dry_run: bool
) -> ExecutorStatus:
    """The status; in a dry run without a plan, since the robot is committed to none."""
    counters = shot.counters
    message = ExecutorStatus(
        state=int(shot.state),
        reason=shot.reason,
        chunks_accepted=counters.chunks_accepted,
        chunks_refused=counters.chunks_refused,
        last_refusal=counters.last_refusal,
        commands_sent=counters.commands_sent,
        commands_clipped=counters.commands_clipped,
        stops=counters.stops,
        period=pace.period_s,
        measured_period=pace.measured_period_s(),
        late_periods=pace.late_periods,
        jitter=pace.jitter_s(),
        realtime=realtime,
        dry_run=dry_run,
        faults=list(faults),
    )
    message.header.stamp = time_msg(shot.now_ns)
    if shot.accepted is not None:
        message.session, message.sequence = shot.accepted
    plan = None if dry_run else shot.plan
    if plan is not None:
        message.plan_start, message.plan_step = time_msg(plan.start_ns), duration_msg(plan.step_ns)
        message.plan = group_msgs(plan.groups)
        message.plan_horizon = len(plan.groups[0].values) if plan.groups else 0
    return message


def diagnosis(
    execution: Execution,
    pace: Pace,
    faults: Sequence[str],
    *,
    late: int,
    realtime: str,
    dry_run: bool,
    alive: bool,
) -> tuple[bytes, str, Mapping[str, Any]]:
    """Level, sentence and values. ``late`` are the late periods since the last one, ``realtime`` says how the
    control thread is scheduled, ``alive`` whether it runs."""
    counters, state, reason = execution.counters, execution.state, execution.reason
    level = LEVELS.get(state, DiagnosticStatus.OK)
    text = f"{state.name.lower()}{': ' if reason else ''}{reason}"
    notes = [fault for fault in faults if fault != reason]
    if late:
        notes.append(f"{late} late periods")
    if dry_run:
        notes.append("dry run: the robot is not moved")
    if notes:
        level, text = max(level, DiagnosticStatus.WARN), "; ".join((text, *notes))
    if not alive:  # the state is that of its last period
        level, text = DiagnosticStatus.ERROR, "the control thread has ended: nothing is commanded"
    return (
        level,
        text,
        {
            "chunks accepted": counters.chunks_accepted,
            "chunks refused": counters.chunks_refused,
            "last refusal": counters.last_refusal,
            "joint states refused": counters.joint_states_refused,
            "commands sent": counters.commands_sent,
            "commands clipped": counters.commands_clipped,
            **{f"values clipped: {kind}": count for kind, count in execution.clips.items()},
            "stops": counters.stops,
            "faults": "; ".join(faults) or "none",
            "periods": pace.periods,
            "late periods": pace.late_periods,
            "jitter p99 of the last second [ms]": f"{1e3 * pace.jitter_s():.3f}",
            "jitter p50 [ms]": f"{1e3 * pace.lateness_s(0.5):.3f}",
            "jitter p99 [ms]": f"{1e3 * pace.lateness_s(0.99):.3f}",
            "jitter worst [ms]": f"{1e3 * pace.worst_s:.3f}",
            "real time": realtime,
            "dry run": dry_run,
        },
    )
