# SPDX-License-Identifier: Apache-2.0
"""Observations as an engine takes them, kept in one file: what engines are calibrated on and checked by.

Each holds the processor's inputs, the raw state that relative actions are decoded against, and the noise to
start from, so a comparison needs neither cameras nor the recording they came from, and can be repeated to the
bit. Recorded ones are made by ``gr00t_ros.data.calibration``, synthetic ones here, for the case that there is
no recording; which it was is written in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import ObservationError
from gr00t_model.noise import chunk_noise
from gr00t_model.processing import Gr00tProcessor
from gr00t_model.processing.images import to_patch_multiple

# Enough to see every joint move; a check of an engine on a robot's computer stays within a few minutes.
MAX_OBSERVATIONS = 32

_FORMAT = "gr00t_observations"
_VERSION = "1"
_INTEGERS = ("input_ids", "attention_mask", "embodiment_id")
# Size of a synthetic camera image, height by width, before processing: a common camera's shape, made small.
_SYNTHETIC_IMAGE = (240, 320)
_SYNTHETIC_TASK = "pick up the {} and place it in the {}"
_THINGS = ("cube", "red block", "cup", "small green bottle", "pear")
_PLACES = ("bin", "box on the left", "plate", "drawer")


@dataclass(frozen=True, eq=False)
class EncodedObservation:
    """One observation, batch 1.

    Raises:
        ObservationError: a part is missing, misshaped, of the wrong type or not finite.
    """

    inputs: Mapping[str, Any]
    """as ``Gr00tProcessor.encode(..., pixels="uint8")`` gives them"""
    state: Mapping[str, NDArray[np.float32]]
    """raw state {key: float32 [1, T, D]}, dataset units: what relative actions are decoded against"""
    noise: NDArray[np.float32]
    """float32 [1, H, D], where denoising starts"""

    def __post_init__(self) -> None:
        inputs = self.inputs
        missing = [name for name in (*_INTEGERS, "state", "pixel_values") if name not in inputs]
        if missing:
            raise ObservationError(f"observation: no {', '.join(missing)}, expected the processor's inputs")
        length = inputs["input_ids"].shape[-1]
        for name in _INTEGERS:
            shape = (1,) if name == "embodiment_id" else (1, length)
            _expect(name, inputs[name], torch.int64, shape)
        _expect("state", inputs["state"], torch.float32, (1, None, None))
        if not inputs["pixel_values"]:
            raise ObservationError("observation: no image, expected one or more")
        for index, image in enumerate(inputs["pixel_values"]):
            _expect(f"pixel_values[{index}]", image, torch.uint8, (1, 3, None, None))
        for key, values in self.state.items():
            _expect(f"raw state {key}", torch.from_numpy(values), torch.float32, (1, None, None))
        _expect("noise", torch.from_numpy(self.noise), torch.float32, (1, None, None))


class ObservationSet(Sequence[EncodedObservation]):
    """1 to ``MAX_OBSERVATIONS`` observations and, in words, where they are from."""

    def __init__(self, observations: Iterable[EncodedObservation], source: str) -> None:
        self._observations = tuple(observations)
        self.source = source
        if not 1 <= len(self._observations) <= MAX_OBSERVATIONS:
            raise ObservationError(
                f"{source}: {len(self._observations)} observations, expected 1 to {MAX_OBSERVATIONS}"
            )

    def __len__(self) -> int:
        return len(self._observations)

    def __iter__(self) -> Iterator[EncodedObservation]:
        return iter(self._observations)

    @overload
    def __getitem__(self, index: int) -> EncodedObservation: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[EncodedObservation]: ...

    def __getitem__(self, index: int | slice) -> EncodedObservation | Sequence[EncodedObservation]:
        return self._observations[index]

    @cached_property
    def digest(self) -> str:
        """sha256 over source, names, types, shapes and values."""
        return _digest(self.source, self._tensors())

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; it appears whole or not at all.

        Raises:
            ObservationError: it cannot be written.
        """
        path = Path(path)
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "count": str(len(self)),
            "source": self.source,
            "sha256": self.digest,
        }
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(save(self._tensors(), metadata))
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):  # a read-only disk refuses this too
                partial.unlink()
            raise ObservationError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> ObservationSet:
        """Read what :meth:`save` wrote.

        Raises:
            ObservationError: the file is missing, is another kind of file, is damaged, or was changed.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
            metadata, tensors = _metadata(data), load(data)
        except OSError as error:
            raise ObservationError(f"observations {path} cannot be read: {error.strerror}") from error
        except (safetensors.SafetensorError, ValueError) as error:
            raise ObservationError(
                f"{path} is damaged, or no file of observations ({error}); make it again"
            ) from error
        if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
            raise ObservationError(
                f"{path} is no file of observations of version {_VERSION} (format {metadata.get('format')}, "
                f"version {metadata.get('version')}); make it again"
            )
        source = metadata.get("source", "")
        if _digest(source, tensors) != metadata.get("sha256"):
            raise ObservationError(f"{path} was changed after it was written; make it again")
        try:
            return cls(_observations(tensors, metadata.get("count", "")), source)
        except ObservationError as error:
            raise ObservationError(f"{path}: {error}") from None

    def check_fit(self, processor: Gr00tProcessor, tag: str, config: Gr00tN1d6Config) -> None:
        """Refuse observations of another robot or another checkpoint's sizes.

        Raises:
            ObservationError: names what differs.
            EmbodimentError: the tag is unknown to the processor.
        """
        number, widths = processor.embodiment_id(tag), processor.state_widths(tag)
        steps = len(processor.modality(tag)["action"].delta_indices)
        for index, observation in enumerate(self):
            found = {key: values.shape[-1] for key, values in observation.state.items()}
            horizon, width = observation.noise.shape[1:]
            comparisons = (
                ("embodiment", int(observation.inputs["embodiment_id"]), number),
                ("states", found, widths),
                ("state columns", observation.inputs["state"].shape[-1], config.max_state_dim),
                ("action columns", width, config.max_action_dim),
                ("steps", horizon, min(max(horizon, steps), config.action_horizon)),
            )
            for what, have, wanted in comparisons:
                if have != wanted:
                    raise ObservationError(
                        f"observation {index} ({self.source}) has {what} {have}, expected {wanted} for "
                        f"{tag}; make observations for this checkpoint"
                    )

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, observation in enumerate(self):
            for name in (*_INTEGERS, "state"):
                tensors[f"{index}.{name}"] = observation.inputs[name].contiguous()
            for number, image in enumerate(observation.inputs["pixel_values"]):
                tensors[f"{index}.pixels.{number}"] = image.contiguous()
            for key, values in observation.state.items():
                tensors[f"{index}.raw.{key}"] = torch.from_numpy(np.ascontiguousarray(values))
            tensors[f"{index}.noise"] = torch.from_numpy(np.ascontiguousarray(observation.noise))
        return tensors


def encode_observation(
    processor: Gr00tProcessor, tag: str, observation: Mapping[str, Any], noise_at: tuple[int, int]
) -> EncodedObservation:
    """One observation of the policy's form (batch 1), encoded; ``noise_at`` is seed and stamp of its noise.

    Raises:
        ObservationError, EmbodimentError: as ``Gr00tProcessor.encode``.
    """
    inputs = processor.encode(observation, tag, pixels="uint8")
    state = {
        key: np.array(observation["state"][key], dtype=np.float32) for key in processor.state_widths(tag)
    }
    noise = chunk_noise(*noise_at, processor.options.max_action_horizon, processor.options.max_action_dim)
    return EncodedObservation(inputs, state, noise)


def synthetic(
    processor: Gr00tProcessor,
    tag: str,
    config: Gr00tN1d6Config,
    count: int = 16,
    seed: int = 0,
    image_sizes: Sequence[tuple[int, int]] | None = None,
) -> ObservationSet:
    """Observations for a checkpoint without recordings: images of smooth random colours, states drawn inside
    the statistics, instructions of different lengths. The same seed gives the same observations.

    They make every part of the network work, but are not what it was trained on: a recording is better, and
    calibration on these says so in its source.

    image_sizes: height and width [px] of each camera's images, before processing (``size_before``), in the
        cameras' order; None is 240 x 320 for all.

    Raises:
        ObservationError: ``count`` is not 1 to 32, the sizes are not as many as the cameras, or the
            processor's sizes are not the network's.
        EmbodimentError: the tag is unknown or has no statistics.
    """
    modality, rng = processor.modality(tag), np.random.default_rng(seed)
    language, cameras = modality["language"], modality["video"].modality_keys
    sizes = [_SYNTHETIC_IMAGE] * len(cameras) if image_sizes is None else list(image_sizes)
    if len(sizes) != len(cameras):
        raise ObservationError(f"{len(sizes)} image sizes were given, {tag} has {len(cameras)} cameras")
    encoded = []
    for index in range(count):
        text = _SYNTHETIC_TASK.format(_THINGS[index % len(_THINGS)], _PLACES[index % len(_PLACES)])
        frames = len(modality["video"].delta_indices)
        observation = {
            "video": {
                key: np.stack([_picture(rng, size) for _ in range(frames)])[None]
                for key, size in zip(cameras, sizes, strict=True)
            },
            "state": processor.random_state(tag, rng),
            "language": {key: [[text] * len(language.delta_indices)] for key in language.modality_keys},
        }
        encoded.append(encode_observation(processor, tag, observation, (seed, index)))
    made = ObservationSet(encoded, f"synthetic: random images and states for {tag}, seed {seed}")
    made.check_fit(processor, tag, config)
    return made


def size_before(processor: Gr00tProcessor, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width [px] of a camera's image that the processor makes an image of ``size`` from: mostly
    the same, as the processor keeps proportions and rounds to a multiple of 28.

    Raises:
        ObservationError: there is none, as for any size but one square where the processor pads to squares.
    """
    height, width = size
    chain = processor.options.chain()
    # The nearest first. Where a side's rounding is unlucky, one a little longer or shorter ends at its size.
    for percent in sorted(range(-12, 13), key=abs):
        for tried in (
            (height, round(width * (1 + percent / 100))),
            (round(height * (1 + percent / 100)), width),
        ):
            shape = to_patch_multiple(chain(np.zeros((*tried, 3), np.uint8))).shape
            if shape[:2] == (height, width):
                return tried
    raise ObservationError(
        f"no camera's image becomes one of {height} x {width} pixels (height x width) in this checkpoint's "
        "processing"
    )


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: patches of colour with soft borders, then finer structure on them."""
    height, width = size
    picture = torch.zeros(1, 3, height, width, dtype=torch.float64)
    for cells, strength in ((3, 90.0), (10, 45.0), (40, 20.0)):
        grid = torch.from_numpy(rng.uniform(-1.0, 1.0, (1, 3, cells, cells)))
        picture += strength * F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
    return (picture[0] + 128.0).clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _expect(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
    sizes = tuple(value.shape)
    fits = len(sizes) == len(shape) and all(
        found > 0 and wanted in (None, found) for found, wanted in zip(sizes, shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        expected = ", ".join("n" if size is None else str(size) for size in shape)
        raise ObservationError(
            f"observation: {name} is {value.dtype} {list(sizes)}, expected {dtype} [{expected}]"
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise ObservationError(f"observation: {name} holds a value that is not finite")


def _observations(tensors: Mapping[str, Tensor], count: str) -> list[EncodedObservation]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, rest = name.partition(".")
        parts.setdefault(index, {})[rest] = tensor
    numbers = [str(index) for index in range(len(parts))]
    if set(parts) != set(numbers) or count != str(len(parts)):
        raise ObservationError(f"it holds {len(parts)} observations, its header says {count or 'nothing'}")
    return [_observation(parts[number]) for number in numbers]


def _observation(part: dict[str, Tensor]) -> EncodedObservation:
    inputs: dict[str, Any] = {name: part.pop(name) for name in (*_INTEGERS, "state") if name in part}
    noise = part.pop("noise", torch.empty(0))
    raw = {name.removeprefix("raw."): part.pop(name) for name in list(part) if name.startswith("raw.")}
    images = len(part)
    if set(part) != {f"pixels.{number}" for number in range(images)}:
        raise ObservationError(f"unknown tensors among {', '.join(sorted(part))}")
    inputs["pixel_values"] = [part[f"pixels.{number}"] for number in range(images)]
    return EncodedObservation(inputs, {key: values.numpy() for key, values in raw.items()}, noise.numpy())


def _metadata(data: bytes) -> dict[str, str]:
    """The header's own words; ValueError where there is no header."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _digest(source: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(source.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
