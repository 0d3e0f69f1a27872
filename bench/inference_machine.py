# SPDX-License-Identifier: Apache-2.0
"""What `inference.py` asks of the machine: time and memory, what its memory could deliver, and what the
processing of an observation takes on it."""

from __future__ import annotations

import importlib.util
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from gr00t_model.inference import devices

PROCESSING_RUNS = 30
# Large enough for no cache to hold, small enough for any board.
BANDWIDTH_BYTES = 512_000_000


# ---- time ------------------------------------------------------------------------------------------------


class Clock:
    """Time since the start, and what is left of the budget."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start = seconds, perf_counter()

    @property
    def spent(self) -> float:
        return perf_counter() - self._start

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def say(self, text: str) -> None:
        print(f"[{self.spent:5.0f} s, {max(self.left, 0):4.0f} s left] {text}", file=sys.stderr, flush=True)


class OutOfTime(BaseException):
    """No Exception, so that what falls back to something else on errors does not take it for one."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """OutOfTime in what takes longer, where the system has alarms and Python is reached in between."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: Any) -> None:
        raise OutOfTime("out of time; give more --seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1.0), 5.0)  # again, if something swallowed it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Memory:
    """Memory beyond what was held at the start: of the device, or of the process on a CPU (Linux)."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
            return
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        self._start = self._status("VmRSS"), 0

    @staticmethod
    def _status(name: str) -> int:
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(name):
                    return int(line.split()[1]) * 1024
        return 0

    def kept(self) -> int:
        """Bytes, buffers of recorded graphs included. Not known on a CPU: 0."""
        if not self._cuda:
            return 0
        torch.cuda.empty_cache()
        return max(0, torch.cuda.memory_reserved() - self._start[1])

    def peak(self) -> int:
        """Bytes at the worst moment."""
        worst = torch.cuda.max_memory_allocated() if self._cuda else self._status("VmHWM")
        return max(0, worst - self._start[0])


# ---- what the machine can do -------------------------------------------------------------------------


def bandwidth(device: torch.device) -> tuple[float, str]:
    """Bytes per second that the device's memory delivers, and where that figure is from."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        known = devices.recognise(properties.name, properties.total_memory)
        if known is not None:
            return known.bandwidth, f"its maker's figure for {known.name}"
    return measured_bandwidth(device), "measured here by reading"


def measured_bandwidth(device: torch.device) -> float:
    """Bytes per second of summing up a large tensor, the best of ten."""
    numbers = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    times = []
    for _ in range(11):
        begun = perf_counter()
        numbers.sum().item()
        times.append(perf_counter() - begun)
    return BANDWIDTH_BYTES / min(times[1:])


def describe(device: torch.device) -> dict[str, Any]:
    """The device and what runs on it."""
    found: dict[str, Any] = {"type": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "memory_gb": properties.total_memory / 1e9}
        found["capability"] = f"{properties.major}.{properties.minor}"
    else:
        found["name"] = cpu_name()
    return found


def cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Of what the figures depend on; None is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("torch", "triton", "transformers", "diffusers", "numpy", "tensorrt"):
        found[name] = None
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found | {"cuda": torch.version.cuda}


# ---- processing --------------------------------------------------------------------------------------


def processing_ms(cameras: int, clock: Clock) -> float | None:
    """Median milliseconds from camera images (640 x 480) and words to the network's inputs; None where
    OpenCV, Pillow or a tokenizer is missing."""
    missing = [name for name in ("cv2", "PIL", "tiktoken") if importlib.util.find_spec(name) is None]
    if missing:
        clock.say(f"processing is not measured: {', '.join(missing)} not installed")
        return None
    try:
        return _processing_ms(cameras)
    except Exception as error:  # a tokenizer's files, say; the network's figures do not depend on it
        clock.say(f"processing is not measured: {error}")
        return None


def _processing_ms(cameras: int) -> float:
    import cv2

    from gr00t_model.processing import Gr00tProcessor, KeyStatistics, ModalityConfig

    tag, views = "new_embodiment", tuple(f"camera{index}" for index in range(cameras))
    limits = {"arm": KeyStatistics.from_limits([-1.9] * 6, [1.9] * 6)}
    modality = {
        "video": ModalityConfig((0,), views),
        "state": ModalityConfig((0,), ("arm",)),
        "action": ModalityConfig(tuple(range(16)), ("arm",)),
        "language": ModalityConfig((0,), ("task",)),
    }
    processor = Gr00tProcessor({tag: modality}, {tag: {"state": limits, "action": limits}})
    pixels = np.random.default_rng(0).integers(0, 256, (cameras, 480, 640, 3), dtype=np.uint8)
    observation = {
        "video": {
            view: cv2.blur(image, (5, 5))[None, None] for view, image in zip(views, pixels, strict=True)
        },
        "state": {"arm": np.zeros((1, 1, 6), np.float32)},
        "language": {"task": [["pick up the cube and place it in the box"]]},
    }
    times = []
    for _ in range(PROCESSING_RUNS + 5):
        begun = perf_counter()
        processor.encode(observation, tag, pixels="uint8")
        times.append(perf_counter() - begun)
    return 1e3 * float(np.median(times[5:]))
