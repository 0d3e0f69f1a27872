# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file at given times, decoded with PyAV.

Used by ``lerobot.py``. A dataset pairs row k with the frame whose time is the row's, and one video file may
hold many episodes, so frames are found by time, never by counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import DatasetError


@dataclass(frozen=True)
class VideoFacts:
    """What a video file says of itself: frames a second, and its length in seconds."""

    rate: float
    seconds: float


def probe(path: Path) -> VideoFacts:
    """Reads a video's header; nothing is decoded. Raises DatasetError when it is no video."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DatasetError(f"{path}: holds no video")
            stream = container.streams.video[0]
            length = stream.duration * stream.time_base if stream.duration and stream.time_base else None
            if length is None and container.duration:
                length = Fraction(container.duration, av.time_base)
            return VideoFacts(float(stream.average_rate or 0.0), float(length or 0.0))
    except (av.error.FFmpegError, OSError) as error:
        raise DatasetError(f"{path}: cannot be opened ({error}); copy the dataset again") from error


def frames_at(
    path: Path, times: NDArray[np.float64], tolerance: float, threads: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """Yields for each of ``times`` [N] (s from the start of the video, ascending) its frame: uint8 [H, W, 3]
    RGB.

    A frame is taken when its time is within ``tolerance`` seconds. Raises DatasetError that names the file
    and the time when there is none, or when the file cannot be decoded.

    Args:
        threads: of the decoder; 0 takes what the machine has, which decodes ahead as many frames. 1 is for
            one of many processes, and for short stretches.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DatasetError(f"{path}: holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "NONE" if threads == 1 else "AUTO"
            stream.codec_context.thread_count = threads
            base = stream.time_base or Fraction(1, 90_000)
            if times[0] > tolerance:
                # To the key frame before the first time; decoding goes on from there.
                container.seek(int((times[0] - tolerance) / base), stream=stream, backward=True)
            yield from _matched(path, container.decode(stream), float(base), times, tolerance)
    except (av.error.FFmpegError, OSError) as error:
        raise DatasetError(f"{path}: cannot be decoded ({error}); copy the dataset again") from error


def _matched(
    path: Path,
    decoded: Iterator[av.VideoFrame],
    base: float,
    times: NDArray[np.float64],
    tolerance: float,
) -> Iterator[NDArray[np.uint8]]:
    to_rgb = _to_rgb()
    frame, at = next(decoded, None), -np.inf
    picture: NDArray[np.uint8] | None = None
    for time in times:
        # On to the frame that is nearest: the first one that is not too early.
        while frame is not None:
            at = (frame.pts or 0) * base
            if at >= time - tolerance:
                break
            frame, picture = next(decoded, None), None
        if frame is None or abs(at - time) > tolerance:
            have = f"the next one is at {at:.3f} s" if frame is not None else "it ends before"
            raise DatasetError(
                f"{path}: no frame at {time:.3f} s ({have}); the video does not fit the episode's rows"
            )
        if picture is None:
            picture = to_rgb(frame)
        yield picture


def _to_rgb() -> Callable[[av.VideoFrame], NDArray[np.uint8]]:
    """``frame.to_ndarray(format="rgb24")`` with one converter for all frames of a video, and no threads: to
    make either anew for each frame, as PyAV does, takes longer than decoding it."""
    reformatter = av.video.reformatter.VideoReformatter()
    options: dict[str, Any] = {"threads": 1}

    def convert(frame: av.VideoFrame) -> NDArray[np.uint8]:
        try:
            converted = reformatter.reformat(frame, format="rgb24", **options)
        except TypeError:  # PyAV before version 17 has no such option, and no threads
            options.clear()
            converted = reformatter.reformat(frame, format="rgb24")
        return cast("NDArray[np.uint8]", converted.to_ndarray())

    return convert
