# SPDX-License-Identifier: Apache-2.0
"""What makes sense of figures measured elsewhere: the machine, its software, the checkpoint; as plain data.

For a file that a user sends to people who have never seen the machine. Nothing here names the user, the host,
a directory, or shows what a camera saw.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from gr00t_model.checkpoint import locate_weights
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import Gr00tError
from gr00t_model.inference.trt.adapter import FLAVOURS, find_tensorrt
from gr00t_model.inference.trt.fingerprint import checkpoint_sha256
from gr00t_model.inference.trt.manifest import Manifest
from gr00t_model.inference.trt.verdict import driver_version

PACKAGES = ("torch", "transformers", "diffusers", "safetensors", "numpy", "onnx", "nvidia-modelopt", "triton")
_BOARD = Path("/proc/device-tree/model")
_L4T = Path("/etc/nv_tegra_release")
_NVPMODEL_SECONDS = 10.0
_SIZES = (
    "select_layer",
    "max_state_dim",
    "max_action_dim",
    "action_horizon",
    "hidden_size",
    "input_embedding_dim",
    "backbone_embedding_dim",
    "use_alternate_vl_dit",
    "num_inference_timesteps",
)
# An absolute path: a slash that does not continue a word, a number or a URL, and at least one name.
_PATH = re.compile(r"(?<![\w.:/~)])~?/(?:[^\s/,;:()'\"]+/)*([^\s/,;:()'\"]+)/?")


def machine(device: torch.device) -> dict[str, Any]:
    """Board, power mode, GPU, memory and driver; None for what the machine does not tell."""
    found: dict[str, Any] = {
        "board": _text(_BOARD),
        "l4t": (_text(_L4T) or "").partition("\n")[0] or None,
        "power_mode": power_mode(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "memory": _memory(),
        "driver": driver_version() or None,
        "gpu": None,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = {
            "name": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
        }
    return found


def versions() -> dict[str, str | None]:
    """Of what figures depend on; None is not there."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    for flavour in FLAVOURS:
        found[flavour] = None
        with suppress(Gr00tError):
            found[flavour] = find_tensorrt(flavour).version
    return found


def power_mode() -> list[str] | None:
    """What ``nvpmodel -q`` says on a Jetson."""
    if shutil.which("nvpmodel") is None:
        return None
    with suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
        answer = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, timeout=_NVPMODEL_SECONDS, check=True
        )
        return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return None


def checkpoint(directory: Path, config: Gr00tN1d6Config, cache: Path | None = None) -> dict[str, Any]:
    """A checkpoint's fingerprint and sizes, without its name.

    cache: as ``checkpoint_sha256`` takes it.

    Raises:
        CheckpointError, BackendError: it cannot be read.
    """
    network, entries = locate_weights(directory)
    kinds: dict[str, int] = {}
    for _, entry in entries.values():
        kind = str(entry.dtype).removeprefix("torch.")
        kinds[kind] = kinds.get(kind, 0) + 1
    return {
        "sha256": checkpoint_sha256(directory, cache=cache),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "tensors_by_type": kinds,
        "config": {name: getattr(config, name) for name in _SIZES},
        "vision": asdict(config.vision),
        "language": asdict(config.language),
        "dit": asdict(config.dit),
    }


def engine(manifest: Manifest) -> dict[str, Any]:
    """What an engine's manifest says, without the checkpoint's and the recording's names."""
    calibration = {key: value for key, value in manifest.calibration.items() if key != "source"}
    if "source" in manifest.calibration:
        calibration["source"] = kind_of(str(manifest.calibration["source"]))
    return {
        "digest": manifest.digest,
        "checkpoint_sha256": manifest.checkpoint.sha256,
        "precision": {"requested": manifest.precision.requested, "groups": manifest.precision.groups},
        "built_by": str(manifest.tensorrt),
        "driver": manifest.driver,
        "gpu": {"name": manifest.gpu.name, "target": manifest.gpu.target},
        "num_steps": manifest.num_steps,
        "horizon": manifest.horizon,
        "images": manifest.shapes.images,
        "text_tokens": manifest.shapes.text,
        "bytes": {name: file.bytes for name, file in manifest.files.items()},
        "calibration": calibration,
        "build": manifest.build,
    }


def kind_of(source: str) -> str:
    """Of where observations are from, whether recorded or synthetic."""
    return source.partition(":")[0]


def without_paths(value: Any, known: Sequence[str] = ()) -> Any:
    """Plain data in which every absolute path in a text has only its last name left.

    known: paths that may hold characters by which a path in a sentence is not recognised.
    """
    if isinstance(value, str):
        for path in sorted(known, key=len, reverse=True):
            value = value.replace(path, Path(path).name)
        return _PATH.sub(lambda found: found.group(1), value)
    if isinstance(value, Mapping):
        return {str(key): without_paths(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item, known) for item in value]
    return value


def _text(path: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip("\0 \n") or None
    return None


def _cpu() -> str | None:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return None


def _memory() -> dict[str, int]:
    """Bytes, as the kernel counts them."""
    found = {}
    for line in (_text(Path("/proc/meminfo")) or "").splitlines():
        name, _, amount = line.partition(":")
        if name in ("MemTotal", "MemAvailable", "SwapTotal"):
            found[name] = int(amount.split()[0]) * 1024
    return found
