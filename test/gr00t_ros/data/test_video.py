# SPDX-License-Identifier: Apache-2.0
"""Frames of a video: the pictures that PyAV gives, however they are converted and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gr00t_ros.data import video
from gr00t_ros.errors import DatasetError
from support_datasets import write_video


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "front.mp4"
    write_video(path, "front", range(12), 20)
    return path


def plain(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def decoded(path: Path, rows: Sequence[int], threads: int = 0) -> list[np.ndarray]:
    return list(video.frames_at(path, np.asarray(rows) / 20.0, 0.025, threads))


@pytest.mark.parametrize("threads", [0, 1])
def test_frames_are_those_of_pyav_and_stay_as_they_are(path: Path, threads: int) -> None:
    """All are held while others are decoded: none may share its memory with the next."""
    for rows in (range(12), (3, 7, 11), (5, 5, 5)):
        expected = [plain(path)[row] for row in rows]
        assert all(map(np.array_equal, decoded(path, rows, threads), expected))


def test_an_older_pyav_does_as_well(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before version 17 its converter had no option ``threads``."""
    expected = decoded(path, range(12))

    class Older:
        def __init__(self) -> None:
            self._reformatter = reformatter()

        def reformat(self, frame: av.VideoFrame, format: str) -> Any:
            return self._reformatter.reformat(frame, format=format)

    reformatter = av.video.reformatter.VideoReformatter
    monkeypatch.setattr(av.video.reformatter, "VideoReformatter", Older)
    assert all(map(np.array_equal, decoded(path, range(12)), expected))


def test_the_header_says_how_fast_and_how_long(path: Path, tmp_path: Path) -> None:
    facts = video.probe(path)
    assert (facts.rate, facts.seconds) == (pytest.approx(20.0), pytest.approx(0.6))
    (tmp_path / "none.mp4").write_bytes(b"\0" * 100)
    for missing in ("none.mp4", "nowhere.mp4"):
        with pytest.raises(DatasetError, match=f"{missing}: cannot be opened"):
            video.probe(tmp_path / missing)
