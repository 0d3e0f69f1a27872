# SPDX-License-Identifier: Apache-2.0
"""Faults of time and of the executor's own process, and all faults for ``support_faults.ExecutorRig``."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable
from typing import Any

from gr00t_ros.clockwatch import MAX_STANDSTILL_S
from support_fault_messages import AT_ONCE, reports
from support_fault_messages import SCENARIOS as MESSAGES
from support_fault_recording import LOOKAHEAD_S, ROBOT
from support_fault_stand_ins import SimulatedTime
from support_faults import HOLDING, STOPPED, ExecutorRig, Scenario, nothing

SUBSCRIBERS_S = ROBOT.executor.watchdogs.command_subscribers.after

# Time.


def in_simulated_time(rig: ExecutorRig) -> None:
    rig.simulate_time(SimulatedTime())


def clock_jumps(name: str, seconds: float, word: str) -> Scenario:
    """The chunks of the new time come later: a policy first needs frames."""

    def inflict(rig: ExecutorRig) -> None:
        assert rig.clock is not None
        rig.source.spoil = lambda chunk: ()
        rig.clock.jump(seconds)

    return Scenario(
        name=name,
        fault=f"ROS time jumps {word} by {abs(seconds):g} s",
        detection="every period",
        reaction="plan and measurements dropped, controlled stop, hold",
        recovery="by itself, with the first chunk of the new time",
        prepare=in_simulated_time,
        inflict=inflict,
        report=reports(HOLDING, f"jumped {word}"),
        mend=lambda rig: rig.source.restore(),
        stop_s=LOOKAHEAD_S,
    )


def pause(paused: bool) -> Callable[[ExecutorRig], None]:
    def change(rig: ExecutorRig) -> None:
        assert rig.clock is not None
        rig.clock.pause(paused)

    return change


CLOCK = [
    clock_jumps("clock back", -500.0, "back"),
    clock_jumps("clock forward", 10.0, "forward"),
    Scenario(
        name="clock paused",
        fault="ROS time stands still",
        detection=f"{MAX_STANDSTILL_S:g} s",
        reaction="controlled stop, hold",
        recovery="by itself, when time goes on",
        prepare=in_simulated_time,
        inflict=pause(True),
        report=reports(HOLDING, "stands still"),
        mend=pause(False),
        stop_s=MAX_STANDSTILL_S + LOOKAHEAD_S,
    ),
]


# The executor's own process.


def signalled(number: int) -> Callable[[ExecutorRig], None]:
    return lambda rig: rig.executor.send(number)


def wake(rig: Any) -> None:
    """The period that SIGCONT ends is told to have been late."""
    since_ns = time.monotonic_ns()
    rig.executor.send(signal.SIGCONT)
    rig.told(since_ns, lambda status: any("late" in fault for fault in status.faults), "a late period")


def restart_executor(rig: Any) -> None:
    """Started as it is by default: stopped."""
    rig.executor = rig.start_executor("enabled:=false")


def change_parameters(rig: ExecutorRig, since_ns: int) -> str:
    """What is read at configure is refused while it runs."""
    for name, value in (
        ("rate", 100.0),
        ("lookahead", 0.5),
        ("hold_time", 2.0),
        ("enabled", False),
        ("robot__step_rate", 10.0),
        ("robot__limits__shoulder_pan__velocity", 100.0),
        ("robot__action__arm__topic", "/elsewhere"),
    ):
        assert len(rig.control.set(**{name: value})) == 1, f"{name} was changed while running"
    time.sleep(0.5)
    return ""


def full_disk(rig: ExecutorRig) -> None:
    """No file of the executor may grow any more; and it has to log an error, which is written at once."""
    _, hard = resource.prlimit(rig.executor.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(rig.executor.process.pid, resource.RLIMIT_FSIZE, (1, hard))
    before, lines = rig.sizes(), len(rig.executor.lines)
    rig.call("stop")
    rig.until(STOPPED)
    rig.graph.wait_until(
        lambda: "stopped by" in " ".join(rig.executor.lines[lines:]), "the line on the console"
    )
    assert rig.sizes() == before, "the log grew on a full disk"


def empty_disk(rig: ExecutorRig) -> None:
    _, hard = resource.prlimit(rig.executor.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(rig.executor.process.pid, resource.RLIMIT_FSIZE, (hard, hard))


PROCESS = [
    Scenario(
        name="parameters",
        fault="parameters are changed while it runs",
        detection=AT_ONCE,
        reaction="what is read at configure is refused with a reason; motion goes on",
        recovery="none needed",
        inflict=nothing,
        during=change_parameters,
    ),
    Scenario(
        name="disk full",
        fault="disk full for logs, and `executor/stop`",
        detection="none",
        reaction="log lines are lost in the file and come on the console; the stop is made",
        recovery="after `executor/start`",
        inflict=full_disk,
        report=reports(STOPPED, "executor/stop"),
        mend=empty_disk,
        stop_s=LOOKAHEAD_S,
        latched=True,
    ),
    Scenario(
        name="nobody listens",
        fault="no subscriber of the command topics",
        detection=f"watchdog `command_subscribers` ({SUBSCRIBERS_S:g} s)",
        reaction="plan dropped, controlled stop, hold",
        recovery="by itself, with the next chunk and from the measured position",
        inflict=lambda rig: rig.deafen(),
        report=reports(HOLDING, "nobody listens", diagnosed=True),
        mend=lambda rig: rig.listen(),
        unbroken=False,
    ),
    Scenario(
        name="away for a moment",
        fault="no subscriber of the command topics for 0.5 s",
        detection="every period",
        reaction="goes on; who comes back is led from the measured position to the plan",
        recovery="none needed",
        inflict=lambda rig: rig.deafen(),
        during=lambda rig, since_ns: time.sleep(0.5) or "",
        mend=lambda rig: rig.listen(),
    ),
    Scenario(
        name="executor frozen",
        fault="SIGSTOP of the executor",
        detection="`lookahead`: every trajectory ends at rest",
        reaction="the controller comes to rest at the end of the last trajectory",
        recovery="by itself, after SIGCONT",
        inflict=signalled(signal.SIGSTOP),
        mend=wake,
        stop_s=LOOKAHEAD_S,
    ),
    Scenario(
        name="executor killed",
        fault="kill -9 of the executor",
        detection="`lookahead`: every trajectory ends at rest",
        reaction="the controller comes to rest at the end of the last trajectory",
        recovery="a restarted executor is stopped; after `executor/start`",
        inflict=signalled(signal.SIGKILL),
        mend=restart_executor,
        stop_s=LOOKAHEAD_S,
        latched=True,
    ),
]

SCENARIOS = [*MESSAGES, *CLOCK, *PROCESS]
