# SPDX-License-Identifier: Apache-2.0
"""Checks on an observation before any work is done on it: right keys, right shapes, right types.

An observation has the form ``{"video": {key: uint8 [B, T, H, W, 3]}, "state": {key: float32 [B, T, D]},
"language": {key: [[str]]}}``. State values are checked where they are scaled; images and instruction here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.errors import ObservationError
from gr00t_model.processing.arrays import NotNumbersError, as_array
from gr00t_model.processing.modality import ModalityConfig


def part(observation: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One modality of the observation."""
    if not isinstance(observation, Mapping) or not isinstance(observation.get(name), Mapping):
        found = (
            ", ".join(map(str, observation))
            if isinstance(observation, Mapping)
            else type(observation).__name__
        )
        raise ObservationError(f"observation: no mapping {name!r}, found {found or 'nothing'}")
    modality: Mapping[str, Any] = observation[name]
    return modality


def check_views(video: Mapping[str, Any], config: ModalityConfig) -> dict[str, NDArray[np.uint8]]:
    """The camera images by key, in order, each checked to be uint8 [B, T, H, W, 3] with common B and T."""
    missing = [key for key in config.modality_keys if key not in video]
    if missing:
        raise ObservationError(
            f"video: missing {', '.join(missing)}, found {', '.join(map(str, video)) or 'none'}"
        )
    views: dict[str, NDArray[np.uint8]] = {}
    batch: int | None = None
    for key in config.modality_keys:
        try:
            images = as_array(video[key])
        except NotNumbersError as error:
            raise ObservationError(
                f"video.{key}: not an array ({error}), expected uint8 [B, T, H, W, 3]"
            ) from None
        if images.dtype != np.uint8:
            raise ObservationError(f"video.{key}: type {images.dtype}, expected uint8 RGB pixels")
        if batch is None and images.ndim == 5:
            batch = images.shape[0]
        wrong = images.ndim != 5 or images.shape[:2] != (batch, config.horizon) or images.shape[4] != 3
        if wrong or images.size == 0:
            raise ObservationError(
                f"video.{key}: shape {list(images.shape)}, expected [{batch or 'B'}, "
                f"{config.horizon}, H, W, 3]"
            )
        views[key] = images
    return views


def check_sizes(sizes: list[dict[str, tuple[int, int]]]) -> None:
    """All views of one sample must have ended at the same size; ``sizes`` holds (height, width) by key, one
    a sample.
    """
    for sample in sizes:
        if len(set(sample.values())) > 1:
            found = ", ".join(f"{key} {height}x{width}" for key, (height, width) in sample.items())
            raise ObservationError(
                f"video: views end at different sizes ({found}), expected the same for all; cameras "
                "of different "
                "shape need letterbox, or images cut to one aspect ratio"
            )


def check_instructions(language: Mapping[str, Any], config: ModalityConfig, batch: int) -> list[str]:
    """The instruction of each sample; the form is [[str]], a list a sample."""
    key = config.modality_keys[0]
    if key not in language:
        raise ObservationError(f"language: missing {key}, found {', '.join(map(str, language)) or 'none'}")
    entries = language[key]
    right = isinstance(entries, list | tuple) and all(
        isinstance(entry, list | tuple)
        and len(entry) == config.horizon
        and all(isinstance(t, str) for t in entry)
        for entry in entries
    )
    if not right or len(entries) != batch:
        raise ObservationError(
            f"language.{key}: found {str(entries)[:80]!r}, expected a list of {batch} lists with "
            f"{config.horizon} text(s)"
        )
    return [entry[-1] for entry in entries]


def check_real_steps(real_steps: Sequence[int], batch: int, horizon: int) -> None:
    """One number of recorded action steps a sample, each from 0 to ``horizon``."""
    if len(real_steps) != batch or not all(0 <= real <= horizon for real in real_steps):
        raise ObservationError(
            f"real_steps is {list(real_steps)}, expected {batch} numbers from 0 to {horizon}, one a sample"
        )
