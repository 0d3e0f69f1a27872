# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file at given times, decoded with PyAV.

Used by ``lerobot.py``. A dataset pairs row k with the frame whose time is the row's, and one video file may
hold many episodes, so frames are found by time, never by counting.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import DatasetError


def frames_at(path: Path, times: NDArray[np.float64], tolerance: float) -> Iterator[NDArray[np.uint8]]:
    """Yields for each of ``times`` [N] (s from the start of the video, ascending) its frame: uint8 [H, W, 3]
    RGB.

    A frame is taken when its time is within ``tolerance`` seconds. Raises DatasetError that names the file
    and the time when there is none, or when the file cannot be decoded.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DatasetError(f"{path}: holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
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
            picture = frame.to_ndarray(format="rgb24")
        yield picture
