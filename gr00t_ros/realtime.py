# SPDX-License-Identifier: Apache-2.0
"""What keeps a control thread on time: real-time priority, locked memory, and a garbage collector that only
works when there is time for it. No ROS types.

All of it is the operating system's to allow, and what is not allowed is said in one sentence. See
docs/how-to/real_time.md.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

# Below ros2_control's update thread (50), whose commands must not wait for ours, and below the kernel's
# interrupt threads (50 by default).
PRIORITY = 40
# How long a thread of this process may keep Python's interpreter to itself when the control thread wants it.
# The default of 5 ms is a whole period at 200 Hz.
SWITCH_INTERVAL_S = 0.0001

# sys/mman.h. ONFAULT: what has been touched stays in memory. Without it every thread's whole stack and every
# library's whole image would be read in as well.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14

# Collections of young objects begin when this many were made, as by default; without slack they are put off
# until there are this many more times as many.
_YOUNG = 700
_PUT_OFF = 50
# All objects are looked at this often. What existed before the freeze is not, so that it takes well below a
# millisecond.
_FULL_EVERY_S = 10.0
# A collection begins when there are this many times as long until the next period as the last one took. Where
# there never are, it begins all the same, twenty seconds after the last one at the latest: late periods are
# reported, memory that grows is not.
_SLACK = 3.0


def take_priority() -> str:
    """Gives the calling thread SCHED_FIFO; an empty text, or why that is not allowed.

    Threads and processes that it makes do not inherit it, where the system has a flag for that (Linux).
    """
    if not hasattr(os, "sched_setscheduler"):
        return "this operating system has no SCHED_FIFO"
    try:
        policy = os.SCHED_FIFO | getattr(os, "SCHED_RESET_ON_FORK", 0)
        os.sched_setscheduler(threading.get_native_id(), policy, os.sched_param(PRIORITY))
    except OSError as error:
        return (
            f"no real-time priority {PRIORITY} ({error.strerror}): allow it with rtprio in "
            "/etc/security/limits.d"
        )
    return ""


def try_priority() -> str:
    """Whether :func:`take_priority` would succeed, found out in a thread of its own."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(take_priority()), name="priority")
    thread.start()
    thread.join()
    return found[0]


def lock_memory() -> str:
    """Keeps this process's memory from being paged out; an empty text, or why not.

    Only without a limit on locked memory: with one, the allocation that reaches it would fail, which is worse
    than a page that must be read in.
    """
    if not sys.platform.startswith("linux"):
        return "this operating system cannot lock memory"
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and not _may_lock():
        return (
            f"memory is not locked (limit {soft // 1024} kB): allow it with memlock in /etc/security/limits.d"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return f"memory is not locked ({os.strerror(ctypes.get_errno())})"
    return ""


def unlock_memory() -> None:
    """Ends :func:`lock_memory`."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).munlockall()


def _may_lock() -> bool:
    """Whether this process has CAP_IPC_LOCK, for which there is no limit."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        effective = next(line for line in lines if line.startswith("CapEff:"))
        return bool(int(effective.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    except (OSError, ValueError, StopIteration):
        return False


class SteadyInterpreter:
    """While it is entered: no collector pauses, and Python's threads take turns quickly. A context manager.

    What exists on entry is never looked at again until the end, and what is made afterwards is collected in
    :meth:`idle` alone, so that garbage cannot grow without bound.
    """

    def __init__(self) -> None:
        self._switch_s = sys.getswitchinterval()
        self._young_s = 0.0  # the last collection of young objects
        self._full_s = 0.0  # the last one of all
        self._full_due = 0.0
        self.collections = 0

    def __enter__(self) -> SteadyInterpreter:
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.disable()
        gc.freeze()
        self._full_due = time.monotonic() + _FULL_EVERY_S
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.unfreeze()
        gc.enable()
        sys.setswitchinterval(self._switch_s)

    def idle(self, slack_s: float) -> None:
        """There is nothing to do for ``slack_s``: collects what is due and fits in."""
        now = time.monotonic()
        young = gc.get_count()[0]
        overdue_s = now - self._full_due
        if overdue_s >= 0.0 and (slack_s >= _SLACK * self._full_s or overdue_s >= _FULL_EVERY_S):
            gc.collect()
            self._full_s = time.monotonic() - now
            self._full_due = now + _FULL_EVERY_S
        elif young >= _YOUNG and (slack_s >= _SLACK * self._young_s or young >= _PUT_OFF * _YOUNG):
            gc.collect(1)
            self._young_s = time.monotonic() - now
        else:
            return
        self.collections += 1
