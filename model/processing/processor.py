# SPDX-License-Identifier: Apache-2.0
"""Observations to the network's inputs, and the network's output to actions: what a checkpoint's processor
files say.

:class:`Gr00tProcessor` joins the steps of this package for one checkpoint. The policy calls ``encode`` and
``decode`` on the robot, the data loader ``encode_training``; both go through the same code, so they cannot
drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gr00t_model.errors import CheckpointError, ConfigError, EmbodimentError, ObservationError
from gr00t_model.pixels import pixels_to_float
from gr00t_model.processing import observation as checks
from gr00t_model.processing.augment import Draw
from gr00t_model.processing.embodiments import complete_ids
from gr00t_model.processing.files import read_json, write_json
from gr00t_model.processing.images import (
    ImageChain,
    image_tokens,
    to_patch_multiple,
    to_planes,
)
from gr00t_model.processing.modality import ModalityConfig, parse_modality_configs
from gr00t_model.processing.options import ProcessorOptions
from gr00t_model.processing.parallel import parallel_map
from gr00t_model.processing.prompt import PromptEncoder, pad_left
from gr00t_model.processing.state_action import StateActionCodec
from gr00t_model.processing.statistics import EmbodimentStatistics, statistics_to_mapping
from gr00t_model.processing.tokenizer import QwenTokenizer, load_tokenizer

PROCESSOR_FILE = "processor_config.json"
STATISTICS_FILE = "statistics.json"
EMBODIMENT_FILE = "embodiment_id.json"

PixelType = Literal["float32", "uint8"]
Inputs = dict[str, Any]


class Gr00tProcessor:
    """Processing of one checkpoint. Safe to share between threads once made.

    Args:
        modality_configs: {tag: {"video" | "state" | "action" | "language": ModalityConfig or its stored
            mapping}}.
        statistics: {tag: {"state" | "action" | "relative_action": {key: KeyStatistics or its stored
            mapping}}}. Each tag's are parsed when it is first used.
        embodiment_ids: {tag: number}; absent tags are filled in from the built-in table.
        tokenizer: default is the checkpoint's own, else the installed one, loaded when first needed.
        options: entries of ``processor_kwargs``, see :class:`ProcessorOptions`.

    Raises:
        ConfigError: an entry is unknown, missing or impossible; the message names it.
    """

    def __init__(
        self,
        modality_configs: Mapping[str, Any],
        statistics: Mapping[str, Any] | None = None,
        embodiment_ids: Mapping[str, int] | None = None,
        *,
        tokenizer: QwenTokenizer | None = None,
        **options: Any,
    ) -> None:
        self.modality_configs = parse_modality_configs(modality_configs)
        self.embodiment_ids = complete_ids(embodiment_ids or {})
        self.options = ProcessorOptions.from_mapping(options)
        self._statistics = dict(statistics or {})
        self._given_tokenizer = tokenizer
        self._directory: Path | None = None  # where a checkpoint's own tokenizer may lie
        self._codecs: dict[str, StateActionCodec] = {}
        self.chain = self.options.chain()
        self.augmentation = self.options.augmentation()

    # -- what the checkpoint knows --

    @property
    def letterbox(self) -> bool:
        """Whether camera images are padded to a square."""
        return self.options.letterbox

    @property
    def tags(self) -> list[str]:
        """Embodiments with a modality configuration."""
        return sorted(self.modality_configs)

    def modality(self, tag: str) -> dict[str, ModalityConfig]:
        """Modality configs of an embodiment by "video", "state", "action", "language".

        Raises:
            EmbodimentError: the tag is unknown; lists the known ones.
        """
        if tag not in self.modality_configs:
            raise EmbodimentError(
                f"embodiment {tag!r} is not in this checkpoint, it knows {', '.join(self.tags) or 'none'}"
            )
        return self.modality_configs[tag]

    def require_statistics(self, tag: str) -> None:
        """Check that an embodiment can be scaled.

        Raises:
            EmbodimentError: the tag is unknown, or has no statistics (lists those that have), or a key of it
                has none.
            ConfigError: its statistics are damaged or do not fit its modality configs.
        """
        self._codec(tag)

    def embodiment_id(self, tag: str) -> int:
        """Number of the embodiment's weights in the network."""
        self.modality(tag)
        if tag not in self.embodiment_ids:
            raise EmbodimentError(
                f"embodiment {tag!r} has no number, known are {', '.join(sorted(self.embodiment_ids))}; "
                f"add it to {EMBODIMENT_FILE}"
            )
        return self.embodiment_ids[tag]

    def state_widths(self, tag: str) -> dict[str, int]:
        """Values a step of each state key, in physical (dataset) form."""
        return {codec.key: codec.width for codec in self._codec(tag).states}

    def action_widths(self, tag: str) -> dict[str, int]:
        """Values a step of each action key, in physical (dataset) form."""
        return {codec.key: codec.width for codec in self._codec(tag).actions}

    def columns(self, tag: str) -> tuple[int, int]:
        """Columns of the network's state and action rows that this embodiment fills; the rest is padding.

        They must fit the network the processor is used with. Sines and cosines count twice.
        """
        codec = self._codec(tag)
        return codec.state_columns, codec.action_columns

    def neutral_state(self, tag: str) -> dict[str, NDArray[np.float32]]:
        """A state {key: float32 [1, T, D]} that encodes and decodes without error, for a run without a robot.

        Zeros, except where an action is relative to a pose: that pose is the identity.
        """
        return self._codec(tag).neutral_state()

    def random_state(self, tag: str, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        """A state {key: float32 [1, T, D]} drawn inside the statistics, for a run without recordings."""
        return self._codec(tag).random_state(rng)

    @property
    def image_token_id(self) -> int:
        """The token of prompts that stands for a part of an image: a fact of the tokenizer."""
        return self._prompts.tokenizer.image_token_id

    @property
    def pad_token_id(self) -> int:
        """The token that prompts are padded with."""
        return self._prompts.tokenizer.pad_token_id

    # -- observation to inputs --

    def encode(self, observation: Mapping[str, Any], tag: str, *, pixels: PixelType = "float32") -> Inputs:
        """Observation to the network's inputs, on the CPU.

        Args:
            observation: ``{"video": {key: uint8 [B, T, H, W, 3]}, "state": {key: float32 [B, T, D]},
                "language": {key: [[str]]}}``.
            pixels: "uint8" leaves ``pixels_to_float`` to the caller, who may do it on the device.

        Returns:
            input_ids, attention_mask int64 [B, L] (padded on the left); pixel_values: list of [1, 3, H, W]
            ordered by sample, time, view; state float32 [B, T, max_state_dim]; embodiment_id int64 [B].

        Raises:
            ObservationError: something in the observation is missing, misshaped, non-finite or too long.
            EmbodimentError: the tag is unknown or has no statistics.
        """
        return self._encode(observation, tag, pixels, None)

    def encode_training(
        self,
        observation: Mapping[str, Any],
        actions: Mapping[str, Any],
        tag: str,
        rng: np.random.Generator | Draw | None,
        *,
        pixels: PixelType = "float32",
        real_steps: Sequence[int] | None = None,
    ) -> Inputs:
        """As :meth:`encode`, with augmented images, and ``action`` and ``action_mask`` as in
        :meth:`encode_action`.

        Args:
            actions: {key: [B, T, D]} in dataset units.
            rng: source of the augmentation, one draw a sample, or the draw itself, for all samples. None
                leaves the images as at evaluation.
            real_steps: for each sample, how many leading steps of its chunk were recorded. The mask leaves
                out the others; None means all are real.

        Raises:
            ObservationError: as :meth:`encode`; or ``real_steps`` is not one number a sample within the
                chunk.
        """
        inputs = self._encode(observation, tag, pixels, rng)
        values, mask = self.encode_action(actions, checks.part(observation, "state"), tag)
        if real_steps is not None:
            checks.check_real_steps(real_steps, len(mask), self.options.max_action_horizon)
            for sample, real in enumerate(real_steps):
                mask[sample, real:] = 0.0
        return {**inputs, "action": torch.from_numpy(values), "action_mask": torch.from_numpy(mask)}

    def encode_action(
        self, actions: Mapping[str, Any], state: Mapping[str, Any], tag: str, *, clip: bool | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Physical actions to (normalized, mask), float32 [B, max_action_horizon, max_action_dim]; mask 1 on
        real entries.

        Args:
            actions: {key: [B, T, D]}, T up to the embodiment's horizon.
            state: {key: [B, T, D]}; relative keys are expressed against its last step.
            clip: cut to [-1, 1]; None as the checkpoint says. A committed plan is encoded with False.
        """
        options = self.options
        return self._codec(tag).encode_action(
            actions, state, options.max_action_dim, options.max_action_horizon, clip
        )

    def reduce_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A camera image [H, W, 3] as small as it may be kept until it is encoded: the first steps of the
        image chain, up to anything random. Encoding it gives the very bits that encoding ``image`` gives.
        """
        return self.chain.reduce(image)

    # -- output to actions --

    def decode(self, normalized: Any, state: Mapping[str, Any], tag: str) -> dict[str, NDArray[np.float32]]:
        """Network output [B, H, max_action_dim] to {key: float32 [B, T, D]} in dataset units, T the
        embodiment's horizon.

        Args:
            state: the observation's state; relative keys are composed with its last step.

        Raises:
            ObservationError: shapes do not fit, or the state is not usable.
            Gr00tError: the output holds non-finite values, or a pose without orientation.
        """
        if isinstance(normalized, torch.Tensor):
            normalized = normalized.detach().float().cpu().numpy()
        return self._codec(tag).decode_action(normalized, state)

    # -- files --

    @classmethod
    def from_pretrained(cls, directory: str | Path, **overrides: Any) -> Gr00tProcessor:
        """Read ``processor_config.json``, ``statistics.json`` and ``embodiment_id.json`` of a checkpoint
        directory. A tokenizer that lies there is read when the first instruction is encoded.

        Args:
            overrides: options that replace the file's, e.g. ``letterbox=False``.

        Raises:
            CheckpointError: a file is missing or not JSON.
            ConfigError: an entry is wrong; the message names it.
        """
        directory = Path(directory)
        config = read_json(directory / PROCESSOR_FILE)
        kwargs = config.get("processor_kwargs")
        if not isinstance(kwargs, Mapping) or not isinstance(kwargs.get("modality_configs"), Mapping):
            raise CheckpointError(
                f"{directory / PROCESSOR_FILE}: no processor_kwargs with modality_configs; is this "
                "a GR00T N1.6 checkpoint?"
            )
        apart = ("modality_configs", "statistics", "embodiment_id_mapping")
        options = {name: value for name, value in kwargs.items() if name not in apart}
        if "letterbox" in overrides:
            options.pop("letter_box_transform", None)
        table = kwargs.get("embodiment_id_mapping")
        try:
            # Checked before they become keyword arguments, so that no entry of a file passes for another one.
            checked = ProcessorOptions.from_mapping({**options, **overrides})
            processor = cls(
                kwargs["modality_configs"],
                read_json(directory / STATISTICS_FILE),
                {
                    **complete_ids({} if table is None else table),
                    **read_json(directory / EMBODIMENT_FILE, True),
                },
                **{name: getattr(checked, name) for name in checked.__dataclass_fields__},
            )
        except ConfigError as error:
            raise ConfigError(f"{directory}: {error}") from None
        processor._directory = directory.resolve()
        return processor

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the three files that :meth:`from_pretrained` reads, in the published format."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        configs = {
            tag: {name: config.to_mapping() for name, config in modalities.items()}
            for tag, modalities in self.modality_configs.items()
        }
        write_json(
            directory / PROCESSOR_FILE,
            {
                "processor_class": "Gr00tN1d6Processor",
                "processor_kwargs": {"modality_configs": configs, **self.options.to_mapping()},
            },
        )
        write_json(directory / STATISTICS_FILE, statistics_to_mapping(self._statistics))
        write_json(directory / EMBODIMENT_FILE, self.embodiment_ids)

    # -- inside --

    def __getstate__(self) -> dict[str, Any]:
        """For data loader processes: all but the prompt cache, which each makes for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_prompts"}

    @cached_property
    def _prompts(self) -> PromptEncoder:
        return PromptEncoder(
            self._given_tokenizer or load_tokenizer(self._directory), self.options.formalize_language
        )

    def _codec(self, tag: str) -> StateActionCodec:
        if tag not in self._codecs:
            modalities = self.modality(tag)
            if tag not in self._statistics:
                raise EmbodimentError(
                    f"embodiment {tag!r} has no statistics, so its values cannot be scaled; "
                    f"statistics exist for {', '.join(sorted(self._statistics)) or 'none'}"
                )
            statistics = EmbodimentStatistics.from_mapping(tag, self._statistics[tag])
            codec = StateActionCodec.build(tag, modalities, statistics, self.options.scaling())
            self._check_room(codec)
            self._codecs[tag] = codec
        return self._codecs[tag]

    def _check_room(self, codec: StateActionCodec) -> None:
        needs = {
            "max_state_dim": codec.state_columns,
            "max_action_dim": codec.action_columns,
            "max_action_horizon": codec.action_steps,
        }
        for name, needed in needs.items():
            if needed > getattr(self.options, name):
                raise ConfigError(
                    f"embodiment {codec.tag} needs {name} of at least {needed}, found "
                    f"{getattr(self.options, name)}; the network cannot hold it"
                )

    def _encode(
        self,
        observation: Mapping[str, Any],
        tag: str,
        pixels: PixelType,
        rng: np.random.Generator | Draw | None,
    ) -> Inputs:
        modality, codec = self.modality(tag), self._codec(tag)
        number = self.embodiment_id(tag)
        views = checks.check_views(checks.part(observation, "video"), modality["video"])
        batch = next(iter(views.values())).shape[0]
        texts = checks.check_instructions(checks.part(observation, "language"), modality["language"], batch)
        state = codec.encode_state(checks.part(observation, "state"), self.options.max_state_dim)
        if state.shape[0] != batch:
            raise ObservationError(f"state has {state.shape[0]} samples, expected {batch} as video has")
        planes = self._images(views, rng)
        per_sample = len(planes) // batch
        counts = [image_tokens(*image.shape[2:]) for image in planes]
        prompts = [
            self._prompts.encode(text, tuple(counts[sample * per_sample : (sample + 1) * per_sample]))
            for sample, text in enumerate(texts)
        ]
        input_ids, mask = pad_left(prompts, self.pad_token_id)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "pixel_values": planes if pixels == "uint8" else [pixels_to_float(image) for image in planes],
            "state": torch.from_numpy(state),
            "embodiment_id": torch.full((batch,), number, dtype=torch.int64),
        }

    def _images(
        self, views: Mapping[str, NDArray[np.uint8]], rng: np.random.Generator | Draw | None
    ) -> list[torch.Tensor]:
        """uint8 planes [1, 3, H, W] of all images, ordered by sample, time, view."""
        batch, steps = next(iter(views.values())).shape[:2]
        jobs: list[tuple[ImageChain, NDArray[np.uint8]]] = []
        for sample in range(batch):
            draw = self.augmentation.draw(rng) if isinstance(rng, np.random.Generator) else rng
            chain = self.chain if draw is None else self.augmentation.bind(draw)
            jobs += [(chain, view[sample, step]) for step in range(steps) for view in views.values()]
        # A data loader runs many processes already; on the robot the cores wait for this chunk.
        planes = parallel_map(_planes, jobs) if rng is None else [_planes(job) for job in jobs]
        sizes = [(int(image.shape[2]), int(image.shape[3])) for image in planes]
        keys = list(views)
        per_sample = steps * len(keys)
        starts = range(0, len(sizes), per_sample)
        checks.check_sizes([dict(zip(keys, sizes[i : i + len(keys)], strict=True)) for i in starts])
        return planes


def _planes(job: tuple[ImageChain, NDArray[np.uint8]]) -> torch.Tensor:
    chain, image = job
    return to_planes(to_patch_multiple(chain(image)))
