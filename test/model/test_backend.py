# SPDX-License-Identifier: Apache-2.0
"""``auto`` takes the best that is there; what is named is taken or refused, never replaced."""

import pytest
import torch

from gr00t_model.errors import BackendError
from gr00t_model.inference.backend import check_names, choose_pytorch


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"Example {device}")


def test_auto_without_a_gpu(no_gpu: None) -> None:
    choice = choose_pytorch()
    assert (choice.backend, choice.device, choice.precision) == ("pytorch", torch.device("cpu"), "float32")
    assert choice.dtype == torch.float32
    assert "no CUDA device" in choice.reason


def test_auto_with_gpus(two_gpus: None) -> None:
    choice = choose_pytorch()
    assert (choice.backend, choice.device, choice.precision) == (
        "pytorch",
        torch.device("cuda", 0),
        "bfloat16",
    )
    assert choice.dtype == torch.bfloat16
    assert "Example 0" in choice.reason


@pytest.mark.parametrize(("device", "expected"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_named_device_is_taken(two_gpus: None, device: str, expected: str) -> None:
    choice = choose_pytorch(device=device)
    assert str(choice.device) == expected
    assert choice.reason == "asked for"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_named_precision_is_taken(no_gpu: None, precision: str) -> None:
    assert choose_pytorch("cpu", precision).precision == precision


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "float16"}, "precision 'float16' is not one of auto, bfloat16, float32, fp8"),
        ({"precision": "fp8"}, "precision fp8 needs a TensorRT engine"),
        ({"device": "gpu"}, "device 'gpu' is not one of auto, cpu, cuda, cuda:N"),
        ({"device": ""}, "device '' is not one of"),
        ({"device": "cuda:x"}, "device 'cuda:x' is not one of"),
        ({"device": "meta"}, "device 'meta' is not supported"),
        ({"device": "cuda:2"}, "device 'cuda:2' was asked for, but PyTorch sees 2 CUDA devices"),
    ],
)
def test_what_is_not_there_is_refused(two_gpus: None, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        choose_pytorch(**arguments)


def test_cuda_is_not_replaced_by_the_cpu(no_gpu: None) -> None:
    with pytest.raises(BackendError, match="PyTorch sees 0 CUDA devices; check nvidia-smi"):
        choose_pytorch(device="cuda")


def test_an_unknown_backend_is_refused() -> None:
    for name in ("auto", "tensorrt", "pytorch"):
        check_names(name, "auto")
    with pytest.raises(BackendError, match="backend 'onnx' is not one of auto, tensorrt, pytorch"):
        check_names("onnx", "auto")
