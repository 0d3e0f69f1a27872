# SPDX-License-Identifier: Apache-2.0
"""Writes a camera's frames as a video while they come, in a thread of its own.

One mp4 for each camera and episode, with frame k at exactly k / fps, so that rows find their frames by time.
There are no frames that depend on later ones (B-frames): decoding order is display order, and episodes can
be joined into one file without encoding again.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from gr00t_ros.data.image_statistics import ImageStatistics
from gr00t_ros.data.whole_files import storing
from gr00t_ros.errors import DatasetError

Frame = NDArray[np.uint8]

H264 = "h264"
AV1 = "av1"
CODECS = (H264, AV1)
_ENCODERS = {H264: "libx264", AV1: "libsvtav1"}
# Chosen by measurement (bench/dataset.py, one thread a camera, 2 cores): of x264's presets the one that
# leaves most of the time for reading the bag, and whose videos decode fastest. SVT-AV1's 12 is its fastest
# that still looks right; it takes two to three times the processor time, for 40% of the space at 342x256 and
# 80% at 640x480.
_PRESETS = {H264: "ultrafast", AV1: "12"}
# Constant quality at which the decoded picture is within 1.5 grey levels of the recorded one (rms, 44 dB).
_QUALITY = {H264: 23, AV1: 30}
# Frames from one key frame to the next. Training starts reading anywhere: with 10, five frames are decoded
# in vain on average. With 2 files are two to four times as large; with 30 a random frame takes two to three
# times as long.
KEY_FRAME_EVERY = 10
# Frames that may wait for the encoder: enough to even out key frames, 11 MB for a 640x480 camera.
_QUEUE = 12
# Rates such as 29.97 (30000/1001) keep their exact value.
_LARGEST_DENOMINATOR = 1001


@dataclass(frozen=True)
class VideoOptions:
    """How frames become videos.

    Attributes:
        codec: ``h264`` or ``av1``.
        size: shortest edge (pixels) that frames are shrunk to before encoding; None keeps the recorded size,
            and so does a frame that is smaller.
        crf: constant quality, lower is better and larger; None is the codec's default here.
        threads: of one camera's encoder.
    """

    codec: str = H264
    size: int | None = None
    crf: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise DatasetError(f"video codec {self.codec!r}: expected one of {', '.join(CODECS)}")
        if self.size is not None and self.size < 16:
            raise DatasetError(f"video size {self.size}: expected the shortest edge, at least 16 pixels")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise DatasetError(f"video quality {self.crf}: expected a crf of 0 (best) to 63")
        if self.threads < 1:
            raise DatasetError(f"{self.threads} encoder threads: expected at least 1")


def rate_of(fps: float) -> Fraction:
    """Frames per second as the fraction that time stamps are counted in."""
    return Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR)


def written_size(height: int, width: int, size: int | None) -> tuple[int, int]:
    """(height, width) of the video for frames of this size: shrunk to ``size``, both even as yuv420p needs.

    A frame that keeps its size loses an odd last row or column; one that is shrunk is rounded to even.
    """
    shortest = min(height, width)
    if size is None or size >= shortest:
        return height - height % 2, width - width % 2
    return _even(height * size / shortest), _even(width * size / shortest)


def _even(value: float) -> int:
    return 2 * round(value / 2)


class VideoWriter:
    """One camera of one episode. Frames are encoded in a thread; ``add`` waits while many are queued.

    ``add``, ``finish`` and ``abort`` belong to one thread. What goes wrong in the encoder's is raised by the
    next of them.
    """

    def __init__(self, path: Path, fps: float, options: VideoOptions) -> None:
        self.path = path
        self.shape: tuple[int, int] | None = None
        self.images = ImageStatistics()
        self._rate = rate_of(fps)
        self._options = options
        self._count = 0
        self._waiting: queue.Queue[Frame | None] = queue.Queue(_QUEUE)
        self._error: BaseException | None = None
        self._ended = False  # the encoder's thread has taken the last frame
        self._thread: threading.Thread | None = None

    def add(self, frame: Frame) -> None:
        """Queues a frame, uint8 [H, W, 3] RGB, which must not be changed any more.

        Raises DatasetError for a frame of another size than the first, and for what the encoder met.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise DatasetError(f"a frame is {frame.dtype} {list(frame.shape)}, expected uint8 [H, W, 3]")
        shape = (frame.shape[0], frame.shape[1])
        if self.shape is None:
            self.shape = shape
            self._thread = threading.Thread(target=self._run, name=f"encode {self.path.name}", daemon=True)
            self._thread.start()
        if shape != self.shape:
            raise DatasetError(
                f"the frame has {shape[1]}x{shape[0]} pixels, those before it {self.shape[1]}x"
                f"{self.shape[0]}; all frames of a dataset's camera have one size"
            )
        self._put(frame)
        self._count += 1

    def finish(self) -> dict[str, Any]:
        """Waits for the last frame; returns the entries of info.json that describe the video."""
        if self.shape is None:
            raise DatasetError(f"{self.path}: no frames")
        self._stop()
        self._raise()
        with storing(self.path):
            return _checked(self.path, self._count, self._rate)

    def abort(self) -> None:
        """Stops the encoder; the file is left as it is."""
        if self._error is None:
            self._error = _Aborted()
        self._stop()

    def _stop(self) -> None:
        if self._thread is not None:
            self._waiting.put(None)  # the thread takes everything until this, whatever happened to it
            self._thread.join()
            self._thread = None

    def _put(self, frame: Frame) -> None:
        self._raise()
        self._waiting.put(frame)

    def _raise(self) -> None:
        if self._error is not None:
            with storing(self.path):
                raise self._error

    def _run(self) -> None:
        try:
            self._encode()
        except BaseException as error:
            self._error = error
            for _ in self._frames():
                pass  # nobody may wait for room in the queue

    def _frames(self) -> Iterator[Frame]:
        """What was queued, until there will be no more."""
        while not self._ended:
            frame = self._waiting.get()
            if frame is None:
                self._ended = True
            else:
                yield frame

    def _encode(self) -> None:
        assert self.shape is not None
        height, width = written_size(*self.shape, self._options.size)
        if min(height, width) < 2:
            raise DatasetError(f"{self.path}: frames of {self.shape[1]}x{self.shape[0]} pixels")
        convert = _Converter(height, width)
        with av.open(str(self.path), "w", format="mp4") as container:
            stream = _stream(container, height, width, self._rate, self._options)
            for number, frame in enumerate(self._frames()):
                if self._error is not None:
                    raise self._error
                self.images.add(frame)
                picture = convert(frame)
                picture.pts, picture.time_base = number, 1 / self._rate
                for packet in stream.encode(picture):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)


class _Converter:
    """RGB frames to yuv420p pictures of one size, shrunk by area means where they are larger."""

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width
        self._scaler = VideoReformatter()

    def __call__(self, frame: Frame) -> av.VideoFrame:
        rows, columns = (side - side % 2 for side in frame.shape[:2])
        even = np.ascontiguousarray(frame[:rows, :columns])
        if (rows, columns) == (self._height, self._width):
            return self._scaled(av.VideoFrame.from_numpy_buffer(even, format="rgb24"))
        # Colours first, by OpenCV, then half as many values are shrunk, by swscale, whose AREA is OpenCV's
        # INTER_AREA to within one grey level: 0.55 ms for a 640x480 frame, where swscale alone takes 1.0 and
        # OpenCV alone 2.2. It costs 0.5 dB, since colour is taken of every other pixel before it is averaged.
        planes = np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420), np.uint8)
        # Without a copy PyAV finds the colours only where each of their planes fills whole rows.
        frame_of = av.VideoFrame.from_numpy_buffer if rows % 4 == 0 else av.VideoFrame.from_ndarray
        return self._scaled(frame_of(planes, format="yuv420p"))

    def _scaled(self, picture: av.VideoFrame) -> av.VideoFrame:
        return self._scaler.reformat(
            picture,
            self._width,
            self._height,
            "yuv420p",
            interpolation="AREA",
            # The one that every decoder assumes of a video that does not say.
            dst_colorspace=Colorspace.ITU601,
            threads=1,
        )


class _Aborted(Exception):
    """The episode was given up; nobody is told."""


def _stream(container: Any, height: int, width: int, rate: Fraction, options: VideoOptions) -> Any:
    codec = options.codec
    settings = {
        "preset": _PRESETS[codec],
        "crf": str(_QUALITY[codec] if options.crf is None else options.crf),
        "g": str(KEY_FRAME_EVERY),
    }
    if codec == H264:
        settings["bf"] = "0"
    else:
        # Without this the library prints its settings for every file.
        os.environ.setdefault("SVT_LOG", "1")
        settings["svtav1-params"] = f"lp={options.threads}"
    stream = container.add_stream(_ENCODERS[codec], rate=rate, options=settings)
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.time_base = 1 / rate
    stream.thread_count = options.threads
    return stream


def _checked(path: Path, frames: int, rate: Fraction) -> dict[str, Any]:
    """What info.json says about a video. Raises DatasetError when not all frames can be found in it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [packet.pts * stream.time_base for packet in container.demux(stream) if packet.size]
        if times != [k / rate for k in range(frames)]:
            raise DatasetError(
                f"{path}: holds {len(times)} frames where {frames} were written; write it again"
            )
        return video_info(stream, rate)


def video_info(stream: Any, rate: Fraction) -> dict[str, Any]:
    """LeRobot's description of a video stream."""
    return {
        "video.height": stream.height,
        "video.width": stream.width,
        "video.codec": stream.codec.canonical_name,
        "video.pix_fmt": stream.pix_fmt,
        "video.is_depth_map": False,
        "video.fps": number(rate),
        "video.channels": 3,
        "has_audio": False,
    }


def number(value: float | Fraction) -> int | float:
    """A rate as JSON has it: whole where it is."""
    return int(value) if value == int(value) else float(value)
