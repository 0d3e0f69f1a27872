# SPDX-License-Identifier: Apache-2.0
"""Videos: frame k at exactly k / fps, key frames where reading may begin, colours and sizes kept."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.data.video import frames_at
from gr00t_ros.data.video_writing import KEY_FRAME_EVERY, VideoOptions, VideoWriter, rate_of, written_size
from gr00t_ros.errors import DatasetError


def picture(number: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth colours with a bright square that moves."""
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (height + width)], -1)
    left = 3 * number % (width - 8)
    frame[8:16, left : left + 8] = (250, 240, 30)
    return frame.astype(np.uint8)


def write(path: Path, frames: list[np.ndarray], fps: float, options: VideoOptions) -> dict:
    writer = VideoWriter(path, fps, options)
    for frame in frames:
        writer.add(frame)
    return writer.finish()


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("fps", [30.0, 29.97, 12.5])
def test_frames_have_their_exact_times_and_content(tmp_path: Path, codec: str, fps: float) -> None:
    frames = [picture(k, 64, 96) for k in range(23)]
    info = write(tmp_path / "a.mp4", frames, fps, VideoOptions(codec=codec))
    assert (info["video.width"], info["video.height"], info["video.codec"]) == (96, 64, codec)
    assert info["video.fps"] == fps
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert [p.pts * p.time_base for p in packets] == [k / rate for k in range(23)]
        assert all(packets[k].is_keyframe for k in range(0, 23, KEY_FRAME_EVERY))
        assert [p.dts for p in packets] == [p.pts for p in packets]
    decoded = list(frames_at(tmp_path / "a.mp4", np.arange(23) / fps, 0.5 / fps))
    for number, (frame, seen) in enumerate(zip(frames, decoded, strict=True)):
        assert np.abs(frame.mean(-1) - seen.mean(-1)).mean() < 4.0
        distances = [np.mean((other.astype(float) - seen) ** 2) for other in frames]
        assert int(np.argmin(distances)) == number


@pytest.mark.parametrize(("height", "width"), [(240, 320), (242, 326), (241, 323), (400, 130)])
def test_shrunk_frames_are_area_means(tmp_path: Path, height: int, width: int) -> None:
    frames = [picture(k, height, width) for k in range(3)]
    write(tmp_path / "a.mp4", frames, 20.0, VideoOptions(size=96, crf=4))
    for frame, seen in zip(frames, frames_at(tmp_path / "a.mp4", np.arange(3) / 20, 0.02), strict=True):
        size = written_size(height, width, 96)
        wanted = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
        assert seen.shape == wanted.shape
        # Colour has half the resolution in yuv420p: brightness is compared by pixel, colour at large.
        assert np.abs(wanted.mean(-1) - seen.mean(-1)).mean() < 2.0
        np.testing.assert_allclose(seen.mean((0, 1)), wanted.mean((0, 1)), atol=3.0)


@given(st.integers(16, 3000), st.integers(16, 3000), st.none() | st.integers(16, 1024))
def test_sizes_are_even_never_larger_and_keep_their_shape(height: int, width: int, size: int | None) -> None:
    high, wide = written_size(height, width, size)
    assert high % 2 == wide % 2 == 0
    assert high <= height
    assert wide <= width
    if size is None or size >= min(height, width):
        assert (high, wide) == (height - height % 2, width - width % 2)
    else:
        assert abs(min(high, wide) - size) <= 1
        assert abs(high - height * size / min(height, width)) <= 1
        assert abs(wide - width * size / min(height, width)) <= 1


def test_odd_frames_lose_their_last_line(tmp_path: Path) -> None:
    frames = [picture(k, 61, 83) for k in range(3)]
    write(tmp_path / "a.mp4", frames, 20.0, VideoOptions(crf=4))
    (seen,) = frames_at(tmp_path / "a.mp4", np.array([0.05]), 0.02)
    assert seen.shape == (60, 82, 3)
    assert np.abs(frames[1][:60, :82].mean(-1) - seen.mean(-1)).mean() < 2.0


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 20.0, VideoOptions())
    writer.add(picture(0))
    with pytest.raises(DatasetError, match="has 60x80 pixels, those before it 80x60"):
        writer.add(picture(1, 80, 60))
    writer.abort()


def test_a_frame_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 20.0, VideoOptions())
    with pytest.raises(DatasetError, match=r"float64 \[60, 80, 3\], expected uint8"):
        writer.add(picture(0).astype(np.float64))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="no frames"):
        writer.finish()


def test_what_goes_wrong_in_the_encoder_is_raised_by_the_next_call(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "missing/a.mp4", 20.0, VideoOptions())
    writer.add(picture(0))
    with pytest.raises(DatasetError, match=r"missing/a\.mp4: cannot be written"):
        writer.finish()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"codec": "vp9"}, "expected one of h264, av1"),
        ({"size": 4}, "at least 16"),
        ({"crf": 99}, "crf of 0"),
        ({"threads": 0}, "at least 1"),
    ],
)
def test_impossible_options_are_refused(wrong: dict, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        VideoOptions(**wrong)


def test_rates_keep_their_exact_value() -> None:
    assert rate_of(29.97) == Fraction(2997, 100)
    assert rate_of(30000 / 1001) == Fraction(30000, 1001)
    assert rate_of(1 / 3) == Fraction(1, 3)
