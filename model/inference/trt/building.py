# SPDX-License-Identifier: Apache-2.0
"""From an ONNX file to a TensorRT plan. `adapter.TensorRT.build` is the way in.

TensorRT-RTX builds on a machine without a GPU, for the targets it knows; TensorRT builds for the GPU at
hand. A plan goes to its file in pieces where the builder can, because holding it in memory beside the
weights it was made from is one copy of the network too many.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gr00t_model.errors import BackendError

if TYPE_CHECKING:
    from gr00t_model.inference.trt.adapter import TensorRT

Shape = tuple[int, ...]
Profiles = Mapping[str, tuple[Shape, Shape, Shape]]
"""Smallest, most usual and largest shape of an input, by its name."""
Progress = Callable[[float, str], None]
"""Called with the share done, 0 to 1, and the name of the phase."""


@dataclass(frozen=True)
class BuildReport:
    """What a build took and gave."""

    seconds: float
    nbytes: int
    target: str
    """sm89 and the like, current, or portable (TensorRT-RTX without a target)"""
    warnings: tuple[str, ...]


class _StoppedError(Exception):
    """The caller's progress function raised."""


def build(
    library: "TensorRT",
    onnx_path: Path,
    output_path: Path,
    profiles: Profiles,
    *,
    target: str | None,
    here: str | None,
    workspace_bytes: int | None,
    timing_cache: Path | None,
    progress: Progress | None,
) -> BuildReport:
    """See `adapter.TensorRT.build`."""
    started = time.monotonic()
    module, messages = library.module, library.messages
    if not onnx_path.is_file():
        raise BackendError(f"{onnx_path} does not exist; expected an ONNX file")
    messages.clear()
    builder = _created(library, "builder", lambda: module.Builder(library.logger))
    config = builder.create_builder_config()
    built_for = _set_target(library, config, target, here)
    # TensorRT-RTX records a run in a CUDA graph only if memory of changing size comes from the caller.
    flag = getattr(getattr(module, "BuilderFlag", None), "REQUIRE_USER_ALLOCATION", None)
    if flag is not None:
        config.set_flag(flag)
    network = builder.create_network(_network_flags(module))
    # The parser owns the weights that the network refers to: it lives until the build is done.
    parser = module.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(onnx_path)):
        raise BackendError(f"{library.title} cannot take {onnx_path}: {_parser_errors(parser, library)}")
    _set_profiles(library, builder, config, network, profiles, onnx_path)
    if workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace_bytes)
    cache = _timing_cache(library, config, timing_cache)
    monitor = _monitor(module, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    try:
        with _finished_file(output_path) as file:
            written = _serialise(module, builder, network, config, file)
            if monitor is not None and monitor.raised is not None:
                raise _StoppedError
            if not written:
                raise BackendError(f"{library.title} cannot build {onnx_path}: {messages.reason()}")
            nbytes = file.tell()
    except _StoppedError:
        raise monitor.raised from None
    if progress is not None:
        progress(1.0, "done")
    if cache is not None and timing_cache is not None:
        with _finished_file(timing_cache) as file:
            file.write(memoryview(cache.serialize()))
    return BuildReport(time.monotonic() - started, nbytes, built_for, tuple(messages.warnings))


def _created(library: "TensorRT", what: str, make: Callable[[], Any]) -> Any:
    """A TensorRT object; where CUDA is missing its constructor raises, or gives None."""
    try:
        made = make()
    except (RuntimeError, TypeError) as error:
        raise BackendError(f"{library.title} gave no {what}: {library.messages.reason()}") from error
    if made is None:
        raise BackendError(f"{library.title} gave no {what}: {library.messages.reason()}")
    return made


def _network_flags(module: Any) -> int:
    """Strong typing, where it is an option and not the rule."""
    flags = getattr(module, "NetworkDefinitionCreationFlag", None)
    strong = getattr(flags, "STRONGLY_TYPED", None)
    return 0 if strong is None else 1 << int(strong)


def check_target(library: "TensorRT", target: str, here: str | None) -> None:
    """See `adapter.TensorRT.check_target`."""
    chooses = _can_choose(library, getattr(library.module, "IBuilderConfig", None))
    if target == "current" and here is None:
        instead = "give another target, as sm89" if chooses else "run build_engine where there is one"
        raise BackendError(f"target current is the GPU at hand, and PyTorch finds none here; {instead}")
    _capability(library, target, here, chooses)


def _can_choose(library: "TensorRT", config: Any) -> bool:
    """Whether a builder's config, or its class, takes the GPU to build for."""
    return hasattr(config, "set_compute_capability") and hasattr(library.module, "ComputeCapability")


def _capability(library: "TensorRT", target: str, here: str | None, chooses: bool) -> Any:
    """TensorRT's value for a target; None where it builds for the GPU at hand, without a choice."""
    if target != "current" and not re.fullmatch(r"sm\d{2,3}", target):
        raise BackendError(f"target {target!r} is not current or a compute capability such as sm89")
    if not chooses:
        if target not in ("current", here):
            raise BackendError(
                f"{library.title} builds only for the GPU it runs on{f', {here}' if here else ''}; for "
                f"target {target} run build_engine on such a GPU, or use TensorRT-RTX"
            )
        return None
    known = library.module.ComputeCapability
    chosen = getattr(known, "CURRENT" if target == "current" else target.upper(), None)
    if chosen is None:
        names = sorted(
            (name for name in dir(known) if re.fullmatch(r"SM\d+", name)), key=lambda n: int(n[2:])
        )
        raise BackendError(
            f"{library.title} cannot build for target {target}; it knows {', '.join(names).lower()}"
        )
    return chosen


def _set_target(library: "TensorRT", config: Any, target: str | None, here: str | None) -> str:
    """Say for which GPU to build, and give its name for the report."""
    chooses = _can_choose(library, config)
    if target is None:
        return "portable" if chooses else "current"
    chosen = _capability(library, target, here, chooses)
    if chosen is None:
        return "current"
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(chosen, 0):
        raise BackendError(f"{library.title} cannot build for target {target}: {library.messages.reason()}")
    return target


def _parser_errors(parser: Any, library: "TensorRT") -> str:
    """The parser's errors, each with the node it is about."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name, operator = _called(error, "node_name"), _called(error, "node_operator")
        where = f"node {name or _called(error, 'node')} ({operator})" if name or operator else ""
        text = " ".join(str(_called(error, "desc")).split())
        found.append(f"{where}: {text}" if where else text)
    # The logger knows more where the parser blames no node: a file of external data that is missing, say.
    found += [] if any(line.startswith("node ") for line in found) else library.messages.errors
    return "; ".join(dict.fromkeys(found)) or library.messages.reason()


def _called(error: Any, name: str) -> Any:
    """A property of a parser error; older parsers do not name the node."""
    return getattr(error, name)() if hasattr(error, name) else ""


def _set_profiles(
    library: "TensorRT", builder: Any, config: Any, network: Any, profiles: Profiles, onnx_path: Path
) -> None:
    """The ranges of the dynamic inputs. TensorRT passes over names it does not know, so they are compared
    here."""
    shapes = {
        network.get_input(index).name: tuple(network.get_input(index).shape)
        for index in range(network.num_inputs)
    }
    strange = sorted(set(profiles) - set(shapes))
    if strange:
        raise BackendError(
            f"{onnx_path} has no input {', '.join(strange)}; its inputs are {', '.join(shapes)}"
        )
    for name, shape in shapes.items():
        if name not in profiles and -1 in shape:
            raise BackendError(f"input {name} of {onnx_path} has shape {list(shape)} and needs a profile")
        for ends in profiles.get(name, ()):
            fits = len(ends) == len(shape) and all(n in (-1, end) for n, end in zip(shape, ends, strict=True))
            if not fits:
                raise BackendError(
                    f"input {name} of {onnx_path} has shape {list(shape)}, its profile says {list(ends)}"
                )
    profile = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in profiles.items():
        profile.set_shape(name, smallest, usual, largest)
    if profiles and config.add_optimization_profile(profile) < 0:
        raise BackendError(
            f"{library.title} refuses the profiles for {onnx_path}: {library.messages.reason()}"
        )


def _timing_cache(library: "TensorRT", config: Any, path: Path | None) -> Any:
    """The cache to use and save, or None. An unfit one is replaced: it only saves time."""
    if path is None or library.flavour == "tensorrt_rtx" or not hasattr(config, "create_timing_cache"):
        return None
    stored = path.read_bytes() if path.is_file() else b""
    for content in (stored, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _serialise(module: Any, builder: Any, network: Any, config: Any, file: BinaryIO) -> bool:
    """Build and write. False where TensorRT failed and said why to the logger."""
    if not (hasattr(builder, "build_serialized_network_to_stream") and hasattr(module, "IStreamWriter")):
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            return False
        file.write(memoryview(plan))
        return True
    failures: list[OSError] = []

    class Writer(module.IStreamWriter):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            if failures:  # TensorRT goes on after a short count
                return 0
            try:
                return file.write(data)
            except OSError as error:
                failures.append(error)
                return 0

    written = builder.build_serialized_network_to_stream(network, config, Writer())
    if failures:
        raise failures[0]
    return bool(written)


def _monitor(module: Any, report: Progress | None) -> Any:
    """TensorRT's progress, nested phases with steps, as one growing number. None where TensorRT has no
    monitor."""
    if report is None or not hasattr(module, "IProgressMonitor"):
        return None
    tell: Progress = report
    lock = threading.Lock()

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.raised: BaseException | None = None
            self._phases: dict[str, list[Any]] = {}  # name: [parent, steps, steps done]
            self._share = 0.0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            with lock:
                self._phases[phase] = [parent, max(1, steps), 0]
            self._tell(phase)

        def step_complete(self, phase: str, step: int) -> bool:
            with lock:
                if phase in self._phases:
                    self._phases[phase][2] = step + 1
            self._tell(phase)
            return self.raised is None

        def phase_finish(self, phase: str) -> None:
            with lock:
                self._phases.pop(phase, None)
            self._tell(phase)

        def _tell(self, phase: str) -> None:
            # An exception must not reach TensorRT, which would print it and go on.
            if self.raised is not None:
                return
            try:
                with lock:
                    self._share = max(self._share, self._done())
                    share = self._share
                tell(share, phase)
            except BaseException as error:  # Ctrl-C too
                self.raised = error

        def _done(self) -> float:
            """Steps done of the outermost phase, and of those within, each as a share of one step."""
            share, width, parent = 0.0, 1.0, None
            for _ in range(len(self._phases)):
                inner = next((p for p in self._phases.values() if p[0] == parent), None)
                if inner is None:
                    break
                share += width * min(1.0, inner[2] / inner[1])
                width /= inner[1]
                parent = next(name for name, p in self._phases.items() if p is inner)
            return min(1.0, share)

    return Monitor()


@contextlib.contextmanager
def _finished_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is complete and on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BackendError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
