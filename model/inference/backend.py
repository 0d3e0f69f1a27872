# SPDX-License-Identifier: Apache-2.0
"""Which engine runs the network on this machine. The policy asks once, when a checkpoint is loaded.

``auto`` takes the best that is there; anything named explicitly is taken or refused, never replaced in
silence.
"""

from dataclasses import dataclass

import torch

from gr00t_model.errors import BackendError

BACKENDS = ("auto", "pytorch")
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class BackendChoice:
    """What was chosen, and why, in words fit for a log line."""

    backend: str
    device: torch.device
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch names it."""
        return PRECISIONS[self.precision]


def choose_backend(backend: str = "auto", device: str = "auto", precision: str = "auto") -> BackendChoice:
    """Pick backend, device and precision.

    bfloat16 is the working precision on a GPU, as in the reference. A CPU without bfloat16 units is slower
    in it than in float32, and development wants exact numbers, so the CPU default is float32. float16 is
    not offered: it overflows in this backbone.

    Args:
        backend: ``auto`` or ``pytorch``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``bfloat16`` or ``float32``.

    Raises:
        BackendError: an unknown name, or a device that this machine does not have.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if precision != "auto" and precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    found, reason = _find_device(device)
    if precision == "auto":
        precision = "bfloat16" if found.type == "cuda" else "float32"
    return BackendChoice("pytorch", found, precision, reason)


def _find_device(device: str) -> tuple[torch.device, str]:
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
