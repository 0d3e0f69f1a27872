# SPDX-License-Identifier: Apache-2.0
"""An observation in, actions in physical units out: processing and network joined.

The policy node calls this on the robot, ``evaluate`` calls it on datasets, and a client written for the
reference's policy can call it as it is. There is no other way from observations to actions, so the robot
and the offline numbers cannot drift apart.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gr00t_model.checkpoint import load_model, resolve, untrained_embodiment
from gr00t_model.errors import ObservationError
from gr00t_model.inference import PyTorchEngine, choose_backend
from gr00t_model.noise import chunk_noise
from gr00t_model.processing import Gr00tProcessor, ModalityConfig

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
        backend: ``auto`` or ``pytorch``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``bfloat16`` or ``float32``.
        num_steps: denoising steps; None means the checkpoint's number (4 in the released one).

    Raises:
        CheckpointError: the checkpoint is missing, incomplete or damaged.
        EmbodimentError: the tag is unknown to the checkpoint or has no statistics; the message lists those
            it knows.
        BackendError: the backend, device or precision is not available here.
    """

    def __init__(
        self,
        directory: str | Path,
        embodiment_tag: str,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        num_steps: int | None = None,
    ) -> None:
        self.choice = choose_backend(backend, device, precision)
        self.directory = resolve(directory)
        self.embodiment_tag = embodiment_tag
        # The processor is read first: it is small, and a wrong tag should not cost the time of loading 6.6
        # GB.
        self.processor = Gr00tProcessor.from_pretrained(self.directory)
        self.modality: Mapping[str, ModalityConfig] = self.processor.modality(embodiment_tag)
        self.processor.require_statistics(embodiment_tag)
        model = load_model(self.directory, device=str(self.choice.device), dtype=self.choice.dtype)
        self.config = model.config
        self.num_steps = num_steps
        self.untrained = untrained_embodiment(model, self.processor.embodiment_id(embodiment_tag))
        self._engine = PyTorchEngine(model)

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
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Actions for an observation.

        Args:
            observation: ``{"video": {key: uint8 [B, T, H, W, 3]}, "state": {key: float32 [B, T, D]},
                "language": {key: [[str]]}}``, in the units of the checkpoint's dataset.
            noise: float32 [B, H, D] to start denoising from. When None and ``t_obs_ns`` is given, it is
                ``chunk_noise(seed, t_obs_ns, ...)`` (batch 1); when neither is given it is drawn at random.
            t_obs_ns: stamp of the newest camera frame, nanoseconds.
            seed: seed of the chunk noise.

        Returns:
            ``{action key: float32 [B, T, D]}`` in the dataset's units, and ``{"timing": {...}}`` in seconds.

        Raises:
            ObservationError: a key is missing, a shape or type is wrong, or a value is not finite.
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
        if noise is not None and noise.shape != shape:
            raise ObservationError(f"noise has shape {list(noise.shape)}, expected {list(shape)}")
        processed = perf_counter()
        normalized = self._engine.run(inputs, noise, self.num_steps)
        inferred = perf_counter()
        actions = self.processor.decode(normalized, observation["state"], self.embodiment_tag)
        timing = Timing(processed - begun, inferred - processed, perf_counter() - inferred)
        return actions, {"timing": asdict(timing)}

    def warm_up(self, instruction: str = "warm up") -> dict[str, Any]:
        """Run once on a synthetic observation, so that the first real chunk meets loaded kernels and caches.

        Returns:
            the timing of that run, as in ``get_action``.
        """
        height, width = _WARM_UP_IMAGE
        frames = len(self.modality["video"].delta_indices)
        steps = len(self.modality["state"].delta_indices)
        observation = {
            "video": {
                key: np.full((1, frames, height, width, 3), 127, dtype=np.uint8)
                for key in self.modality["video"].modality_keys
            },
            "state": {
                key: np.zeros((1, steps, size), dtype=np.float32) for key, size in self.state_widths.items()
            },
            "language": {key: [[instruction]] for key in self.modality["language"].modality_keys},
        }
        return self.get_action(observation, t_obs_ns=0)[1]
