# SPDX-License-Identifier: Apache-2.0
"""Both ONNX files against the deployed form, in float32 by onnxruntime, and what they are made of."""

import numpy as np
import pytest
import torch

import support_deployed as support
from gr00t_model.errors import BackendError
from gr00t_model.inference.deployed import deploy
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.trt.export import export, linear_layers, shapes_of
from gr00t_model.inference.trt.operators import unsupported
from gr00t_model.inference.trt.prompt import group_images, prompt_for
from support_network import full, needs_full_set, worst

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

# One image; two of one size with another between them; two sizes.
CAMERAS = {
    "one": [(56, 56)],
    "three": [(28, 56), (56, 56), (28, 56)],
}
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def form():
    return support.small_form()


@pytest.fixture(scope="module", params=CAMERAS.values(), ids=CAMERAS)
def exported(request, form, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    shapes = shapes_of(form.config, request.param)
    export(form, folder, shapes)
    return request.param, shapes, folder


def guidance(form):
    generator = np.random.default_rng(5)
    horizon = form.config.action_horizon
    prefix = generator.standard_normal((1, horizon, form.config.max_action_dim), dtype=np.float32)
    return Guidance(prefix, generator.random((form.num_steps, horizon), dtype=np.float32))


@pytest.mark.parametrize(("text", "bucket"), [(2, 2), (7, 32), (90, 256)])
def test_actions_are_those_of_the_deployed_form(form, exported, text, bucket):
    sizes, shapes, folder = exported
    given = support.observation(form.config, text, sizes)
    found = support.onnx_actions(folder, *support.engine_inputs(form, shapes, given, bucket))
    assert worst(found, support.form_actions(form, given)) < TOLERANCE


def test_a_committed_plan_is_followed_as_the_form_follows_it(form, exported):
    sizes, shapes, folder = exported
    given, plan = support.observation(form.config, 9, sizes), guidance(form)
    found = support.onnx_actions(folder, *support.engine_inputs(form, shapes, given, 32, plan))
    expected = support.form_actions(form, given, plan)
    assert worst(found, expected) < TOLERANCE
    assert worst(expected, support.form_actions(form, given)) > 0.1, "the plan must matter"


def test_inputs_and_outputs_are_named_and_typed_as_the_engine_binds_them(form, exported):
    sizes, _, folder = exported
    names = {}
    for engine in ("backbone", "action"):
        graph = onnx.load(folder / f"{engine}.onnx", load_external_data=False).graph
        names[engine] = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    number = onnx.TensorProto
    pixels = {f"pixels_{k}": number.FLOAT for k in range(len(set(sizes)))}
    assert names["backbone"] == {
        **pixels,
        "text_embeddings": number.FLOAT,
        "order": number.INT32,
        "text_index": number.INT32,
        "image_index": number.INT32,
        "text_features": number.FLOAT,
        "image_features": number.FLOAT,
    }
    floats = ("text_features", "image_features", "state", "noise", "prefix", "weight", "actions")
    assert names["action"] == {"text_mask": number.BOOL, **dict.fromkeys(floats, number.FLOAT)}


def test_tensorrt_10_3_takes_every_operator(exported):
    for engine in ("backbone", "action"):
        assert unsupported(exported[2] / f"{engine}.onnx") == []


def test_bfloat16_keeps_statistics_and_the_sum_of_steps_in_float32():
    *_, folder = support.bfloat16_export()
    for engine in ("backbone", "action"):
        assert unsupported(folder / f"{engine}.onnx") == []
        model = onnx.load(folder / f"{engine}.onnx", load_external_data=False)
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
        types |= {v.name: v.type.tensor_type.elem_type for v in model.graph.output}
        for node in model.graph.node:
            if node.op_type == "LayerNormalization":
                stash = [a.i for a in node.attribute if a.name == "stash_type"]
                assert stash in ([], [onnx.TensorProto.FLOAT]), node.name
            if node.op_type in ("ReduceMean", "Sqrt", "Reciprocal", "Pow"):
                assert types[node.output[0]] == onnx.TensorProto.FLOAT, node.name
        kinds = [t for name, t in types.items() if name == "actions"]
        assert kinds == ([onnx.TensorProto.FLOAT] if engine == "action" else [])


def test_weights_are_outside_and_stored_once(form, exported):
    *_, folder = exported
    assert {path.name for path in folder.iterdir()} == {
        f"{engine}.onnx{end}" for engine in ("backbone", "action") for end in ("", ".data")
    }
    for engine in ("backbone", "action"):
        # As many as there are layers, however many steps or sizes of image use them.
        weights = {tuple(sorted(layer.weight.shape)) for _, layer in linear_layers(form, engine)}
        stored = onnx.load(folder / f"{engine}.onnx", load_external_data=False).graph.initializer
        found = [tensor for tensor in stored if tuple(sorted(tensor.dims)) in weights]
        tables = 6  # positions, scales and cosines can have the shape of a weight
        assert len(found) <= len(linear_layers(form, engine)) + tables, engine


@needs_full_set
def test_golden_weights_and_inputs(tmp_path):
    golden = full()
    form = deploy(golden.model(), int(golden.inputs["embodiment_id"][0]))
    ids, mask = golden.inputs["input_ids"][:1], golden.inputs["attention_mask"][:1]
    of_first = int((ids == form.config.image_token_id).sum())
    unit = form.config.image_multiple
    images, tokens = [], 0
    for image in golden.inputs["pixel_values"]:
        if tokens < of_first:
            images.append(image)
            tokens += image.shape[-2] // unit * (image.shape[-1] // unit)
    sizes = [tuple(image.shape[-2:]) for image in images]
    shapes = shapes_of(form.config, sizes)
    export(form, tmp_path, shapes)
    prompt = prompt_for(ids, mask, form.config.image_token_id, sizes, shapes.groups, unit, 64)
    first = {
        f"pixels_{k}": torch.cat([images[i] for i in own])
        for k, own in enumerate(group_images(sizes, shapes.groups))
    }
    first["text_embeddings"] = form.embed_tokens[prompt.text_ids]
    first |= {"order": prompt.order, "text_index": prompt.text_index, "image_index": prompt.image_index}
    noise = golden.outputs["infer.initial_noise"][:1]
    second = {
        "text_mask": prompt.text_mask,
        "state": golden.inputs["state"][:1],
        "noise": noise,
        "prefix": torch.zeros_like(noise),
        "weight": torch.ones(form.num_steps, noise.shape[1]),
    }
    found = support.onnx_actions(tmp_path, first, second)
    assert worst(found, golden.outputs["infer.action_pred"][:1]) < TOLERANCE


def test_what_engines_cannot_be_made_for_is_refused(form):
    plain = support.small_form(use_alternate_vl_dit=False)
    with pytest.raises(BackendError, match="use_alternate_vl_dit"):
        shapes_of(plain.config, [(56, 56)])
    with pytest.raises(BackendError, match="30 x 56 is not a multiple of 28"):
        shapes_of(form.config, [(30, 56)])
    with pytest.raises(BackendError, match="horizon 7 is outside 1 to 6"):
        shapes_of(form.config, [(56, 56)], horizon=7)
    with pytest.raises(BackendError, match="at least one image"):
        shapes_of(form.config, [])
