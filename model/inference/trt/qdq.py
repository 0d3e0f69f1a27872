# SPDX-License-Identifier: Apache-2.0
"""Puts a recipe of `quantize` into an exported graph: explicit quantise and dequantise operators.

A quantised layer's product becomes ``MatMul(DQ(Q(x)), DQ(w))`` with ``w`` stored in 8 bits, transposed as the
product takes it: activations with one scale, weights with one (FP8) or one for each output (INT8). Which
product belongs to which layer is in the module path that torch.onnx notes at each node.

NVFP4 (nvfp4.py) is written as modelopt does: weights stay [out, in] with blocks along the input and are
dequantised in two steps, the block scales first; activations are quantised by ``TRT_FP4DynamicQuantize``.
Such a file needs ONNX operator set 23 and TensorRT 10.8.
"""

import ast
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt import nvfp4
from gr00t_model.inference.trt.operators import TRT_DOMAIN

if TYPE_CHECKING:
    from gr00t_model.inference.trt.quantize import LayerScale, Recipe

_SCOPES = "pkg.torch.onnx.name_scopes"
# The largest value of each type, and the type.
_TYPES = {"fp8": (448.0, torch.float8_e4m3fn), "int8": (127.0, torch.int8)}
# What was always zero still needs a scale.
_SMALLEST = nvfp4.SMALLEST
# The first operator set with four-bit floats, and the first version of the file format.
_NVFP4_OPSET, _NVFP4_IR = 23, 11


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
        if recipe.precision == "nvfp4":
            _quantise_nvfp4(model.graph, name, nodes, wanted[name], recipe.layers[name])
        else:
            _quantise(model.graph, name, nodes, wanted[name], recipe.layers[name], recipe.precision)
    if recipe.precision == "nvfp4" and products:
        model.graph.opset_imports.update({"": _NVFP4_OPSET, TRT_DOMAIN: 1})
        model.ir_version = max(model.ir_version, _NVFP4_IR)
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


def _quantise_nvfp4(graph: Any, name: str, nodes: list[Any], layer: nn.Linear, scale: "LayerScale") -> None:
    kind = layer.weight.dtype
    weight = _nvfp4_weight(graph, nodes[0], name, layer, scale.weight)
    step = nvfp4.global_scale(max(scale.activation, _SMALLEST))
    given = _initializer(graph, f"{name}.input_scale", step)
    for number, node in enumerate(nodes):
        x, at = node.inputs[0], f"{name}.input_%s_{number}"
        values, scales = _made(
            graph, node, "TRT_FP4DynamicQuantize", [x, given], at % "q", (_fp4(), torch.float8_e4m3fn),
            domain=TRT_DOMAIN, axis=-1, block_size=nvfp4.BLOCK, scale_type=int(_ir_type(torch.float8_e4m3fn)),
        )  # fmt: skip
        steps = _made(graph, node, "DequantizeLinear", [scales, given], at % "block_dq", (torch.float32,))[0]
        restored = _restored(graph, node, values, steps, at % "dq")
        values.shape = restored.shape = x.shape
        node.replace_input_with(0, _cast(graph, node, restored, kind, at % "cast"))
        node.replace_input_with(1, weight)


def _nvfp4_weight(graph: Any, before: Any, name: str, layer: nn.Linear, largest: Tensor) -> Any:
    """What a product takes: the stored weight, dequantised and transposed."""
    import onnx_ir as ir

    out, width = layer.weight.shape
    scale = nvfp4.global_scale(largest.clamp(min=_SMALLEST))
    blocks = (out, width // nvfp4.BLOCK)
    stored = _lazy(
        graph, f"{name}.weight_nvfp4", _fp4(), (out, width), lambda: nvfp4.packed(layer.weight, scale)
    )
    inner = _lazy(
        graph,
        f"{name}.block_scale",
        _ir_type(torch.float8_e4m3fn),
        blocks,
        lambda: nvfp4.block_scales(layer.weight.detach().cpu(), scale),
    )
    outer = _initializer(graph, f"{name}.weight_scale", scale)
    block = _made(graph, before, "DequantizeLinear", [inner, outer], f"{name}.block_dq", (torch.float32,))[0]
    weight = _restored(graph, before, stored, block, f"{name}.weight_dq")
    turned = _made(graph, before, "Transpose", [weight], f"{name}.weight_t", (torch.float32,), perm=(1, 0))[0]
    for value, shape in ((block, blocks), (weight, (out, width)), (turned, (width, out))):
        value.shape = ir.Shape(shape)
    return _cast(graph, before, turned, layer.weight.dtype, f"{name}.weight_cast")


def _fp4() -> Any:
    import onnx_ir as ir

    return ir.DataType.FLOAT4E2M1


def _restored(graph: Any, before: Any, values: Any, scales: Any, name: str) -> Any:
    """Blocks along the last dimension times their scales."""
    return _made(
        graph, before, "DequantizeLinear", [values, scales], name, (torch.float32,),
        axis=-1, block_size=nvfp4.BLOCK,
    )[0]  # fmt: skip


def _cast(graph: Any, before: Any, value: Any, dtype: torch.dtype, name: str) -> Any:
    if dtype == torch.float32:
        return value
    cast = _made(graph, before, "Cast", [value], name, (dtype,), to=int(_ir_type(dtype)))[0]
    cast.shape = value.shape
    return cast


def _made(
    graph: Any,
    before: Any,
    operator: str,
    inputs: list[Any],
    name: str,
    types: tuple[Any, ...],
    domain: str = "",
    **attributes: Any,
) -> Any:
    """The outputs, of these types, of a new node before another."""
    import onnx_ir as ir

    listed = [
        ir.AttrInt64s(k, v) if isinstance(v, tuple) else ir.AttrInt64(k, v) for k, v in attributes.items()
    ]
    node = ir.Node(domain, operator, inputs, attributes=listed, num_outputs=len(types), name=name)
    for output, kind in zip(node.outputs, types, strict=True):
        output.dtype = _ir_type(kind) if isinstance(kind, torch.dtype) else kind
    graph.insert_before(before, node)
    return node.outputs


def quantised_weight(weight: Tensor, scale: Tensor, largest: float, dtype: torch.dtype) -> Tensor:
    """A weight [out, in] in 8 bits, transposed: [in, out]. scale [] or [out]."""
    steps = weight.detach().float().cpu() / (scale.float()[:, None] if scale.ndim else scale.float())
    steps = steps.clamp(-largest, largest)
    return (steps.round() if dtype == torch.int8 else steps).to(dtype).T.contiguous()


def _stored_weight(
    graph: Any, name: str, layer: nn.Linear, scale: Tensor, largest: float, dtype: torch.dtype
) -> Any:
    shape = (layer.weight.shape[1], layer.weight.shape[0])
    return _lazy(
        graph, name, _ir_type(dtype), shape, lambda: quantised_weight(layer.weight, scale, largest, dtype)
    )


def _lazy(graph: Any, name: str, kind: Any, shape: tuple[int, ...], compute: Callable[[], Tensor]) -> Any:
    """An initializer computed when the file is written, so that one quantised copy lives at a time."""
    import onnx_ir as ir

    def make() -> Any:
        if kind == _fp4():
            return ir.PackedTensor(compute().numpy(), kind, shape=shape, name=name)
        return _tensor(name, compute())

    return _register(graph, name, ir.LazyTensor(make, dtype=kind, shape=ir.Shape(shape), name=name))


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
