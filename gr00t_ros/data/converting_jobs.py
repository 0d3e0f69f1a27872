# SPDX-License-Identifier: Apache-2.0
"""Many bags at once, each in a process of its own, and what became of them in the order in which they came.

Processes are spawned, not forked: encoders and readers have threads. A process that dies (out of memory, a
codec that crashes) is one bag that failed; when the parent dies, the others end at their next sign of life.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from gr00t_ros.data.converting import Converted, Job, Progress, convert_bag
from gr00t_ros.errors import Gr00tRosError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Failed:
    """A bag of which no episode was made. ``final`` says that others will fare no better: the disk is
    full."""

    bag: str
    text: str
    final: bool = False


Outcome = Converted | Failed
# Called with the number of a job and how far it is.
Report = Callable[[int, Progress], None]


def run_jobs(jobs: Sequence[Job], processes: int, report: Report) -> Iterator[tuple[int, Outcome]]:
    """Converts all; yields each job's number and outcome as it ends. After a final failure nothing new
    begins.

    Closing the generator, or an exception thrown into it, ends the processes.
    """
    if processes <= 1 or len(jobs) <= 1:
        yield from _one_by_one(jobs, report)
        return
    context = multiprocessing.get_context("spawn")
    waiting = list(range(len(jobs)))[::-1]
    workers: dict[Connection, tuple[Any, int]] = {}

    def start(process: Any, connection: Connection) -> None:
        if not waiting:
            connection.send(None)
            workers.pop(connection, None)
            return
        number = waiting.pop()
        workers[connection] = (process, number)
        connection.send(jobs[number])

    everyone = []
    try:
        for _ in range(min(processes, len(jobs))):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            there.close()
            everyone.append(process)
            start(process, here)
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                process, number = workers[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    del workers[connection]
                    process.join()
                    yield number, Failed(str(jobs[number].bag), _death(process.exitcode))
                    if waiting:
                        raise Gr00tRosError(
                            f"{jobs[number].bag}: {_death(process.exitcode)}; what is converted is kept"
                        ) from None
                    continue
                if isinstance(message, Progress):
                    report(number, message)
                    continue
                if isinstance(message, Failed) and message.final:
                    waiting.clear()
                yield number, message
                start(process, connection)
    finally:
        for process in everyone:
            if process.is_alive() and workers:
                process.terminate()
        for process in everyone:
            process.join()


def _one_by_one(jobs: Sequence[Job], report: Report) -> Iterator[tuple[int, Outcome]]:
    for number, job in enumerate(jobs):
        outcome = _outcome(job, lambda progress, number=number: report(number, progress))  # type: ignore[misc]
        yield number, outcome
        if isinstance(outcome, Failed) and outcome.final:
            return


def _outcome(job: Job, tell: Callable[[Progress], None]) -> Outcome:
    try:
        return convert_bag(job, tell)
    except Gr00tRosError as error:
        cause = error.__cause__
        full = isinstance(cause, OSError) and cause.errno in _FULL
        return Failed(str(job.bag), str(error), final=full)


def _serve(connection: Connection) -> None:
    """The body of a process: jobs come in, progress and outcomes go out, until None comes or nobody is
    there."""
    # Ctrl-C goes to the whole group of processes; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (job := connection.recv()) is not None:
            try:
                outcome = _outcome(job, connection.send)
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception:
                text = " ".join(traceback.format_exc().split())
                outcome = Failed(str(job.bag), f"{job.bag}: an error that is none of the bag's: {text}")
            connection.send(outcome)


def _death(code: int | None) -> str:
    """Why a process ended, in words."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ": out of memory? Try fewer --jobs" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}"
