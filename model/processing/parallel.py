# SPDX-License-Identifier: Apache-2.0
"""A handful of threads for a handful of images: what makes two cameras on two cores take the time of one.

OpenCV and Pillow release the GIL, so threads are enough. The calling thread works too: handing over and
waiting would cost a good part of what is won at 3 ms an image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

# A robot has a few cameras; more threads than this would take cores from the executor and the drivers.
MOST_THREADS = 4


def available_threads() -> int:
    """Cores this process may use, at most ``MOST_THREADS``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


def parallel_map(function: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """``[function(job) for job in jobs]`` on the available cores; the first error is raised here."""
    threads = min(available_threads(), len(jobs))
    if threads <= 1:
        return [function(job) for job in jobs]

    def share(start: int) -> list[Result]:
        return [function(job) for job in jobs[start::threads]]

    others = [_pool(os.getpid()).submit(share, start) for start in range(1, threads)]
    shares = [share(0), *(other.result() for other in others)]
    return [shares[index % threads][index // threads] for index in range(len(jobs))]


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork, so a forked child makes its own."""
    return ThreadPoolExecutor(MOST_THREADS - 1, thread_name_prefix="gr00t-images")
