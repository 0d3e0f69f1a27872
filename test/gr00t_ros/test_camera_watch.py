# SPDX-License-Identifier: Apache-2.0
"""A camera that sends its last picture on and on under new stamps is noticed."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gr00t_ros.camera_watch import MIN_REPEATS, CameraWatch
from gr00t_ros.robot_types import VideoSource

MS = 1_000_000
BEGIN = 1_000_000 * MS
PICTURE = np.random.default_rng(0).integers(0, 256, 3000, np.uint8)
KINDS: list[Callable[[np.ndarray], Any]] = [lambda p: p.tobytes(), lambda p: array("B", p.tobytes()), np.copy]


def watch(after_s: float = 1.0) -> CameraWatch:
    return CameraWatch(VideoSource("front", "/camera/front", frozen_after=after_s), "video.front")


def other_picture() -> np.ndarray:
    changed = PICTURE.copy()
    changed[-1] ^= 1  # the least that a picture can differ by
    return changed


@pytest.mark.parametrize("kind", KINDS, ids=["bytes", "array", "numpy"])
def test_pixels_that_stay_the_same_are_told_after_a_while_and_not_once_they_change(kind: Any) -> None:
    seen = watch()
    for i in range(31):
        seen.see(BEGIN + i * 33 * MS, kind(PICTURE), BEGIN + i * 33 * MS)
        assert seen.frozen == ""
    seen.see(BEGIN + 31 * 33 * MS, kind(PICTURE), BEGIN + 31 * 33 * MS)
    assert "video.front: 32 frames on /camera/front" in seen.frozen
    assert "identical pixels" in seen.frozen
    seen.see(BEGIN + 32 * 33 * MS, kind(other_picture()), BEGIN + 32 * 33 * MS)
    assert seen.frozen == ""


def test_a_picture_that_changes_now_and_then_is_alive() -> None:
    seen = watch()
    for i in range(300):
        picture = PICTURE if i // 20 % 2 else other_picture()
        seen.see(BEGIN + i * 33 * MS, picture.tobytes(), 0)
        assert seen.frozen == ""


def test_a_shorter_picture_with_the_same_beginning_is_another_one() -> None:
    seen = watch(0.1)
    for i in range(30):
        seen.see(BEGIN + i * 33 * MS, PICTURE[: 2000 + i % 2].tobytes(), 0)
        assert seen.frozen == ""


def test_frames_with_one_stamp_are_one_frame_and_an_older_one_is_no_news() -> None:
    """Their age tells what there is to tell."""
    seen = watch(0.1)
    for _ in range(30):
        seen.see(BEGIN, PICTURE.tobytes(), 0)
    seen.see(BEGIN - 5000 * MS, PICTURE.tobytes(), 0)
    assert seen.frozen == ""


def test_a_few_repeated_frames_of_a_slow_camera_are_not_enough() -> None:
    seen = watch(1.0)
    for i in range(MIN_REPEATS):
        for _ in range(3):  # delivered again and again, but one frame
            seen.see(BEGIN + i * 1000 * MS, PICTURE.tobytes(), 0)
    assert seen.frozen == ""
    seen.see(BEGIN + MIN_REPEATS * 1000 * MS, PICTURE.tobytes(), 0)
    assert seen.frozen != ""


def test_it_can_be_left_out_and_forgets_when_told_to() -> None:
    off, on = watch(0.0), watch(0.5)
    for i in range(100):
        off.see(BEGIN + i * 33 * MS, PICTURE.tobytes(), 0)
        on.see(BEGIN + i * 33 * MS, PICTURE.tobytes(), 0)
    assert off.frozen == ""
    assert on.frozen != ""
    on.clear()
    assert on.frozen == ""
    on.see(1, PICTURE.tobytes(), 0)  # simulated time that begins anew
    assert on.frozen == ""


def test_the_rate_is_that_of_the_last_frames_and_none_when_they_end() -> None:
    seen = watch()
    assert seen.rate(BEGIN) == 0.0
    for i in range(100):
        seen.see(BEGIN + i * 50 * MS, PICTURE.tobytes(), BEGIN + i * 50 * MS)
    end = BEGIN + 99 * 50 * MS
    assert seen.rate(end) == pytest.approx(20.0)
    assert seen.rate(end + 900 * MS) == pytest.approx(20.0)
    assert seen.rate(end + 1100 * MS) == 0.0
