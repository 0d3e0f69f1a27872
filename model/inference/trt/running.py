# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines in memory, run on PyTorch tensors. `adapter.TensorRT.load` is the way in.

An engine holds the weights, a context the room for one shape. Nothing is copied: inputs are read and outputs
written where PyTorch has them. Streams come as arguments, so that a caller can capture a run in a CUDA graph.
"""

import contextlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gr00t_model.errors import BackendError

if TYPE_CHECKING:
    from gr00t_model.inference.trt.adapter import TensorRT

# TensorRT's names. INT4, FP4 and E8M0 have no torch type, and no business at the edge of an engine.
DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "FP8": torch.float8_e4m3fn,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}
# What TensorRT asks of memory given to a context.
MEMORY_ALIGNMENT = 256

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of an engine."""

    name: str
    dtype: torch.dtype
    shape: Shape
    """-1 where it depends on the shapes of a run"""
    is_input: bool
    smallest: Shape
    """the profile's bounds for an input; for an output equal to `shape`"""
    largest: Shape

    def misfit(self, shape: Shape) -> str | None:
        """Why an input cannot have this shape, or None."""
        fits = len(shape) == len(self.shape) and all(
            low <= n <= high for low, n, high in zip(self.smallest, shape, self.largest, strict=True)
        )
        if fits:
            return None
        sizes = (str(a) if a == b else f"{a}..{b}" for a, b in zip(self.smallest, self.largest, strict=True))
        return f"{self.name} has shape {list(shape)}; this engine takes [{', '.join(sizes)}]"


class LoadedEngine:
    """A plan on a device: its inputs and outputs, and contexts to run it in."""

    def __init__(
        self, library: "TensorRT", runtime: Any, engine: Any, path: Path, device: torch.device
    ) -> None:
        self.library = library
        self.path = path
        self.device = device
        self._runtime = runtime  # must outlive the engine
        self._engine = engine
        tensors = [self._describe(engine.get_tensor_name(i)) for i in range(engine.num_io_tensors)]
        self.inputs = {tensor.name: tensor for tensor in tensors if tensor.is_input}
        self.outputs = {tensor.name: tensor for tensor in tensors if not tensor.is_input}

    @property
    def memory_bytes(self) -> int:
        """Device memory a context needs, for the largest shapes."""
        newer = hasattr(self._engine, "device_memory_size_v2")
        return int(self._engine.device_memory_size_v2 if newer else self._engine.device_memory_size)

    def context(self, memory: Tensor | None = None) -> "Context":
        """Room to run in. One context belongs to one shape at a time; a CUDA graph captured from it stays
        valid while its shapes and tensors stay as they were.

        Args:
            memory: uint8 on the engine's device, at least `memory_bytes`, which contexts that never run at
                the same time can share; None lets TensorRT allocate.

        Raises:
            BackendError: the memory is not fit, or TensorRT cannot make a context (no memory left).
        """
        if memory is not None:
            self._check_memory(memory)
        module, messages = self.library.module, self.library.messages
        messages.clear()
        with _current(self.device):
            strategies = module.ExecutionContextAllocationStrategy
            context = self._make(strategies.STATIC if memory is None else strategies.USER_MANAGED)
        if context is None:
            raise BackendError(f"{self.path} cannot be prepared to run: {messages.reason()}")
        if memory is not None:
            if hasattr(context, "set_device_memory"):
                context.set_device_memory(memory.data_ptr(), memory.numel())
            else:
                context.device_memory = memory.data_ptr()
        return Context(self, context, memory)

    def _make(self, strategy: Any) -> Any:
        """A context. TensorRT-RTX compiles for new shapes in the background by default, and is slower until
        that is done; here it compiles when a shape is first run, which is never in the control path."""
        eager = getattr(self.library.module, "DynamicShapesKernelSpecializationStrategy", None)
        try:
            if eager is None or not hasattr(self._engine, "create_runtime_config"):
                return self._engine.create_execution_context(strategy)
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.dynamic_shapes_kernel_specialization_strategy = eager.EAGER
            return self._engine.create_execution_context(config)
        except RuntimeError as error:
            self.library.messages.add("ERROR", str(error))
            return None

    def _check_memory(self, memory: Tensor) -> None:
        if memory.dtype != torch.uint8 or not memory.is_contiguous() or memory.device != self.device:
            raise BackendError(
                f"memory for {self.path.name} is {memory.dtype} on {memory.device}; expected contiguous "
                f"torch.uint8 on {self.device}"
            )
        if memory.numel() < self.memory_bytes:
            raise BackendError(
                f"memory for {self.path.name} has {memory.numel()} bytes, expected {self.memory_bytes}"
            )
        if memory.data_ptr() % MEMORY_ALIGNMENT:
            raise BackendError(f"memory for {self.path.name} is not aligned to {MEMORY_ALIGNMENT} bytes")

    def _describe(self, name: str) -> TensorInfo:
        module, engine = self.library.module, self._engine
        dtype = DTYPES.get(engine.get_tensor_dtype(name).name)
        if dtype is None:
            raise BackendError(
                f"{self.path}: {name} has type {engine.get_tensor_dtype(name).name}, which PyTorch lacks; "
                "build it again with build_engine"
            )
        if engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
            raise BackendError(
                f"{self.path}: {name} is read by the CPU, so its values would decide shapes; expected only "
                "tensors on the device. Build it again with build_engine"
            )
        shape = tuple(engine.get_tensor_shape(name))
        is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
        smallest = largest = shape
        if is_input and -1 in shape:
            ends = engine.get_tensor_profile_shape(name, 0)
            smallest, largest = tuple(ends[0]), tuple(ends[2])
        return TensorInfo(name, dtype, shape, is_input, smallest, largest)


class Context:
    """An engine ready to run: shapes, tensors, and the call."""

    def __init__(self, engine: LoadedEngine, context: Any, memory: Tensor | None) -> None:
        self.engine = engine
        self._context = context
        self._memory = memory  # used until the context is gone
        self._bound: dict[str, Tensor] = {}  # likewise, until something else is bound

    def set_input_shape(self, name: str, shape: Shape) -> None:
        """Say which shape an input has.

        Raises:
            BackendError: the engine has no such input, or was not built for this shape.
        """
        info = self.engine.inputs.get(name)
        if info is None:
            raise BackendError(
                f"{self.engine.path.name} has no input {name}; its inputs are {', '.join(self.engine.inputs)}"
            )
        reason = info.misfit(tuple(shape))
        if reason is not None:
            raise BackendError(f"{self.engine.path.name}: {reason}")
        self._demand(
            self._context.set_input_shape(name, tuple(shape)), f"refuses shape {list(shape)} for {name}"
        )

    def output_shape(self, name: str) -> Shape:
        """The shape of an output, once every input has one.

        Raises:
            BackendError: the shapes of the inputs contradict each other, or one is missing.
        """
        messages = self.engine.library.messages
        messages.clear()
        try:
            missing = self._context.infer_shapes()
            shape = tuple(self._context.get_tensor_shape(name))
        except RuntimeError as error:
            messages.add("ERROR", str(error))
            missing, shape = [], ()
        if missing or min(shape, default=0) < 0 or messages.errors:
            why = f"no shape was set for {', '.join(missing)}" if missing else messages.reason()
            raise BackendError(f"{self.engine.path.name}: the shape of {name} is not known: {why}")
        return shape

    def set_tensor_address(self, name: str, tensor: Tensor) -> None:
        """Let the engine read an input from, or write an output to, this tensor, which is kept alive.

        Raises:
            BackendError: the name is unknown, or type, device or memory layout do not fit.
        """
        engine = self.engine
        info = engine.inputs.get(name) or engine.outputs.get(name)
        if info is None:
            names = ", ".join([*engine.inputs, *engine.outputs])
            raise BackendError(f"{engine.path.name} has no tensor {name}; it has {names}")
        if tensor.dtype != info.dtype:
            raise BackendError(f"{engine.path.name}: {name} is {tensor.dtype}, expected {info.dtype}")
        if tensor.device != engine.device:
            raise BackendError(f"{engine.path.name}: {name} is on {tensor.device}, expected {engine.device}")
        if not tensor.is_contiguous():
            raise BackendError(
                f"{engine.path.name}: {name} is not contiguous (strides {list(tensor.stride())})"
            )
        self._demand(
            self._context.set_tensor_address(name, tensor.data_ptr()), f"refuses the memory of {name}"
        )
        self._bound[name] = tensor

    def bind(self, tensors: Mapping[str, Tensor]) -> None:
        """Shapes and addresses of all inputs and outputs at once, and a comparison of the outputs' shapes
        with what the engine will write. Slow beside `execute`; once a shape.

        Raises:
            BackendError: a tensor is missing, unknown, or does not fit.
        """
        engine = self.engine
        absent = [name for name in (*engine.inputs, *engine.outputs) if name not in tensors]
        if absent:
            raise BackendError(f"{engine.path.name}: no tensor was given for {', '.join(absent)}")
        for name in engine.inputs:
            self.set_input_shape(name, tuple(tensors[name].shape))
        for name, tensor in tensors.items():
            self.set_tensor_address(name, tensor)
        for name in engine.outputs:
            shape = self.output_shape(name)
            if tuple(tensors[name].shape) != shape:
                raise BackendError(
                    f"{engine.path.name}: {name} has shape {list(tensors[name].shape)}, and the engine "
                    f"writes {list(shape)}"
                )

    def execute(self, stream: Any) -> None:
        """Put a run on a stream, and return without waiting.

        Args:
            stream: ``torch.cuda.Stream``, not the default one, of the engine's device, which is the current
                device.

        Raises:
            BackendError: TensorRT refused; the message holds what it said.
        """
        self.engine.library.messages.clear()
        self._demand(self._context.execute_async_v3(stream.cuda_stream), "did not run")

    def recordable(self, stream: Any) -> bool:
        """Whether a run on this stream can be captured in a CUDA graph; True where TensorRT cannot tell."""
        tell = getattr(self._context, "is_stream_capturable", None)
        return tell is None or bool(tell(stream.cuda_stream))

    def _demand(self, done: bool, what: str) -> None:
        if not done:
            raise BackendError(f"{self.engine.path.name} {what}: {self.engine.library.messages.reason()}")


def load(library: "TensorRT", path: Path, device: torch.device) -> LoadedEngine:
    """See `adapter.TensorRT.load`.

    The file is mapped, not read: its pages can be dropped again by the system, so that a board whose GPU
    shares the memory need not hold the plan twice.
    """
    module, messages = library.module, library.messages
    messages.clear()
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    plan = _mapped(path)
    with _current(device):
        try:
            runtime = module.Runtime(library.logger)
        except (RuntimeError, TypeError) as error:
            messages.add("ERROR", str(error))
            runtime = None
        if runtime is None:
            raise BackendError(f"{library.title} cannot start: {messages.reason()}")
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            reason = messages.reason() + _diagnosis(module, runtime, plan)
            raise BackendError(
                f"{path} cannot be used by {library.title} here: {reason}. Build it again with build_engine"
            )
    return LoadedEngine(library, runtime, engine, path, device)


def _diagnosis(module: Any, runtime: Any, plan: mmap.mmap) -> str:
    """What TensorRT-RTX can say about a plan's header, in its own words."""
    causes = getattr(module, "EngineInvalidityDiagnostics", None)
    if causes is None or not hasattr(runtime, "get_engine_validity"):
        return ""
    bits = int(runtime.get_engine_validity(plan)[1])
    names = [name for name, value in causes.__members__.items() if bits & int(value)]
    return f" ({', '.join(names)})" if names else ""


def _mapped(path: Path) -> mmap.mmap:
    """A file's content as a read-only buffer. It goes when nobody holds it, TensorRT included."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise BackendError(f"{path} does not exist; build it with build_engine") from error
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BackendError(f"{path} is empty; build it again with build_engine") from error


def _current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """TensorRT works on the current CUDA device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
