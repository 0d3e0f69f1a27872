# SPDX-License-Identifier: Apache-2.0
"""What devices could do at most: memory bandwidth and dense tensor-core peaks, as their makers are quoted.

For `budget.floor_ms`. All peaks are without sparsity, bfloat16 with float32 accumulation. A figure that was
not found is left out, and so is a format the device lacks. Vendors print some figures with sparsity only:
then half of it stands here.

The figures are nominal, taken from tables that quote the makers. The document named above an entry is where
to check it, not where it was read; confirmed through the maker's own words are only Thor T5000 and the AGX
Orin 64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Device:
    """One device, or one memory size of a module."""

    name: str
    gpu_name: str
    """How the CUDA driver's name for it begins, or part of it."""
    memory_gb: int
    bandwidth: float
    """Bytes per second."""
    peak: Mapping[str, float]
    """Precision -> operations per second."""


def _peak(bfloat16: float, int8: float | None, fp8: float | None, nvfp4: float | None) -> dict[str, float]:
    figures = {"bfloat16": bfloat16, "int8": int8, "fp8": fp8, "nvfp4": nvfp4}
    return {name: value * TERA for name, value in figures.items() if value is not None}


# Jetson Orin's peaks are the GPU's alone: NVIDIA's TOPS add the accelerators (DLA), which do not run this
# network. An Ampere SM of Orin does 2048 dense FP16 and 4096 dense INT8 operations a clock, so that 16 SMs at
# 1.3 GHz give the 170 sparse INT8 TOPS of the AGX Orin technical brief; the others are SMs x clock likewise.
_ORIN = 2048 / 1000


def _orin(sms: int, gigahertz: float) -> dict[str, float]:
    dense = sms * gigahertz * _ORIN
    return _peak(dense, 2 * dense, None, None)


DEVICES = (
    # See the NVIDIA H100 and H200 data sheets: 3.35 and 4.8 TB/s; with sparsity 1979 BF16, 3958 FP8 and INT8.
    Device("H100 SXM", "H100", 80, 3350 * GIGA, _peak(989.4, 1978.9, 1978.9, None)),
    Device("H200", "H200", 141, 4800 * GIGA, _peak(989.4, 1978.9, 1978.9, None)),
    # See the NVIDIA Ada GPU architecture white paper, appendix A (FP8 with FP32 accumulation).
    Device("RTX 4090", "RTX 4090", 24, 1008 * GIGA, _peak(165.2, 660.6, 330.3, None)),
    # See the NVIDIA RTX Blackwell GPU architecture white paper, appendix A (FP8, FP4 with FP32 accumulation).
    Device("RTX 5090", "RTX 5090", 32, 1792 * GIGA, _peak(209.5, 838.0, 419.0, 1676.0)),
    # See the NVIDIA L4 data sheet: 300 GB/s; 242 BF16, 485 FP8 and INT8, all with sparsity.
    Device("L4", "NVIDIA L4", 24, 300 * GIGA, _peak(121.0, 242.5, 242.5, None)),
    # See the NVIDIA Jetson Thor data sheet: 273 GB/s; T5000 1035 for dense FP4, sparse FP8 and INT8, 517 for
    # dense FP8 and sparse FP16; T4000 1200 sparse FP4, the others in the T5000's proportions.
    Device("Jetson Thor T5000", "Thor", 128, 273 * GIGA, _peak(258.5, 517.0, 517.0, 1035.0)),
    Device("Jetson Thor T4000", "Thor", 64, 273 * GIGA, _peak(150.0, 300.0, 300.0, 600.0)),
    # See the NVIDIA Jetson Orin modules' technical specifications, and Super Mode (JetPack 6.2) clocks.
    Device("Jetson AGX Orin 64", "Orin", 64, 204.8 * GIGA, _orin(16, 1.3)),
    Device("Jetson AGX Orin 32", "Orin", 32, 204.8 * GIGA, _orin(14, 0.93)),
    Device("Jetson Orin NX 16 (Super)", "Orin", 16, 102.4 * GIGA, _orin(8, 1.173)),
    Device("Jetson Orin NX 8 (Super)", "Orin", 8, 102.4 * GIGA, _orin(8, 1.173)),
    Device("Jetson Orin Nano 8 (Super)", "Orin", 8, 102.4 * GIGA, _orin(8, 1.02)),
)


def recognise(gpu_name: str, memory_bytes: float) -> Device | None:
    """The device of that driver name and visible memory, or None where no figure or more than one fits."""
    named = [device for device in DEVICES if device.gpu_name in gpu_name]
    # A board shows up to a tenth less than is printed on it, and GiB are 7% more than GB.
    fits = [d for d in named if 0.85 <= memory_bytes / (d.memory_gb * GIGA) <= 1.1]
    return fits[0] if len(fits) == 1 else None
