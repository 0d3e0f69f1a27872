# SPDX-License-Identifier: Apache-2.0
"""Everything that a fine-tuning run can be told, with the reference's defaults and what each rests on.

``finetune`` fills these from the command line; scripts and benchmarks make them directly. What only a machine
or a dataset can say (which device, which episodes) is decided later, in ``preparing`` and ``running``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gr00t_ros.errors import Gr00tRosError

# The reference's fine-tuning and training lengths, in optimizer steps.
FINETUNE_STEPS = 10_000
TRAIN_STEPS = 30_000
# How many checkpoints a run of the default length leaves behind it, in time: one each tenth.
SAVES_A_RUN = 10
PRESETS = ("tiny", "mini", "demo", "small", "seed", "released")
OPTIMIZERS = ("adamw", "adamw_8bit")
PRECISIONS = ("auto", "bf16", "fp32")
LORA_PARTS = ("backbone", "dit")
# Steps of a chunk: what the reference's own configurations for arms take, 0.8 s at 20 Hz.
HORIZON = 16
# Two tokens a side, each of 28 pixels: less shows nothing.
MIN_IMAGE_EDGE = 56


# NumPy's generator takes 32 bits, and each process adds its number.
LARGEST_SEED = 2**31 - 1


class TrainingError(Gr00tRosError):
    """A run cannot be started, gone on with or finished: the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Low-rank adapters (Hu et al., 2021): rank x (inputs + outputs) parameters a layer instead of
    inputs x outputs.

    ``parts``: ``backbone`` the language model's layers, ``dit`` the diffusion transformer's. The weights
    below an adapter are frozen.
    """

    parts: tuple[str, ...] = ()
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in LORA_PARTS:
                raise TrainingError(f"LoRA on {part!r} is not known, expected {' or '.join(LORA_PARTS)}")
        if self.rank < 1:
            raise TrainingError(f"a LoRA rank of {self.rank} adapts nothing, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise TrainingError(f"a LoRA dropout of {self.dropout:g} is no probability below 1")


@dataclass(frozen=True, kw_only=True)
class Options:
    """One run. None means: as the base checkpoint has it, or the default named at the field.

    Args:
        datasets: ``DIR[:TAG[:WEIGHT]]`` each.
        base: a checkpoint directory, a hub id, or a preset for random weights.
        robot: name of a shipped robot description or a robot YAML; default the datasets' own.
        embodiment_tag: default the robot's, else new_embodiment.
        horizon: action steps, where modality configs are made here; default 16.
        relative, absolute: action keys (or ``all``) whose representation is to be other than the default.
        mean_std: action keys (or ``all``) that are scaled by mean and standard deviation, and values of no
            key are cut to the range of the data then.
        skip_episodes: left out altogether, ``3-5,8`` of the only dataset or ``DIR:3-5,8``.
        modality: ``base`` takes the base's configuration of the tag, ``new`` makes one, ``auto`` the first
            where there is one.
        statistics: ``data`` measures the datasets, ``base`` keeps the base checkpoint's numbers.
        open_shards: pieces of episodes that a process' samples are drawn from at a time, for each worker;
            default 8, see ``stream.py``.
        steps: optimizer steps; default 10,000, from scratch 30,000.
        batch_size: samples an optimizer step, over all processes.
        accumulate: parts in which a process works off its share of them.
        noise_samples: draws of noise and time that each of them is trained with, for one pass of the backbone
            (Li et al., "CogACT", 2024, have 8); the reference has 1.
        tune: the network's own switches (``network/trainable.py``), those that are given.
        eval_episodes: held out, evenly spread over each dataset.
        image_edge: shortest side of the pictures that the network sees, pixels.
        dropout: of the diffusion transformer.
        pointing: ``STATE[:CAMERA]``, the state that says where in the camera's picture the named thing is,
            see ``pointing.py``.
        pointing_weight: of that loss beside the network's own; default 1.
        precision: auto is bf16 on a GPU and fp32 on a CPU.
        device: auto, cpu or cuda.
        deepspeed: "" for none, "zero2" for the shipped configuration, or a JSON file.
    """

    datasets: tuple[str, ...]
    base: str
    output: Path
    robot: str | None = None
    embodiment_tag: str | None = None
    horizon: int | None = None
    relative: tuple[str, ...] = ()
    absolute: tuple[str, ...] = ()
    mean_std: tuple[str, ...] = ()
    skip_episodes: tuple[str, ...] = ()
    modality: str = "auto"
    statistics: str = "data"

    from_scratch: bool = False
    steps: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    noise_samples: int = 1
    learning_rate: float = 1e-4
    warmup: float = 0.05
    weight_decay: float = 1e-5
    clip: float = 1.0
    optimizer: str = "adamw"
    seed: int = 0

    tune: Mapping[str, Any] = field(default_factory=dict)
    lora: LoraOptions = LoraOptions()
    gradient_checkpointing: bool = False
    precision: str = "auto"
    device: str = "auto"
    deepspeed: str = ""

    state_dropout: float | None = None
    state_noise: float | None = None
    color_jitter: tuple[float, ...] | None = None
    random_rotation: float | None = None
    crop_fraction: float | None = None
    image_edge: int | None = None
    dropout: float | None = None
    pointing: str | None = None
    pointing_weight: float | None = None

    workers: int = 2
    open_shards: int | None = None
    save_every: int | None = None
    keep: int = 2
    log_every: int = 10
    report_to: tuple[str, ...] = ("tensorboard",)
    eval_episodes: int = 0
    eval_every: int | None = None
    eval_batches: int = 8
    deployed_dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "noise_samples", "keep", "log_every", "eval_batches"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{_spoken(name)} is {getattr(self, name)}, expected at least 1")
        for name in ("steps", "save_every", "eval_every", "horizon", "open_shards"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"{_spoken(name)} is {value}, expected at least 1")
        for name in ("workers", "eval_episodes"):
            if getattr(self, name) < 0:
                raise TrainingError(f"{_spoken(name)} is {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise TrainingError(f"--seed is {self.seed}, expected 0 to {LARGEST_SEED}")
        for name in ("weight_decay", "clip"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{_spoken(name)} is {getattr(self, name):g}, expected 0 or more")
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"learning rate is {self.learning_rate:g}, expected a positive number")
        if not 0.0 <= self.warmup <= 1.0:
            raise TrainingError(f"warm-up is {self.warmup:g}, expected a share of the steps from 0 to 1")
        for name in ("state_dropout", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise TrainingError(f"{_spoken(name)} is {value:g}, expected a probability")
        if self.image_edge is not None and self.image_edge < MIN_IMAGE_EDGE:
            raise TrainingError(
                f"--image-edge is {self.image_edge}, expected at least {MIN_IMAGE_EDGE} pixels"
            )
        if self.pointing_weight is not None and not (self.pointing and self.pointing_weight > 0):
            raise TrainingError(
                f"--pointing-weight {self.pointing_weight:g}: expected a positive number, and --pointing"
            )
        if self.state_noise is not None and self.state_noise < 0.0:
            raise TrainingError(f"state noise is {self.state_noise:g}, expected 0 or more")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps or (TRAIN_STEPS if self.from_scratch else FINETUNE_STEPS)

    @property
    def saving_interval(self) -> int:
        """Steps between two checkpoints."""
        return self.save_every or max(1, self.total_steps // SAVES_A_RUN)

    @property
    def evaluation_interval(self) -> int:
        """Steps between two evaluations on the held-out episodes."""
        return self.eval_every or self.saving_interval

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises; rounded up, as the reference does."""
        return math.ceil(self.warmup * self.total_steps)

    def micro_batch(self, processes: int) -> int:
        """Samples that one process computes at a time.

        Raises:
            TrainingError: the batch cannot be divided evenly.
        """
        parts = processes * self.accumulate
        if self.batch_size % parts:
            raise TrainingError(
                f"a batch of {self.batch_size} cannot be shared evenly among {processes} processes with "
                f"{self.accumulate} parts each; choose --batch-size as a multiple of {parts}"
            )
        return self.batch_size // parts

    def deciding(self) -> dict[str, Any]:
        """What decides the numbers of the run, fit for JSON, as it was given."""
        values = asdict(self)
        for name in FREE:
            values.pop(name)
        values |= {"steps": self.total_steps, "tune": dict(self.tune), "datasets": list(self.datasets)}
        return {name: _plain(value) for name, value in values.items()}


# May differ when a run is gone on with: where things are written, and what is only looked at.
FREE = (
    "output",
    "keep",
    "save_every",
    "log_every",
    "report_to",
    "eval_every",
    "eval_batches",
    "device",
    "deployed_dtype",
    # The order of samples is kept: see "lanes" in stream.py.
    "workers",
)
# Told in a run's identity by what they mean: files by their contents, datasets by their tags, weights and
# episodes.
RESOLVED = ("datasets", "base", "robot", "embodiment_tag", "skip_episodes", "deepspeed", "precision")
assert {*FREE, *RESOLVED} <= {entry.name for entry in fields(Options)}


def _spoken(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
