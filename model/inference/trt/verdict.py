# SPDX-License-Identifier: Apache-2.0
"""What came of comparing an engine with PyTorch float32 on this machine: ``verdict.json`` beside the engine.

The same plan can be right on one machine and wrong on another: driver, chip and TensorRT's own library take
part. So a verdict names the machine, and is worth nothing on any other.
"""

import ctypes
import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from gr00t_model.inference.trt.manifest import Gpu, TensorRTId
from gr00t_model.inference.trt.records import digest_of, read_record, write_record

VERDICT_FILE = "verdict.json"
FORMAT_VERSION = 1
_REMEDY = "run benchmark --verify on this machine"
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Machine:
    """Where an engine was compared."""

    gpu: str
    compute_capability: str
    """8.9 and the like"""
    driver: str
    flavour: str
    """tensorrt or tensorrt_rtx"""
    tensorrt: str
    """its version"""

    @property
    def as_gpu(self) -> Gpu:
        """As `manifest.check` takes it."""
        return Gpu(self.gpu, self.compute_capability)

    @property
    def as_tensorrt(self) -> TensorRTId:
        """As `manifest.check` takes it."""
        return TensorRTId(self.flavour, self.tensorrt)


@dataclass(frozen=True)
class JointError:
    """The joint of an action key that is furthest off, measured against its limit."""

    joint: str
    error: float
    """largest difference, in the joint's physical unit"""
    limit: float
    """what the robot's YAML allows, in the same unit"""


@dataclass(frozen=True)
class Measures:
    """What was compared, and how far apart it was."""

    observations: int
    cosine: dict[str, float]
    """lowest cosine of (action - noise) by action key"""
    cosine_limit: float
    worst_joints: dict[str, JointError]
    """by action key"""
    limits: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """by action key and column, in the dataset's units; empty where the default was used for all"""


@dataclass(frozen=True)
class Verdict:
    """An engine's verification on one machine."""

    machine: Machine
    manifest_digest: str
    """`Manifest.digest` of the engine"""
    measures: Measures
    passed: bool
    complaints: tuple[str, ...] = ()
    """why it did not pass, as the comparison put it"""
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Identifies this verdict."""
        return digest_of(self)

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``verdict.json``.

        Raises:
            BackendError: it cannot be written.
        """
        path = Path(directory) / VERDICT_FILE
        write_record(self, path)
        return path

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> "Verdict":
        """Read ``verdict.json``.

        Raises:
            BackendError: it is missing, incomplete, of another format or was changed after it was written.
        """
        return read_record(cls, Path(directory) / VERDICT_FILE, FORMAT_VERSION, _REMEDY)

    def reasons(self, manifest_digest: str, machine: Machine) -> list[str]:
        """Why this verdict does not allow that engine on that machine; empty if it does."""
        return self.misfits(manifest_digest, machine) + self.failures()

    def misfits(self, manifest_digest: str, machine: Machine) -> list[str]:
        """Why this verdict says nothing about that engine on that machine; empty if it does."""
        reasons = []
        if self.manifest_digest != manifest_digest:
            reasons.append(
                f"the verdict is about another engine (manifest {self.manifest_digest[:12]}, here is "
                f"{manifest_digest[:12]}); {_REMEDY}"
            )
        for part in fields(Machine):
            then, now = getattr(self.machine, part.name), getattr(machine, part.name)
            if then != now:
                name = part.name.replace("_", " ")
                reasons.append(f"the verdict was reached with {name} {then}, here is {now}; {_REMEDY}")
        return reasons

    def failures(self) -> list[str]:
        """What failed. The measures decide, whatever `passed` says; a measure that is no number fails."""
        found = self.measures
        reasons = [
            f"the engine failed its verification: cosine {value:.6f} for {key}, expected at least "
            f"{found.cosine_limit:g}"
            for key, value in found.cosine.items()
            if not value >= found.cosine_limit
        ]
        reasons += [
            f"the engine failed its verification: {key} {worst.joint} was off by {worst.error:.4g}, expected "
            f"at most {worst.limit:g}"
            for key, worst in found.worst_joints.items()
            if not worst.error <= worst.limit
        ]
        compared = bool(found.cosine) and found.cosine.keys() == found.worst_joints.keys()
        if not compared or found.observations < 1 or math.isnan(found.cosine_limit):
            reasons.append(f"the verdict compares nothing; {_REMEDY}")
        if not self.passed and (self.complaints or not reasons):
            return [f"the engine failed its verification: {'; '.join(self.complaints)}".rstrip(": ")]
        return reasons


def this_machine(tensorrt: TensorRTId, device: torch.device) -> Machine:
    """The machine that this runs on; `device` is a CUDA device."""
    major, minor = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device)
    return Machine(name, f"{major}.{minor}", driver_version(), tensorrt.flavour, tensorrt.version)


def driver_version() -> str:
    """The NVIDIA driver's version; where the kernel does not tell, the CUDA version it supports; empty
    without a driver."""
    try:
        found = re.search(r"\s(\d+(?:\.\d+)+)\s", _DRIVER_FILE.read_text())
        if found is not None:
            return found.group(1)
    except OSError:
        pass
    try:
        version = ctypes.c_int()
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0:
            return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    except (OSError, AttributeError):
        pass
    return ""
