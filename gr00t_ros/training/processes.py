# SPDX-License-Identifier: Apache-2.0
"""The processes of a run and their devices: one alone, or several that torchrun started.

With several, each works on its share of every batch, and gradients are averaged (DistributedDataParallel, or
DeepSpeed's ZeRO-2, which also shares out the optimizer's states and the gradients). Only the first writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch

from gr00t_model.errors import Gr00tError
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.training.options import Options, TrainingError

Result = TypeVar("Result")

ZERO2 = "zero2"
# Elements a reduction takes at a time: 200 MB of float32 gradients, as DeepSpeed's own examples.
_BUCKET = 50_000_000


@dataclass(frozen=True)
class Process:
    """One process among those of the run."""

    rank: int
    count: int
    device_type: str
    bf16: bool

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    def from_first(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives, done by the first process alone; a mistake it finds is raised in all.

        Needs the process group, which the first use of transformers' training arguments makes.
        """
        if self.count == 1:
            return work()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = work()
            except (Gr00tError, Gr00tRosError, OSError) as error:
                answer[1] = error
        torch.distributed.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]  # type: ignore[no-any-return]


def join(options: Options) -> Process:
    """The process that runs here: what torchrun put into the environment, on the device asked for.

    Raises:
        TrainingError: the device is not there, or cannot compute in bfloat16.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device cuda: PyTorch finds no GPU here; leave --device out to train on the CPU"
        )
    if device == "cpu":
        # Where DeepSpeed is installed it is imported, and would warn that there is no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    bf16 = options.precision == "bf16" or (options.precision == "auto" and device == "cuda")
    if bf16 and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise TrainingError(
            "this GPU cannot compute in bfloat16 (compute capability 8.0 and later can); use --precision "
            "fp32 or another GPU"
        )
    return Process(rank, count, device, bf16)


def deepspeed_config(choice: str) -> dict[str, Any] | None:
    """The configuration for DeepSpeed, None for none.

    Raises:
        TrainingError: DeepSpeed is not installed, or the file cannot be used.
    """
    if not choice:
        return None
    if find_spec("deepspeed") is None:
        raise TrainingError(
            "--deepspeed needs DeepSpeed, which is not installed; DS_BUILD_OPS=0 pip install deepspeed"
        )
    config = zero2_config() if choice == ZERO2 else _read(Path(choice))
    for name in ("bf16", "fp16"):
        if (config.get(name) or {}).get("enabled"):
            raise TrainingError(
                f"--deepspeed {choice}: {name} is switched on, which would turn the float32 weights that are "
                "trained into that type; leave it out, --precision decides"
            )
    if int((config.get("zero_optimization") or {}).get("stage", 0)) > 2:
        raise TrainingError(
            f"--deepspeed {choice}: ZeRO stage 3 cuts the weights themselves into pieces, which checkpoints "
            "here do not know; use stage 2"
        )
    return config


def zero2_config() -> dict[str, Any]:
    """ZeRO stage 2 (Rajbhandari et al., 2020): gradients and optimizer states are shared out.

    No mixed precision of DeepSpeed's own: it would make all weights bfloat16, while here the trained ones
    stay float32 under autocast, as everywhere else. "auto" is filled in by transformers.
    """
    return {
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": _BUCKET,
            "allgather_bucket_size": _BUCKET,
        },
        # torch's own AdamW, as without DeepSpeed; its fused one would be compiled on first use.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"--deepspeed {path}: cannot be read ({error}); give {ZERO2} or a DeepSpeed configuration in JSON"
        ) from None
    if not isinstance(config, dict):
        raise TrainingError(f"--deepspeed {path}: expected a JSON object")
    return config
