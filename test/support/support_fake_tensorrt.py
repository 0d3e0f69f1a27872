# SPDX-License-Identifier: Apache-2.0
"""A TensorRT without CUDA: the parts of its Python API that the adapter uses, with the ways in which
TensorRT 10, TensorRT 11 and TensorRT-RTX differ, and engines that are Python functions on CPU tensors.

    fake = FakeTensorRT("10.3.0", "tensorrt", functions={"backbone": backbone, "action": action})
    fake.install(monkeypatch)                  # from now on `import tensorrt` gives this one
    library = find_tensorrt()
    library.build("action.onnx", "action.engine", profiles)        # the plan is called by the file's stem
    engine = library.load("action.engine", torch.device("cpu"))

A function takes the inputs by name and returns the outputs by name, in the types the plan states. A plan can
also be written without ONNX, by `write_plan`.
"""

import enum
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support_fake_runtime import (
    MAGIC,
    NAMES,
    ONNX_TYPES,
    AllocationStrategy,
    ComputeCapability,
    DataType,
    Diagnostics,
    Dim,
    MemoryPoolType,
    RtxRuntime,
    Runtime,
    Severity,
    Specialization,
    TensorIOMode,
    TensorLocation,
    numbers,
)


@dataclass
class FakeStream:
    """What a context is run on."""

    cuda_stream: int = 1


class FakeTensorRT:
    """One installed TensorRT, on one GPU.

    Args:
        version: as ``__version__``; its first number decides what a ``tensorrt`` of 10 or 11 has.
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        functions: what the plans of these names compute.
        capability: of the GPU here, as ``sm89``; None for a machine without one, where only TensorRT-RTX
            builds, and nothing is loaded.
        streaming: whether the builder can write in pieces, as newer versions do.
        memory_bytes: device memory that a context asks for.

    After use, `built` holds the names of plans built, `runs` (plan, stream handle) of each run, `allocations`
    what contexts were given.
    """

    def __init__(
        self,
        version: str = "10.3.0",
        flavour: str = "tensorrt",
        functions: Mapping[str, Callable[..., Mapping[str, Tensor]]] | None = None,
        *,
        capability: str | None = "sm89",
        streaming: bool | None = None,
        memory_bytes: int = 4096,
    ) -> None:
        self.version = version
        self.flavour = flavour
        self.functions = dict(functions or {})
        self.capability = capability
        self.memory_bytes = memory_bytes
        self.rtx = flavour == "tensorrt_rtx"
        self.major = int(version.split(".")[0])
        self.streaming = (self.rtx or self.major > 10) if streaming is None else streaming
        self.runs: list[tuple[str, int]] = []
        self.allocations: list[str] = []
        self.built: list[str] = []
        self.fail_build: str | None = None
        self.fail_run: str | None = None
        self.module = self._module()

    def install(self, monkeypatch: Any) -> "FakeTensorRT":
        """Make it the TensorRT of this process, alone, until the test ends."""
        for name in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(sys.modules, name, self.module if name == self.flavour else None)
        return self

    def write_plan(
        self,
        path: Path,
        inputs: Mapping[str, tuple[torch.dtype, Sequence[Dim], Sequence[int], Sequence[int]]],
        outputs: Mapping[str, tuple[torch.dtype, Sequence[Dim]]],
        *,
        capability: str | None = None,
    ) -> None:
        """A plan called by the file's stem. Inputs: type, shape, smallest and largest shape."""
        tensors = [
            {"name": name, "dtype": NAMES[dtype], "shape": list(shape), "input": True}
            | {"profile": [list(low), list(high), list(high)]}
            for name, (dtype, shape, low, high) in inputs.items()
        ]
        tensors += [
            {"name": name, "dtype": NAMES[dtype], "shape": list(shape), "input": False}
            for name, (dtype, shape) in outputs.items()
        ]
        path.write_bytes(self.plan(path.stem, tensors, capability or self.capability))

    def plan(self, name: str, tensors: list[dict[str, Any]], capability: str | None) -> bytes:
        """The bytes of a plan. Without a capability it runs on any GPU."""
        content = json.dumps(
            {"name": name, "version": self.version, "flavour": self.flavour, "capability": capability}
            | {"tensors": tensors}
        ).encode()
        body = content + b"\0" * 512  # a cut is a cut, wherever it is
        return MAGIC + len(body).to_bytes(8, "little") + body

    def _module(self) -> types.ModuleType:
        module: Any = types.ModuleType(self.flavour)
        fake = self
        module.__version__ = self.version
        module.ILogger = _ILogger
        module.Builder = lambda logger: _Builder(fake, logger)
        module.OnnxParser = lambda network, logger: _Parser(network, logger)
        module.Runtime = lambda logger: RtxRuntime(fake, logger) if fake.rtx else Runtime(fake, logger)
        for item in (DataType, TensorIOMode, TensorLocation, MemoryPoolType):
            setattr(module, item.__name__, item)
        module.ExecutionContextAllocationStrategy = AllocationStrategy
        module.IProgressMonitor = _Base
        flags = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1} if self.major == 10 else {"STRONGLY_TYPED": 0}
        if not self.rtx and self.major >= 11:
            flags = {"PREFER_AOT_PYTHON_PLUGINS": 0}  # strongly typed is all there is
        module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
        if self.streaming:
            module.IStreamWriter = _Base
        module.IBuilderConfig = _RtxConfig if self.rtx else _Config
        if self.rtx:
            module.ComputeCapability = ComputeCapability
            module.DynamicShapesKernelSpecializationStrategy = Specialization
            module.EngineInvalidityDiagnostics = Diagnostics
        return module


class _Base:
    """What Python classes derive from. TensorRT demands that its constructor is called."""

    made = False

    def __init__(self) -> None:
        self.made = True


def onnx_file(path: Path, operator: str = "Add", **save) -> Path:
    """y = x + x, or another operator; [1, T, 8]."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, "T", 8]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "x"], ["y"], name="the_node")], "g", *zip(value)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path, **save)
    return path


class _ILogger(_Base):
    Severity = Severity

    def log(self, severity: Any, text: str) -> None:
        raise NotImplementedError


class _Config:
    def __init__(self) -> None:
        self.profiles: list[Any] = []
        self.progress_monitor: Any = None
        self.pools: dict[Any, int] = {}
        self.cache: Any = None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: "_Profile") -> int:
        for smallest, usual, largest in profile.shapes.values():
            if not all(a <= b <= c for a, b, c in zip(smallest, usual, largest, strict=True)):
                profile.logger.log(Severity.ERROR, "ensure that the profiles satisfy MIN<=OPT<=MAX")
                return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        return types.SimpleNamespace(content=content or b"cache", serialize=lambda: b"cache")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return bool(cache.content == b"cache")


class _RtxConfig(_Config):
    num_compute_capabilities = 0
    chosen = ComputeCapability.NONE

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self.chosen = capability
        return 0 <= index < self.num_compute_capabilities


class _Profile:
    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, name: str, smallest: Any, usual: Any, largest: Any) -> None:
        self.shapes[name] = (smallest, usual, largest)


class _Builder:
    def __init__(self, fake: FakeTensorRT, logger: Any) -> None:
        if fake.capability is None and not fake.rtx:  # as pybind11 does where CUDA cannot start
            logger.log(Severity.INTERNAL_ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        assert logger.made
        self.fake = fake
        self.logger = logger
        if fake.streaming:
            self.build_serialized_network_to_stream = self._to_stream

    def create_builder_config(self) -> _Config:
        return _RtxConfig() if self.fake.rtx else _Config()

    def create_network(self, flags: int) -> types.SimpleNamespace:
        strong = getattr(self.fake.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        assert flags == (0 if strong is None else 1 << strong), "the network must be strongly typed, no more"
        return _network()

    def create_optimization_profile(self) -> _Profile:
        return _Profile(self.logger)

    def build_serialized_network(self, network: Any, config: _Config) -> bytes | None:
        fake = self.fake
        if config.progress_monitor is not None and not _tick(config.progress_monitor):
            self.logger.log(Severity.ERROR, "Error Code 7: BuildCanceled (Build canceled by user)")
            return None
        if fake.fail_build is not None:
            self.logger.log(Severity.ERROR, fake.fail_build)
            return None
        capability = fake.capability
        if isinstance(config, _RtxConfig):
            named = config.num_compute_capabilities and config.chosen is not ComputeCapability.CURRENT
            portable = None if config.num_compute_capabilities == 0 else fake.capability
            capability = config.chosen.name.lower() if named else portable
        profile = config.profiles[0].shapes if config.profiles else {}
        for tensor in network.tensors:
            if tensor["input"]:
                shape = tensor["shape"]
                tensor["profile"] = [
                    list(ends) for ends in profile.get(tensor["name"], (shape, shape, shape))
                ]
        fake.built.append(network.name)
        return fake.plan(network.name, network.tensors, capability)

    def _to_stream(self, network: Any, config: _Config, writer: Any) -> bool:
        assert writer.made
        plan = self.build_serialized_network(network, config)
        if plan is None:
            return False
        return all(
            writer.write(plan[i : i + 100]) == len(plan[i : i + 100]) for i in range(0, len(plan), 100)
        )


def _tick(monitor: Any) -> bool:
    """A build of two nested phases. False when the monitor wants it to stop."""
    monitor.phase_start("Building engine", None, 4)
    going = monitor.step_complete("Building engine", 0)
    monitor.phase_start("Timing tactics", "Building engine", 2)
    going &= monitor.step_complete("Timing tactics", 0) and monitor.step_complete("Timing tactics", 1)
    monitor.phase_finish("Timing tactics")
    monitor.phase_finish("Building engine")
    return bool(going)


def _network() -> types.SimpleNamespace:
    network = types.SimpleNamespace(name="", tensors=[], num_inputs=0)
    network.get_input = lambda index: _input(network, index)
    return network


def _input(network: Any, index: int) -> types.SimpleNamespace:
    tensor = [tensor for tensor in network.tensors if tensor["input"]][index]
    return types.SimpleNamespace(name=tensor["name"], shape=numbers(tensor["shape"]))


class _Parser:
    """Reads names, types and shapes of an ONNX file's inputs and outputs; refuses an operator that ONNX does
    not have."""

    def __init__(self, network: Any, logger: Any) -> None:
        self.network = network
        self.logger = logger
        self.errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return self.errors[index]

    def parse_from_file(self, path: str) -> bool:
        import onnx

        try:
            model = onnx.load(path, load_external_data=False)
        except Exception:
            self.logger.log(Severity.ERROR, "(deserializeOnnxModel): MODEL_DESERIALIZE_FAILED")
            return False
        for index, node in enumerate(model.graph.node):
            if not node.domain and not onnx.defs.has(node.op_type):
                self.errors.append(_parser_error(index, node))
        self.network.name = Path(path).stem
        weights = {tensor.name for tensor in model.graph.initializer}
        for values, is_input in ((model.graph.input, True), (model.graph.output, False)):
            for value in values:
                if value.name in weights:
                    continue
                kind = value.type.tensor_type
                shape = [d.dim_param or d.dim_value for d in kind.shape.dim]
                self.network.tensors.append(
                    {
                        "name": value.name,
                        "dtype": ONNX_TYPES[kind.elem_type],
                        "shape": shape,
                        "input": is_input,
                    }
                )
        self.network.num_inputs = sum(tensor["input"] for tensor in self.network.tensors)
        return not self.errors


def _parser_error(index: int, node: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        desc=lambda: "Plugin not found, are the plugin name, version, and namespace correct?",
        node=lambda: index,
        node_name=lambda: node.name,
        node_operator=lambda: node.op_type,
    )
