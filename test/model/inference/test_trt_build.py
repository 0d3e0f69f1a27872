# SPDX-License-Identifier: Apache-2.0
"""Engines built by TensorRT-RTX, which needs no GPU to build. None of them is run here."""

import json
import types

import pytest
import torch

import support_deployed as support
from gr00t_model.checkpoint import read_config
from gr00t_model.errors import BackendError
from gr00t_model.inference.observations import synthetic
from gr00t_model.inference.trt.adapter import find_tensorrt
from gr00t_model.inference.trt.build import build_engine
from gr00t_model.inference.trt.export import export, profiles, shapes_of
from gr00t_model.inference.trt.fingerprint import checkpoint_sha256
from gr00t_model.inference.trt.manifest import Manifest, engine_files
from gr00t_model.inference.trt.planning import choose_precision
from gr00t_model.inference.trt.quantize import quantize
from gr00t_model.processing import Gr00tProcessor
from support_checkpoints import tiny_checkpoint
from support_robots import shipped

pytest.importorskip("onnxscript")
pytest.importorskip("tensorrt_rtx")

SIZES = [(56, 56)]
TAG = shipped("so101").embodiment_tag


@pytest.fixture(scope="module")
def form():
    return support.small_form(torch.bfloat16)


def build_both(folder, form, shapes, target):
    library = find_tensorrt("tensorrt_rtx")
    for engine, ranges in profiles(form, shapes).items():
        plan = folder / f"{engine}.{target}.plan"
        report = library.build(folder / f"{engine}.onnx", plan, ranges, target=target)
        assert report.nbytes == plan.stat().st_size > 10_000
        assert report.target == target


@pytest.fixture(scope="module")
def exported(form, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bf16")
    shapes = shapes_of(form.config, SIZES)
    export(form, folder, shapes)
    return folder, shapes


@pytest.mark.parametrize("target", ["sm86", "sm89", "sm120"])
def test_bfloat16_is_built(form, exported, target):
    build_both(exported[0], form, exported[1], target)


@pytest.mark.parametrize(("precision", "target"), [("int8", "sm86"), ("fp8", "sm89")])
def test_quantised_graphs_are_built(form, tmp_path, precision, target):
    pytest.importorskip("modelopt", reason="needs requirements/modelopt.txt")
    shapes = shapes_of(form.config, SIZES)
    given = [support.observation(form.config, text, SIZES) for text in (5, 14)]
    recipe = quantize(form, precision, given, max_error=1.0)
    export(form, tmp_path, shapes, recipe=recipe)
    build_both(tmp_path, form, shapes, target)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Engines of a tiny checkpoint, and what was reported on the way."""
    output = tmp_path_factory.mktemp("engines") / "so101"
    said = []
    build_engine(
        tiny_checkpoint(),
        output,
        embodiment_tag=TAG,
        precision="auto",
        target="sm89",
        num_steps=1,
        text_tokens=64,
        progress=lambda text, share: said.append((text, share)),
    )
    return output, said


def test_a_checkpoint_becomes_a_directory_of_engines(built):
    output, said = built
    assert sorted(path.name for path in output.iterdir()) == [
        "action.engine",
        "backbone.engine",
        "manifest.json",
    ]
    assert [p.name for p in output.parent.iterdir()] == [output.name]
    manifest = Manifest.read(output)
    assert manifest.checkpoint.sha256 == checkpoint_sha256(tiny_checkpoint())
    assert manifest.files == engine_files(output)
    assert manifest.gpu.target == "sm89"
    assert manifest.gpu.compute_capability == "8.9"
    assert manifest.num_steps == 1
    assert manifest.precision.groups == {"all": "bf16"}
    assert "calibrate" in manifest.build["precision_reason"]
    assert manifest.shapes.images == ((2, 252, 252),)
    assert manifest.shapes.text == (1, 64, 64)
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_an_interrupted_build_goes_on_from_its_onnx_files(tmp_path, monkeypatch):
    """Ctrl-C while TensorRT builds; the second build must not export again."""
    output = tmp_path / "engines"
    options = {"embodiment_tag": TAG, "precision": "bf16", "target": "sm89", "num_steps": 1}

    def stop(text, share):
        if text.startswith("backbone: ") and share > 0.36:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(tiny_checkpoint(), output, progress=stop, **options)
    assert not output.exists()
    partial = tmp_path / "engines.partial"
    assert (partial / "onnx" / "export.json").exists()

    def never(*_, **__):
        raise AssertionError("exported again")

    monkeypatch.setattr("gr00t_model.inference.trt.build.export", never)
    with pytest.raises(AssertionError, match="exported again"):
        build_engine(tiny_checkpoint(), tmp_path / "engines", **{**options, "num_steps": 2})
    assert not (partial / "onnx" / "export.json").exists(), "files of another request must not stay"


def test_precision_is_chosen_by_chip_and_calibration():
    assert choose_precision("auto", 89, calibrated=True)[0] == "fp8"
    assert choose_precision("auto", 120, calibrated=True)[0] == "fp8"
    assert choose_precision("auto", 87, calibrated=True)[0] == "int8"
    assert choose_precision("auto", None, calibrated=True)[0] == "bf16"
    precision, reason = choose_precision("auto", 89, calibrated=False)
    assert precision == "bf16"
    assert "calibrate" in reason
    with pytest.raises(BackendError, match="fp8 needs recorded observations"):
        choose_precision("fp8", 89, calibrated=False)
    with pytest.raises(BackendError, match="use int8"):
        choose_precision("fp8", 87, calibrated=True)


def test_what_cannot_be_built_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("gr00t_model.inference.trt.build.load_model", never)

    def build(match, output=tmp_path / "engines", **options):
        with pytest.raises(BackendError, match=match):
            build_engine(tiny_checkpoint(), output, **{"embodiment_tag": TAG, "target": "sm89", **options})

    build("fp16.* is not one of", precision="fp16")
    build("nvfp4 is not built yet", precision="nvfp4", target="sm120")
    build("30 x 56 is not a multiple", image_sizes=[(30, 56), (28, 28)])
    build("1 image sizes were given, .* has 2", image_sizes=[(28, 28)])
    build("horizon 51", horizon=51)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    build("holds no engines", output=other)
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=1))
    build(r"0\.0 GB free, the build needs about", precision="bf16")
    assert (other / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.slow
def test_calibrated_engines_say_what_became_of_each_group(tmp_path):
    pytest.importorskip("modelopt", reason="needs requirements/modelopt.txt")
    processor = Gr00tProcessor.from_pretrained(tiny_checkpoint())
    given = synthetic(processor, TAG, read_config(tiny_checkpoint()), 2)
    manifest = build_engine(
        tiny_checkpoint(),
        tmp_path / "engines",
        embodiment_tag=TAG,
        target="sm89",
        calibration=given,
        num_steps=1,
    )
    assert manifest.precision.requested == "auto"
    assert "vision_mlp" in manifest.precision.groups
    assert manifest.calibration["observations"] == 2
    assert manifest.calibration["one_minus_cosine"] <= 1e-3
    assert (tmp_path / "engines" / "observations.safetensors").exists()
    assert json.loads((tmp_path / "engines" / "manifest.json").read_text())["digest"] == manifest.digest
