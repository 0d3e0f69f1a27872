# SPDX-License-Identifier: Apache-2.0
"""Moves encoded frames from file to file as they are: into a file of their own, or behind others.

Nothing is decoded, so nothing is lost and it costs what copying costs. An episode can be taken out of a file
where it begins with a key frame, as those that any LeRobot writer joined do.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from gr00t_ros.data.episode_source import VideoPart
from gr00t_ros.data.video_writing import rate_of
from gr00t_ros.errors import DatasetError

# Why a file cannot have a second name: another disk, a file system or kernel setting that has none.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES, errno.ENOSYS)


def copy_video(part: VideoPart, target: Path, frames: int, fps: float) -> None:
    """Makes ``target`` of the part's frames. A whole file gets a second name where the disk allows it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not part.whole:
        with JoinedVideo(target, fps) as joined:
            joined.append(part, frames)
        return
    if not part.path.is_file():
        raise DatasetError(f"{part.path}: missing; it should hold {frames} frames")
    try:
        os.link(part.path.resolve(), target)  # of a link, what it points to
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(part.path, target)


class JoinedVideo:
    """A video file that grows by the frames of one episode after the other; ``size`` is bytes so far."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.frames = 0
        self.size = 0
        self._rate = rate_of(fps)
        self._container: Any = av.open(str(path), "w", format="mp4")
        self._stream: Any = None
        self._shape: tuple[Any, ...] = ()

    def __enter__(self) -> JoinedVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Completes the file."""
        self._container.close()

    @property
    def duration(self) -> float:
        """Seconds: where the next episode begins."""
        return float(self.frames / self._rate)

    def append(self, part: VideoPart, frames: int) -> None:
        """Appends ``frames`` frames of a part.

        Raises DatasetError when it has other frames, or of another kind than those before.
        """
        if not part.path.is_file():
            raise DatasetError(f"{part.path}: missing; it should hold {frames} frames")
        with _opened(part.path) as source:
            if not source.streams.video:
                raise DatasetError(f"{part.path}: holds no video")
            stream = source.streams.video[0]
            self._check(part.path, stream)
            taken = self._copy(source, stream, part, frames)
        if taken != frames:
            raise DatasetError(
                f"{part.path}: {taken} frames from {part.start:.3f} s on, the rows need {frames}"
            )
        self.frames += frames

    def _check(self, path: Path, stream: Any) -> None:
        context = stream.codec_context
        shape = (context.name, stream.width, stream.height, stream.pix_fmt, context.extradata)
        if self._stream is None:
            self._stream = self._container.add_stream_from_template(stream, opaque=True)
            self._stream.time_base = 1 / self._rate
            self._shape = shape
        elif shape[:4] != self._shape[:4]:
            raise DatasetError(
                f"{path}: {shape[:4]}, those before {self._shape[:4]}; one file holds one kind"
            )
        elif shape[4] != self._shape[4]:
            raise DatasetError(
                f"{path}: was encoded with other settings than those before; they cannot share a file"
            )

    def _copy(self, source: Any, stream: Any, part: VideoPart, frames: int) -> int:
        start = round(Fraction(part.start) * self._rate)
        if start:
            source.seek(round(start / self._rate / stream.time_base), stream=stream)
        taken = 0
        for packet in _packets(part.path, source, stream):
            if packet.pts is None:
                continue
            number = round(packet.pts * stream.time_base * self._rate) - start
            if number < 0 or number >= frames:
                if taken == frames:
                    break
                continue
            if taken == 0 and not packet.is_keyframe:
                raise DatasetError(
                    f"{part.path}: no key frame at {part.start:.3f} s, so the episode cannot be taken out"
                )
            ticks = packet.dts * stream.time_base * self._rate
            self.size += packet.size
            packet.stream = self._stream
            packet.time_base = 1 / self._rate
            packet.pts = self.frames + number
            packet.dts = self.frames + round(ticks) - start
            packet.duration = 1
            self._container.mux(packet)
            taken += 1
        return taken


def _opened(path: Path) -> Any:
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error


def _packets(path: Path, source: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets. What goes wrong with reading is told from what goes wrong with writing."""
    try:
        yield from source.demux(stream)
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{path}: cannot be read ({error}); convert the episode, or copy the dataset, again")
