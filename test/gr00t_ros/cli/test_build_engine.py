# SPDX-License-Identifier: Apache-2.0
"""``build_engine`` as a user calls it: one real build with TensorRT-RTX for a GPU that is not here, and what
becomes of mistakes and of a build that is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt import build as building
from gr00t_model.inference.trt.manifest import Manifest
from gr00t_ros.cli import build_engine
from support_checkpoints import checkpoint_without_statistics, foreign_checkpoint, tiny_checkpoint
from support_datasets import write_dataset

TIMEOUT_S = 400.0


def command(*arguments: str | Path, output: Path) -> list[str]:
    return [
        sys.executable, "-m", "gr00t_ros.cli.build_engine", "--checkpoint", str(tiny_checkpoint()),
        "--output", str(output), *map(str, arguments),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.mark.slow
def test_an_interrupted_build_goes_on_and_ends_with_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C as soon as TensorRT builds; the next call does not export again."""
    for package in ("tensorrt_rtx", "onnx", "onnxscript"):
        pytest.importorskip(package)
    output = tmp_path / "engines"
    arguments = (
        "--robot", "so101", "--precision", "bf16", "--target", "sm89", "--flavour", "tensorrt_rtx",
        "--num-steps", "1", "--text-tokens", "64",
    )  # fmt: skip
    first = subprocess.Popen(
        command(*arguments, output=output), env=environment(), stderr=subprocess.PIPE, text=True
    )
    done = tmp_path / "engines.partial" / "onnx" / "export.json"
    end = time.monotonic() + TIMEOUT_S
    while not done.exists() and first.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert done.exists(), first.communicate()
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=TIMEOUT_S)
    assert first.returncode == 130, said
    assert "Traceback" not in said
    assert f"the exported network is kept in {tmp_path / 'engines.partial'}" in said
    assert not output.exists()

    exported = done.stat().st_mtime_ns
    second = subprocess.run(
        command(*arguments, output=output),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert second.returncode == 0, second.stderr
    assert "100%" in second.stderr
    manifest = Manifest.read(output)
    assert manifest.build["seconds"] > 0
    assert manifest.gpu.target == "sm89"
    assert manifest.precision.requested == "bf16"
    assert sorted(path.name for path in output.iterdir()) == [
        "action.engine",
        "backbone.engine",
        "manifest.json",
    ]
    assert not (tmp_path / "engines.partial").exists()
    assert exported < (output / "backbone.engine").stat().st_mtime_ns
    for word in ("backbone.engine", "MB", "all", "bf16", "GB of memory", "on the machine with the sm89 GPU"):
        assert word in second.stdout, second.stdout
    assert f"benchmark --verify --checkpoint {tiny_checkpoint()} --robot so101 --engine {output}" in (
        second.stdout
    )

    assert run(*arguments, "--output", output) == 1
    assert "holds engines already; --force replaces them" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_engine.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--checkpoint",
        "--output",
        "--precision",
        "--target",
        "--calibration",
        "--robot",
        "--force",
    ):
        assert option in text


def run(*arguments: str | Path, checkpoint: Path | None = None) -> int:
    where = checkpoint or tiny_checkpoint()
    return build_engine.main(["--checkpoint", str(where), *map(str, arguments)])


MISTAKES = [
    pytest.param(["--checkpoint", "/nowhere/at/all"], "/nowhere/at/all", id="no checkpoint"),
    pytest.param(["--robot", "so102"], "so102", id="unknown robot"),
    pytest.param(["--robot", "gr1"], "gr1", id="other robot"),
    pytest.param(
        ["--robot", "gr1", "--embodiment-tag", "new_embodiment"], "does not fit", id="robot and tag"
    ),
    pytest.param(["--embodiment-tag", "gr2"], "gr2", id="unknown tag"),
    pytest.param(["--precision", "fp8", "--target", "sm89"], "--calibration", id="nothing to calibrate on"),
    pytest.param(["--precision", "fp8", "--target", "sm86"], "fp8", id="no fp8 on this chip"),
    pytest.param(["--calibration", "/nowhere"], "/nowhere", id="no dataset"),
    pytest.param(["--target", "sm87"], "it knows sm75", id="no such target"),
    pytest.param(["--num-steps", "0"], "num_steps is 0", id="no steps"),
    pytest.param(["--image-sizes", "28x28"], "1 image sizes were given", id="too few sizes"),
    pytest.param(["--image-sizes", "28x28", "30x30"], "multiple of 28", id="odd size"),
    pytest.param(["--text-tokens", "0"], "at least one", id="no text"),
]


@pytest.mark.parametrize(("arguments", "word"), MISTAKES)
def test_a_mistake_is_one_line_before_anything_slow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], word: str,
) -> None:  # fmt: skip
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(building, "load_model", lambda *_, **__: pytest.fail("the weights were loaded"))
    robot = [] if {"--robot", "--embodiment-tag"} & set(arguments) else ["--robot", "so101"]
    target = [] if "--target" in arguments else ["--target", "sm89"]
    assert run(*robot, *target, "--output", tmp_path / "engines", *arguments) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("build_engine: ")]
    assert len(said) == 1, said
    assert word in said[0]
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--target", "orin"], ["--precision", "float32"], ["--image-sizes", "28"]],
    ids=["target", "precision", "size"],
)
def test_a_misspelt_value_is_refused_by_the_parser(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert arguments[1] in capsys.readouterr().err


@pytest.mark.parametrize("make", [foreign_checkpoint, checkpoint_without_statistics])
def test_a_checkpoint_that_cannot_be_used_is_one_line(
    capsys: pytest.CaptureFixture[str], make: Callable[[], Path]
) -> None:
    assert run("--robot", "so101", checkpoint=make()) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert not (make() / "tensorrt").exists()


def test_engines_go_where_auto_looks_for_them_and_calibration_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the command hands to the build; the build itself is another test's."""
    seen: dict[str, Any] = {}

    def stop(checkpoint: Path, output: Path, **options: Any) -> None:
        seen.update(options, checkpoint=checkpoint, output=output)
        raise BackendError("two\nlines")

    monkeypatch.setattr(building, "build_engine", stop)
    dataset = write_dataset(tmp_path / "dataset")
    assert run("--calibration", dataset, "--observations", 4, "--precision", "fp8", "--target", "sm89") == 1
    assert seen["output"] == tiny_checkpoint() / "tensorrt"
    assert (seen["embodiment_tag"], seen["precision"], seen["target"]) == ("new_embodiment", "fp8", "sm89")
    assert len(seen["calibration"]) == 4
    assert "text_tokens" not in seen
    assert capsys.readouterr().err.strip().endswith("build_engine: two lines")

    kept = tmp_path / "observations.safetensors"
    seen["calibration"].save(kept)
    first = seen["calibration"].digest
    assert run("--calibration", kept, "--text-tokens", 64, "--num-steps", 2) == 1
    assert seen["calibration"].digest == first
    assert (seen["text_tokens"], seen["num_steps"]) == (64, 2)


def test_an_interrupt_that_a_library_swallowed_stops_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []
    output = tmp_path / "engines"

    def swallow(_: Any, output: Path, *, progress: Any, **__: Any) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            steps.append("swallowed")
        output.with_name("engines.partial").mkdir()
        progress("the next step", 0.5)
        steps.append("went on")

    monkeypatch.setattr(building, "build_engine", swallow)
    before = signal.getsignal(signal.SIGINT)
    assert run("--output", output) == 130
    assert steps == ["swallowed"]
    assert signal.getsignal(signal.SIGINT) == before
    said = capsys.readouterr().err
    assert f"the export was not finished; the same command replaces {output}.partial" in said
