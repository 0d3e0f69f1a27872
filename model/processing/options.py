# SPDX-License-Identifier: Apache-2.0
"""The switches and sizes of ``processor_config.json``, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gr00t_model.errors import ConfigError
from gr00t_model.processing.augment import Augmentation, ColorJitter
from gr00t_model.processing.images import CropAndResize, TorchvisionResize, evaluation_chain
from gr00t_model.processing.state_action import ScalingOptions
from gr00t_model.sizes import is_int, is_number

# What the file calls the letterbox switch. Files of the first release do not have it.
LETTERBOX_KEY = "letter_box_transform"

# Bounds that no checkpoint comes near: beyond them a damaged number would only be found out of memory.
LONGEST_SIDE = 4096
MOST_COLUMNS = 65_536

# Entries that say nothing about the numbers: which backbone files the reference would download, and how.
IGNORED = ("modality_configs", "statistics", "model_name", "model_type", "transformers_loading_kwargs")


RELEASED_JITTER = ColorJitter(brightness=0.3, contrast=0.4, saturation=0.5, hue=0.08)


@dataclass(frozen=True)
class ProcessorOptions:
    """Defaults are the released checkpoint's, except that ``letterbox`` follows the reference's last N1.6
    version.

    Args:
        letterbox: pad camera images to a square first. The first N1.6 release did not, later versions do; a
            checkpoint should be run as it was trained. Square images are the same either way.
        use_albumentations: the OpenCV image route instead of the torchvision one.
        shortest_image_edge, crop_fraction: of the OpenCV route; pixels and share of each side.
        image_target_size, image_crop_size: of the torchvision route; (height, width) in pixels.
        random_rotation_angle: degrees either way, training only.
        color_jitter_params: training only.
        formalize_language: lower case, no punctuation.
        max_state_dim, max_action_dim, max_action_horizon: what the network was built for; shorter values are
            padded.
        use_percentiles: scale by the 1st and 99th percentile instead of the extremes.
        clip_outliers: cut scaled values to [-1, 1].
        apply_sincos_state_encoding: honour sin/cos keys.
        use_relative_action: honour RELATIVE action keys.
    """

    letterbox: bool = True
    use_albumentations: bool = True
    shortest_image_edge: int | None = 256
    crop_fraction: float | None = 0.95
    image_target_size: tuple[int, int] | None = None
    image_crop_size: tuple[int, int] | None = None
    random_rotation_angle: float | None = None
    color_jitter_params: ColorJitter | None = RELEASED_JITTER
    formalize_language: bool = True
    max_state_dim: int = 128
    max_action_dim: int = 128
    max_action_horizon: int = 50
    use_percentiles: bool = False
    clip_outliers: bool = True
    apply_sincos_state_encoding: bool = True
    use_relative_action: bool = True

    def __post_init__(self) -> None:
        for name in ("max_state_dim", "max_action_dim", "max_action_horizon"):
            value = getattr(self, name)
            if not is_int(value) or not 1 <= value <= MOST_COLUMNS:
                raise ConfigError(f"{name} is {value!r}, expected a positive integer up to {MOST_COLUMNS}")
        for name, field in self.__dataclass_fields__.items():
            if field.type == "bool" and not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected true or false")
        if self.shortest_image_edge is not None and not _is_side(self.shortest_image_edge):
            raise ConfigError(
                f"shortest_image_edge is {self.shortest_image_edge!r}, expected pixels, 1 to {LONGEST_SIDE}"
            )
        if self.crop_fraction is not None and not is_number(self.crop_fraction):
            raise ConfigError(f"crop_fraction is {self.crop_fraction!r}, expected a number up to 1")
        angle = self.random_rotation_angle
        if angle is not None and (not is_number(angle) or not 0 <= angle <= 360):
            raise ConfigError(f"random_rotation_angle is {angle!r}, expected degrees from 0 to 360")
        self.chain()  # says at once what is missing

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> ProcessorOptions:
        """Parse ``processor_kwargs``.

        Entries that are absent take the defaults above. An unknown entry that is switched on is refused,
        because it may change the numbers; one that is off (null, false, empty) is not.

        Raises:
            ConfigError: names the entry.
        """
        values = {name: value for name, value in data.items() if name not in IGNORED}
        if LETTERBOX_KEY in values:
            values.setdefault("letterbox", values.pop(LETTERBOX_KEY))
        for name in [name for name in values if name not in cls.__dataclass_fields__]:
            if values.pop(name):
                raise ConfigError(
                    f"processor option {name} = {data[name]!r} is not known, "
                    f"expected one of {', '.join(cls.__dataclass_fields__)}"
                )
        for name in ("image_target_size", "image_crop_size"):
            if values.get(name) is not None:
                values[name] = _size(name, values[name])
        jitter = values.get("color_jitter_params")
        if jitter is not None and not isinstance(jitter, ColorJitter):
            if not isinstance(jitter, Mapping):
                raise ConfigError(f"color_jitter_params is {jitter!r}, expected a mapping or null")
            values["color_jitter_params"] = ColorJitter.from_mapping(jitter)
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """The form stored in ``processor_kwargs``.

        The letterbox switch is written only where it is off: the reference's last N1.6 version always
        letterboxes and refuses entries it does not know.
        """
        values = asdict(self)
        if values.pop("letterbox"):
            return values
        return {**values, LETTERBOX_KEY: False}

    def chain(self) -> CropAndResize | TorchvisionResize:
        """The image steps at evaluation."""
        return evaluation_chain(
            letterbox=self.letterbox,
            use_albumentations=self.use_albumentations,
            shortest_image_edge=self.shortest_image_edge,
            crop_fraction=self.crop_fraction,
            image_target_size=self.image_target_size,
            image_crop_size=self.image_crop_size,
        )

    def augmentation(self) -> Augmentation:
        """The image steps in training."""
        return Augmentation(self.chain(), float(self.random_rotation_angle or 0.0), self.color_jitter_params)

    def scaling(self) -> ScalingOptions:
        """The switches that state and action scaling needs."""
        return ScalingOptions(
            self.use_percentiles,
            self.clip_outliers,
            self.apply_sincos_state_encoding,
            self.use_relative_action,
        )


def _size(name: str, value: Any) -> tuple[int, int]:
    sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2 or not all(map(_is_side, sides)):
        raise ConfigError(f"{name} is {value!r}, expected [height, width] in pixels, 1 to {LONGEST_SIDE}")
    return sides[0], sides[1]


def _is_side(value: Any) -> bool:
    return is_int(value) and 1 <= value <= LONGEST_SIDE
