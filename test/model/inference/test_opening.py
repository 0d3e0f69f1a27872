# SPDX-License-Identifier: Apache-2.0
"""Which engine a policy gets: a TensorRT engine only if it is this checkpoint's, this machine's, whole, and
as exact as the robot demands; otherwise PyTorch, with the reason."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gr00t_model.errors import BackendError
from gr00t_model.inference import backend, opening
from gr00t_model.inference.observations import synthetic
from gr00t_model.inference.opening import Opened, open_engine
from gr00t_model.inference.trt import engine as engines
from gr00t_model.inference.trt import manifest as manifests
from gr00t_model.inference.trt import trust
from gr00t_model.inference.trt.verdict import VERDICT_FILE, Verdict
from gr00t_ros.engine_limits import engine_limits
from support_trusted import MACHINE, ROBOT, TAG, Shelf, shelf_for

CHECKED = trust.SYNTHETIC_OBSERVATIONS


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return shelf_for(monkeypatch)


@pytest.fixture
def folder(shelf: Shelf, tmp_path: Path) -> Path:
    return shelf.write(tmp_path / "engines")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines that were verified here."""
    with pytest.MonkeyPatch.context() as patch:
        shelf = shelf_for(patch)
        folder = shelf.write(tmp_path_factory.mktemp("template") / "engines")
        assert open_engine(shelf.request(folder)).choice.backend == "tensorrt"
    return folder


@pytest.fixture
def verified(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "verified")


def chunk(shelf: Shelf, opened: Opened) -> np.ndarray:
    """What the engine makes of an observation that it was not verified on."""
    given = synthetic(shelf.processor, TAG, shelf.form.config, 1, seed=7)[0]
    return opened.engine.run(given.inputs, given.noise)


def reference_chunk(shelf: Shelf) -> np.ndarray:
    return chunk(shelf, open_engine(shelf.request(None, backend="pytorch", device="cpu")))


def assert_refused(shelf: Shelf, folder: Path, pattern: str) -> None:
    """auto falls back and says why, tensorrt refuses with the same reason, and no chunk comes from it."""
    opened = open_engine(shelf.request(folder))
    assert (opened.choice.backend, opened.engine.backend) == ("pytorch", "pytorch")
    assert opened.choice.precision == "float32"
    found = opened.choice.refused
    assert "\n" not in found
    with pytest.raises(BackendError, match=pattern):
        open_engine(shelf.request(folder, backend="tensorrt"))
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(found)
    runs = shelf.runs
    np.testing.assert_array_equal(chunk(shelf, opened), reference_chunk(shelf))
    assert shelf.runs == runs


# ---- trusted -------------------------------------------------------------------------------------


def test_an_engine_is_verified_once_and_then_taken(shelf: Shelf, folder: Path) -> None:
    opened = open_engine(shelf.request(folder))
    assert (opened.choice.backend, opened.choice.precision, opened.choice.refused) == (
        "tensorrt",
        "bfloat16",
        "",
    )
    assert f"verified here on {CHECKED} observations" in opened.choice.reason
    assert shelf.runs == CHECKED
    assert any("passed" in line for line in shelf.told)
    assert Verdict.read(folder).passed
    assert not opened.untrained

    shelf.told.clear()
    again = open_engine(shelf.request(folder))
    assert again.choice.backend == "tensorrt"
    assert shelf.runs == CHECKED, "the verdict is there"
    assert shelf.told == []
    np.testing.assert_allclose(chunk(shelf, again), reference_chunk(shelf), atol=1e-5)
    assert shelf.runs == CHECKED + 1


def test_the_engine_beside_the_checkpoint_is_found(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.checkpoint = shutil.copytree(shelf.checkpoint, tmp_path / "checkpoint")
    shelf.write(shelf.checkpoint / opening.ENGINE_FOLDER)
    opened = open_engine(shelf.request(None))
    assert (opened.choice.backend, opened.choice.refused) == ("pytorch", ""), "no GPU here"
    assert shelf.opened == 0
    visible = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    monkeypatch.setattr(opening, "torch", visible)
    assert open_engine(shelf.request(None)).choice.backend == "tensorrt"
    for passed_over in ({"precision": "float32"}, {"device": "cpu"}, {"backend": "pytorch"}):
        opened = open_engine(shelf.request(None, **passed_over))
        assert (opened.choice.backend, opened.choice.refused) == ("pytorch", "")
    assert shelf.opened == 1


def test_pytorch_asked_for_by_name_leaves_an_engine_alone(shelf: Shelf, folder: Path) -> None:
    opened = open_engine(shelf.request(folder, backend="pytorch"))
    assert (opened.choice.backend, opened.choice.refused, shelf.opened) == ("pytorch", "", 0)


def test_tensorrt_without_an_engine_says_how_to_make_one(shelf: Shelf) -> None:
    with pytest.raises(BackendError, match=r"no engine is named and .*tensorrt does not exist.*build_engine"):
        open_engine(shelf.request(None, backend="tensorrt"))


def test_a_directory_that_cannot_be_written_costs_a_verification_at_each_start(
    shelf: Shelf, folder: Path
) -> None:
    (folder / f".{VERDICT_FILE}.{os.getpid()}.partial").mkdir()
    for start in (1, 2):
        assert open_engine(shelf.request(folder)).choice.backend == "tensorrt"
        assert shelf.runs == start * CHECKED
        assert any("cannot be written: " in line for line in shelf.told)
        assert not (folder / VERDICT_FILE).exists()


def limits(share: float) -> dict[str, Any]:
    return {key: share * own for key, own in engine_limits(ROBOT).items()}


def test_other_limits_or_another_machine_ask_for_another_verdict(shelf: Shelf, folder: Path) -> None:
    open_engine(shelf.request(folder))
    assert open_engine(shelf.request(folder, limits=limits(0.5))).choice.backend == "tensorrt"
    assert shelf.runs == 2 * CHECKED
    assert any("other limits" in line for line in shelf.told)
    shelf.machine = dataclasses.replace(MACHINE, driver="575.2")
    assert open_engine(shelf.request(folder, limits=limits(0.5))).choice.backend == "tensorrt"
    assert shelf.runs == 3 * CHECKED
    assert any("driver 570.1, here is 575.2" in line for line in shelf.told)
    # What passed with wide limits says nothing about narrow ones.
    opened = open_engine(shelf.request(folder, limits=limits(1e-9)))
    assert "expected at most" in opened.choice.refused
    assert shelf.runs == 4 * CHECKED


# ---- refused by what it computes -----------------------------------------------------------------


def biased(shelf: Shelf) -> Callable[[torch.Tensor], torch.Tensor]:
    """0.05 rad on one joint. Towards the middle, so that the ends of the joint's range do not hide it."""
    assert ROBOT.unit("elbow_flex").scale == 1.0, "the dataset of this robot is in rad"
    column = shelf.columns("arm").start + 2
    change = shelf.normalised("arm", 2, 0.05)

    def spoiled(actions: torch.Tensor) -> torch.Tensor:
        actions[..., column] -= change * torch.sign(actions[..., column])
        return actions

    return spoiled


def frozen(shelf: Shelf) -> Callable[[torch.Tensor], torch.Tensor]:
    """The arm stays where the chunk begins."""

    def spoiled(actions: torch.Tensor) -> torch.Tensor:
        actions[..., shelf.columns("arm")] = actions[:, :1, shelf.columns("arm")]
        return actions

    return spoiled


SPOILED = [
    pytest.param(biased, r"arm elbow_flex: error 0\.0\d+ at step .* expected at most 0\.03", id="bias"),
    pytest.param(
        frozen, r"arm: cosine of \(action - noise\) is .* expected at least 0\.999", id="frozen arm"
    ),
    pytest.param(lambda shelf: lambda actions: actions.fill_(float("nan")), r"gave nan at", id="not finite"),
    pytest.param(lambda shelf: lambda actions: actions * 0, r"cosine", id="zeros"),
]


@pytest.mark.parametrize(("spoil", "pattern"), SPOILED)
def test_an_engine_that_computes_something_else_is_refused(
    shelf: Shelf, folder: Path, spoil: Callable[[Shelf], Any], pattern: str
) -> None:
    shelf.spoil(spoil(shelf))
    assert_refused(shelf, folder, pattern)
    checked = shelf.runs
    assert 0 < checked <= CHECKED, "the second opening goes by the verdict"
    assert not Verdict.read(folder).passed
    assert_refused(shelf, folder, pattern)
    assert shelf.runs == checked


def test_a_refused_engine_is_gone_before_its_replacement_is_loaded(
    shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks do not fit into a small board's memory."""
    made: list[weakref.ref[Any]] = []
    make, load = engines.TensorRTEngine, opening.load_model

    def remember(*arguments: Any, **options: Any) -> Any:
        engine = make(*arguments, **options)
        made.append(weakref.ref(engine))
        return engine

    def check(*arguments: Any, **options: Any) -> Any:
        assert made[0]() is None, "the refused engine is still in memory"
        return load(*arguments, **options)

    monkeypatch.setattr(engines, "TensorRTEngine", remember)
    monkeypatch.setattr(opening, "load_model", check)
    shelf.spoil(frozen(shelf))
    assert open_engine(shelf.request(folder)).choice.backend == "pytorch"
    assert len(made) == 1


def test_a_verdict_that_was_edited_is_not_believed(shelf: Shelf, folder: Path) -> None:
    shelf.spoil(biased(shelf))
    open_engine(shelf.request(folder))
    path = folder / VERDICT_FILE
    content = json.loads(path.read_text())
    content["passed"], content["complaints"] = True, []
    for worst in content["measures"]["worst_joints"].values():
        worst["error"] = 0.0
    path.write_text(json.dumps(content))
    assert_refused(shelf, folder, "elbow_flex")
    assert shelf.runs == 2 * CHECKED


def test_a_verdict_of_another_engine_is_not_believed(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    open_engine(shelf.request(folder))
    other = shelf.write(tmp_path / "other", precision=manifests.Precision("auto", {"all": "fp8"}))
    shutil.copy(folder / VERDICT_FILE, other)
    shelf.spoil(frozen(shelf))
    assert_refused(shelf, other, "cosine")
    assert any("another engine" in line for line in shelf.told)


def test_an_engine_that_raises_is_refused_in_its_own_words(shelf: Shelf, folder: Path) -> None:
    shelf.fake.fail_run = "CUDA error 719"
    assert_refused(shelf, folder, r"observation 0: action|observation 0: backbone")
    assert "CUDA error 719" in Verdict.read(folder).complaints[0]


# ---- refused by what it is -----------------------------------------------------------------------


def truncated(shelf: Shelf, folder: Path) -> None:
    path = folder / manifests.ACTION
    path.write_bytes(path.read_bytes()[:-100])


def bit_flipped(shelf: Shelf, folder: Path) -> None:
    path = folder / manifests.BACKBONE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def gone(shelf: Shelf, folder: Path) -> None:
    (folder / manifests.ACTION).unlink()


def tampered(shelf: Shelf, folder: Path) -> None:
    path = folder / manifests.MANIFEST_FILE
    path.write_text(path.read_text().replace('"num_steps": 4', '"num_steps": 5'))


def no_manifest(shelf: Shelf, folder: Path) -> None:
    (folder / manifests.MANIFEST_FILE).unlink()


def of(**changes: Any) -> Callable[[Shelf, Path], None]:
    def write(shelf: Shelf, folder: Path) -> None:
        shelf.write(folder, **changes)

    return write


def other_gpu(shelf: Shelf, folder: Path) -> None:
    shelf.machine = dataclasses.replace(MACHINE, gpu="Another GPU", compute_capability="8.7")


def newer_tensorrt(shelf: Shelf, folder: Path) -> None:
    shelf.fake.module.__version__ = "10.13.0"  # type: ignore[attr-defined]


def plan_of_another_gpu(shelf: Shelf, folder: Path) -> None:
    """The manifest fits, and TensorRT itself finds out."""
    shelf.fake.capability = "sm87"


def raising(error: Exception) -> Callable[[Shelf, Path], None]:
    def fail(shelf: Shelf, folder: Path) -> None:
        def runtime(logger: Any) -> Any:
            raise error

        shelf.fake.module.Runtime = runtime  # type: ignore[attr-defined]

    return fail


FAULTS = [
    pytest.param(truncated, r"action\.engine was cut off", id="truncated"),
    pytest.param(bit_flipped, r"backbone\.engine is not the file that was built", id="bit flipped"),
    pytest.param(gone, r"action\.engine is missing", id="file missing"),
    pytest.param(tampered, r"manifest\.json.*changed after it was written", id="tampered manifest"),
    pytest.param(no_manifest, r"manifest\.json", id="no manifest"),
    pytest.param(
        of(checkpoint=manifests.CheckpointId("mine", "0" * 64)),
        r"built for checkpoint mine with SHA-256 000000000000, here is one with",
        id="other checkpoint",
    ),
    pytest.param(
        of(embodiment=manifests.EmbodimentId("gr1", 20)), r"built for embodiment gr1", id="other embodiment"
    ),
    pytest.param(of(num_steps=8), r"built for 8 denoising steps, asked for are 4", id="other steps"),
    pytest.param(other_gpu, r"built for A GPU .*8\.9.* here is Another GPU", id="other GPU"),
    pytest.param(newer_tensorrt, r"built for tensorrt 10\.3\.0, here is tensorrt 10\.13\.0", id="version"),
    pytest.param(plan_of_another_gpu, r"expecting compute sm87 got compute sm89", id="plan of another GPU"),
    pytest.param(raising(RuntimeError("no luck")), r"no luck", id="RuntimeError"),
    pytest.param(raising(MemoryError("of all things")), r"MemoryError: of all things", id="MemoryError"),
    pytest.param(raising(KeyError("x")), r"KeyError", id="KeyError"),
    pytest.param(raising(OSError(5, "Input/output error")), r"Input/output error", id="OSError"),
]


@pytest.mark.parametrize(("spoil", "pattern"), FAULTS)
def test_an_engine_that_is_not_for_this_robot_is_refused(
    shelf: Shelf, verified: Path, spoil: Callable[[Shelf, Path], None], pattern: str
) -> None:
    """Also one that was verified here before."""
    assert open_engine(shelf.request(verified)).choice.backend == "tensorrt"
    spoil(shelf, verified)
    assert_refused(shelf, verified, pattern)
    assert shelf.runs == 0


def test_without_tensorrt_the_reason_is_what_to_install(
    shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert_refused(shelf, folder, "pip install tensorrt")


def test_a_missing_directory_is_named(shelf: Shelf, tmp_path: Path) -> None:
    assert_refused(shelf, tmp_path / "nowhere", "nowhere")


def test_without_a_cuda_device_the_reason_says_so(
    shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_device", backend.find_device)
    assert_refused(shelf, folder, r"TensorRT needs a CUDA device \(no CUDA device is visible to PyTorch\)")
    assert shelf.opened == 0


def test_an_engine_of_another_precision_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = shelf.write(tmp_path / "engines", precision=manifests.Precision("fp8", {"all": "fp8"}))
    assert open_engine(shelf.request(folder, precision="fp8")).choice.precision == "fp8"
    opened = open_engine(shelf.request(folder, precision="float32"))
    assert opened.choice.precision == "float32"
    assert "was built in fp8, and precision float32 was asked for" in opened.choice.refused
    with pytest.raises(BackendError, match="use precision auto or fp8"):
        open_engine(shelf.request(folder, backend="tensorrt", precision="int8"))
    # What PyTorch cannot do is refused, not replaced.
    with pytest.raises(BackendError, match="int8 needs a TensorRT engine"):
        open_engine(shelf.request(folder, precision="int8"))


# ---- trusted, and then it does not work ------------------------------------------------------------


def test_a_trusted_engine_that_fails_when_it_is_tried_out_is_not_used(shelf: Shelf, verified: Path) -> None:
    """No room for another graph, say: known only when the engine prepares for this robot's inputs."""

    def full(engine: Any) -> None:
        if engine.backend == "tensorrt":
            raise torch.OutOfMemoryError("CUDA out of memory")

    opened = open_engine(shelf.request(verified, try_out=full))
    assert opened.choice.backend == "pytorch"
    assert "CUDA out of memory" in opened.choice.refused
    with pytest.raises(BackendError, match="CUDA out of memory"):
        open_engine(shelf.request(verified, backend="tensorrt", try_out=full))
