# SPDX-License-Identifier: Apache-2.0
"""What the policy and the executor say about themselves, each in one line for people."""

from __future__ import annotations

from gr00t_ros.msg import ExecutorStatus, PolicyStatus

_POLICY = {
    getattr(PolicyStatus, name): name.lower() for name in ("INACTIVE", "WAITING", "RUNNING", "FAULT", "IDLE")
}
_EXECUTOR = {
    getattr(ExecutorStatus, name): name.lower() for name in ("WAITING", "EXECUTING", "HOLDING", "STOPPED")
}
# Characters of a reason: more would fill the view.
MAX_CHARS = 100


def policy_line(status: PolicyStatus) -> str:
    """State, why, and how old what it sees is."""
    line = f"policy {_POLICY.get(status.state, 'unknown')}"
    if status.reason:
        line += f": {_short(status.reason)}"
    elif status.state == PolicyStatus.RUNNING and status.chunks:
        line += (
            f", inference {1e3 * status.inference_time:.0f} ms, "
            f"picture {1e3 * status.observation_age:.0f} ms old"
        )
    return line


def executor_line(status: ExecutorStatus, before: ExecutorStatus | None) -> str:
    """State, why, and how many commands were clipped since the status ``before``."""
    line = f"executor {_EXECUTOR.get(status.state, 'unknown')}"
    if status.dry_run:
        line += " (dry run)"
    if status.reason:
        line += f": {_short(status.reason)}"
    if before is not None and status.commands_clipped > before.commands_clipped:
        clipped = status.commands_clipped - before.commands_clipped
        sent = max(clipped, status.commands_sent - before.commands_sent)
        line += f", clips {clipped} of {sent} commands"
    return line


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 3] + "..."
