# SPDX-License-Identifier: Apache-2.0
"""``benchmark`` as a user calls it, on the CPU: it measures what the node would run, its verdict is the exit
code, and its report tells about the machine and not about the user. TensorRT is one that is not there."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from gr00t_model.inference import pytorch
from gr00t_model.inference.report import without_paths
from gr00t_model.inference.trt.verdict import VERDICT_FILE, Verdict
from gr00t_ros.cli import benchmark, measuring
from support_checkpoints import tiny_checkpoint
from support_datasets import write_dataset
from support_trusted import Shelf, shelf_for

QUICK = ["--repeats", "2", "--image-size", "48x64", "--robot", "so101", "--device", "cpu"]


def run(*arguments: str | Path) -> int:
    return benchmark.main(["--checkpoint", str(tiny_checkpoint()), *map(str, arguments)])


# ---- PyTorch -------------------------------------------------------------------------------------


def test_it_measures_verifies_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert run(*QUICK, "--verify", "--report", path) == 0
    printed = capsys.readouterr()
    for word in (
        *("processing", "inference", "decoding", "total", "stage backbone", "stage action"),
        *("arm", "gripper", "passed", "pytorch on cpu in float32", "memory: process"),
    ):
        assert word in printed.out, printed.out
    report = json.loads(path.read_text())
    assert report["choice"]["backend"] == "pytorch"
    assert (report["refused"], report["error"], report["engine"]) == ("", "", None)
    timings = report["timings"]
    assert timings["repeats"] == 2
    parts = timings["parts"]
    assert set(parts) == {"processing", "inference", "decoding", "total"}
    assert all(0.0 < own["median_ms"] <= own["p99_ms"] for own in parts.values())
    assert set(timings["stages"]) == {"upload", "backbone", "action", "download"}
    assert timings["images"] == [[252, 252], [252, 252]]
    assert timings["floor_ms"] is None, "no figure is known for a CPU"
    (verification,) = report["verifications"]
    assert verification["passed"]
    assert verification["observations"] == 8
    assert [key["key"] for key in verification["keys"]] == ["arm", "gripper"]
    assert all(key["cosine"] > 0.99999 and key["error"] < key["limit"] for key in verification["keys"])
    assert len(report["checkpoint"]["sha256"]) == 64
    assert report["checkpoint"]["dit"]["num_layers"] == 4
    assert report["versions"]["torch"] == torch.__version__
    assert report["machine"]["memory"]["MemTotal"] > 0
    assert report["machine"]["board"] is None or isinstance(report["machine"]["board"], str)


def test_a_report_names_neither_user_nor_host_nor_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a reason is full of paths."""
    home = tmp_path / "home" / "somebody special"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    broken = home / "my engines"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    checkpoint = shutil.copytree(tiny_checkpoint(), home / "checkpoint of mine")
    path = home / "report.json"
    arguments = ["--checkpoint", str(checkpoint), *QUICK, "--engine", str(broken), "--report", str(path)]
    assert benchmark.main(arguments) == 0
    text = path.read_text()
    report = json.loads(text)
    assert "TensorRT needs a CUDA device" in report["refused"]
    assert "manifest.json" in report["engine"]["unreadable"]
    for private in ("somebody", str(tmp_path), str(Path.cwd()), f"/{getpass.getuser()}/", "/tmp"):
        assert private not in text, private
    assert f'"{socket.gethostname()}"' not in text


def test_paths_in_sentences_lose_their_directories() -> None:
    assert without_paths(
        {"a": ["/home/me/x/action.engine: was cut off; see https://example.org/a/b", 3, None], "b": "1/2 GB"}
    ) == {"a": ["action.engine: was cut off; see https://example.org/a/b", 3, None], "b": "1/2 GB"}
    assert without_paths("(/home/me/c d/e)", ["/home/me/c d"]) == "(c d/e)"
    assert without_paths("~/models/x and '/a/b.c', /d") == "x and 'b.c', d"


def test_an_engine_that_is_not_exact_enough_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A bias on one joint, as `test_opening` has it for TensorRT."""
    sound = pytorch.PyTorchEngine.run

    def biased(self: Any, *arguments: Any) -> Any:
        actions = sound(self, *arguments)
        actions[..., 2] += 0.2
        return actions

    monkeypatch.setattr(pytorch.PyTorchEngine, "run", biased)
    assert run(*QUICK, "--verify", "--report", tmp_path / "report.json") == 1
    assert "FAILED" in capsys.readouterr().out
    assert not json.loads((tmp_path / "report.json").read_text())["verifications"][0]["passed"]
    assert run(*QUICK) == 0, "nobody asked for a verdict"


def test_bfloat16_is_compared_with_float32_on_a_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    run(*QUICK, "--precision", "bfloat16", "--verify", "--dataset", dataset, "--observations", "3")
    printed = capsys.readouterr().out
    assert "pytorch in bfloat16 against the float32 network, 3 observations (recorded: dataset" in printed


MISTAKES = [
    pytest.param(["--checkpoint", "/nowhere/at/all"], "/nowhere/at/all", id="no checkpoint"),
    pytest.param(["--robot", "so102"], "so102", id="unknown robot"),
    pytest.param(["--device", "cuda:7"], "cuda:7", id="no such device"),
    pytest.param(["--precision", "fp16"], "fp16", id="unknown precision"),
    pytest.param(["--backend", "onnx"], "onnx", id="unknown backend"),
    pytest.param(["--backend", "tensorrt"], "build_engine", id="no engine"),
    pytest.param(["--num-steps", "1001"], "num_steps", id="too many steps"),
    pytest.param(["--dataset", "/nowhere"], "/nowhere", id="no dataset"),
    pytest.param(["--report", "/nowhere/report.json"], "/nowhere/report.json", id="no folder for the report"),
]


@pytest.mark.parametrize(("arguments", "word"), MISTAKES)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], word: str) -> None:
    assert run(*QUICK, *arguments) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("benchmark: ")]
    assert len(said) == 1, said
    assert word in said[0]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--help"])
    assert ended.value.code == 0
    assert "--verify" in capsys.readouterr().out


# ---- TensorRT ------------------------------------------------------------------------------------


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """The policy's TensorRT runs on the CPU; memory and reports ask the CPU as well."""
    made = shelf_for(monkeypatch)
    monkeypatch.setattr(measuring, "find_device", lambda name: (torch.device("cuda", 0), "CUDA device"))
    monkeypatch.setattr(measuring, "_floor", lambda *_: (1.0, "A GPU"))
    now = measuring.Memory.now
    monkeypatch.setattr(measuring.Memory, "now", lambda _: now(torch.device("cpu")))
    return made


ENGINE = ["--repeats", "2", "--image-size", "48x64", "--robot", "so101"]


def test_a_verdict_is_reached_again_and_kept(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shelf.write(tmp_path / "engines")
    sound = shelf.fake.functions["action"]
    shelf.spoil(lambda actions: actions * 0)
    report = tmp_path / "report.json"
    given = [*ENGINE, "--engine", folder, "--backend", "tensorrt", "--verify", "--report", report]
    assert run(*given) == 1
    printed = capsys.readouterr()
    assert "FAILED" in printed.out
    assert not Verdict.read(folder).passed
    content = json.loads(report.read_text())
    assert content["choice"] is None
    assert "cosine" in content["refused"]

    # Repaired: the stored verdict would still refuse it, asking again does not.
    shelf.fake.functions["action"] = sound
    dataset = write_dataset(tmp_path / "dataset")
    assert run(*given, "--dataset", dataset, "--observations", "3") == 0, capsys.readouterr()
    assert Verdict.read(folder).passed
    assert Verdict.read(folder).measures.observations == 3
    content = json.loads(report.read_text())
    assert content["choice"]["backend"] == "tensorrt"
    assert content["engine"]["precision"]["groups"] == {"all": "bf16"}
    assert content["timings"]["floor_share"] > 0
    assert str(tmp_path) not in report.read_text()
    assert "memory traffic alone takes 1.00 ms on A GPU" in capsys.readouterr().out


def test_with_auto_the_fallback_is_measured_and_the_exit_code_is_1(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shelf.write(tmp_path / "engines")
    shelf.spoil(lambda actions: actions * 0)
    assert run(*ENGINE, "--engine", folder, "--verify") == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "passed" in printed, "PyTorch, which takes its place"
    assert "the TensorRT engine is not used: " in printed
    assert "pytorch on cpu" in printed
    (folder / VERDICT_FILE).unlink()
    (folder / "action.engine").write_bytes(b"")
    assert run(*ENGINE, "--engine", folder, "--verify") == 1
    assert "action.engine was cut off" in capsys.readouterr().out
