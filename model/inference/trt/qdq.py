# SPDX-License-Identifier: Apache-2.0
"""Puts a recipe of `quantize` into an exported graph: explicit quantise and dequantise operators.

A quantised layer's product becomes ``MatMul(DQ(Q(x)), DQ(w))`` with ``w`` stored in 8 bits, transposed as the
product takes it: activations with one scale, weights with one (FP8) or one for each output (INT8). Which
product belongs to which layer is in the module path that torch.onnx notes at each node.
"""

import ast
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gr00t_model.errors import BackendError

if TYPE_CHECKING:
    from gr00t_model.inference.trt.quantize import LayerScale, Recipe

_SCOPES = "pkg.torch.onnx.name_scopes"
# The largest value of each type, and the type.
_TYPES = {"fp8": (448.0, torch.float8_e4m3fn), "int8": (127.0, torch.int8)}
# An activation that was always zero still needs a scale.
_SMALLEST = 1e-6


def layer_of(node: Any) -> str:
    """The module in which a node of an exported graph was made, by its path."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['', '']"))
    return scopes[-2] if len(scopes) > 1 else ""


def apply(recipe: "Recipe", model: Any, layers: Iterable[tuple[str, nn.Linear]]) -> list[str]:
    """Quantise the products of these layers, as far as the recipe names them, in an ``onnx_ir.Model``; give
    the names of those that were.

    Raises:
        BackendError: a layer of the recipe has no product in the graph.
    """
    wanted = {name: layer for name, layer in layers if name in recipe.layers}
    products: dict[str, list[Any]] = {name: [] for name in wanted}
    for node in model.graph:
        if node.op_type in ("MatMul", "Gemm") and layer_of(node) in products:
            products[layer_of(node)].append(node)
    strange = [n for n, nodes in products.items() if not nodes or any(p.op_type != "MatMul" for p in nodes)]
    if strange:
        raise BackendError(f"no product of {', '.join(strange)} was found in the exported graph")
    for name, nodes in products.items():
        _quantise(model.graph, name, nodes, wanted[name], recipe.layers[name], recipe.precision)
    _drop_unused(model)
    return list(products)


def _quantise(
    graph: Any, name: str, nodes: list[Any], layer: nn.Linear, scale: "LayerScale", precision: str
) -> None:
    import onnx_ir as ir

    largest, dtype = _TYPES[precision]
    kind = layer.weight.dtype
    zero = _initializer(graph, f"{name}.zero", torch.zeros((), dtype=dtype))
    activation = torch.tensor(max(scale.activation, _SMALLEST) / largest).to(kind)
    step = _initializer(graph, f"{name}.input_scale", activation)
    weight_scale = (scale.weight.clamp(min=_SMALLEST) / largest).to(kind)
    stored = _stored_weight(graph, f"{name}.weight_{precision}", layer, weight_scale, largest, dtype)
    weight_step = _initializer(graph, f"{name}.weight_scale", weight_scale)
    inputs = [stored, weight_step]
    attributes = [ir.AttrInt64("axis", 1)] if weight_scale.ndim else []
    weight = ir.Node("", "DequantizeLinear", inputs, attributes=attributes, name=f"{name}.weight_dq")
    _typed(weight, kind, tuple(reversed(layer.weight.shape)))
    graph.insert_before(nodes[0], weight)
    for number, node in enumerate(nodes):
        x = node.inputs[0]
        quantised = ir.Node("", "QuantizeLinear", [x, step, zero], name=f"{name}.input_q_{number}")
        quantised.outputs[0].dtype, quantised.outputs[0].shape = _ir_type(dtype), x.shape
        restored = ir.Node(
            "", "DequantizeLinear", [quantised.outputs[0], step, zero], name=f"{name}.input_dq_{number}"
        )
        restored.outputs[0].dtype, restored.outputs[0].shape = _ir_type(kind), x.shape
        graph.insert_before(node, [quantised, restored])
        node.replace_input_with(0, restored.outputs[0])
        node.replace_input_with(1, weight.outputs[0])


def quantised_weight(weight: Tensor, scale: Tensor, largest: float, dtype: torch.dtype) -> Tensor:
    """A weight [out, in] in 8 bits, transposed: [in, out]. scale [] or [out]."""
    steps = weight.detach().float().cpu() / (scale.float()[:, None] if scale.ndim else scale.float())
    steps = steps.clamp(-largest, largest)
    return (steps.round() if dtype == torch.int8 else steps).to(dtype).T.contiguous()


def _stored_weight(
    graph: Any, name: str, layer: nn.Linear, scale: Tensor, largest: float, dtype: torch.dtype
) -> Any:
    """An initializer that is computed when the file is written, so that one 8-bit copy lives at a time."""
    import onnx_ir as ir

    def make() -> Any:
        return _tensor(name, quantised_weight(layer.weight, scale, largest, dtype))

    shape = ir.Shape(tuple(reversed(layer.weight.shape)))
    tensor = ir.LazyTensor(make, dtype=_ir_type(dtype), shape=shape, name=name)
    return _register(graph, name, tensor)


def _initializer(graph: Any, name: str, value: Tensor) -> Any:
    return _register(graph, name, _tensor(name, value))


def _register(graph: Any, name: str, tensor: Any) -> Any:
    import onnx_ir as ir

    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _tensor(name: str, value: Tensor) -> Any:
    from onnx_ir.tensor_adapters import TorchTensor

    return TorchTensor(value, name=name)


def _typed(node: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    import onnx_ir as ir

    node.outputs[0].dtype, node.outputs[0].shape = _ir_type(dtype), ir.Shape(shape)


def _ir_type(dtype: torch.dtype) -> Any:
    from onnx_ir.tensor_adapters import from_torch_dtype

    return from_torch_dtype(dtype)


def _drop_unused(model: Any) -> None:
    """The weights that nothing reads any more, and what transposed them."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
