# SPDX-License-Identifier: Apache-2.0
"""A picture of a dataset: a strip of frames for each episode and camera, to see what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.errors import DatasetError

# Frames in a strip: beginning, end and what lies between.
FRAMES = 6
# Episodes shown; more are spread evenly over the dataset. With two cameras the sheet has about 4000 lines.
EPISODES = 20
_HEIGHT = 96
_LABEL = 18
_MARGIN = 4
_WHITE = 255
_BLACK = (0, 0, 0)
# OpenCV's built-in font knows ASCII only.
_FONT = cv2.FONT_HERSHEY_SIMPLEX

Picture = NDArray[np.uint8]


def write_contact_sheet(
    dataset: LeRobotDataset, path: str | Path, episodes: int = EPISODES, frames: int = FRAMES
) -> Path:
    """Writes a PNG with a labelled strip for each camera of up to ``episodes`` episodes.

    Raises:
        DatasetError: a video cannot be read, or the picture not be written.
    """
    numbers = list(dataset.episodes)
    chosen = [numbers[round(i)] for i in np.linspace(0, len(numbers) - 1, min(episodes, len(numbers)))]
    strips = [
        strip for number in dict.fromkeys(chosen) for strip in _episode(dataset, number, max(1, frames))
    ]
    if not strips:
        raise DatasetError(f"{dataset.path}: no cameras, so no contact sheet")
    width = max(strip.shape[1] for strip in strips)
    padded = [
        cv2.copyMakeBorder(s, 0, _MARGIN, 0, width - s.shape[1], cv2.BORDER_CONSTANT, value=(_WHITE,) * 3)
        for s in strips
    ]
    written, png = cv2.imencode(".png", cv2.cvtColor(np.concatenate(padded), cv2.COLOR_RGB2BGR))
    if not written:
        raise DatasetError(f"{path}: the contact sheet cannot be encoded")
    target = Path(path)
    try:
        target.write_bytes(png.tobytes())
    except OSError as error:
        raise DatasetError(f"{target}: the contact sheet cannot be written ({error})") from error
    return target


def _episode(dataset: LeRobotDataset, number: int, frames: int) -> list[Picture]:
    episode = dataset.episode(number)
    rows = sorted({round(row) for row in np.linspace(0, len(episode) - 1, frames)})
    task = next((text for text in episode.instructions if text), "no instruction")
    strips = []
    for key in dataset.video_keys:
        pictures = [_small(next(iter(episode.frames(key, row, row + 1)))) for row in rows]
        camera = key.removeprefix("observation.images.")
        text = f"episode {number}  {camera}  {len(episode)} rows, {len(episode) / dataset.fps:.1f} s  {task}"
        strips.append(_labelled(_row(pictures), text, [f"{row}" for row in rows], pictures[0].shape[1]))
    return strips


def _small(frame: Picture) -> Picture:
    width = max(1, round(frame.shape[1] * _HEIGHT / frame.shape[0]))
    method = cv2.INTER_AREA if frame.shape[0] > _HEIGHT else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, _HEIGHT), interpolation=method), np.uint8)


def _row(pictures: Sequence[Picture]) -> Picture:
    gap = np.full((_HEIGHT, _MARGIN, 3), _WHITE, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)], axis=1)


def _labelled(strip: Picture, text: str, rows: Sequence[str], step: int) -> Picture:
    ascii_text = text.encode("ascii", "replace").decode()
    (wide, _), _ = cv2.getTextSize(ascii_text, _FONT, 0.42, 1)
    label = np.full((_LABEL, max(strip.shape[1], wide + 2 * _MARGIN), 3), _WHITE, np.uint8)
    cv2.putText(label, ascii_text, (_MARGIN, _LABEL - 5), _FONT, 0.42, _BLACK, 1, cv2.LINE_AA)
    strip = strip.copy()
    for i, row in enumerate(rows):
        place = (i * (step + _MARGIN) + 3, _HEIGHT - 4)
        cv2.putText(strip, row, place, _FONT, 0.4, _BLACK, 3, cv2.LINE_AA)
        cv2.putText(strip, row, place, _FONT, 0.4, (_WHITE,) * 3, 1, cv2.LINE_AA)
    wider = label.shape[1] - strip.shape[1]
    strip = cv2.copyMakeBorder(strip, 0, 0, 0, wider, cv2.BORDER_CONSTANT, value=(_WHITE,) * 3)
    return np.concatenate([label, np.asarray(strip, np.uint8)])
