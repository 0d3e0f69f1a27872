# SPDX-License-Identifier: Apache-2.0
"""Which AdamW: torch's, or the one with 8-bit states (Dettmers et al., 2022) where it can run."""

from __future__ import annotations

from importlib.util import find_spec

from gr00t_ros.training.options import TrainingError

# Names that transformers has for them. The fused one makes no copies of all parameters while it steps, 6.5 GB
# for the default set; it is for GPUs.
ADAMW = "adamw_torch"
ADAMW_FUSED = "adamw_torch_fused"
ADAMW_8BIT = "adamw_bnb_8bit"


def optimizer_name(wanted: str, device_type: str) -> str:
    """The name in transformers' training arguments.

    Raises:
        TrainingError: 8-bit states are asked for on a CPU, or bitsandbytes is not installed.
    """
    if wanted == "adamw":
        return ADAMW_FUSED if device_type == "cuda" else ADAMW
    if device_type != "cuda":
        raise TrainingError(
            "--optimizer adamw_8bit: its kernels run on NVIDIA GPUs only, and this run is on the CPU; leave "
            "it out here"
        )
    if find_spec("bitsandbytes") is None:
        raise TrainingError(
            "--optimizer adamw_8bit needs bitsandbytes, which is not installed; pip install bitsandbytes"
        )
    return ADAMW_8BIT
