# SPDX-License-Identifier: Apache-2.0
"""Worker processes: what goes wrong in one is told in one sentence, and Ctrl-C ends all of them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.errors import DatasetError
from gr00t_ros.training.loader import training_loader, workers_explained
from gr00t_ros.training.stream import DatasetSource, SampleStream
from support_datasets import write_dataset
from support_samples import TAG, processor_for

torch.set_num_threads(1)

# Endless, with the dataset and processor that the arguments name; says when batches come.
SCRIPT = """
import signal, sys
from pathlib import Path
from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.training.loader import training_loader
from gr00t_ros.training.stream import DatasetSource, SampleStream

# Also where the tests run in a shell's background, which ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
source = DatasetSource(Path(sys.argv[1]), sys.argv[2])
stream = SampleStream([source], Gr00tProcessor.from_pretrained(sys.argv[3]), seed=0, batch_size=4)
try:
    for number, batch in enumerate(training_loader(stream, 2)):
        print(f"batch {number}", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("loader") / "dataset", lengths=(12, 9))


@pytest.fixture(scope="module")
def processor(written: Path) -> Gr00tProcessor:
    return processor_for([DatasetSource(written, TAG)])


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_worker_cannot_read_is_told_as_if_read_here(
    written: Path, processor: Gr00tProcessor, tmp_path: Path, workers: int
) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "dataset"))
    stream = SampleStream([DatasetSource(folder, TAG)], processor, seed=0, batch_size=3)
    video = folder / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    video.write_bytes(video.read_bytes()[:400])
    with pytest.raises(DatasetError) as raised:
        list(islice(training_loader(stream, workers), 20))
    assert str(raised.value).startswith(f"{video}: cannot be decoded")
    assert "\n" not in str(raised.value)


def test_a_worker_that_is_killed_is_told(written: Path, processor: Gr00tProcessor) -> None:
    stream = SampleStream([DatasetSource(written, TAG)], processor, seed=0, batch_size=3)
    others = set(multiprocessing.active_children())  # of earlier tests, on their way out

    def killed() -> str:
        batches = iter(training_loader(stream, 1))
        next(batches)
        (worker,) = set(multiprocessing.active_children()) - others
        try:
            with workers_explained():  # the signal that tells it may come before the next batch is taken
                worker.kill()
                worker.join(60)
                return f"{len(list(islice(batches, 20)))} batches"
        except DatasetError as error:
            return str(error)

    assert "a data loading process was ended from outside" in killed()
    gc.collect()  # PyTorch tells it again with every process that ends while the loader's iterator is there


def test_a_stream_can_be_sent_to_a_new_process(written: Path, processor: Gr00tProcessor) -> None:
    """As Python 3.14 does it, which does not fork."""
    stream = SampleStream([DatasetSource(written, TAG)], processor, seed=0, batch_size=3)
    (here,) = islice(stream, 1)
    (there,) = islice(pickle.loads(pickle.dumps(stream)), 1)
    assert torch.equal(here["action"], there["action"])
    assert all(map(torch.equal, here["pixel_values"], there["pixel_values"]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_whole_group_is_told_is_the_main_process_s_to_decide(
    written: Path, processor: Gr00tProcessor, number: signal.Signals
) -> None:
    """It finishes its step and saves, for which it may need another batch."""
    stream = SampleStream([DatasetSource(written, TAG)], processor, seed=0, batch_size=3)
    others = set(multiprocessing.active_children())
    batches = iter(training_loader(stream, 1))
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    subprocess.run(["kill", f"-{number.value}", str(worker.pid)], check=True)
    assert len(list(islice(batches, 20))) == 20
    worker.terminate()  # as at this process's own exit
    worker.join(60)
    assert worker.exitcode == 0


def test_ctrl_c_ends_it_and_its_workers(written: Path, processor: Gr00tProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(written), TAG, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("batch 3"):
                    break
            workers = children(process.pid)
            assert len(workers) >= 2
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
            rest = process.stdout.read()
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert rest.splitlines()[-1] == "interrupted"
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def children(parent: int) -> list[int]:
    """Processes that a process has started and that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def wait_until(met: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.05)
