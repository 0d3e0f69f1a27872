# SPDX-License-Identifier: Apache-2.0
"""The adapter against TensorRT 10, TensorRT 11 and TensorRT-RTX: what they differ in, through a fake."""

import os
import sys
import weakref
from pathlib import Path

import pytest
import torch

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt.adapter import find_tensorrt
from support_fake_tensorrt import FakeStream, FakeTensorRT, onnx_file

CPU = torch.device("cpu")
KINDS = [("10.3.0", "tensorrt"), ("11.0.1", "tensorrt"), ("1.7.1", "tensorrt_rtx")]
PROFILES = {"x": ((1, 1, 8), (1, 32, 8), (1, 64, 8))}


def double(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"y": x * 2}


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[1]}-{kind[0]}")
def fake(request, monkeypatch) -> FakeTensorRT:
    return FakeTensorRT(*request.param, functions={"double": double}).install(monkeypatch)


def plan(fake: FakeTensorRT, path: Path, **more) -> Path:
    fake.write_plan(
        path,
        {"x": (torch.float32, (1, "T", 8), (1, 1, 8), (1, 64, 8))},
        {"y": (torch.float32, (1, "T", 8))},
        **more,
    )
    return path


# --- finding it


def test_prefers_tensorrt_and_names_it(fake):
    found = find_tensorrt()
    assert (found.flavour, found.version) == (fake.flavour, fake.version)
    assert fake.version in found.title


def test_without_any_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendError, match=r"JetPack.*pip install tensorrt-rtx"):
        find_tensorrt()
    with pytest.raises(BackendError, match="auto, tensorrt, tensorrt_rtx"):
        find_tensorrt("tensorrt9")


def test_an_old_one_and_one_with_missing_libraries_are_passed_over(monkeypatch):
    FakeTensorRT("8.6.1").install(monkeypatch)
    with pytest.raises(BackendError, match=r"8.6.1 is too old"):
        find_tensorrt()
    new = FakeTensorRT("1.7.1", "tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", new.module)
    assert find_tensorrt().flavour == "tensorrt_rtx"
    with pytest.raises(BackendError, match="too old"):
        find_tensorrt("tensorrt")


def test_one_logger_for_the_process(fake):
    assert find_tensorrt().logger is find_tensorrt().logger


# --- running


def test_runs_on_tensors_where_they_are(fake, tmp_path):
    engine = find_tensorrt().load(plan(fake, tmp_path / "double.engine"), CPU)
    context = engine.context()
    for length in (3, 64, 1):
        x, y = torch.randn(1, length, 8), torch.full((1, length, 8), -1.0)
        context.bind({"x": x, "y": y})
        context.execute(FakeStream(17))
        assert torch.equal(y, x * 2)
        x += 1  # the same memory is read again
        context.execute(FakeStream(17))
        assert torch.equal(y, x * 2)
    assert fake.runs == [("double", 17)] * 6


def test_inputs_and_outputs_are_described(fake, tmp_path):
    dtypes = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int32, torch.int64]
    dtypes += [torch.bool, torch.float8_e4m3fn]
    inputs = {f"i{k}": (dtype, ("T", 2), (1, 2), (9, 2)) for k, dtype in enumerate(dtypes)}
    fake.write_plan(tmp_path / "typed.engine", inputs, {"y": (torch.bfloat16, (4, "T"))})
    engine = find_tensorrt().load(tmp_path / "typed.engine", CPU)
    assert [info.dtype for info in engine.inputs.values()] == dtypes
    first = engine.inputs["i0"]
    assert (first.shape, first.smallest, first.largest) == ((-1, 2), (1, 2), (9, 2))
    assert engine.outputs["y"].shape == (4, -1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(1, 65, 8), torch.zeros(1, 65, 8), r"x has shape \[1, 65, 8\].* takes \[1, 1\.\.64, 8\]"),
        (torch.zeros(1, 0, 8), torch.zeros(1, 0, 8), r"takes \[1, 1\.\.64, 8\]"),
        (torch.zeros(5, 8), torch.zeros(1, 5, 8), r"x has shape \[5, 8\]"),
        (torch.zeros(1, 5, 8), torch.zeros(1, 4, 8), r"y has shape \[1, 4, 8\].*writes \[1, 5, 8\]"),
        (torch.zeros(1, 5, 8).double(), torch.zeros(1, 5, 8), "x is torch.float64, expected torch.float32"),
        (torch.zeros(1, 8, 8).mT, torch.zeros(1, 8, 8), "x is not contiguous"),
        (torch.zeros(1, 5, 8, device="meta"), torch.zeros(1, 5, 8), "x is on meta, expected cpu"),
        (torch.zeros(1, 5, 8), torch.zeros(1, 5, 8, dtype=torch.float16), "y is torch.float16"),
    ],
)
def test_tensors_that_do_not_fit_are_named(fake, tmp_path, x, y, message):
    context = find_tensorrt().load(plan(fake, tmp_path / "double.engine"), CPU).context()
    with pytest.raises(BackendError, match=message):
        context.bind({"x": x, "y": y})


def test_bound_tensors_live_as_long_as_they_are_bound(fake, tmp_path):
    context = find_tensorrt().load(plan(fake, tmp_path / "double.engine"), CPU).context()
    x, y = torch.zeros(1, 5, 8), torch.zeros(1, 5, 8)
    held = weakref.ref(x)
    context.bind({"x": x, "y": y})
    del x
    assert held() is not None
    context.set_tensor_address("x", y)
    assert held() is None


def test_missing_and_unknown_tensors_are_named(fake, tmp_path):
    context = find_tensorrt().load(plan(fake, tmp_path / "double.engine"), CPU).context()
    with pytest.raises(BackendError, match="no tensor was given for y"):
        context.bind({"x": torch.zeros(1, 5, 8)})
    with pytest.raises(BackendError, match="has no tensor z"):
        context.set_tensor_address("z", torch.zeros(1))
    with pytest.raises(BackendError, match="has no input y"):
        context.set_input_shape("y", (1, 2, 8))
    with pytest.raises(BackendError, match="no shape was set for x"):
        context.output_shape("y")


def test_a_run_that_fails_says_why(fake, tmp_path):
    context = find_tensorrt().load(plan(fake, tmp_path / "double.engine"), CPU).context()
    with pytest.raises(BackendError, match="Neither address or allocator is set for x"):
        context.execute(FakeStream())
    context.bind({"x": torch.zeros(1, 5, 8), "y": torch.zeros(1, 5, 8)})
    fake.fail_run = "illegal memory access"
    with pytest.raises(BackendError, match=r"did not run.*illegal memory access") as caught:
        context.execute(FakeStream())
    assert "Neither" not in str(caught.value)  # the reason of an earlier failure


def test_shapes_that_contradict_each_other(fake, tmp_path):
    shapes = dict.fromkeys(("a", "b"), (torch.float32, ("T",), (1,), (9,)))
    fake.write_plan(tmp_path / "sum.engine", shapes, {"y": (torch.float32, ("T",))})
    context = find_tensorrt().load(tmp_path / "sum.engine", CPU).context()
    with pytest.raises(BackendError, match=r"shape of y is not known.*axis T"):
        context.bind({"a": torch.zeros(3), "b": torch.zeros(4), "y": torch.zeros(3)})


def test_memory_given_or_left_to_tensorrt(fake, tmp_path):
    engine = find_tensorrt().load(plan(fake, tmp_path / "double.engine"), CPU)
    raw = torch.empty(engine.memory_bytes + 256, dtype=torch.uint8)
    memory = raw[-raw.data_ptr() % 256 :]
    contexts = [engine.context(memory), engine.context(memory), engine.context()]
    assert fake.allocations == ["USER_MANAGED", "USER_MANAGED", "STATIC"]
    for context in contexts:
        x, y = torch.randn(1, 2, 8), torch.zeros(1, 2, 8)
        context.bind({"x": x, "y": y})
        context.execute(FakeStream())
        assert torch.equal(y, x * 2)
    for bad, message in [
        (memory[1:], "not aligned"),
        (memory[:256], f"has 256 bytes, expected {engine.memory_bytes}"),
        (memory.view(torch.int8), "expected contiguous torch.uint8"),
    ]:
        with pytest.raises(BackendError, match=message):
            engine.context(bad)


def test_a_shape_tensor_or_a_foreign_type_is_refused(fake, tmp_path):
    tensor = {"name": "n", "shape": [1], "input": True}
    for more, message in (
        ({"dtype": "INT64", "location": "HOST"}, "read by the CPU"),
        ({"dtype": "FP4"}, "FP4"),
    ):
        path = tmp_path / "odd.engine"
        path.write_bytes(fake.plan("odd", [{**tensor, **more}], "sm89"))
        with pytest.raises(BackendError, match=message):
            find_tensorrt().load(path, CPU)


# --- engines that are not for here


def test_plans_of_elsewhere_are_refused_with_tensorrts_reason(fake, tmp_path):
    path = plan(fake, tmp_path / "double.engine", capability="sm120")
    with pytest.raises(BackendError, match=r"double.engine.*got compute sm120.*build_engine"):
        find_tensorrt().load(path, CPU)
    plan(FakeTensorRT("10.4.0", fake.flavour), path)
    with pytest.raises(BackendError, match=r"serialized 10\.4\.0"):
        find_tensorrt().load(path, CPU)
    whole = plan(fake, path).read_bytes()
    for size in (1, 15, 16, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BackendError, match=r"double.engine.*Serialization"):
            find_tensorrt().load(path, CPU)
    path.write_bytes(whole)
    assert find_tensorrt().load(path, CPU).inputs


def test_files_that_are_no_plans(fake, tmp_path):
    with pytest.raises(BackendError, match="does not exist"):
        find_tensorrt().load(tmp_path / "none.engine", CPU)
    (tmp_path / "empty.engine").touch()
    with pytest.raises(BackendError, match="is empty"):
        find_tensorrt().load(tmp_path / "empty.engine", CPU)
    with pytest.raises(BackendError, match="cannot be read"):
        find_tensorrt().load(tmp_path, CPU)


def test_without_cuda_tensorrt_says_so(monkeypatch, tmp_path):
    fake = FakeTensorRT("10.3.0", capability=None).install(monkeypatch)
    path = plan(fake, tmp_path / "double.engine")
    with pytest.raises(BackendError, match=r"cannot start: .*CUDA initialization failure"):
        find_tensorrt().load(path, CPU)
    with pytest.raises(BackendError, match=r"gave no builder: .*CUDA initialization failure"):
        find_tensorrt().build(onnx_file(tmp_path / "m.onnx"), tmp_path / "m.engine", PROFILES)


# --- building


def test_builds_what_it_can_load(fake, tmp_path):
    shares: list[tuple[float, str]] = []
    library = find_tensorrt()
    report = library.build(
        onnx_file(tmp_path / "double.onnx"),
        tmp_path / "out" / "double.engine",
        PROFILES,
        target="current",
        workspace_bytes=1 << 20,
        timing_cache=tmp_path / "timing.cache",
        progress=lambda share, phase: shares.append((share, phase)),
    )
    path = tmp_path / "out" / "double.engine"
    assert report.nbytes == path.stat().st_size
    assert list(path.parent.iterdir()) == [path]
    assert (tmp_path / "timing.cache").exists() == (not fake.rtx)
    values = [share for share, _ in shares]
    assert values == sorted(values)
    assert values[-1] == 1.0
    assert 0.25 < max(v for v, phase in shares if phase == "Timing tactics") <= 0.5
    context = library.load(path, CPU).context()
    x, y = torch.randn(1, 64, 8), torch.zeros(1, 64, 8)
    context.bind({"x": x, "y": y})
    context.execute(FakeStream())
    assert torch.equal(y, x * 2)


def test_targets(fake, tmp_path):
    source, output = onnx_file(tmp_path / "double.onnx"), tmp_path / "double.engine"
    library = find_tensorrt()
    for target in ("ampere", "sm", "SM89", "8.9"):
        with pytest.raises(BackendError, match="not current or a compute capability"):
            library.build(source, output, PROFILES, target=target)
    if fake.rtx:
        assert library.build(source, output, PROFILES, target="sm120").target == "sm120"
        with pytest.raises(BackendError, match="sm120"):
            library.load(output, CPU)
        assert library.build(source, output, PROFILES, target="sm89").target == "sm89"
        assert library.build(source, output, PROFILES).target == "portable"
        with pytest.raises(BackendError, match="it knows sm75, sm80, sm86, sm89, sm120, sm121"):
            library.build(source, output, PROFILES, target="sm87")
    else:
        assert library.build(source, output, PROFILES, target="sm89", here="sm89").target == "current"
        assert library.build(source, output, PROFILES).target == "current"
        with pytest.raises(BackendError, match=r"builds only for the GPU it runs on, sm89.* sm120"):
            library.build(source, output, PROFILES, target="sm120", here="sm89")
    assert library.load(output, CPU).outputs


def test_an_unknown_operator_is_named_with_its_node(fake, tmp_path):
    source = onnx_file(tmp_path / "odd.onnx", "Frobnicate")
    with pytest.raises(BackendError, match=r"odd.onnx: node the_node \(Frobnicate\): Plugin not found"):
        find_tensorrt().build(source, tmp_path / "odd.engine", PROFILES)
    assert not (tmp_path / "odd.engine").exists()


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ({}, "input x .* needs a profile"),
        ({**PROFILES, "z": PROFILES["x"]}, "has no input z; its inputs are x"),
        ({"x": ((1, 1, 8), (1, 2, 8), (1, 3, 9))}, r"profile says \[1, 3, 9\]"),
        ({"x": ((1, 8), (1, 8), (1, 8))}, r"profile says \[1, 8\]"),
        ({"x": ((1, 5, 8), (1, 4, 8), (1, 6, 8))}, "MIN<=OPT<=MAX"),
    ],
)
def test_profiles_that_do_not_fit(fake, tmp_path, profiles, message):
    with pytest.raises(BackendError, match=message):
        find_tensorrt().build(onnx_file(tmp_path / "m.onnx"), tmp_path / "m.engine", profiles)


def test_a_failing_or_stopped_build_leaves_the_old_plan(fake, tmp_path):
    source, output = onnx_file(tmp_path / "double.onnx"), tmp_path / "double.engine"
    output.write_bytes(b"old")
    library = find_tensorrt()
    fake.fail_build = "out of memory"
    with pytest.raises(BackendError, match=r"cannot build .*double.onnx: out of memory"):
        library.build(source, output, PROFILES)
    fake.fail_build = None

    def stop(share: float, phase: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.build(source, output, PROFILES, progress=stop)
    assert fake.built == []
    with pytest.raises(BackendError, match=r"missing.onnx does not exist"):
        library.build(tmp_path / "missing.onnx", output, PROFILES)
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["double.engine", "double.onnx"]


def test_a_full_disk_is_named(fake, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    source, output = onnx_file(tmp_path / "double.onnx"), tmp_path / "double.engine"
    (tmp_path / f".{output.name}.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(BackendError, match=r"double.engine cannot be written: No space left"):
        find_tensorrt().build(source, output, PROFILES)
    assert not output.exists()


def test_an_unfit_timing_cache_is_replaced(fake, tmp_path):
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"of another GPU")
    find_tensorrt().build(onnx_file(tmp_path / "m.onnx"), tmp_path / "m.engine", PROFILES, timing_cache=cache)
    assert cache.read_bytes() == (b"of another GPU" if fake.rtx else b"cache")
