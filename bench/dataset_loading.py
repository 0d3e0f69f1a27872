# SPDX-License-Identifier: Apache-2.0
"""How fast a dataset is read for training: frames decoded, samples encoded, batches from worker processes.

    python bench/dataset_loading.py [--dataset DIR] [--batch N] [--workers N...] [--seconds S] [--json FILE]

Without --dataset, a recording of two 640x480 cameras at 30 Hz is made up and written with the package's own
writer. "cpu" is processor time of all threads and processes for one frame or sample: where other programs run
beside this one, compare that. A GPU is kept busy when the last rows give more samples a second than it takes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from gr00t_model.processing import Gr00tProcessor, ModalityConfig
from gr00t_ros.data.assembling import assemble
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.lerobot_writing import EpisodeWriter
from gr00t_ros.data.rows import Layout, Row
from gr00t_ros.training.loader import training_loader
from gr00t_ros.training.order import generator
from gr00t_ros.training.samples import OpenSource, encode, load_shard
from gr00t_ros.training.stream import (
    DEFAULT_OPEN_SHARDS,
    DEFAULT_SHARD_ROWS,
    DatasetSource,
    SampleStream,
    training_statistics,
)

TAG = "new_embodiment"
HORIZON = 16
# Places at which single frames are decoded: enough for a mean, few enough where each takes 250 frames.
RANDOM_FRAMES = 40
JOINTS = tuple(f"joint_{number}" for number in range(6))


def made_up(folder: Path, *, episodes: int = 2, rows: int = 300, size: tuple[int, int] = (480, 640)) -> Path:
    """A dataset of two cameras that pan over a blurred picture, and six joints."""
    layout = Layout("bench", 30.0, ("front", "wrist"), (("arm", JOINTS),), (("arm", JOINTS),))
    rng = np.random.default_rng(0)
    wide = cv2.blur(rng.integers(0, 256, (size[0], 3 * size[1], 3), dtype=np.uint8), (9, 9))
    staged = []
    for episode in range(episodes):
        with EpisodeWriter(folder / f"staged_{episode}", layout) as writer:
            for row in range(rows):
                left = 2 * row % (2 * size[1])
                picture = np.ascontiguousarray(wide[:, left : left + size[1]])
                values = np.sin(0.05 * row + np.arange(6) + episode).astype(np.float32)
                stamp = row * 1_000_000_000 // 30
                frames = {"front": picture, "wrist": np.ascontiguousarray(picture[::-1])}
                writer.add(
                    Row(stamp, stamp, frames, {"arm": values}, {"arm": values + 0.1}, "sort the parts")
                )
            writer.finish()
        staged.append(folder / f"staged_{episode}")
    return assemble(staged, folder / "dataset", layout)


def everything(dataset: LeRobotDataset) -> dict[str, ModalityConfig]:
    """All cameras and groups of a dataset, as a checkpoint for it would name them."""
    named = (dataset.modality or {}).get("video", {})
    cameras = [key for key in named if named[key].get("original_key", key) in dataset.video_keys]
    return {
        "video": ModalityConfig((0,), tuple(cameras or dataset.video_keys)),
        "state": ModalityConfig((0,), tuple(dataset.groups("state"))),
        "action": ModalityConfig(tuple(range(HORIZON)), tuple(dataset.groups("action"))),
        "language": ModalityConfig((0,), ("task",)),
    }


def cpu_seconds() -> float:
    """Processor time so far of this process and of the workers that run."""
    used = time.process_time()
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime
    return used


def timed(name: str, unit: str, work: Callable[[], int]) -> dict[str, Any]:
    """One row of the table; ``work`` returns how many frames or samples it has done."""
    start, used = time.perf_counter(), cpu_seconds()
    count = work()
    seconds, used = time.perf_counter() - start, cpu_seconds() - used
    return {
        "row": name,
        "unit": unit,
        "per_second": count / seconds,
        "cpu_ms": 1e3 * used / count,
        "count": count,
    }


def until(seconds: float, items: Iterator[int]) -> int:
    """Takes items for so long; their sum."""
    end, total = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        total += next(items)
    return total


def decoding(source: OpenSource) -> Iterator[dict[str, Any]]:
    """Frames in order and at random, of the longest episode's first camera."""
    number = max(source.episodes, key=source.dataset.length)
    episode = source.episode(number)
    key = source.reader.modality["video"].modality_keys[0]

    def sequential() -> int:
        return sum(1 for _ in source.reader.frames(episode, key, 0, len(episode), threads=1))

    def shards() -> int:
        starts = range(0, len(episode) - DEFAULT_SHARD_ROWS + 1, DEFAULT_SHARD_ROWS)
        count = 0
        for start in np.random.default_rng(0).permutation(starts).tolist():
            stop = start + DEFAULT_SHARD_ROWS
            count += sum(1 for _ in source.reader.frames(episode, key, start, stop, threads=1))
        return count

    def random() -> int:
        for row in np.random.default_rng(0).integers(0, len(episode), RANDOM_FRAMES).tolist():
            next(source.reader.frames(episode, key, row, row + 1, threads=1))
        return RANDOM_FRAMES

    yield timed("decode, an episode from front to back", "frames", sequential)
    if len(episode) >= DEFAULT_SHARD_ROWS:
        yield timed(f"decode, shards of {DEFAULT_SHARD_ROWS} rows in random order", "frames", shards)
    yield timed("decode, single frames at random", "frames", random)


def encoding(source: OpenSource, processor: Gr00tProcessor, seconds: float) -> Iterator[dict[str, Any]]:
    """What is done to frames once, and to samples, without decoding."""
    number = max(source.episodes, key=source.dataset.length)
    rows = list(source.reader.rows(source.episode(number)))[:DEFAULT_SHARD_ROWS]
    key = source.reader.modality["video"].modality_keys[0]
    frames = list(source.reader.frames(source.episode(number), key, rows[0], rows[-1] + 1))

    def reduced() -> int:
        def one_by_one() -> Iterator[int]:
            while True:
                for frame in frames:
                    processor.reduce_image(frame)
                    yield 1

        return until(seconds / 4, one_by_one())

    shard = load_shard(source, processor, number, rows)

    def encoded() -> int:
        def one_by_one() -> Iterator[int]:
            while True:
                for row in rows:
                    encode(source, processor, shard, number, row, generator(0, 0, row))
                    yield 1

        return until(seconds / 4, one_by_one())

    yield timed("first image step", "frames", reduced)
    yield timed("encode a decoded sample, augmented", "samples", encoded)


def streaming(
    source: DatasetSource, processor: Gr00tProcessor, workers: int, batch: int, seconds: float
) -> dict[str, Any]:
    """Batches from the loader, once as many samples have passed as it had decoded before it began."""
    start = time.perf_counter()
    stream = SampleStream([source], processor, seed=0, batch_size=batch)
    batches = iter(training_loader(stream, workers))
    next(batches)
    first = time.perf_counter() - start
    lanes = max(1, workers)
    ready = min(DEFAULT_SHARD_ROWS * DEFAULT_OPEN_SHARDS * lanes, sum(stream.rows))
    for _ in range(ready // batch):
        next(batches)
    row = timed(
        f"batches of {batch}, {workers or 'no'} worker{'' if workers == 1 else 's'}",
        "samples",
        lambda: until(seconds, (batch for _ in batches)),
    )
    return {**row, "first_batch_s": first}


def measure(
    dataset: Path, *, workers: Sequence[int] = (0, 1, 2), batch: int = 32, seconds: float = 10.0
) -> list[dict[str, Any]]:
    """All rows of the table."""
    source = DatasetSource(dataset, TAG)
    modality = {TAG: everything(LeRobotDataset(dataset))}
    processor = Gr00tProcessor(modality, training_statistics([source], modality, lambda text: None))
    opened = OpenSource(source, modality[TAG])
    next(iter(SampleStream([source], processor, seed=0, batch_size=1)))  # loads the tokenizer
    return [
        *decoding(opened),
        *encoding(opened, processor, seconds),
        *(streaming(source, processor, count, batch, seconds) for count in workers),
    ]


def describe(dataset: Path) -> str:
    """What is read, in one line."""
    opened = LeRobotDataset(dataset)
    cameras = everything(opened)["video"].modality_keys
    episode = opened.episode(next(iter(opened.episodes)))
    sizes = []
    for key in cameras:
        feature = opened.video(key)
        height, width = next(iter(islice(episode.frames(feature, 0, 1), 1))).shape[:2]
        with av.open(str(episode.videos[feature].path)) as container:
            sizes.append(f"{key} {width}x{height} {container.streams.video[0].codec_context.name}")
    return f"{opened.path.name}: LeRobot {opened.version}, {len(opened)} episodes, {', '.join(sizes)}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures for people."""
    lines = [f"{'':<46}{'per second':>12}{'cpu (ms)':>10}{'first (s)':>11}"]
    for row in rows:
        first = f"{row['first_batch_s']:11.2f}" if "first_batch_s" in row else ""
        lines.append(
            f"{row['row']:<46}{row['per_second']:>12.0f}{row['cpu_ms']:>10.2f}{first} {row['unit']}".rstrip()
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, help="LeRobot dataset (default: made up)")
    parser.add_argument("--batch", type=int, default=32, help="samples of a batch (default 32)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row of batches (default 10)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args(argv)

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="gr00t_bench_") as folder:
        dataset = arguments.dataset or made_up(Path(folder))
        about = describe(dataset)
        rows = measure(dataset, workers=arguments.workers, batch=arguments.batch, seconds=arguments.seconds)
    print(about)
    print(table(rows))
    if arguments.json:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            "pyav": av.__version__,
            "torch": torch.__version__,
        }
        report = {"dataset": about, "machine": machine, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
