# SPDX-License-Identifier: Apache-2.0
"""The running side of `support_fake_tensorrt`: plans, engines and contexts, over CPU tensors at addresses."""

import ctypes
import enum
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAGIC = b"FAKEPLAN"
Dim = int | str
"""A number, or a name: axes of one name have one length in a run."""

Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
DataType = enum.Enum("DataType", "FLOAT HALF BF16 INT8 INT32 BOOL UINT8 FP8 INT64 INT4 FP4")
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
AllocationStrategy = enum.Enum("AllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
ComputeCapability = enum.Enum("ComputeCapability", "NONE CURRENT SM75 SM80 SM86 SM89 SM120 SM121")
Specialization = enum.Enum("Specialization", "LAZY EAGER NONE")
Diagnostics = enum.IntEnum(
    "Diagnostics", {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "MALFORMED_ENGINE": 32}
)

TORCH = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "FP8": torch.float8_e4m3fn,
    "INT64": torch.int64,
}
NAMES = {dtype: name for name, dtype in TORCH.items()}
# ONNX's numbers of element types
ONNX_TYPES = {
    1: "FLOAT",
    2: "UINT8",
    3: "INT8",
    6: "INT32",
    7: "INT64",
    9: "BOOL",
    10: "HALF",
    16: "BF16",
    17: "FP8",
}


def numbers(shape: Sequence[Dim]) -> tuple[int, ...]:
    return tuple(n if isinstance(n, int) else -1 for n in shape)


class Runtime:
    def __init__(self, fake: Any, logger: Any) -> None:
        if fake.capability is None and not fake.rtx:
            logger.log(Severity.INTERNAL_ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.fake = fake
        self.logger = logger

    def deserialize_cuda_engine(self, data: Any) -> "Any | None":
        problem, content = self._open(bytes(data))
        if problem is None:
            return _Engine(self.fake, content, self.logger)
        self.logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {problem}")
        return None

    def _open(self, data: bytes) -> tuple[str | None, dict[str, Any]]:
        size = int.from_bytes(data[8:16], "little")
        if data[:8] != MAGIC:
            return "Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.)", {}
        if len(data) != 16 + size:
            return "Serialization (Serialization assertion plan.header.size == blobSize failed.)", {}
        content = json.loads(data[16:].rstrip(b"\0"))
        there, here = (content["flavour"], content["version"]), (self.fake.flavour, self.fake.version)
        if there != here:
            text = f"Version tag does not match: current {here[1]}, serialized {there[1]}"
            return (
                f"Serialization (Serialization assertion stdVersionRead == kVERSION failed. {text})",
                content,
            )
        if self.fake.capability is None:
            return "Cuda Runtime (cudaError 35: CUDA driver version is insufficient)", content
        if content["capability"] not in (None, self.fake.capability):
            text = f"expecting compute {self.fake.capability} got compute {content['capability']}"
            return (
                f"The engine plan file is generated on an incompatible device, {text}, please rebuild.",
                content,
            )
        return None, content


class RtxRuntime(Runtime):
    def get_engine_validity(self, data: Any) -> tuple[int, int]:
        problem, content = self._open(bytes(data))
        if problem is None:
            return 0, 0
        causes = {"Version": Diagnostics.VERSION_MISMATCH, "incompatible": Diagnostics.UNSUPPORTED_CC}
        found = [int(value) for word, value in causes.items() if word in problem]
        return 2, sum(found) if content else int(Diagnostics.MALFORMED_ENGINE)


class _Engine:
    def __init__(self, fake: Any, content: dict[str, Any], logger: Any) -> None:
        self.fake = fake
        self.logger = logger
        self.name = content["name"]
        self.tensors = {tensor["name"]: tensor for tensor in content["tensors"]}
        self.num_io_tensors = len(self.tensors)
        if fake.major >= 11 or fake.rtx:
            self.device_memory_size_v2 = fake.memory_bytes
        else:
            self.device_memory_size = fake.memory_bytes
        if fake.rtx:
            self.create_runtime_config = _RuntimeConfig

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[self.tensors[name]["dtype"]]

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation[self.tensors[name].get("location", "DEVICE")]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if self.tensors[name]["input"] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return numbers(self.tensors[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [tuple(ends) for ends in self.tensors[name]["profile"]]

    def create_execution_context(self, how: Any) -> "_Context":
        if self.fake.rtx:
            assert how.dynamic_shapes_kernel_specialization_strategy is Specialization.EAGER
            how = how.strategy
        self.fake.allocations.append(how.name)
        if self.fake.major >= 11 or self.fake.rtx:
            return _NewerContext(self, how)
        return _Context(self, how)


class _RuntimeConfig:
    strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = Specialization.LAZY

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


class _Context:
    def __init__(self, engine: _Engine, strategy: Any) -> None:
        self.engine = engine
        self.device_memory: int | None = None if strategy is AllocationStrategy.USER_MANAGED else 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        needed = [n for n, t in self.engine.tensors.items() if t["input"] and -1 in numbers(t["shape"])]
        self._lengths()
        return [name for name in needed if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        lengths = self._lengths()
        shape = self.shapes.get(name, self.engine.tensors[name]["shape"])
        return tuple(n if isinstance(n, int) else lengths.get(n, -1) for n in shape)

    def execute_async_v3(self, stream: int) -> bool:
        fake, name = self.engine.fake, self.engine.name
        problem = fake.fail_run
        if self.device_memory is None:
            problem = "no device memory was given"
        if missing := [tensor for tensor in self.engine.tensors if tensor not in self.addresses]:
            problem = f"Neither address or allocator is set for {missing[0]}"
        if problem is not None:
            self.engine.logger.log(Severity.ERROR, f"IExecutionContext::enqueueV3: Error Code 3: {problem}")
            return False
        fake.runs.append((name, stream))
        tensors = {name: self._tensor(name) for name in self.engine.tensors}
        inputs = {name: tensor for name, tensor in tensors.items() if self.engine.tensors[name]["input"]}
        results = fake.functions[name](**inputs)
        for output in tensors.keys() - inputs.keys():
            assert results[output].shape == tensors[output].shape, f"{name} gives {output} another shape"
            tensors[output].copy_(results[output])
        return True

    def _lengths(self) -> dict[str, int]:
        lengths: dict[str, int] = {}
        for name, shape in self.shapes.items():
            for axis, n in zip(self.engine.tensors[name]["shape"], shape, strict=True):
                if isinstance(axis, str) and lengths.setdefault(axis, n) != n:
                    raise RuntimeError(f"axis {axis} is {lengths[axis]} and {n}")
        return lengths

    def _tensor(self, name: str) -> Tensor:
        """The memory at an address as a tensor."""
        shape, dtype = self.get_tensor_shape(name), TORCH[self.engine.tensors[name]["dtype"]]
        count = math.prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(self.addresses[name])
        return torch.frombuffer(raw, dtype=dtype, count=count).view(shape)


class _NewerContext(_Context):
    """Memory is set with its size."""

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.fake.memory_bytes
        self.device_memory = address
