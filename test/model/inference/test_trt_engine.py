# SPDX-License-Identifier: Apache-2.0
"""The TensorRT engine on the CPU: the fake TensorRT runs the very modules that are exported, so equality with
PyTorch proves layout, names, buckets, pixels and guidance. What TensorRT makes of them is not seen here."""

import dataclasses

import numpy as np
import pytest
import torch

import support_deployed as support
from gr00t_model.checkpoint import load_model, write_random_checkpoint
from gr00t_model.errors import BackendError, EmbodimentError, ObservationError
from gr00t_model.inference.deployed import deploy
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.trt import manifest as manifests
from gr00t_model.inference.trt.engine import TensorRTEngine, precision_of
from gr00t_model.inference.trt.export import action_inputs, backbone_inputs, shapes_of
from gr00t_model.inference.trt.fingerprint import checkpoint_sha256
from gr00t_model.inference.trt.verdict import Machine
from gr00t_model.tensor_files import read_header
from support_engines import EMBODIMENT
from support_fake_tensorrt import FakeTensorRT
from support_network import small_config, worst

SIZES = [(28, 56), (56, 56), (28, 56)]
LONGEST = 100
UNTRAINED = 1
MACHINE = Machine("A GPU", "8.9", "570.1", "tensorrt", "10.3.0")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_random_checkpoint(
        small_config(), folder, dtype=torch.float32, untrained=[UNTRAINED], progress=False
    )
    return folder


@pytest.fixture(scope="module")
def form(checkpoint):
    return deploy(load_model(checkpoint), EMBODIMENT)


def write_engines(fake, form, checkpoint_folder, folder, **changes):
    """Plans of the two modules and their manifest."""
    shapes = shapes_of(form.config, SIZES, text_tokens=LONGEST)
    tokens, length = "T", "L"
    names = {"text_embeddings": 1, "text_index": 0, "text_features": 1, "text_mask": 1}
    outputs = {
        "backbone": {
            "text_features": (torch.float32, (1, tokens, form.embed_tokens.shape[1])),
            "image_features": (torch.float32, (1, shapes.images, form.embed_tokens.shape[1])),
        },
        "action": {"actions": (torch.float32, (1, shapes.horizon, form.config.max_action_dim))},
    }
    for engine, make in (("backbone", backbone_inputs), ("action", action_inputs)):
        ends = []
        for count in (1, LONGEST):
            made = make(form, shapes, count)
            pixels = {f"pixels_{k}": group for k, group in enumerate(made.pop("pixels", ()))}
            ends.append({**pixels, **made})
        inputs = {}
        for name, low in ends[0].items():
            shape = list(low.shape)
            if name in names:
                shape[names[name]] = tokens
            if name == "order":
                shape[0] = length
            inputs[name] = low.dtype, shape, tuple(low.shape), tuple(ends[1][name].shape)
        fake.write_plan(folder / f"{engine}.engine", inputs, outputs[engine])
    values = {
        "checkpoint": manifests.CheckpointId("small", checkpoint_sha256(checkpoint_folder)),
        "embodiment": manifests.EmbodimentId("robot", EMBODIMENT),
        "num_steps": form.num_steps,
        "horizon": shapes.horizon,
        "precision": manifests.Precision("auto", {"all": "fp32"}),
        "tensorrt": manifests.TensorRTId("tensorrt", "10.3.0"),
        "driver": "570.1",
        "gpu": manifests.Gpu("A GPU", "8.9"),
        "shapes": manifests.Shapes(shapes.groups, (1, 64, LONGEST)),
        "files": manifests.engine_files(folder),
    }
    manifests.Manifest(**{**values, **changes}).write(folder)
    return shapes


@pytest.fixture
def fake(monkeypatch, form):
    functions = support.module_functions(form, shapes_of(form.config, SIZES, text_tokens=LONGEST))
    return FakeTensorRT("10.3.0", "tensorrt", functions).install(monkeypatch)


@pytest.fixture
def folder(fake, form, checkpoint, tmp_path):
    write_engines(fake, form, checkpoint, tmp_path)
    return tmp_path


class Recorder:
    """Stands in for CUDA graphs: a recorded body is run at each replay, and counted."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, body):
        self.recorded += 1
        body()

        def replay():
            self.replayed += 1
            body()

        return replay


def open_engine(folder, checkpoint, **options):
    values = {"device": "cpu", "machine": MACHINE, **options}
    return TensorRTEngine(folder, checkpoint, "robot", EMBODIMENT, **values)


@pytest.mark.parametrize("text", [2, 32, 33, LONGEST])
def test_actions_are_those_of_pytorch(folder, checkpoint, form, text):
    engine = open_engine(folder, checkpoint)
    given = support.observation(form.config, text, SIZES)
    found = torch.from_numpy(engine.run(given.inputs, given.noise))
    assert worst(found, support.form_actions(form, given)) < 1e-5


def test_one_engine_serves_prompts_and_cameras_in_turn(folder, checkpoint, form):
    record = Recorder()
    engine = open_engine(folder, checkpoint, record=record)
    first = support.observation(form.config, 9, SIZES)
    engine.prepare(first.inputs)
    assert record.recorded == 5  # 32, 48, 64, 96 and 100
    # The same sizes in another order: an image keeps its own place in the prompt.
    for text, sizes in ((9, SIZES), (40, SIZES), (40, SIZES[::-1]), (41, [SIZES[1], SIZES[0], SIZES[0]])):
        given = support.observation(form.config, text, sizes)
        found = torch.from_numpy(engine.run(given.inputs, given.noise))
        assert worst(found, support.form_actions(form, given)) < 1e-5, (text, sizes)
    assert record.recorded == 5
    assert record.replayed == 4


def test_an_unprepared_length_is_recorded_between_two_chunks(folder, checkpoint, form):
    record = Recorder()
    engine = open_engine(folder, checkpoint, record=record)
    given = support.observation(form.config, 9, SIZES)
    before = engine.run(given.inputs, given.noise)
    assert record.recorded == 0
    engine.catch_up()
    assert record.recorded == 1
    assert np.array_equal(engine.run(given.inputs, given.noise), before)
    assert record.replayed == 1
    engine.catch_up()
    assert record.recorded == 1


def test_engines_that_cannot_be_recorded_run_all_the_same(folder, checkpoint, form):
    def unwilling(body):
        raise RuntimeError("capture is not possible")

    engine = open_engine(folder, checkpoint, record=unwilling)
    given = support.observation(form.config, 9, SIZES)
    engine.prepare(given.inputs)
    assert engine.notes == ["chunks are not recorded: RuntimeError: capture is not possible"]
    found = torch.from_numpy(engine.run(given.inputs, given.noise))
    assert worst(found, support.form_actions(form, given)) < 1e-5
    engine.catch_up()


def test_a_plan_is_followed_and_does_not_stay(folder, checkpoint, form):
    engine = open_engine(folder, checkpoint)
    given = support.observation(form.config, 9, SIZES)
    rng = np.random.default_rng(5)
    horizon = form.config.action_horizon
    prefix = rng.standard_normal((1, horizon, form.config.max_action_dim), dtype=np.float32)
    plan = Guidance(prefix, rng.random((form.num_steps, horizon), dtype=np.float32))
    guided = torch.from_numpy(engine.run(given.inputs, given.noise, plan))
    assert worst(guided, support.form_actions(form, given, plan)) < 1e-5
    alone = torch.from_numpy(engine.run(given.inputs, given.noise))
    assert worst(alone, support.form_actions(form, given)) < 1e-5
    assert worst(guided, alone) > 0.1


def test_noise_is_drawn_where_none_is_given(folder, checkpoint, form):
    engine = open_engine(folder, checkpoint)
    given = support.observation(form.config, 9, SIZES)
    torch.manual_seed(0)
    first, second = (engine.run(given.inputs, None) for _ in range(2))
    assert first.shape == given.noise.shape
    assert np.abs(first - second).max() > 0.01


def test_both_engines_run_once_a_chunk_and_stages_are_timed(folder, checkpoint, form, fake):
    engine = open_engine(folder, checkpoint)
    given = support.observation(form.config, 9, SIZES)
    engine.run(given.inputs, given.noise)
    assert [name for name, _ in fake.runs] == ["backbone", "action"]
    assert set(engine.stages(given.inputs, given.noise)) == {"upload", "backbone", "action", "download"}


def test_only_the_words_in_use_are_read(folder, checkpoint, form):
    engine = open_engine(folder, checkpoint)
    given = support.observation(form.config, 9, SIZES)
    engine.run(given.inputs, given.noise)
    held = sum(row.nbytes for row in engine._words._rows.values())
    table = read_header(checkpoint / "model.safetensors")[
        "backbone.model.language_model.model.embed_tokens.weight"
    ]
    assert 0 < held < table.nbytes / 10
    assert engine.untrained is False
    assert engine._words.untrained(UNTRAINED) is True


def test_what_does_not_fit_the_engine_is_named(folder, checkpoint, form):
    engine = open_engine(folder, checkpoint)
    given = support.observation(form.config, 9, SIZES)

    def run(match, error=ObservationError, noise=given.noise, **changes):
        with pytest.raises(error, match=match):
            engine.run({**given.inputs, **changes}, noise)

    long = support.observation(form.config, LONGEST + 1, SIZES)
    run(r"101 text tokens and this engine takes 100", **long.inputs)
    other = support.observation(form.config, 9, [(56, 56)] * 2)
    run(r"56 x 56, 56 x 56 pixels .* built for 2 of 28 x 56, 1 of 56 x 56", **other.inputs)
    run("made for 3", EmbodimentError, embodiment_id=torch.tensor([1]))
    run(r"noise has shape \[1, 2, \d+\]", noise=given.noise[:, :2])
    floats = [image.float() for image in given.inputs["pixel_values"]]
    run("not uint8", pixel_values=floats)
    expected = support.form_actions(form, given)
    assert worst(torch.from_numpy(engine.run(given.inputs, given.noise)), expected) < 1e-5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"checkpoint": manifests.CheckpointId("other", "0" * 64)}, "built for checkpoint other"),
        ({"embodiment": manifests.EmbodimentId("robot", 1)}, "embodiment"),
        ({"num_steps": 2}, "2 denoising steps"),
        ({"tensorrt": manifests.TensorRTId("tensorrt", "10.7.0")}, "10.7.0"),
        ({"gpu": manifests.Gpu("Another", "12.0")}, "12.0"),
    ],
)
def test_an_engine_for_something_else_is_refused_with_the_reason(
    fake, form, checkpoint, tmp_path, change, reason
):
    write_engines(fake, form, checkpoint, tmp_path, **change)
    with pytest.raises(BackendError, match=reason):
        open_engine(tmp_path, checkpoint)


def test_a_damaged_plan_and_a_failing_run_are_told_apart(folder, checkpoint, form, fake):
    engine = open_engine(folder, checkpoint)
    given = support.observation(form.config, 9, SIZES)
    fake.fail_run = "CUDA error 700"
    with pytest.raises(BackendError, match=r"backbone\.engine did not run: .*CUDA error 700"):
        engine.run(given.inputs, given.noise)
    plan = folder / "action.engine"
    plan.write_bytes(plan.read_bytes()[:-100])
    with pytest.raises(BackendError, match=r"action\.engine"):
        open_engine(folder, checkpoint)


def test_precision_is_that_of_most_of_the_arithmetic(folder):
    manifest = manifests.Manifest.read(folder)

    def named(**groups):
        return precision_of(dataclasses.replace(manifest, precision=manifests.Precision("auto", groups)))

    assert named(all="bf16") == "bfloat16"
    assert named(a="bf16", b="fp8 (1 of 4 layers bf16)") == "fp8"
    assert named(a="int8", b="bf16") == "int8"
    assert named(all="fp32") == "float32"
