# SPDX-License-Identifier: Apache-2.0
"""What TensorRT engines were built from, beside them as ``manifest.json``, and whether they can be used here.

An engine file says nothing about the checkpoint it came from. Without the manifest a robot could run
yesterday's network, another robot's embodiment or half a file, and look healthy.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt.fingerprint import ReadProgress, sha256_of
from gr00t_model.inference.trt.records import digest_of, read_record, write_record

MANIFEST_FILE = "manifest.json"
BACKBONE = "backbone.engine"
ACTION = "action.engine"
FORMAT_VERSION = 1
PORTABLE = "portable"
_REBUILD = "build it again with build_engine"


@dataclass(frozen=True)
class CheckpointId:
    """The checkpoint an engine is made from."""

    name: str
    sha256: str
    """`fingerprint.checkpoint_sha256`"""

    def __post_init__(self) -> None:
        _check_sha256(self.sha256)


@dataclass(frozen=True)
class EmbodimentId:
    """The embodiment whose weights are in the engine."""

    tag: str
    id: int

    def __str__(self) -> str:
        return f"{self.tag} (id {self.id})"


@dataclass(frozen=True)
class Precision:
    """What the arithmetic is done in."""

    requested: str
    """bf16, int8, fp8, nvfp4 or auto"""
    groups: dict[str, str]
    """layer group: what it became"""


@dataclass(frozen=True)
class TensorRTId:
    """A TensorRT; plans of one version are not read by another."""

    flavour: str
    version: str

    def __str__(self) -> str:
        return f"{self.flavour} {self.version}"


@dataclass(frozen=True)
class Gpu:
    """A GPU as far as plans care."""

    name: str
    """empty where none was there when the engine was built"""
    compute_capability: str
    """8.9 and the like; empty for a portable plan that was built without a GPU"""
    target: str = "current"
    """what was asked for: current, sm89 and the like, or portable (TensorRT-RTX, any GPU it supports)"""

    def __str__(self) -> str:
        capability = f"compute capability {self.compute_capability}"
        return f"{self.name} ({capability})" if self.name else capability


@dataclass(frozen=True)
class Shapes:
    """What an engine was built to take."""

    images: tuple[tuple[int, int, int], ...]
    """number, height and width of the images of each input pixels_0, pixels_1, ..."""
    text: tuple[int, int, int]
    """fewest, most usual and most text tokens"""


@dataclass(frozen=True)
class EngineFile:
    """A file that belongs to the engine."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        _check_sha256(self.sha256)


@dataclass(frozen=True)
class Manifest:
    """Everything an engine's use depends on."""

    checkpoint: CheckpointId
    embodiment: EmbodimentId
    num_steps: int
    horizon: int
    precision: Precision
    tensorrt: TensorRTId
    driver: str
    """the machine that built it; empty without a GPU"""
    gpu: Gpu
    shapes: Shapes
    files: dict[str, EngineFile]
    """by name, in the manifest's directory"""
    calibration: dict[str, Any] = field(default_factory=dict)
    """dataset, observations and method; empty where nothing was calibrated"""
    build: dict[str, Any] = field(default_factory=dict)
    """figures: seconds, peak memory, bytes"""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files is empty")
        for name in self.files:
            if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
                raise ValueError(f"files names {name!r}, expected a file of the same directory")

    @property
    def digest(self) -> str:
        """Identifies this manifest, and with it the engine files."""
        return digest_of(self)

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``manifest.json``.

        Raises:
            BackendError: it cannot be written.
        """
        path = Path(directory) / MANIFEST_FILE
        write_record(self, path)
        return path

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> "Manifest":
        """Read ``manifest.json``. The engine files are not looked at.

        Raises:
            BackendError: it is missing, incomplete, of another format or was changed after it was written.
        """
        return read_record(cls, Path(directory) / MANIFEST_FILE, FORMAT_VERSION, _REBUILD)


def engine_files(
    directory: str | os.PathLike[str],
    names: Iterable[str] = (BACKBONE, ACTION),
    progress: ReadProgress | None = None,
) -> dict[str, EngineFile]:
    """Hash and size of engine files, for a manifest.

    Raises:
        BackendError: one cannot be read.
    """
    paths = [Path(directory) / name for name in names]
    return {path.name: EngineFile(sha256_of(path, progress), path.stat().st_size) for path in paths}


def check(
    directory: str | os.PathLike[str],
    *,
    checkpoint_sha256: str,
    embodiment: EmbodimentId,
    num_steps: int,
    tensorrt: TensorRTId,
    gpu: Gpu,
    hash_files: bool = True,
    progress: ReadProgress | None = None,
) -> list[str]:
    """Why the engine in a directory cannot be used here; empty if it can.

    Args:
        directory: of the manifest and the engine files.
        checkpoint_sha256: fingerprint of the checkpoint that the robot is to run.
        embodiment: of the robot.
        num_steps: denoising steps that are asked for.
        tensorrt: the one found here.
        gpu: the one found here.
        hash_files: read the files through; without it only their sizes are compared.
        progress: told of the bytes read.

    Returns:
        Every reason, with what was found, what was expected and what to do.
    """
    try:
        manifest = Manifest.read(directory)
    except BackendError as error:
        return [str(error)]
    built = manifest.checkpoint
    reasons = []
    if built.sha256 != checkpoint_sha256:
        reasons.append(
            f"built for checkpoint {built.name} with SHA-256 {built.sha256[:12]}, here is one with "
            f"{checkpoint_sha256[:12]}"
        )
    if manifest.embodiment != embodiment:
        reasons.append(f"built for embodiment {manifest.embodiment}, the robot is {embodiment}")
    if manifest.num_steps != num_steps:
        reasons.append(f"built for {manifest.num_steps} denoising steps, asked for are {num_steps}")
    if manifest.tensorrt != tensorrt:
        reasons.append(f"built for {manifest.tensorrt}, here is {tensorrt}")
    reasons += _gpu_reasons(manifest, gpu)
    reasons = [f"{Path(directory) / MANIFEST_FILE}: {reason}; {_REBUILD}" for reason in reasons]
    return reasons + _file_reasons(Path(directory), manifest, hash_files, progress)


def _gpu_reasons(manifest: Manifest, gpu: Gpu) -> list[str]:
    """A plan is for one kind of chip; one of TensorRT proper for one model too, whose timings chose its
    kernels."""
    if manifest.gpu.target == PORTABLE:
        return []
    same_model = manifest.tensorrt.flavour == "tensorrt_rtx" or manifest.gpu.name in ("", gpu.name)
    if manifest.gpu.compute_capability == gpu.compute_capability and same_model:
        return []
    return [f"built for {manifest.gpu}, here is {gpu}"]


def _file_reasons(
    directory: Path, manifest: Manifest, hash_files: bool, progress: ReadProgress | None
) -> list[str]:
    """Sizes first: they cost nothing and find most damage."""
    reasons = []
    for name, expected in manifest.files.items():
        path = directory / name
        try:
            found = path.stat().st_size
            if found != expected.bytes:
                what = "was cut off" if found < expected.bytes else "is too long"
                reasons.append(f"{path} {what}: it has {found} bytes, expected {expected.bytes}; {_REBUILD}")
            elif hash_files and sha256_of(path, progress) != expected.sha256:
                reasons.append(f"{path} is not the file that was built: its SHA-256 differs; {_REBUILD}")
        except FileNotFoundError:
            reasons.append(f"{path} is missing; {_REBUILD}")
        except OSError as error:
            reasons.append(f"{path} cannot be read: {error.strerror}; {_REBUILD}")
        except BackendError as error:
            reasons.append(f"{error}; {_REBUILD}")
    return reasons


def _check_sha256(value: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"sha256 is {value[:70]!r}, expected 64 hexadecimal digits")
