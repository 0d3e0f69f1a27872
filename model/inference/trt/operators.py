# SPDX-License-Identifier: Apache-2.0
"""What the ONNX parser of TensorRT 10.3, the one in JetPack 6, takes.

An export is held against this list on any machine, long before a Jetson sees it. The facts are those of the
onnx-tensorrt project: the operator table that its 10.1 release carries, and its changelog, by which neither
10.2 nor 10.3 added or dropped an operator.

NVFP4 files are exempt: they are for Blackwell, which needs TensorRT 10.8 or later, and 10.3 has no FP4.
"""

import os
from collections.abc import Iterator
from typing import Any

from gr00t_model.errors import BackendError

MIN_OPSET = 9
MAX_OPSET = 20

_FLOAT = frozenset({"FLOAT", "FLOAT16", "BFLOAT16"})
_NUMBER = _FLOAT | {"INT32", "INT64"}
_ANY = _NUMBER | {"BOOL"}
_NO_BFLOAT = frozenset({"FLOAT", "FLOAT16"})
_BOOL = frozenset({"BOOL"})
_QUANTISED = frozenset({"INT8", "INT4", "FLOAT8E4M3FN"})

# The element types it knows at all. DOUBLE is narrowed to FLOAT, UINT8 is only for inputs and outputs of the
# network, the quantised ones only for what lies between QuantizeLinear and DequantizeLinear.
DATA_TYPES = _ANY | _QUANTISED | {"DOUBLE", "UINT8"}

_BY_TYPES: dict[frozenset[str], str] = {
    _FLOAT: """
        Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos
        Cosh CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        GroupNormalization HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization IsInf LRN LSTM
        LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool
        MeanVarianceNormalization PRelu ParametricSoftplus Pow QuantizeLinear RNN RandomNormal
        RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize Round ScaledTanh Scan Selu Sigmoid
        Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample
    """,
    _NUMBER: """
        Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min
        Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
        ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth
        Sub Sum TopK
    """,
    _ANY: """
        Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop
        OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where
    """,
    _ANY | {"UINT8"}: "Cast CastLike",
    _NO_BFLOAT: "DeformConv GridSample Mish NonMaxSuppression NonZero RoiAlign",
    _NUMBER | {"INT8"}: "Gelu",
    _NUMBER | {"FLOAT8E4M3FN"}: "Mean",
    _BOOL: "And Not Or Xor",
    _QUANTISED: "DequantizeLinear",
}

# operator: the element types of its data that it takes
OPERATOR_TYPES = {name: types for types, names in _BY_TYPES.items() for name in names.split()}
OPERATORS = frozenset(OPERATOR_TYPES)

# Operators of TensorRT's own, as modelopt writes them: quantisation to types that ONNX came to later.
TRT_DOMAIN = "trt"
TRT_OPERATORS = frozenset(
    {
        "TRT_FP8QuantizeLinear",
        "TRT_FP8DequantizeLinear",
        "TRT_INT4QuantizeLinear",
        "TRT_INT4DequantizeLinear",
    }
)

_DEFAULT_DOMAINS = ("", "ai.onnx")
# Where the first input is not the data, or its type is not the question.
_DATA_INPUT = {"Where": 1}
_UNTYPED = frozenset({"Cast", "CastLike", "ConstantOfShape", "If", "Loop", "Scan"})


def unsupported(model: Any) -> list[str]:
    """What TensorRT 10.3 would not take of an ONNX model.

    Looks at the opset, at every operator (of subgraphs and local functions too), and at element types as far
    as the file states them. Restrictions on attributes and shapes are not looked at.

    Args:
        model: ``onnx.ModelProto``, or the path of one; external data is not read.

    Returns:
        One line for each, naming the operator, how many nodes have it, and the first of them.

    Raises:
        BackendError: the onnx package is missing, or the file is not an ONNX model.
    """
    try:
        import onnx
    except ImportError as error:
        raise BackendError("checking an ONNX file needs the onnx package; `pip install onnx`") from error
    if isinstance(model, str | os.PathLike):
        try:
            model = onnx.load(os.fspath(model), load_external_data=False)
        except Exception as error:  # protobuf's own, which has no common name across its versions
            raise BackendError(f"{os.fspath(model)} is not a readable ONNX file: {error}") from error
    found = _Findings(onnx.TensorProto.DataType.Name)
    for opset in model.opset_import:
        if opset.domain in _DEFAULT_DOMAINS and not MIN_OPSET <= opset.version <= MAX_OPSET:
            found.lines.append(f"opset {opset.version}, expected {MIN_OPSET} to {MAX_OPSET}")
    found.local = {(function.domain, function.name) for function in model.functions}
    found.graph(model.graph, {})
    for function in model.functions:
        for node in function.node:
            found.node(node, {})
    return found.lines + found.summary()


class _Findings:
    """What a walk over a model comes upon."""

    def __init__(self, type_name: Any) -> None:
        self.lines: list[str] = []
        self.local: set[tuple[str, str]] = set()
        self._type_name = type_name
        self._nodes: dict[str, list[str]] = {}

    def summary(self) -> list[str]:
        """A line for each finding, in the order of their names."""
        return [
            f"{what}: {len(names)} node{'s' if len(names) > 1 else ''}, first {names[0]!r}"
            for what, names in sorted(self._nodes.items())
        ]

    def graph(self, graph: Any, outer: dict[str, str]) -> None:
        """A graph and everything in it. `outer` holds the types of the tensors around it."""
        types = dict(outer)
        for name, number in _stated_types(graph):
            types[name] = self._type_name(number)
            if types[name] not in DATA_TYPES | {"UNDEFINED"}:
                self._add(f"type {types[name]}", name)
        for node in graph.node:
            self.node(node, types)

    def node(self, node: Any, types: dict[str, str]) -> None:
        """A node and its subgraphs."""
        name = node.name or next(iter(node.output), "")
        domain = "" if node.domain in _DEFAULT_DOMAINS else node.domain
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                self.graph(graph, types)
        if (node.domain, node.op_type) in self.local:
            return
        known = {"": OPERATORS, TRT_DOMAIN: TRT_OPERATORS}.get(domain, frozenset())
        if node.op_type not in known:
            self._add(f"{domain}::{node.op_type}" if domain else node.op_type, name)
            return
        self._check_type(node, name, types)

    def _check_type(self, node: Any, name: str, types: dict[str, str]) -> None:
        if node.op_type in _UNTYPED or node.op_type not in OPERATOR_TYPES:
            return
        place = _DATA_INPUT.get(node.op_type, 0)
        found = types.get(node.input[place]) if len(node.input) > place else None
        narrowed = "FLOAT" if found == "DOUBLE" else found
        if narrowed not in (None, "UNDEFINED") and narrowed not in OPERATOR_TYPES[node.op_type]:
            self._add(f"{node.op_type} of {found}", name)

    def _add(self, what: str, name: str) -> None:
        self._nodes.setdefault(what, []).append(name)


def _stated_types(graph: Any) -> Iterator[tuple[str, int]]:
    """Names and element types that a graph states."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name, value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type
