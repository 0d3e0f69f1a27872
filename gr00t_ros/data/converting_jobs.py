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
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from gr00t_ros.data.converting import Converted, Job, Progress, convert_bag
from gr00t_ros.errors import Gr00tRosError

# The disk, the quota, the largest size of a file that is allowed.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Failed:
    """A bag of which no episode was made. ``final`` says that others will fare no better: the disk is
    full."""

    bag: str
    text: str
    final: bool = False


Outcome = Converted | Failed
# How long the reading thread may keep the interpreter to itself when an encoder's wants it, as it does for
# microseconds, many times a frame. By default it waits for 5 ms, in which two frames are encoded.
_SWITCH_INTERVAL_S = 0.0005
# How often it is looked whether to stop, s.
_LOOK_EVERY = 0.5
# Called with the number of a job and how far it is.
Report = Callable[[int, Progress], None]


def run_jobs(
    jobs: Sequence[Job], processes: int, report: Report, check: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, Outcome]]:
    """Converts all; yields each job's number and outcome as it ends. After a final failure nothing new
    begins.

    ``check`` is called now and then where it is safe to stop: what it raises ends everything. So does closing
    the generator.
    """
    if processes <= 1 or len(jobs) <= 1:
        yield from _one_by_one(jobs, report, check)
        return
    waiting = list(range(len(jobs)))[::-1]
    workers: dict[Connection, _Worker] = {}
    try:
        for _ in range(min(processes, len(jobs))):
            worker = _Worker(jobs, waiting.pop())
            workers[worker.connection] = worker
        while workers:
            check()
            for connection in wait(list(workers), _LOOK_EVERY):
                assert isinstance(connection, Connection)
                worker = workers[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    del workers[connection]
                    message = Failed(str(jobs[worker.number].bag), worker.death())
                    check()  # a signal to the whole group ends all: then the bag is not what failed
                    if waiting:
                        other = _Worker(jobs, waiting.pop())
                        workers[other.connection] = other
                    yield worker.number, message
                    continue
                if isinstance(message, Progress):
                    report(worker.number, message)
                    continue
                done = worker.number
                if isinstance(message, Failed) and message.final:
                    waiting.clear()
                if waiting:
                    worker.give(waiting.pop())
                else:
                    del workers[connection]
                    worker.dismiss()
                yield done, message
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """A process that converts one bag after the other; ``number`` is the job that it has."""

    def __init__(self, jobs: Sequence[Job], number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._jobs, self.number = jobs, number
        self.connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()
        self.give(number)

    def give(self, number: int) -> None:
        """The next job. A process that died shows when its answer is awaited."""
        self.number = number
        with contextlib.suppress(OSError):
            self.connection.send(self._jobs[number])

    def dismiss(self) -> None:
        """There is nothing more to do."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self._process.join()
        self.connection.close()

    def end(self) -> None:
        """At once, whatever it does."""
        self._process.terminate()
        self._process.join()

    def death(self) -> str:
        """Why the process ended by itself, in words."""
        self._process.join()
        return f"{self._jobs[self.number].bag}: {_death(self._process.exitcode)}"


def _one_by_one(
    jobs: Sequence[Job], report: Report, check: Callable[[], None]
) -> Iterator[tuple[int, Outcome]]:
    for number, job in enumerate(jobs):

        def tell(progress: Progress, number: int = number) -> None:
            check()
            report(number, progress)

        check()
        outcome = _outcome(job, tell)
        yield number, outcome
        if isinstance(outcome, Failed) and outcome.final:
            return


def _outcome(job: Job, tell: Callable[[Progress], None]) -> Outcome:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        return convert_bag(job, tell)
    except Gr00tRosError as error:
        return Failed(str(job.bag), str(error), final=_is_full(error))
    finally:
        sys.setswitchinterval(before)


def _is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a disk on which there is no room."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL:
            return True
        error = error.__cause__
    return False


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
