# SPDX-License-Identifier: Apache-2.0
"""What is quantised, and that the exported file computes what was measured when that was decided."""

import pytest
import torch

import support_deployed as support
from gr00t_model.errors import BackendError
from gr00t_model.inference.trt import qdq
from gr00t_model.inference.trt.export import export, shapes_of
from gr00t_model.inference.trt.operators import unsupported
from gr00t_model.inference.trt.quantize import check_target, groups_of, quantize
from support_network import worst

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("modelopt", reason="needs requirements/modelopt.txt")

SIZES = [(56, 56)]
TEXTS = (5, 9, 14)
NEVER = ("vision.patch", "head.decode2")


@pytest.fixture(scope="module")
def form():
    return support.small_form()


@pytest.fixture(scope="module")
def observations(form):
    return [support.observation(form.config, text, SIZES) for text in TEXTS]


@pytest.fixture(scope="module", params=["int8", "fp8"])
def recipe(request, form, observations):
    return quantize(form, request.param, observations, max_error=1.0)


def deviation(form, observations, actions):
    """1 - cosine of (action - noise) over all observations."""
    pairs = [
        (
            found - torch.from_numpy(given.noise),
            support.form_actions(form, given) - torch.from_numpy(given.noise),
        )
        for given, found in zip(observations, actions, strict=True)
    ]
    found, expected = (torch.cat([pair[side].flatten().double() for pair in pairs]) for side in (0, 1))
    return 1 - float(found @ expected / (found.norm() * expected.norm()))


def test_the_exported_file_has_the_error_that_was_measured(form, observations, recipe, tmp_path):
    shapes = shapes_of(form.config, SIZES)
    export(form, tmp_path, shapes, recipe=recipe)
    found = [
        support.onnx_actions(tmp_path, *support.engine_inputs(form, shapes, given, text))
        for text, given in zip(TEXTS, observations, strict=True)
    ]
    assert recipe.error > 1e-6
    # Values between two steps may fall to either side.
    assert deviation(form, observations, found) == pytest.approx(recipe.error, rel=0.25)
    kind = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}[recipe.precision]
    stored = set()
    for engine in ("backbone", "action"):
        path = tmp_path / f"{engine}.onnx"
        assert unsupported(path) == []
        model = onnx.load(path, load_external_data=False)
        weights = {w.name: w for w in model.graph.initializer}
        stored |= {name.rpartition(".weight_")[0] for name, w in weights.items() if w.data_type == kind}
        # Once a layer, however often it is used: no second copy in floating point.
        assert not [name for name in weights if name.removesuffix(".weight") in recipe.layers]
    assert {name for name in stored if name} == set(recipe.layers)


def test_what_decides_the_range_of_values_is_left_alone(form, recipe):
    assert set(recipe.layers).isdisjoint(NEVER)
    assert set(recipe.layers) == {name for names in groups_of(form).values() for name in names}
    assert set(recipe.groups.values()) == {recipe.precision}


def test_the_form_is_not_changed(form, observations):
    before = support.form_actions(form, observations[0])
    kinds = {type(module) for module in form.modules()}
    quantize(form, "int8", observations[:1], max_error=1.0)
    assert worst(support.form_actions(form, observations[0]), before) == 0
    assert {type(module) for module in form.modules()} == kinds


def test_groups_go_back_until_the_error_is_small_enough(form, observations):
    """One layer with an outlier is what INT8 cannot represent: it must go, the others may stay."""
    spoiled = support.small_form()
    layer = spoiled.head.blocks[1].fc2
    with torch.no_grad():
        layer.weight[:, 0] *= 1e-4
        spoiled.head.blocks[1].fc1.weight[0] *= 3000
    lines = []
    whole = quantize(spoiled, "int8", observations, max_error=1.0).error
    limit = whole / 5
    found = quantize(spoiled, "int8", observations, max_error=limit, progress=lines.append)
    assert found.error <= limit < whole
    assert set(found.errors) == set(groups_of(spoiled))
    back = {group for group, precision in found.groups.items() if precision != "int8"}
    assert "action_feed_forward" in back
    assert 0 < len(found.layers) < sum(map(len, groups_of(spoiled).values()))
    assert "head.blocks.1.fc2" not in found.layers
    assert any("action_feed_forward" in line for line in lines)


def test_an_impossible_limit_leaves_nothing_quantised(form, observations):
    found = quantize(form, "int8", observations[:1], max_error=-1.0)
    assert found.layers == {}
    assert set(found.groups.values()) == {"bf16"}


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_stored_weights_are_transposed_and_within_a_step(dtype):
    largest = 127.0 if dtype == torch.int8 else 448.0
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    scale = weight.abs().amax(dim=1) / largest if dtype == torch.int8 else weight.abs().max() / largest
    stored = qdq.quantised_weight(weight, scale, largest, dtype)
    assert stored.shape == (4, 6)
    restored = stored.float().T * (scale[:, None] if scale.ndim else scale)
    step = scale[:, None] * 0.51 if dtype == torch.int8 else weight.abs() / 16 + scale
    assert bool(((restored - weight).abs() <= step).all())


def test_chips_without_the_arithmetic_are_refused_with_what_to_use():
    with pytest.raises(BackendError, match=r"fp8 needs compute capability 8\.9 .* has 8\.7; use int8"):
        check_target("fp8", 87)
    with pytest.raises(BackendError, match="'fp16' is not one of"):
        check_target("fp16", 89)
    check_target("int8", 87)
    check_target("fp8", 89)


def test_nothing_to_calibrate_on_is_refused(form):
    with pytest.raises(BackendError, match="needs observations"):
        quantize(form, "fp8", [])
