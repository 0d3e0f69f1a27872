# SPDX-License-Identifier: Apache-2.0
"""Names of backends, devices and precisions, and PyTorch's choice of them on this machine.

``auto`` takes the best that is there; anything named explicitly is taken or refused, never replaced in
silence. `opening` decides between TensorRT and PyTorch.
"""

from dataclasses import dataclass

import torch

from gr00t_model.errors import BackendError

BACKENDS = ("auto", "tensorrt", "pytorch")
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# What a TensorRT engine may have been built in beside bfloat16.
ENGINE_PRECISIONS = ("fp8", "int8", "nvfp4")


@dataclass(frozen=True)
class BackendChoice:
    """What was chosen, and why, in words fit for a log line."""

    backend: str
    device: torch.device
    precision: str
    reason: str
    refused: str = ""
    """why an engine that was there, or asked for, is not used; empty when there was none"""

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch names it; an engine's other layers, in- and outputs are bfloat16."""
        return PRECISIONS.get(self.precision, torch.bfloat16)


def check_names(backend: str, precision: str) -> None:
    """Raises BackendError for a backend or precision that does not exist."""
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if precision not in ("auto", *PRECISIONS, *ENGINE_PRECISIONS):
        names = ", ".join(("auto", *PRECISIONS, *ENGINE_PRECISIONS))
        raise BackendError(f"precision {precision!r} is not one of {names}")


def choose_pytorch(device: str = "auto", precision: str = "auto") -> BackendChoice:
    """Pick PyTorch's device and precision.

    bfloat16 is the working precision on a GPU, as in the reference. A CPU without bfloat16 units is slower
    in it than in float32, and development wants exact numbers, so the CPU default is float32. float16 is
    not offered: it overflows in this backbone.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``bfloat16`` or ``float32``.

    Raises:
        BackendError: a name that PyTorch cannot serve, or a device that this machine does not have.
    """
    check_names("pytorch", precision)
    if precision in ENGINE_PRECISIONS:
        raise BackendError(
            f"precision {precision} needs a TensorRT engine; PyTorch has {' and '.join(PRECISIONS)}"
        )
    found, reason = find_device(device)
    if precision == "auto":
        precision = "bfloat16" if found.type == "cuda" else "float32"
    return BackendChoice("pytorch", found, precision, reason)


def find_device(device: str) -> tuple[torch.device, str]:
    """The device meant by ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, and why it; BackendError without it."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0), f"CUDA device {torch.cuda.get_device_name(0)}"
        return torch.device("cpu"), "no CUDA device is visible to PyTorch"
    try:
        asked = torch.device(device)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"device {device!r} is not one of auto, cpu, cuda, cuda:N") from error
    if asked.type not in ("cpu", "cuda"):
        raise BackendError(f"device {device!r} is not supported; use auto, cpu, cuda or cuda:N")
    if asked.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (asked.index or 0) >= count:
            raise BackendError(
                f"device {device!r} was asked for, but PyTorch sees {count} CUDA devices; "
                "check nvidia-smi and that this PyTorch is a CUDA build, or use device 'auto'"
            )
        asked = torch.device("cuda", asked.index or 0)
    return asked, "asked for"
