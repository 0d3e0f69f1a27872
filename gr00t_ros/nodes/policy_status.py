# SPDX-License-Identifier: Apache-2.0
"""What the policy node says about itself, in ``policy/status`` and ``/diagnostics``, and what it hears of the
executor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus

from gr00t_ros.executor_report import ExecutorReport
from gr00t_ros.msg import ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.conversions import nanoseconds
from gr00t_ros.observation import ObservationBuilder
from gr00t_ros.planning import Planner
from gr00t_ros.progress import State

if TYPE_CHECKING:
    from gr00t_model import Gr00tPolicy


def report_from_msg(message: ExecutorStatus) -> ExecutorReport:
    """What the executor says, heard now."""
    executing = message.state == ExecutorStatus.EXECUTING
    end_ns = None
    if executing and message.plan_horizon:
        last = message.plan_horizon - 1
        end_ns = nanoseconds(message.plan_start) + last * nanoseconds(message.plan_step)
    return ExecutorReport(
        heard_s=time.monotonic(),
        executing=executing,
        stopped=message.state == ExecutorStatus.STOPPED,
        reason=message.reason,
        session=message.session,
        sequence=message.sequence,
        plan_end_ns=end_ns,
    )


def fill_progress(message: PolicyStatus, planner: Planner) -> None:
    """Writes what the planner does into the status."""
    progress, skipped = planner.progress, dict(planner.progress.skipped)
    message.state, message.reason = int(progress.state), progress.reason
    message.session = planner.session
    message.observation_age, message.waiting_time = progress.observation_age_s, progress.waiting_s
    message.processing_time, message.inference_time = progress.processing_s, progress.inference_s
    message.decoding_time, message.total_time = progress.decoding_s, progress.total_s
    message.chunks, message.skipped = progress.chunks, sum(skipped.values())
    message.skip_causes, message.skip_counts = list(skipped), list(skipped.values())


def diagnosis(
    planner: Planner, policy: Gr00tPolicy, builder: ObservationBuilder, now_ns: int
) -> tuple[bytes, str, Mapping[str, Any]]:
    """Level, sentence and values of an active node; ``now_ns`` is ROS time."""
    progress, frozen = planner.progress, builder.frozen
    reason = progress.reason or "; ".join(cause.text for cause in frozen)
    text = f"{progress.state.name.lower()}{': ' if reason else ''}{reason}"
    values: dict[str, Any] = {
        "chunks": progress.chunks,
        "observation age [s]": f"{progress.observation_age_s:.3f}",
        "waiting time [s]": f"{progress.waiting_s:.3f}",
        "processing time [s]": f"{progress.processing_s:.3f}",
        "inference time [s]": f"{progress.inference_s:.3f}",
        "decoding time [s]": f"{progress.decoding_s:.3f}",
        "total time [s]": f"{progress.total_s:.3f}",
    }
    for key, rate in builder.camera_rates(now_ns).items():
        values[f"rate of video.{key} [Hz]"] = f"{rate:.1f}"
    values.update(
        {
            "frozen cameras": ", ".join(cause.source for cause in frozen) or "none",
            "untrained weights": policy.untrained,
            "backend": f"{policy.choice.backend} on {policy.choice.device} in {policy.choice.precision}",
            "TensorRT engine refused": policy.choice.refused or "no",
        }
    )
    values.update({f"skipped: {cause}": count for cause, count in dict(progress.skipped).items()})
    if progress.state == State.FAULT:
        return DiagnosticStatus.ERROR, text, values
    warn = progress.state == State.WAITING or frozen or policy.untrained or policy.choice.refused
    return DiagnosticStatus.WARN if warn else DiagnosticStatus.OK, text, values


def untrained_warning(tag: str) -> str:
    """What is said about weights that were never trained for the embodiment ``tag``."""
    return (
        f"UNTRAINED WEIGHTS: the checkpoint's weights for embodiment {tag!r} are still at their initial "
        "values. Its actions mean nothing: fine-tune it for this robot before it moves real hardware"
    )
