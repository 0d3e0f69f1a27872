# SPDX-License-Identifier: Apache-2.0
"""Engines built by TensorRT-RTX, which needs no GPU to build. None of them is run here."""

import json
import types

import pytest

import support_deployed as support
from gr00t_model.checkpoint import read_config
from gr00t_model.errors import BackendError
from gr00t_model.inference.observations import synthetic
from gr00t_model.inference.trt import build as building
from gr00t_model.inference.trt import planning
from gr00t_model.inference.trt.adapter import find_tensorrt
from gr00t_model.inference.trt.build import build_engine
from gr00t_model.inference.trt.export import action_inputs, backbone_inputs, export, profiles
from gr00t_model.inference.trt.fingerprint import checkpoint_sha256
from gr00t_model.inference.trt.manifest import Manifest, engine_files
from gr00t_model.inference.trt.planning import choose_precision
from gr00t_model.inference.trt.quantize import quantize
from gr00t_model.processing import Gr00tProcessor
from support_checkpoints import tiny_checkpoint
from support_fake_tensorrt import FakeTensorRT
from support_robots import shipped

pytest.importorskip("onnxscript")
pytest.importorskip("tensorrt_rtx")

SIZES = [(56, 56)]
TAG = shipped("so101").embodiment_tag


def build_both(folder, plans, form, shapes, target):
    library = find_tensorrt("tensorrt_rtx")
    for engine, ranges in profiles(form, shapes).items():
        plan = plans / f"{engine}.plan"
        report = library.build(folder / f"{engine}.onnx", plan, ranges, target=target)
        assert report.nbytes == plan.stat().st_size > 10_000
        assert report.target == target


@pytest.mark.parametrize("target", ["sm86", "sm89", "sm120"])
def test_bfloat16_is_built(tmp_path, target):
    form, shapes, folder = support.bfloat16_export()
    build_both(folder, tmp_path, form, shapes, target)


@pytest.mark.parametrize(("precision", "target"), [("int8", "sm86"), ("fp8", "sm89")])
def test_quantised_graphs_are_built(tmp_path, precision, target):
    pytest.importorskip("modelopt", reason="needs requirements/modelopt.txt")
    form, shapes, _ = support.bfloat16_export()
    given = [support.observation(form.config, text, SIZES) for text in (5, 14)]
    recipe = quantize(form, precision, given, max_error=1.0)
    export(form, tmp_path, shapes, recipe=recipe)
    build_both(tmp_path, tmp_path, form, shapes, target)


def test_a_checkpoint_becomes_a_directory_of_engines_in_two_attempts(tmp_path, monkeypatch):
    """Ctrl-C while TensorRT builds; the same command goes on from the exported files."""
    output, exports = tmp_path / "so101", []
    monkeypatch.setattr(building, "export", lambda *a, **k: (exports.append(a), export(*a, **k))[1])

    def attempt(progress):
        build_engine(
            tiny_checkpoint(),
            output,
            embodiment_tag=TAG,
            precision="auto",
            target="sm89",
            num_steps=1,
            text_tokens=64,
            progress=progress,
        )

    def stop(text, share):
        if text.startswith("backbone: ") and share > 0.36:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(stop)
    assert not output.exists()
    assert (tmp_path / "so101.partial" / "onnx" / "export.json").exists()
    said = []
    attempt(lambda text, share: said.append((text, share)))
    assert len(exports) == 1
    assert "ONNX files of an interrupted build are used" in [text for text, _ in said]
    assert sorted(path.name for path in output.iterdir()) == [
        "action.engine",
        "backbone.engine",
        "manifest.json",
    ]
    assert [p.name for p in tmp_path.iterdir()] == [output.name]
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


def test_an_identical_second_build_exports_nothing_and_another_one_does(tmp_path, monkeypatch, fake):
    """With a TensorRT that fails, then one that does not, and another request in between."""
    exports = []
    monkeypatch.setattr(building, "export", lambda *a, **k: (exports.append(a), stand_in(*a, **k))[1])
    options = {"embodiment_tag": TAG, "precision": "bf16", "target": "sm89"}
    output, onnx = tmp_path / "engines", tmp_path / "engines.partial" / "onnx"
    for steps in (1, 2):  # the files of one are of no use to the other
        fake.fail_build = "out of memory"
        with pytest.raises(BackendError, match="out of memory"):
            build_engine(tiny_checkpoint(), output, num_steps=steps, **options)
        assert len(exports) == steps
        assert json.loads((onnx / "export.json").read_bytes())["key"]
    fake.fail_build = None
    manifest = build_engine(tiny_checkpoint(), output, num_steps=2, **options)
    assert len(exports) == 2
    assert (manifest.num_steps, fake.built) == (2, ["backbone", "action"])
    assert Manifest.read(output) == manifest
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["engines"]


@pytest.fixture
def fake(monkeypatch):
    """A TensorRT that is not there, on a machine with a GPU."""
    monkeypatch.setattr(building, "capability_name", lambda: "sm89")
    return FakeTensorRT("10.3.0", capability="sm89").install(monkeypatch)


def stand_in(form, folder, shapes, **_):
    """For an export: files with the inputs and outputs of the engines, and nothing between them."""
    onnx = pytest.importorskip("onnx")
    for engine, make in (("backbone", backbone_inputs), ("action", action_inputs)):
        example = make(form, shapes, 8)
        inputs = {f"pixels_{k}": pixels for k, pixels in enumerate(example.pop("pixels", ()))} | example
        dynamic = profiles(form, shapes)[engine]
        values = [
            onnx.helper.make_tensor_value_info(
                name, onnx.TensorProto.FLOAT, ["N"] * tensor.ndim if name in dynamic else list(tensor.shape)
            )
            for name, tensor in inputs.items()
        ]
        result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph([], engine, values, [result])
        onnx.save(onnx.helper.make_model(graph), folder / f"{engine}.onnx")


@pytest.mark.parametrize(
    ("kind", "here", "target", "reason"),
    [
        (("10.3.0", "tensorrt"), "sm87", "sm89", "builds only for the GPU it runs on, sm87; for target sm89"),
        (("10.3.0", "tensorrt"), None, "sm89", "builds only for the GPU it runs on; for target sm89"),
        (("10.3.0", "tensorrt"), None, "current", "PyTorch finds none here; run build_engine where there is"),
        (("1.7.1", "tensorrt_rtx"), None, "sm87", "cannot build for target sm87; it knows sm75, .*, sm121"),
        (("1.7.1", "tensorrt_rtx"), None, "current", "PyTorch finds none here; give another target"),
    ],
)
def test_a_target_that_is_out_of_reach_is_refused_first(tmp_path, monkeypatch, kind, here, target, reason):
    """Not after minutes of export."""
    FakeTensorRT(*kind, capability=here).install(monkeypatch)
    monkeypatch.setattr(building, "capability_name", lambda: here)
    monkeypatch.setattr(building, "make_plan", lambda *_: pytest.fail("the checkpoint was read"))
    with pytest.raises(BackendError, match=reason):
        build_engine(tiny_checkpoint(), tmp_path / "engines", embodiment_tag=TAG, target=target)
    assert list(tmp_path.iterdir()) == []


def test_a_target_within_reach_is_not_refused(monkeypatch):
    for kind, here, targets in (
        (("10.3.0", "tensorrt"), "sm87", ("sm87", "current")),
        (("11.0.1", "tensorrt"), "sm110", ("current",)),
        (("1.7.1", "tensorrt_rtx"), None, ("sm86", "sm120")),
        (("1.7.1", "tensorrt_rtx"), "sm89", ("current", "sm86")),
    ):
        FakeTensorRT(*kind, capability=here).install(monkeypatch)
        for target in targets:
            find_tensorrt().check_target(target, here)


def test_the_gpu_here_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (8, 7))
    assert planning.capability_name() == "sm87"
    assert planning.capability_of("current") == 87
    assert planning.capability_of("sm120") == 120


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

    monkeypatch.setattr(building, "load_model", never)

    def build(match, output=tmp_path / "engines", **options):
        with pytest.raises(BackendError, match=match):
            build_engine(tiny_checkpoint(), output, **{"embodiment_tag": TAG, "target": "sm89", **options})

    build("fp16.* is not one of", precision="fp16")
    build(r"nvfp4 needs compute capability 10\.0", precision="nvfp4")
    build("30 x 56 is not a multiple", image_sizes=[(30, 56), (28, 28)])
    build("1 image sizes were given, .* has 2", image_sizes=[(28, 28)])
    build("horizon 51", horizon=51)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    build("holds no engines", output=other)
    build("/proc is a mount point", output="/proc")
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
