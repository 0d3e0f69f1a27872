# SPDX-License-Identifier: Apache-2.0
"""Faults of the processes around the executor; for ``support_faults.SystemRig``."""

from __future__ import annotations

import signal
from collections.abc import Callable

from gr00t_ros.execution import MAX_SETTLING_S
from gr00t_ros.robot_types import DEFAULT_FROZEN_AFTER
from support_fault_messages import JOINT_AGE_S, PLAN_S, reports
from support_fault_recording import LOOKAHEAD_S
from support_fault_scenarios import restart_executor, signalled
from support_fault_sources import SAME_PIXELS, SAME_STAMP, WELL
from support_faults import HOLDING, Scenario, SystemRig

POLICY_WAITING, POLICY_RUNNING = 1, 2
CAMERA_AGE = "`max_age` of the camera (0.2 s)"
# A process that has not come back after this long will not.
WAKING_S = 30.0
NEXT_PLAN = "no chunk without a new frame; motion ends with the plan, then hold"
# The policy's weights are random and its plans exceed the limits: the robot is behind them.
STOP_S = PLAN_S + MAX_SETTLING_S + LOOKAHEAD_S


def send(process: str, number: int) -> Callable[[SystemRig], None]:
    """A signal to one of the rig's processes."""
    return lambda rig: getattr(rig, process).send(number)


def restart(process: str) -> Callable[[SystemRig], None]:
    """A killed process is started again."""
    return lambda rig: setattr(rig, process, getattr(rig, f"start_{process}")())


def wake(process: str) -> Callable[[SystemRig], str]:
    """SIGCONT. Fast DDS takes a process that stands still for dead, and may not deliver to it any more."""

    def mend(rig: SystemRig) -> str:
        send(process, signal.SIGCONT)(rig)
        try:
            rig.moving(timeout=WAKING_S)
        except AssertionError:
            getattr(rig, process).kill()
            restart(process)(rig)
            return "only after a restart"
        return ""

    return mend


def waits(word: str) -> Callable[[SystemRig, int], int]:
    """The policy says what it waits for; and the executor that it holds."""

    def report(rig: SystemRig, since_ns: int) -> int:
        told_ns = rig.policy_told(since_ns, POLICY_WAITING, word)
        rig.until(HOLDING, since_ns=since_ns)
        return told_ns

    return report


def mode(name: str) -> Callable[[SystemRig], None]:
    return lambda rig: rig.camera_mode(name)


def killed_and_frozen(
    process: str,
    what: str,
    detection: str,
    reaction: str,
    stop_s: float,
    report: Callable[[SystemRig, int], int],
) -> list[Scenario]:
    return [
        Scenario(
            name=f"{process} {'killed' if number == signal.SIGKILL else 'frozen'}",
            fault=f"{'kill -9' if number == signal.SIGKILL else 'SIGSTOP'} of {what}",
            detection=detection,
            reaction=reaction,
            recovery=f"by itself, {after}",
            inflict=send(process, number),
            report=report,
            mend=mend,
            stop_s=stop_s,
        )
        for number, after, mend in (
            (signal.SIGKILL, "after a restart", restart(process)),
            (signal.SIGSTOP, "after SIGCONT", wake(process)),
        )
    ]


SCENARIOS = [
    *killed_and_frozen(
        "policy",
        "the policy",
        "end of the plan",
        "motion ends with the plan, then hold",
        STOP_S,
        reports(HOLDING, ""),
    ),
    *killed_and_frozen("cameras", "the cameras", CAMERA_AGE, NEXT_PLAN, STOP_S, waits("/camera/")),
    *killed_and_frozen(
        "joints",
        "the joint states' source",
        f"`max_joint_state_age` ({JOINT_AGE_S:g} s)",
        "controlled stop, then hold",
        JOINT_AGE_S + LOOKAHEAD_S,
        reports(HOLDING, "stale"),
    ),
    Scenario(
        name="camera repeats its message",
        fault="frozen camera: the same stamp again and again",
        detection=CAMERA_AGE,
        reaction=NEXT_PLAN,
        recovery="by itself, with the next new frame",
        inflict=mode(SAME_STAMP),
        report=waits("/camera/"),
        mend=mode(WELL),
        stop_s=STOP_S,
    ),
    Scenario(
        name="camera repeats its picture",
        fault="frozen camera: identical pixels under new stamps",
        detection=f"`frozen_after` of the camera ({DEFAULT_FROZEN_AFTER:g} s)",
        reaction="told in policy/status and /diagnostics; motion goes on (`frozen_reaction: stop` ends it)",
        recovery="none needed",
        inflict=mode(SAME_PIXELS),
        report=lambda rig, since_ns: rig.policy_told(since_ns, POLICY_RUNNING, "identical pixels"),
        mend=mode(WELL),
        unbroken=False,
    ),
    Scenario(
        name="executor restarted",
        fault="kill -9 of the executor, policy running",
        detection="`lookahead`: every trajectory ends at rest",
        reaction="the controller comes to rest at the end of the last trajectory",
        recovery="a restarted executor is stopped; after `executor/start`",
        inflict=signalled(signal.SIGKILL),
        mend=restart_executor,
        stop_s=LOOKAHEAD_S,
        latched=True,
    ),
]
