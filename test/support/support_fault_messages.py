# SPDX-License-Identifier: Apache-2.0
"""Faults of what reaches the executor: chunks and measured joints; for ``support_faults.ExecutorRig``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from gr00t_ros.chunk import Chunk
from support_fault_recording import ARM, LOOKAHEAD_S, NS, ROBOT
from support_fault_stand_ins import PERIOD_S, STEPS
from support_faults import HOLDING, STOPPED, ExecutorRig, Scenario

PLAN_S = (STEPS - 1) * ROBOT.step_ns / NS
JOINT_AGE_S = ROBOT.executor.max_joint_state_age
FAR_NS = 30 * NS


WATCHDOGS = ROBOT.executor.watchdogs
LEVELS = {HOLDING: b"\x01", STOPPED: b"\x02"}  # WARN and ERROR of DiagnosticStatus


def reports(state: int, word: str, *, diagnosed: bool = False) -> Callable[[Any, int], int]:
    """The status says so, and where asked for /diagnostics too."""

    def report(rig: Any, since_ns: int) -> int:
        told_ns = rig.until(state, word, since_ns)
        if diagnosed:
            rig.diagnosed(LEVELS[state], word)
        return told_ns

    return report


# Chunks.


def with_arm(chunk: Chunk, **changes: Any) -> Chunk:
    return replace(chunk, groups=(replace(chunk.groups[0], **changes), *chunk.groups[1:]))


def with_value(chunk: Chunk, value: float) -> Chunk:
    values = chunk.groups[0].values.copy()
    values[7, 2] = value
    return with_arm(chunk, values=values)


def instead(spoil: Callable[[Chunk], Chunk]) -> Callable[[ExecutorRig], None]:
    """Every chunk is spoiled."""

    def inflict(rig: ExecutorRig) -> None:
        rig.source.spoil = lambda chunk: (spoil(chunk),)

    return inflict


def once(spoil: Callable[[Chunk], Chunk]) -> Callable[[ExecutorRig], None]:
    """One chunk is spoiled; good ones go on."""

    def inflict(rig: ExecutorRig) -> None:
        left = [spoil]
        rig.source.spoil = lambda chunk: (left.pop()(chunk) if left else chunk,)

    return inflict


def beside(spoil: Callable[[Chunk], Chunk]) -> Callable[[ExecutorRig], None]:
    """Each good chunk is followed by a spoiled one with the next number."""

    def both(rig: ExecutorRig, chunk: Chunk) -> Iterable[Chunk]:
        yield chunk
        rig.source.sequence += 1
        time.sleep(0.02)  # the executor keeps the newest message only
        yield spoil(replace(chunk, sequence=rig.source.sequence))

    def inflict(rig: ExecutorRig) -> None:
        rig.source.spoil = lambda chunk: both(rig, chunk)

    return inflict


def refusal(word: str) -> Callable[[ExecutorRig, int], int]:
    """A status that counts a refused chunk and says why."""
    return lambda rig, since_ns: rig.told(
        since_ns, lambda status: word in status.last_refusal, f"a refusal with {word!r}"
    )


def refused(name: str, fault: str, threshold: str, word: str, spoil: Callable[[Chunk], Chunk]) -> Scenario:
    return Scenario(
        name=name,
        fault=fault,
        detection=threshold,
        reaction="refused, counted, told with its reason; good chunks beside it are followed",
        recovery="none needed",
        inflict=beside(spoil),
        report=refusal(word),
    )


def long_plan(rig: ExecutorRig) -> None:
    left = [rig.source.chunk(100)]
    rig.source.spoil = lambda chunk: (left.pop(),) if left else ()


def past(chunk: Chunk) -> Chunk:
    return replace(chunk, t_obs_ns=chunk.t_obs_ns - FAR_NS, start_ns=chunk.start_ns - FAR_NS)


AT_ONCE = "with the message"
CHUNKS = [
    *(
        Scenario(
            name=f"{word} in a chunk",
            fault=f"{text} in a chunk",
            detection=AT_ONCE,
            reaction="controlled stop, latched",
            recovery="after `executor/start`",
            inflict=once(lambda chunk, value=value: with_value(chunk, value)),
            report=reports(STOPPED, "not finite", diagnosed=True),
            stop_s=LOOKAHEAD_S,
            latched=True,
        )
        for word, text, value in (("nan", "NaN", math.nan), ("infinity", "infinity", math.inf))
    ),
    refused(
        "past",
        "chunk from the past",
        f"older than `max_chunk_age` ({ROBOT.executor.max_chunk_age:g} s)",
        "s old",
        past,
    ),
    refused(
        "future",
        "chunk from the future",
        f"starts over `max_start_ahead` ({ROBOT.executor.max_start_ahead:g} s) ahead",
        "s ahead",
        lambda chunk: replace(chunk, start_ns=chunk.start_ns + FAR_NS),
    ),
    refused(
        "width",
        "chunk of the wrong width",
        AT_ONCE,
        "expected shoulder_pan",
        lambda chunk: with_arm(chunk, names=ARM[:4], values=chunk.groups[0].values[:, :4]),
    ),
    refused(
        "joints",
        "chunk with unknown joints",
        AT_ONCE,
        "elbow_flux",
        lambda chunk: with_arm(chunk, names=("elbow_flux", *ARM[1:])),
    ),
    refused(
        "duplicate",
        "the same chunk again",
        AT_ONCE,
        "again",
        lambda chunk: replace(chunk, sequence=chunk.sequence - 1),
    ),
    refused(
        "order",
        "chunks out of order",
        AT_ONCE,
        "expected a newer chunk",
        lambda chunk: replace(chunk, sequence=chunk.sequence - 2),
    ),
    Scenario(
        name="only bad chunks",
        fault="nothing but chunks that are refused",
        detection="end of the plan",
        reaction="motion ends with the plan, then hold",
        recovery="by itself, with the first good chunk",
        inflict=instead(past),
        report=reports(HOLDING, "ended"),
        stop_s=PLAN_S + LOOKAHEAD_S,
    ),
    Scenario(
        name="no chunks",
        fault="chunks cease to come",
        detection="end of the plan",
        reaction="motion ends with the plan, then hold",
        recovery="by itself, with the next chunk",
        inflict=lambda rig: setattr(rig.source, "spoil", lambda chunk: ()),
        report=reports(HOLDING, "ended"),
        stop_s=PLAN_S + LOOKAHEAD_S,
    ),
    Scenario(
        name="long plan",
        fault="a plan of 5 s, and no newer chunk",
        detection=f"watchdog `chunk_age` ({WATCHDOGS.chunk_age.after:g} s)",
        reaction="no new motion: what is under way ends at rest, then hold",
        recovery="by itself, with the next chunk",
        inflict=long_plan,
        report=reports(HOLDING, f"{WATCHDOGS.chunk_age.after:g} s"),
        stop_s=WATCHDOGS.chunk_age.after + LOOKAHEAD_S,
    ),
    Scenario(
        name="no sign of life",
        fault="chunks, but no sign of life on `policy/status`",
        detection=f"watchdog `policy_heartbeat` ({WATCHDOGS.policy_heartbeat.after:g} s)",
        reaction="no new motion: what is under way ends at rest, then hold",
        recovery="by itself, with the next sign of life",
        inflict=lambda rig: setattr(rig.source, "alive", False),
        report=reports(HOLDING, "sign of life", diagnosed=True),
        stop_s=PERIOD_S + WATCHDOGS.policy_heartbeat.after + LOOKAHEAD_S,
    ),
    Scenario(
        name="jump in a chunk",
        fault="a joint of the plan jumps by 2 rad",
        detection="every period",
        reaction="clipped to the limits, counted",
        recovery="by itself",
        inflict=instead(
            lambda chunk: with_arm(
                chunk,
                values=chunk.groups[0].values + np.outer(np.arange(STEPS) >= STEPS // 2, [2.0, 0, 0, 0, 0]),
            )
        ),
        report=lambda rig, since_ns: more(rig, since_ns, "commands_clipped"),
    ),
]


def more(rig: ExecutorRig, since_ns: int, counter: str) -> int:
    """When a counter of the status had risen."""
    before = getattr([status for at, status in list(rig.status) if at < since_ns][-1], counter)
    return rig.told(since_ns, lambda status: getattr(status, counter) > before, f"{counter} above {before}")


def flood(rig: ExecutorRig) -> None:
    rig.source.spoil = lambda chunk: ()


def flooded(rig: ExecutorRig, since_ns: int) -> str:
    """Two seconds of a thousand chunks each, as far as this process can make them."""
    count, begin = 0, time.monotonic()
    while time.monotonic() < begin + 2.0:
        rig.source.flood()
        count += 1
        time.sleep(max(0.0, begin + count * 0.001 - time.monotonic()))
    return f"{count / 2.0:.0f} chunks a second sent"


FLOOD = Scenario(
    name="flood",
    fault="1,000 chunks a second",
    detection="every period",
    reaction="the newest chunk of each period is read, the others are dropped; motion goes on",
    recovery="none needed",
    inflict=flood,
    during=flooded,
)


# Measured joints.


def spoil_joints(change: Callable[[Any], Any]) -> Callable[[ExecutorRig], None]:
    def inflict(rig: ExecutorRig) -> None:
        rig.robot.spoil_joints = change

    return inflict


def with_position(change: Callable[[float], float]) -> Callable[[Any], Any]:
    def spoil(message: Any) -> Any:
        message.position[0] = change(message.position[0])
        return message

    return spoil


def repeated() -> Callable[[ExecutorRig], None]:
    def inflict(rig: ExecutorRig) -> None:
        first: list[Any] = []

        def spoil(message: Any) -> Any:
            first.append(message)
            return first[0]

        rig.robot.spoil_joints = spoil

    return inflict


def joints(name: str, fault: str, change: Callable[[ExecutorRig], None]) -> Scenario:
    return Scenario(
        name=name,
        fault=fault,
        detection=f"`max_joint_state_age` ({JOINT_AGE_S:g} s)",
        reaction="controlled stop, then hold",
        recovery="by itself, with the next good joint state",
        inflict=change,
        report=reports(HOLDING, "stale"),
        stop_s=JOINT_AGE_S + LOOKAHEAD_S,
    )


JOINTS = [
    joints("joint states nan", "NaN in joint states", spoil_joints(with_position(lambda _: math.nan))),
    joints(
        "joint states infinity", "infinity in joint states", spoil_joints(with_position(lambda _: math.inf))
    ),
    joints("no joint states", "joint states cease to come", spoil_joints(lambda message: None)),
    joints("joint states repeated", "joint states with the same stamp again and again", repeated()),
    Scenario(
        name="measured jump",
        fault="a measured joint jumps by 2 rad",
        detection="every period",
        reaction="the command comes to within `max_tracking_error` of the joint, inside the limits; counted",
        recovery="by itself",
        inflict=spoil_joints(with_position(lambda position: position + 2.0)),
        report=lambda rig, since_ns: more(rig, since_ns, "commands_clipped"),
    ),
]

SCENARIOS = [*CHUNKS, FLOOD, *JOINTS]
