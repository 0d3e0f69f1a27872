# SPDX-License-Identifier: Apache-2.0
"""The real TensorRT-RTX, as far as it goes without a GPU: it builds for other chips, and names what is wrong
with a damaged plan. Running an engine is not tested here."""

import pytest
import torch

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt.adapter import find_tensorrt
from support_fake_tensorrt import onnx_file

CPU = torch.device("cpu")
PROFILES = {"x": ((1, 1, 8), (1, 32, 8), (1, 64, 8))}


@pytest.fixture
def rtx():
    pytest.importorskip("tensorrt_rtx")
    return find_tensorrt("tensorrt_rtx")


@pytest.mark.parametrize("target", ["sm86", "sm89", "sm120", None])
def test_rtx_builds_for_other_gpus(rtx, tmp_path, target):
    source = onnx_file(tmp_path / "m.onnx")
    seen: list[float] = []
    report = rtx.build(
        source, tmp_path / "m.engine", PROFILES, target=target, progress=lambda share, _: seen.append(share)
    )
    assert report.target == (target or "portable")
    assert report.nbytes == (tmp_path / "m.engine").stat().st_size > 1000
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(set(seen)) > 3


def test_rtx_finds_weights_in_a_file_beside_the_model(rtx, tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(torch.randn(8, 8).numpy(), "w")
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, "T", 8]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", *zip(value), [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "deep").mkdir()
    source = tmp_path / "deep" / "m.onnx"
    onnx.save(model, source, save_as_external_data=True, location="m.data", size_threshold=0)
    assert rtx.build(source, tmp_path / "m.engine", PROFILES, target="sm86").nbytes > 0
    (tmp_path / "deep" / "m.data").unlink()
    with pytest.raises(BackendError, match=r"Failed to open file: .*m\.data"):
        rtx.build(source, tmp_path / "m.engine", PROFILES, target="sm86")


def test_rtx_errors_reach_the_user(rtx, tmp_path):
    output = tmp_path / "m.engine"
    with pytest.raises(BackendError, match=r"node the_node \(Frobnicate\): .*Plugin not found"):
        rtx.build(onnx_file(tmp_path / "odd.onnx", "Frobnicate"), output, PROFILES)
    source = onnx_file(tmp_path / "m.onnx")
    with pytest.raises(BackendError, match=r"sm87; it knows sm75, .*sm120"):
        rtx.build(source, output, PROFILES, target="sm87")
    with pytest.raises(BackendError, match="MIN<=OPT<=MAX"):
        rtx.build(source, output, {"x": ((1, 5, 8), (1, 4, 8), (1, 6, 8))})
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(BackendError, match=r"text.onnx: .*[Pp]arse"):
        rtx.build(tmp_path / "text.onnx", output, PROFILES)

    def stop(share: float, phase: str) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        rtx.build(source, output, PROFILES, target="sm86", progress=stop)
    assert not output.exists()


def test_rtx_refuses_damaged_plans(rtx, tmp_path):
    path = tmp_path / "m.engine"
    rtx.build(onnx_file(tmp_path / "m.onnx"), path, PROFILES, target="sm86")
    whole = path.read_bytes()
    for content, message in [
        (b"garbage " * 100, r"magicTag.*MALFORMED_ENGINE"),
        (whole[: len(whole) // 2], "header.size == blobSize"),
        (whole[:10], "minBufferSize"),
    ]:
        path.write_bytes(content)
        with pytest.raises(BackendError, match=f"m.engine cannot be used.*{message}.*build_engine"):
            rtx.load(path, CPU)
