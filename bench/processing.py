# SPDX-License-Identifier: Apache-2.0
"""How long an observation takes to become tensors, and the network's output to become actions.

    python bench/processing.py [--repeats N] [--size WIDTH HEIGHT] [--json FILE]

Two cameras of a robot described in Python; nothing is downloaded. Each row is measured on one core and, where
there are more, on two. "plain chain" is the same image work written straight down with OpenCV and Pillow, to
compare with. The column "cpu" is processor time of all threads, which other programs disturb least.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from PIL import Image

from gr00t_model.processing import Gr00tProcessor, KeyStatistics, ModalityConfig
from gr00t_model.processing.tokenizer import installed_tokenizer

TAG = "new_embodiment"
VIEWS = ("front", "wrist")


def make_processor() -> Gr00tProcessor:
    limits = {"arm": KeyStatistics.from_limits([-1.9] * 6, [1.9] * 6)}
    modality = {
        "video": ModalityConfig((0,), VIEWS),
        "state": ModalityConfig((0,), ("arm",)),
        "action": ModalityConfig(tuple(range(16)), ("arm",)),
        "language": ModalityConfig((0,), ("task",)),
    }
    return Gr00tProcessor({TAG: modality}, {TAG: {"state": limits, "action": limits}})


def make_observation(width: int, height: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (len(VIEWS), height, width, 3), dtype=np.uint8)
    return {
        "video": {
            view: cv2.blur(image, (5, 5))[None, None] for view, image in zip(VIEWS, noise, strict=True)
        },
        "state": {"arm": np.zeros((1, 1, 6), np.float32)},
        "language": {"task": [["pick up the cube and place it in the box"]]},
    }


def plain_chain(image: np.ndarray) -> torch.Tensor:
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    small = cv2.resize(square, (256, 256), interpolation=cv2.INTER_AREA)[6:249, 6:249]
    back = Image.fromarray(cv2.resize(small, (256, 256), interpolation=cv2.INTER_AREA))
    pixels = np.asarray(back.resize((252, 252), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)[None]


def measure(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds: median, fastest and 95th percentile of ``repeats`` calls, and mean processor time."""
    for _ in range(5):
        work()
    times = np.empty(repeats)
    processor_start = time.process_time()
    for index in range(repeats):
        start = time.perf_counter()
        work()
        times[index] = 1e3 * (time.perf_counter() - start)
    processor_ms = 1e3 * (time.process_time() - processor_start) / repeats
    return {
        "median_ms": float(np.median(times)),
        "min_ms": float(times.min()),
        "p95_ms": float(np.quantile(times, 0.95)),
        "cpu_ms": processor_ms,
    }


def rows(processor: Gr00tProcessor, observation: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    images = [view[0, 0] for view in observation["video"].values()]
    normalized = np.zeros((1, 50, 128), np.float32)
    return {
        "plain chain, two images, float32": lambda: [plain_chain(image) for image in images],
        "encode, two images, uint8 pixels": lambda: processor.encode(observation, TAG, pixels="uint8"),
        "encode, two images, float32 pixels": lambda: processor.encode(observation, TAG),
        "encode_training, two images": lambda: processor.encode_training(
            observation, {"arm": np.zeros((1, 16, 6))}, TAG, np.random.default_rng(0), pixels="uint8"
        ),
        "decode, 16 steps": lambda: processor.decode(normalized, observation["state"], TAG),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=200, help="calls a row (default 200)")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args(argv)

    torch.set_num_threads(1)
    start = time.perf_counter()
    installed_tokenizer()
    tokenizer_s = time.perf_counter() - start
    processor, observation = make_processor(), make_observation(*arguments.size)

    cores = sorted(os.sched_getaffinity(0))
    results: list[dict[str, Any]] = []
    for count in (1, 2) if len(cores) > 1 else (1,):
        os.sched_setaffinity(0, cores[:count])
        for name, work in rows(processor, observation).items():
            results.append({"row": name, "cores": count, **measure(work, arguments.repeats)})
    os.sched_setaffinity(0, cores)

    width, height = arguments.size
    print(f"two {width}x{height} cameras; tokenizer loaded in {tokenizer_s:.1f} s (once a process)")
    print(f"{'':<36} cores   median      min      p95      cpu  (ms)")
    for row in results:
        figures = "".join(f"{row[column]:9.2f}" for column in ("median_ms", "min_ms", "p95_ms", "cpu_ms"))
        print(f"{row['row']:<36} {row['cores']:>5}{figures}")
    if arguments.json:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            "pillow": PIL.__version__,
            "torch": torch.__version__,
        }
        report = {"size": [width, height], "tokenizer_s": tokenizer_s, "machine": machine, "rows": results}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
