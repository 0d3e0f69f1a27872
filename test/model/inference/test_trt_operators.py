# SPDX-License-Identifier: Apache-2.0
"""The list of what the ONNX parser of TensorRT 10.3 takes, and the walk that holds a model against it."""

import pytest

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt.operators import MAX_OPSET, OPERATORS, TRT_OPERATORS, unsupported


@pytest.fixture
def helper():
    onnx = pytest.importorskip("onnx")
    return onnx.helper


def model(helper, nodes, opset=18, functions=(), types=None, imports=()):
    inputs = [helper.make_tensor_value_info(n, t, [2]) for n, t in (types or {"x": 1}).items()]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", 0, [2])])
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in imports)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions)


def test_what_10_3_takes_is_left_alone(helper, tmp_path):
    import onnx

    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["m"]),
        helper.make_node("TRT_FP8QuantizeLinear", ["m", "s"], ["q"], domain="trt"),
        helper.make_node("TRT_FP8DequantizeLinear", ["q", "s"], ["d"], domain="trt"),
        helper.make_node("LayerNormalization", ["d", "s"], ["n"], domain="ai.onnx"),
        helper.make_node("Where", ["b", "n", "x"], ["y"]),
    ]
    made = model(helper, nodes, types={"x": 16, "s": 1, "b": 9}, imports=["trt"])
    assert unsupported(made) == []
    onnx.save(made, tmp_path / "m.onnx")
    assert unsupported(tmp_path / "m.onnx") == unsupported(str(tmp_path / "m.onnx")) == []


def test_unknown_operators_are_listed_wherever_they_are(helper):
    inner = helper.make_graph(
        [helper.make_node("BitwiseAnd", ["x", "x"], ["z"], name="deep")],
        "inner",
        [],
        [helper.make_tensor_value_info("z", 1, [2])],
    )
    function = helper.make_function(
        "local", "Norm", ["a"], ["c"],
        [helper.make_node("RMSNormalization", ["a"], ["c"], name="rms")],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    nodes = [
        helper.make_node("If", ["b"], ["z"], then_branch=inner, else_branch=inner),
        helper.make_node("Norm", ["x"], ["n"], domain="local"),
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft", name="gelu"),
        helper.make_node("TRT_FP4DynamicQuantize", ["x"], ["f", "s"], domain="trt"),
        helper.make_node("Unique", ["x"], ["y"], name="u"),
    ]
    found = unsupported(model(helper, nodes, functions=[function], types={"x": 1, "b": 9}))
    assert found == [
        "BitwiseAnd: 2 nodes, first 'deep'",
        "RMSNormalization: 1 node, first 'rms'",
        "Unique: 1 node, first 'u'",
        "com.microsoft::Gelu: 1 node, first 'gelu'",
        "trt::TRT_FP4DynamicQuantize: 1 node, first 'f'",
    ]


def test_opsets_and_types(helper):
    add = [helper.make_node("Add", ["x", "x"], ["y"])]
    assert unsupported(model(helper, add, opset=MAX_OPSET)) == []
    assert unsupported(model(helper, add, opset=MAX_OPSET + 1)) == ["opset 21, expected 9 to 20"]
    assert unsupported(model(helper, add, opset=8)) == ["opset 8, expected 9 to 20"]
    sums = [helper.make_node("CumSum", ["x", "a"], ["y"], name="c")]
    assert unsupported(model(helper, sums, types={"x": 7, "a": 7})) == ["CumSum of INT64: 1 node, first 'c'"]
    assert unsupported(model(helper, sums, types={"x": 16, "a": 7})) == []
    assert unsupported(model(helper, sums, types={"x": 11, "a": 7})) == []  # narrowed
    where = [helper.make_node("Where", ["b", "x", "x"], ["y"], name="w")]
    assert unsupported(model(helper, where, types={"b": 9, "x": 3})) == ["Where of INT8: 1 node, first 'w'"]
    assert "type UINT64: 1 node, first 'x'" in unsupported(model(helper, add, types={"x": 13}))


def test_files_that_are_no_onnx(helper, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\xffnothing")
    with pytest.raises(BackendError, match=r"m.onnx is not a readable ONNX file"):
        unsupported(tmp_path / "m.onnx")


def test_the_list_names_real_operators(helper):
    import onnx

    retired = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}  # of ONNX's experimental days
    assert {name for name in OPERATORS if not onnx.defs.has(name)} == retired
    assert len(TRT_OPERATORS) == 4
    assert len(OPERATORS) == 150
