# SPDX-License-Identifier: Apache-2.0
"""NVFP4: the values, what the exported files hold and compute, and engines for Blackwell, which are built by
TensorRT-RTX and not run."""

import json

import numpy as np
import pytest
import torch

import support_deployed as support
from gr00t_model.checkpoint import read_config
from gr00t_model.errors import BackendError
from gr00t_model.inference.observations import synthetic
from gr00t_model.inference.trt import build as building
from gr00t_model.inference.trt import nvfp4
from gr00t_model.inference.trt.build import build_engine
from gr00t_model.inference.trt.export import export, shapes_of
from gr00t_model.inference.trt.operators import unsupported
from gr00t_model.inference.trt.planning import choose_precision
from gr00t_model.inference.trt.quantize import check_target, groups_of, quantize
from gr00t_model.processing import Gr00tProcessor
from support_checkpoints import tiny_checkpoint
from support_robots import shipped

SIZES = [(56, 56)]
TEXTS = (5, 14)
TAG = shipped("so101").embodiment_tag


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A form, observations, the recipe with every layer in NVFP4, and the folder of the ONNX files."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("modelopt", reason="needs requirements/modelopt.txt")
    form = support.small_form(max_state_dim=24)
    given = [support.observation(form.config, text, SIZES) for text in TEXTS]
    recipe = quantize(form, "nvfp4", given, max_error=1.0)
    folder = tmp_path_factory.mktemp("onnx")
    export(form, folder, shapes_of(form.config, SIZES), recipe=recipe)
    return form, given, recipe, folder


def values(*shape):
    """Values over five orders of magnitude, with a block of zeros."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(*shape, generator=generator)
    made *= 10 ** (-5 * torch.rand(shape[0], 1, generator=generator))
    made[0, : nvfp4.BLOCK] = 0
    return made


def test_values_come_back_on_the_e2m1_grid():
    given = values(12, 64)
    scale = nvfp4.global_scale(given.abs().max())
    scales = nvfp4.block_scales(given, scale)
    found = nvfp4.imitated(given, scale)
    steps = (scales.float() * scale).repeat_interleave(nvfp4.BLOCK, dim=-1)
    units = (found / steps).abs()
    grid = torch.tensor(nvfp4.GRID)
    assert bool((units[..., None] - grid).abs().amin(dim=-1).max() < 1e-5)
    assert float(scales.float().max()) == nvfp4.LARGEST_SCALE
    assert not found[0, : nvfp4.BLOCK].any()
    # No number of the grid is nearer; what a scale that was rounded down does not reach is cut off.
    inside = given.abs() <= 6 * steps
    best = ((given / steps).abs()[..., None] - grid).abs().amin(dim=-1)
    assert bool((((given - found) / steps).abs() - best).abs()[inside].max() < 1e-5)
    assert bool((units[~inside] - nvfp4.LARGEST).abs().max() < 1e-5)
    ordinary = steps >= 2.0**-6 * scale  # below, E4M3 has fewer digits
    assert bool((given.abs() <= 6 * steps * 1.07)[ordinary].all())


def test_halves_go_to_the_even_neighbour():
    given = torch.tensor([[0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0] * 2])
    given[:, 8:] *= -1
    one = torch.tensor(1.0)  # and so are the block's scales
    expected = torch.tensor([[0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0]])
    assert torch.equal(nvfp4.imitated(given, one), torch.cat((expected, -expected), dim=1))
    assert nvfp4.imitated(given.bfloat16(), one).dtype == torch.bfloat16


def unpacked(bytes_, scales, scale):
    """What stored weights stand for, by numpy alone."""
    magnitude = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
    codes = np.stack((bytes_ & 15, bytes_ >> 4), axis=-1).reshape(bytes_.shape[0], -1)
    units = magnitude[codes & 7] * np.where(codes & 8, np.float32(-1), np.float32(1))
    return units * np.repeat(scales.astype(np.float32) * np.float32(scale), 16, axis=1)


def test_packed_weights_stand_for_exactly_the_imitation():
    weight = values(8, 48)
    scale = nvfp4.global_scale(weight.abs().max())
    scales = nvfp4.block_scales(weight, scale).float().numpy()
    found = unpacked(nvfp4.packed(weight, scale).numpy(), scales, scale.item())
    assert np.array_equal(found, nvfp4.imitated(weight, scale).numpy())


def test_the_files_hold_what_was_imitated(exported):
    onnx = pytest.importorskip("onnx")
    form, _, recipe, folder = exported
    every = {name for names in groups_of(form).values() for name in names}
    # 24 inputs are not blocks of 16.
    assert set(recipe.layers) == every - {"head.state1"}
    assert recipe.groups["action_encoders"] == "nvfp4 (1 of 5 layers bf16)"
    assert {kind for group, kind in recipe.groups.items() if group != "action_encoders"} == {"nvfp4"}
    seen = set()
    for engine in ("backbone", "action"):
        model = onnx.load(folder / f"{engine}.onnx")
        onnx.checker.check_model(model)
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        for name in [n.removesuffix(".weight_nvfp4") for n in stored if n.endswith(".weight_nvfp4")]:
            packed = stored[f"{name}.weight_nvfp4"]
            assert packed.data_type == onnx.TensorProto.FLOAT4E2M1
            weight = form.get_submodule(name).weight.detach()
            assert tuple(packed.dims) == weight.shape
            found = unpacked(
                np.frombuffer(packed.raw_data, np.uint8).reshape(len(weight), -1),
                onnx.numpy_helper.to_array(stored[f"{name}.block_scale"]),
                onnx.numpy_helper.to_array(stored[f"{name}.weight_scale"]),
            )
            scale = nvfp4.global_scale(recipe.layers[name].weight)
            assert np.array_equal(found, nvfp4.imitated(weight, scale).numpy())
            assert f"{name}.weight" not in stored
            seen.add(name)
        # TensorRT 10.3 has no FP4 and no Blackwell; FP4 is all that keeps it from these files.
        assert {line.split(":")[0] for line in unsupported(model) if "FP4" not in line} == {
            "opset 23, expected 9 to 20",
            "DequantizeLinear of FLOAT4E2M1",
            "type FLOAT4E2M1",
        }
    assert seen == set(recipe.layers)


def test_the_exported_files_have_the_error_that_was_measured(exported):
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class TRT_FP4DynamicQuantize(OpRun):  # noqa: N801 - the operator's name
        op_domain = "trt"

        def _run(self, x, scale, axis=None, block_size=None, scale_type=None):
            assert (axis, block_size, scale_type) == (-1, 16, 17)
            given, overall = torch.tensor(x), torch.tensor(scale)
            scales = nvfp4.block_scales(given, overall)
            units = nvfp4.quantised(given, scales, overall)
            import ml_dtypes

            return units.numpy().astype(ml_dtypes.float4_e2m1fn), scales.float().numpy().astype(
                ml_dtypes.float8_e4m3fn
            )

    form, observations, recipe, folder = exported
    shapes = shapes_of(form.config, SIZES)
    runs = {
        engine: ReferenceEvaluator(str(folder / f"{engine}.onnx"), new_ops=[TRT_FP4DynamicQuantize])
        for engine in ("backbone", "action")
    }
    moved, exact = [], []
    for text, given in zip(TEXTS, observations, strict=True):
        first, second = (
            {name: value.numpy() for name, value in inputs.items()}
            for inputs in support.engine_inputs(form, shapes, given, text)
        )
        second |= dict(
            zip(("text_features", "image_features"), runs["backbone"].run(None, first), strict=True)
        )
        moved.append((runs["action"].run(None, second)[0] - given.noise).ravel())
        exact.append((support.form_actions(form, given).numpy() - given.noise).ravel())
    found, expected = np.concatenate(moved).astype(float), np.concatenate(exact).astype(float)
    error = 1 - found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected))
    assert recipe.error > 1e-4
    # Values between two steps may fall to either side.
    assert error == pytest.approx(recipe.error, rel=0.25)


def test_a_checkpoint_becomes_engines_for_blackwell(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("modelopt", reason="needs requirements/modelopt.txt")
    given = synthetic(
        Gr00tProcessor.from_pretrained(tiny_checkpoint()), TAG, read_config(tiny_checkpoint()), 1
    )
    # Random weights have no outliers to protect and nothing to gain from a search.
    monkeypatch.setattr(building, "quantize", lambda *a, **k: quantize(*a, **k, max_error=1.0))
    manifest = build_engine(
        tiny_checkpoint(),
        tmp_path / "engines",
        embodiment_tag=TAG,
        precision="nvfp4",
        target="sm120",
        calibration=given,
        num_steps=1,
        text_tokens=64,
    )
    assert manifest.precision.requested == "nvfp4"
    assert {kind.split(" ")[0] for kind in manifest.precision.groups.values()} == {"nvfp4"}
    assert manifest.calibration["observations"] == 1
    stored = json.loads((tmp_path / "engines" / "manifest.json").read_text())
    assert stored["precision"]["groups"] == manifest.precision.groups
    for name in ("backbone", "action"):
        assert (tmp_path / "engines" / f"{name}.engine").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("capability", "reason"),
    [(89, r"has 8\.9; use fp8"), (86, r"has 8\.6; use int8"), (90, r"has 9\.0; use fp8")],
)
def test_older_chips_are_refused_with_the_reason(tmp_path, monkeypatch, capability, reason):
    expected = rf"nvfp4 needs compute capability 10\.0 or later, the target {reason}"
    with pytest.raises(BackendError, match=expected):
        check_target("nvfp4", capability)
    if capability != 90:
        pytest.importorskip("tensorrt_rtx")
        monkeypatch.setattr(building, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
        with pytest.raises(BackendError, match=expected):
            build_engine(
                tiny_checkpoint(), tmp_path / "engines", embodiment_tag=TAG, precision="nvfp4",
                target=f"sm{capability}",
            )  # fmt: skip


def test_blackwell_and_thor_are_not_refused():
    for capability in (100, 110, 120, 121):
        assert choose_precision("nvfp4", capability, calibrated=True)[0] == "nvfp4"
    with pytest.raises(BackendError, match="nvfp4 needs recorded observations"):
        choose_precision("nvfp4", 120, calibrated=False)
