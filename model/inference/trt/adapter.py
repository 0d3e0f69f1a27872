# SPDX-License-Identifier: Apache-2.0
"""One way to reach TensorRT 10, TensorRT 11 and TensorRT-RTX, which differ in small things.

What they share is used: strongly typed networks (precision is in the ONNX file), tensors bound by name, one
call to run. What only some have is asked for with `hasattr`, never by version number. Nothing here imports
TensorRT or touches CUDA until a function is called.
"""

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt.building import BuildReport, Profiles, Progress, build, check_target
from gr00t_model.inference.trt.running import LoadedEngine, load

# Module names, in the order of preference. TensorRT proper knows Jetson and data-centre chips.
FLAVOURS = ("tensorrt", "tensorrt_rtx")
_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_INSTALL = {
    "tensorrt": "`pip install tensorrt` on a PC; on a Jetson it comes with JetPack (python3-libnvinfer)",
    "tensorrt_rtx": "`pip install tensorrt-rtx-cu13` (or -cu12)",
}
# Strong typing and tensors by name: TensorRT 10 and every TensorRT-RTX have both.
_OLDEST = {"tensorrt": 10, "tensorrt_rtx": 1}
# What is kept of a log: a failing build can print without end.
_KEPT = 200


class Messages:
    """What TensorRT's logger said, kept for error messages: TensorRT returns None and prints the reason."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def clear(self) -> None:
        """Forget what was said before the call that follows."""
        self.errors.clear()
        self.warnings.clear()

    def add(self, severity: str, text: str) -> None:
        """Keep a message; `severity` is TensorRT's name of it."""
        kind = {"ERROR": self.errors, "INTERNAL_ERROR": self.errors, "WARNING": self.warnings}.get(severity)
        line = " ".join(text.split())
        if kind is not None and len(kind) < _KEPT and line and line not in kind:
            kind.append(line)

    def reason(self) -> str:
        """The errors in one line."""
        return "; ".join(self.errors) or "it gave no reason"


@dataclass(frozen=True)
class TensorRT:
    """A TensorRT that was found: builds engines and loads them."""

    module: Any
    flavour: str
    """tensorrt or tensorrt_rtx: the name of the Python module"""
    version: str
    logger: Any
    messages: Messages

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"{_TITLES[self.flavour]} {self.version}"

    def build(
        self,
        onnx_path: str | os.PathLike[str],
        output_path: str | os.PathLike[str],
        profiles: Profiles,
        *,
        target: str | None = None,
        here: str | None = None,
        workspace_bytes: int | None = None,
        timing_cache: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Build an engine from an ONNX file. The network is strongly typed: types are those of the file.

        Args:
            onnx_path: the model; its external data is looked for beside it.
            output_path: the plan, which appears whole or not at all.
            profiles: smallest, most usual and largest shape of every input with a dynamic dimension.
            target: ``sm89`` and the like; ``current`` for the GPU at hand; None for what the flavour does
                by itself: TensorRT the GPU at hand, TensorRT-RTX a plan for every GPU it supports.
            here: the GPU at hand as ``sm87``, if known; a `target` equal to it is ``current``.
            workspace_bytes: device memory that layers may use while they run; None leaves it open.
            timing_cache: read if it is there and fits, written afterwards. TensorRT-RTX times nothing.
            progress: called with a share from 0 to 1 and the name of the phase; raising in it stops the
                build and comes out of here.

        Raises:
            BackendError: the model is refused, the target is not possible, the build fails or the plan
                cannot be written.
        """
        return build(
            self,
            Path(onnx_path),
            Path(output_path),
            profiles,
            target=target,
            here=here,
            workspace_bytes=workspace_bytes,
            timing_cache=None if timing_cache is None else Path(timing_cache),
            progress=progress,
        )

    def check_target(self, target: str, here: str | None) -> None:
        """Refuse a target that nothing can be built for here, without starting CUDA or a builder.

        Args:
            target: ``current``, or ``sm89`` and the like.
            here: the GPU at hand as ``sm87``, None without one.

        Raises:
            BackendError: with what can be built for.
        """
        check_target(self, target, here)

    def load(self, engine_path: str | os.PathLike[str], device: torch.device) -> LoadedEngine:
        """Read a plan onto `device`.

        Raises:
            BackendError: the file is absent, damaged, or made for another version or GPU; the message holds
                what TensorRT said.
        """
        return load(self, Path(engine_path), device)


def find_tensorrt(flavour: str = "auto") -> TensorRT:
    """Import TensorRT.

    Args:
        flavour: ``tensorrt``, ``tensorrt_rtx``, or ``auto`` for the first of these that is installed.

    Raises:
        BackendError: an unknown name, or none is installed; the message says what to install.
    """
    if flavour != "auto" and flavour not in FLAVOURS:
        raise BackendError(f"TensorRT flavour {flavour!r} is not one of auto, {', '.join(FLAVOURS)}")
    wanted = FLAVOURS if flavour == "auto" else (flavour,)
    failures: dict[str, str] = {}
    for name in wanted:
        try:
            module = importlib.import_module(name)
            version = str(module.__version__)
        # OSError: the package is there and its libraries are not; AttributeError: an unrelated module
        except (ImportError, OSError, AttributeError) as error:
            failures[name] = " ".join(str(error).split())
            continue
        found = re.match(r"\d+", version)
        if found is None or int(found.group()) < _OLDEST[name]:
            failures[name] = f"version {version} is too old, expected {_OLDEST[name]}.0 or newer"
            continue
        logger, messages = _logger_of(module)
        return TensorRT(module, name, version, logger, messages)
    raise BackendError("TensorRT is not usable here: " + "; ".join(_failure(failures)))


def _failure(failures: Mapping[str, str]) -> list[str]:
    return [
        f"{_TITLES[name]}: {reason}; install it with {_INSTALL[name]}" for name, reason in failures.items()
    ]


@lru_cache(maxsize=8)
def _logger_of(module: Any) -> tuple[Any, Messages]:
    """The logger of a TensorRT module. TensorRT keeps the first that it is given for the whole process, so
    there is one."""
    messages = Messages()

    class Logger(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            messages.add(getattr(severity, "name", str(severity)), text)

    return Logger(), messages
