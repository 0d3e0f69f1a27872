# SPDX-License-Identifier: Apache-2.0
"""An observation in, actions in physical units out: processing and network joined.

The policy node calls this on the robot, ``evaluate`` calls it on datasets, and a client written for the
reference's policy can call it as it is. There is no other way from observations to actions, so the robot
and the offline numbers cannot drift apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gr00t_model.checkpoint import read_config, resolve
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import CheckpointError, ConfigError, ObservationError
from gr00t_model.inference.engine import Engine
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.opening import Request, open_engine
from gr00t_model.noise import chunk_noise
from gr00t_model.processing import Gr00tProcessor, ModalityConfig
from gr00t_model.processing.processor import PROCESSOR_FILE
from gr00t_model.sizes import is_int
from gr00t_model.tensor_files import CONFIG_FILE

# Image size of the warm-up observation, height by width. Any size warms the same code; this is a common
# camera's.
_WARM_UP_IMAGE = (480, 640)


@dataclass(frozen=True)
class Timing:
    """Where the time of one call went, in seconds."""

    processing_s: float
    inference_s: float
    decoding_s: float


class Gr00tPolicy:
    """A checkpoint ready to act for one embodiment.

    Args:
        directory: a checkpoint in the published format, or a hub id where the machine is online.
        embodiment_tag: one of the checkpoint's tags.
        backend: ``auto`` (TensorRT where a verified engine is there, else PyTorch on CUDA, else on the CPU),
            ``tensorrt`` or ``pytorch``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``bfloat16``, ``float32``, or what the TensorRT engine was built in.
        num_steps: denoising steps; None means the checkpoint's number (4 in the released one).
        letterbox: pad camera images to a square; None means as the checkpoint says, and padded where it says
            nothing. The first release's code did not pad, so checkpoints made with it want False unless their
            cameras are square.
        processor: the checkpoint's processor where the caller has read it already; its letterbox holds.
        engine: directory of a TensorRT engine, made by ``build_engine``; None looks for the folder
            ``tensorrt`` in the checkpoint.
        compile: compile PyTorch's layers: ``on``, ``off``, or ``auto``, on CUDA when that measures faster.
        engine_limits: how far an engine may be from the float32 network, by action key and column, in the
            units of the checkpoint's dataset; None is 0.03 for all.
        joint_names: of those columns, for messages.
        tell: takes lines about work that is long, such as verifying an engine.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete or damaged, or its processor files do not fit
            its network.
        ConfigError: ``num_steps`` is impossible, or a processor file holds a wrong entry.
        EmbodimentError: the tag is unknown to the checkpoint or has no statistics; the message lists those
            it knows.
        BackendError: the backend, device or precision is not available here, or memory is too small.
    """

    def __init__(
        self,
        directory: str | Path,
        embodiment_tag: str,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        num_steps: int | None = None,
        *,
        letterbox: bool | None = None,
        processor: Gr00tProcessor | None = None,
        engine: str | Path | None = None,
        compile: str = "auto",
        engine_limits: Mapping[str, Any] | None = None,
        joint_names: Mapping[str, Sequence[str]] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.directory = resolve(directory)
        self.embodiment_tag = embodiment_tag
        # The small files are read first: a wrong tag should not cost the time of loading 6.6 GB.
        if processor is None:
            overrides = {} if letterbox is None else {"letterbox": letterbox}
            processor = Gr00tProcessor.from_pretrained(self.directory, **overrides)
        elif letterbox is not None:
            raise ConfigError("letterbox and processor are both given; give letterbox to the processor")
        self.processor = processor
        self.modality: Mapping[str, ModalityConfig] = processor.modality(embodiment_tag)
        processor.require_statistics(embodiment_tag)
        self.config = read_config(self.directory)
        _check_fit(self.directory, processor, embodiment_tag, self.config)
        self.num_steps = _checked_steps(num_steps, self.config)
        opened = open_engine(
            Request(
                self.directory,
                self.processor,
                embodiment_tag,
                self.num_steps,
                backend,
                device,
                precision,
                None if engine is None else Path(engine),
                compile,
                engine_limits,
                joint_names,
                tell,
                self._try_out,
            )
        )
        self.choice, self.untrained, self._engine = opened.choice, opened.untrained, opened.engine

    @property
    def state_widths(self) -> dict[str, int]:
        """Width of each state group, in the order the network sees them."""
        return self.processor.state_widths(self.embodiment_tag)

    @property
    def action_widths(self) -> dict[str, int]:
        """Width of each action group, in the order the network gives them."""
        return self.processor.action_widths(self.embodiment_tag)

    @property
    def horizon(self) -> int:
        """Action steps in a decoded chunk."""
        return len(self.modality["action"].delta_indices)

    def get_action(
        self,
        observation: Mapping[str, Any],
        noise: np.ndarray | None = None,
        *,
        t_obs_ns: int | None = None,
        seed: int = 0,
        guidance: Guidance | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Actions for an observation.

        Args:
            observation: ``{"video": {key: uint8 [B, T, H, W, 3]}, "state": {key: float32 [B, T, D]},
                "language": {key: [[str]]}}``, in the units of the checkpoint's dataset.
            noise: finite [B, H, D] to start denoising from, taken as float32. When None and ``t_obs_ns`` is
                given, it is ``chunk_noise(seed, t_obs_ns, ...)`` (batch 1); when neither is given it is drawn
                at random.
            t_obs_ns: stamp of the newest camera frame, nanoseconds.
            seed: seed of the chunk noise.
            guidance: a committed plan for the chunk to join (real-time chunking), normalised as
                ``processor.encode_action`` does it with ``clip=False``.

        Returns:
            ``{action key: float32 [B, T, D]}`` in the dataset's units, and ``{"timing": {...}}`` in seconds.

        Raises:
            ObservationError: a key is missing, a shape or type is wrong, or a value is not finite.
            BackendError: the device's memory does not suffice.
            Gr00tError: the network's output is not finite, or is no rotation where a rotation is due.
        """
        begun = perf_counter()
        inputs = self.processor.encode(observation, self.embodiment_tag, pixels="uint8")
        batch = len(inputs["input_ids"])
        shape = (batch, self.config.action_horizon, self.config.max_action_dim)
        if noise is None and t_obs_ns is not None:
            if batch != 1:
                raise ObservationError(
                    f"t_obs_ns is the stamp of one observation, but the batch holds {batch}"
                )
            noise = chunk_noise(seed, t_obs_ns, *shape[1:])
        start = None if noise is None else _checked_noise(noise, shape)
        processed = perf_counter()
        normalized = self._engine.run(inputs, start, guidance)
        inferred = perf_counter()
        actions = self.processor.decode(normalized, observation["state"], self.embodiment_tag)
        timing = Timing(processed - begun, inferred - processed, perf_counter() - inferred)
        return actions, {"timing": asdict(timing)}

    def warm_up(self, instruction: str = "warm up", *, guided: bool = False) -> dict[str, Any]:
        """Prepare the engine and run it once on a synthetic observation, so that the first real chunk meets
        recorded graphs, loaded kernels and caches; with `guided` also the first one that joins a plan.

        The output is not decoded: what a network makes of a grey image need not be an action, and that says
        nothing about it.

        Returns:
            the timing of that run, as in ``get_action``.
        """
        return {"timing": asdict(self._try_out(self._engine, instruction, guided))}

    def _try_out(self, engine: Engine, instruction: str = "warm up", guided: bool = False) -> Timing:
        """See `warm_up`."""
        video, language = self.modality["video"], self.modality["language"]
        frames, keys = len(video.delta_indices), video.modality_keys
        # Images of the size that an engine was built for come out of the processing as they are.
        sizes = engine.image_sizes or (_WARM_UP_IMAGE,) * (frames * len(keys))
        observation = {
            "video": {
                key: np.full((1, frames, *sizes[view % len(sizes)], 3), 127, dtype=np.uint8)
                for view, key in enumerate(keys)
            },
            "state": self.processor.neutral_state(self.embodiment_tag),
            "language": {
                key: [[instruction] * len(language.delta_indices)] for key in language.modality_keys
            },
        }
        begun = perf_counter()
        inputs = self.processor.encode(observation, self.embodiment_tag, pixels="uint8")
        encoded = perf_counter() - begun
        noise = chunk_noise(0, 0, self.config.action_horizon, self.config.max_action_dim)
        engine.prepare(inputs, guided=guided)
        prepared = perf_counter()
        engine.run(inputs, noise)
        return Timing(encoded, perf_counter() - prepared, 0.0)

    def encode_plan(self, actions: Mapping[str, Any], state: Mapping[str, Any]) -> np.ndarray:
        """A committed plan as ``Guidance.prefix``: normalised and unclipped, float32 [B, H, D].

        Args:
            actions: ``{action key: float32 [B, T, D]}`` in the dataset's units, T up to the embodiment's
                steps.
            state: the observation's, against which relative keys are expressed.

        Raises:
            ObservationError: a key is missing, misshaped or not finite.
        """
        return self.processor.encode_action(actions, state, self.embodiment_tag, clip=False)[0]

    @property
    def engine(self) -> Engine:
        """What runs the network."""
        return self._engine

    @property
    def notes(self) -> list[str]:
        """What the engine decided by itself, in words fit for a log."""
        return list(self._engine.notes)

    def catch_up(self) -> None:
        """Do between two chunks what the last one would have gained from: see ``Engine.catch_up``."""
        self._engine.catch_up()


def _check_fit(directory: Path, processor: Gr00tProcessor, tag: str, config: Gr00tN1d6Config) -> None:
    """Refuse a processor that was made for a network of other sizes.

    Nothing else would notice every case: rows that are too short, for one, would run and mean something else.
    (That the embodiment's columns and steps fit the processor's sizes is the processor's to check.)

    Raises:
        CheckpointError: names all that differs.
    """
    options = processor.options
    pairs = (
        ("max_state_dim", options.max_state_dim, "max_state_dim", config.max_state_dim),
        ("max_action_dim", options.max_action_dim, "max_action_dim", config.max_action_dim),
        ("max_action_horizon", options.max_action_horizon, "action_horizon", config.action_horizon),
    )
    problems = [
        f"{ours} is {found} in {PROCESSOR_FILE}, but {theirs} is {wanted} in {CONFIG_FILE}"
        for ours, found, theirs, wanted in pairs
        if found != wanted
    ]
    number = processor.embodiment_id(tag)
    if not 0 <= number < config.max_num_embodiments:
        problems.append(f"{tag} has number {number}, the network 0 to {config.max_num_embodiments - 1}")
    token = processor.image_token_id
    if config.image_token_id != token:
        problems.append(
            f"image_token_index is {config.image_token_id} in {CONFIG_FILE}, prompts have {token}"
        )
    if problems:
        raise CheckpointError(
            f"checkpoint {directory}: processor and network do not fit: {'; '.join(problems)}. Copy the JSON "
            "files that belong to these weights"
        )


def _checked_steps(num_steps: int | None, config: Gr00tN1d6Config) -> int:
    """The number of denoising steps, None being the checkpoint's; ConfigError unless it is possible."""
    most = config.num_timestep_buckets
    if num_steps is not None and (not is_int(num_steps) or not 1 <= num_steps <= most):
        raise ConfigError(f"num_steps is {num_steps!r}; expected 1 to {most}, or None for the checkpoint's")
    return config.num_inference_timesteps if num_steps is None else num_steps


def _checked_noise(noise: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A copy as torch takes it: float32, native byte order, contiguous, writable."""
    try:
        with np.errstate(over="ignore"):  # what overflows is refused below
            start = np.asarray(noise).astype(np.float32, order="C")
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ObservationError(
            f"noise cannot be read as numbers ({error}), expected {list(shape)}"
        ) from error
    if start.shape != shape:
        raise ObservationError(f"noise has shape {list(start.shape)}, expected {list(shape)}")
    if not np.isfinite(start).all():
        raise ObservationError("noise holds a value that is not finite")
    return start
