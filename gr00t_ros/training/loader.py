# SPDX-License-Identifier: Apache-2.0
"""Batches for a training loop: the stream, in worker processes that fail readably and stop when told to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from gr00t_ros.errors import DatasetError
from gr00t_ros.training.collate import Inputs, pack, unpack
from gr00t_ros.training.stream import Failure, SampleStream

# Batches that each worker has ready: one to give, one in the making while shards are opened.
PREFETCHED = 2
# What PyTorch says of a worker that did not end by itself.
_ENDED = ("exited unexpectedly", "is killed by signal")


class SampleLoader(DataLoader[Any]):
    """A DataLoader whose batches are the network's inputs with uint8 pixels, see ``collate.to_device``.

    Raises, while batches are taken:
        DatasetError: what a worker could not read, as it would have been raised here; or a worker was ended
            from outside.
    """

    def __iter__(self) -> Iterator[Inputs]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            with workers_explained():
                batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, Failure):
                raise DatasetError(batch.text)
            yield unpack(batch)


@contextmanager
def workers_explained() -> Iterator[None]:
    """What PyTorch says of a worker that is gone, as a sentence with what to do. It is told by a signal, and
    so anywhere, not only where a batch is taken."""
    try:
        yield
    except RuntimeError as error:
        if not any(phrase in str(error) for phrase in _ENDED):
            raise
        raise DatasetError(
            f"a data loading process was ended from outside ({error}); most often memory ran out: use fewer "
            "workers or smaller batches, and in a container give it more shared memory (docker run "
            "--shm-size)"
        ) from error


def training_loader(stream: SampleStream, workers: int = 0, *, pin_memory: bool = False) -> SampleLoader:
    """Batches of ``stream``, made in ``workers`` processes (0: in this one).

    Args:
        pin_memory: for copies to a GPU that overlap with its work.
    """
    return SampleLoader(
        stream,
        batch_size=stream.batch_size,
        num_workers=workers,
        collate_fn=partial(_pack, pad=stream.processor.pad_token_id),
        pin_memory=pin_memory,
        prefetch_factor=PREFETCHED if workers else None,
        worker_init_fn=_start_worker if workers else None,
        # Its own, so that starting a loader takes no number from the network's random generator, whose
        # dropout would else depend on how often a run was interrupted.
        generator=torch.Generator(),
    )


def _pack(samples: list[Any], pad: int) -> Any:
    """A batch, or the failure in it."""
    failures = [sample for sample in samples if isinstance(sample, Failure)]
    return failures[0] if failures else pack(samples, pad)


def _start_worker(worker: int) -> None:
    # Ctrl-C reaches the whole process group, and so does SIGTERM from a cluster, from `timeout` or from
    # torchrun. The main process decides what then happens: a worker that stopped by itself could leave a lock
    # behind that the others wait for, and the run could not finish its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_parent_says, daemon=True).start()
    # The workers are what runs in parallel. OpenCV's own threads would also not survive the fork.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_when_the_parent_says() -> None:
    """SIGTERM from the process that started this worker ends it: so it is told at that process's exit, which
    then waits for it. Needs the signal blocked in all threads."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
