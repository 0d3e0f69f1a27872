# SPDX-License-Identifier: Apache-2.0
"""Manifests and verdicts: whatever is changed, missing or from elsewhere is noticed and named."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gr00t_model.errors import BackendError
from gr00t_model.inference.trt import verdict
from gr00t_model.inference.trt.manifest import (
    CheckpointId,
    EmbodimentId,
    EngineFile,
    Gpu,
    Manifest,
    Precision,
    Shapes,
    TensorRTId,
    check,
    engine_files,
)
from gr00t_model.inference.trt.verdict import JointError, Machine, Measures, Verdict

SHA = "ab" * 32
ORIN = Gpu("Orin", "8.7")
HERE: dict[str, Any] = {
    "checkpoint_sha256": SHA,
    "embodiment": EmbodimentId("new_embodiment", 10),
    "num_steps": 4,
    "tensorrt": TensorRTId("tensorrt", "10.3.0"),
    "gpu": ORIN,
}
MACHINE = Machine("Orin", "8.7", "540.3.0", "tensorrt", "10.3.0")


@pytest.fixture
def directory(tmp_path) -> Path:
    """Two engine files and their manifest."""
    (tmp_path / "backbone.engine").write_bytes(os.urandom(5000))
    (tmp_path / "action.engine").write_bytes(os.urandom(3000))
    manifest(engine_files(tmp_path)).write(tmp_path)
    return tmp_path


def manifest(files: dict[str, EngineFile], **more) -> Manifest:
    return dataclasses.replace(
        Manifest(
            checkpoint=CheckpointId("GR00T-N1.6-3B", SHA),
            embodiment=EmbodimentId("new_embodiment", 10),
            num_steps=4,
            horizon=16,
            precision=Precision("int8", {"vision": "int8", "dit": "bf16"}),
            tensorrt=TensorRTId("tensorrt", "10.3.0"),
            driver="540.3.0",
            gpu=Gpu("Orin", "8.7", "current"),
            shapes=Shapes(images=((2, 224, 224), (1, 252, 336)), text=(1, 32, 256)),
            files=files,
            calibration={"dataset": "so101", "observations": 64, "note": "µ"},
            build={"seconds": 61.5, "peak_bytes": 7_000_000_000},
        ),
        **more,
    )


JOINTS = {"arm": JointError("elbow", 0.004, 0.01), "gripper": JointError("finger", 0.001, 0.02)}


def judged(**more) -> Verdict:
    measures = Measures(8, {"arm": 0.9995, "gripper": 0.9999}, 0.999, JOINTS)
    return dataclasses.replace(Verdict(MACHINE, "cd" * 32, measures, True), **more)


# --- manifest


def test_a_good_engine_has_no_reasons(directory):
    read = Manifest.read(directory)
    assert read == manifest(engine_files(directory))
    assert read.digest == json.loads((directory / "manifest.json").read_text())["digest"]
    done: list[int] = []
    assert check(directory, **HERE, progress=done.append) == []
    assert sum(done) == 8000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpoint_sha256": "cd" * 32}, ["GR00T-N1.6-3B", "abababab", "cdcdcdcd"]),
        ({"embodiment": EmbodimentId("gr1", 20)}, ["new_embodiment (id 10)", "gr1 (id 20)"]),
        ({"embodiment": EmbodimentId("new_embodiment", 11)}, ["id 10", "id 11"]),
        ({"num_steps": 8}, ["4 denoising steps", "8"]),
        ({"tensorrt": TensorRTId("tensorrt", "10.7.0")}, ["tensorrt 10.3.0", "10.7.0"]),
        ({"tensorrt": TensorRTId("tensorrt_rtx", "10.3.0")}, ["tensorrt 10.3.0", "tensorrt_rtx"]),
        ({"gpu": Gpu("Thor", "11.0")}, ["Orin (compute capability 8.7)", "Thor (compute capability 11.0)"]),
        ({"gpu": Gpu("Orin NX", "8.7")}, ["Orin (", "Orin NX"]),
    ],
)
def test_an_engine_for_something_else_is_named(directory, change, words):
    reasons = check(directory, **{**HERE, **change})
    assert len(reasons) == 1
    assert all(word in reasons[0] for word in [*words, "manifest.json", "build_engine"]), reasons[0]


def test_all_reasons_at_once(directory):
    (directory / "action.engine").unlink()
    other = {"checkpoint_sha256": "cd" * 32, "num_steps": 1, "gpu": Gpu("Thor", "11.0")}
    assert len(check(directory, **{**HERE, **other})) == 4


@pytest.mark.parametrize(
    ("target", "here", "usable"),
    [
        (Gpu("", "8.9", "sm89"), Gpu("RTX 4090", "8.9"), True),
        (Gpu("", "8.9", "sm89"), Gpu("RTX 5090", "12.0"), False),
        (Gpu("RTX 4090", "8.9", "sm89"), Gpu("RTX 4080", "8.9"), True),
        (Gpu("", "", "portable"), Gpu("RTX 5090", "12.0"), True),
    ],
)
def test_plans_of_tensorrt_rtx_run_on_every_gpu_of_their_target(directory, target, here, usable):
    rtx = TensorRTId("tensorrt_rtx", "1.7.1")
    manifest(engine_files(directory), gpu=target, tensorrt=rtx).write(directory)
    assert (check(directory, **{**HERE, "gpu": here, "tensorrt": rtx}) == []) == usable


def test_engine_files_that_changed(directory):
    path = directory / "backbone.engine"
    whole = path.read_bytes()
    hashed: list[int] = []
    path.write_bytes(whole[:-1])
    (reason,) = check(directory, **HERE, progress=hashed.append)
    assert "backbone.engine was cut off: it has 4999 bytes, expected 5000" in reason
    assert sum(hashed) == 3000  # the damaged one was not read
    path.write_bytes(whole + b"x")
    assert "is too long" in check(directory, **HERE)[0]
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert "SHA-256 differs" in check(directory, **HERE)[0]
    assert check(directory, **HERE, hash_files=False) == []
    path.unlink()
    assert "backbone.engine is missing" in check(directory, **HERE)[0]
    path.mkdir()
    assert check(directory, **HERE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds no object"),
        (b"{}", "format_version is null, expected 1"),
        (b'{"format_version": true}', "format_version is true, expected 1"),
        (b'{"format_version": 2}', "format_version is 2, expected 1"),
        (b'{"format_version": 1}', "digest is missing"),
    ],
)
def test_files_that_are_no_manifest(directory, content, message):
    (directory / "manifest.json").write_bytes(content)
    with pytest.raises(BackendError, match=f"manifest.json.*{message}.*build_engine"):
        Manifest.read(directory)
    assert len(check(directory, **HERE)) == 1


def test_a_missing_manifest_and_one_that_is_a_directory(directory):
    (directory / "manifest.json").unlink()
    assert "manifest.json does not exist" in check(directory, **HERE)[0]
    (directory / "manifest.json").mkdir()
    assert "manifest.json cannot be read" in check(directory, **HERE)[0]
    with pytest.raises(BackendError, match="cannot be written"):
        manifest(engine_files(directory)).write(directory)


def leaves(value: Any, path: tuple = ()) -> list[tuple]:
    """Where the values of a JSON document are."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [path, *(leaf for key, item in items for leaf in leaves(item, (*path, key)))]
    return [path]


def replaced(document: Any, path: tuple, value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
REUSED = settings(
    max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def place_and_value(document: Any) -> st.SearchStrategy:
    return st.tuples(st.sampled_from([path for path in leaves(document) if path]), ANY_JSON)


@REUSED
@given(data=st.data())
def test_any_edit_of_a_manifest_is_noticed(directory, data):
    path = manifest(engine_files(directory)).write(directory)
    document = json.loads(path.read_text())
    where, value = data.draw(place_and_value(document))
    edited = replaced(document, where, value)
    path.write_text(json.dumps(edited))
    same = json.dumps(edited, sort_keys=True) == json.dumps(document, sort_keys=True)
    assert (check(directory, **HERE) == []) == same


@REUSED
@given(data=st.data())
def test_any_edit_of_a_verdict_is_noticed(tmp_path, data):
    path = judged().write(tmp_path)
    document = json.loads(path.read_text())
    where, value = data.draw(place_and_value(document))
    edited = replaced(document, where, value)
    path.write_text(json.dumps(edited))
    if json.dumps(edited, sort_keys=True) != json.dumps(document, sort_keys=True):
        with pytest.raises(BackendError, match=r"(?s)verdict\.json.*benchmark --verify"):
            Verdict.read(tmp_path)


def test_every_field_is_demanded_and_typed_by_name(directory):
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    free = ("calibration", "build")
    for where in leaves(document):
        if not where or where[0] in (*free, "format_version", "digest") or isinstance(where[-1], int):
            continue
        name = ".".join(map(str, where))
        path.write_text(json.dumps(replaced(document, where, None)))
        with pytest.raises(BackendError, match=rf"manifest\.json: {name} is null, expected"):
            Manifest.read(directory)
        missing = replaced(document, where, None)
        place = missing
        for key in where[:-1]:
            place = place[key]
        del place[where[-1]]
        path.write_text(json.dumps(missing))
        with pytest.raises(BackendError, match=rf"manifest\.json: {name} is missing|was changed"):
            Manifest.read(directory)
    path.write_text(json.dumps({**document, "colour": 1}))
    with pytest.raises(BackendError, match="colour is unknown"):
        Manifest.read(directory)
    path.write_text(json.dumps({**document, "horizon": 17}))
    with pytest.raises(BackendError, match="was changed after it was written"):
        Manifest.read(directory)


@pytest.mark.parametrize("name", ["../action.engine", "/etc/passwd", "", "..", "a/b", "a\0b"])
def test_a_manifest_cannot_reach_outside_its_directory(directory, name):
    with pytest.raises(ValueError, match="expected a file of the same directory"):
        manifest({name: EngineFile(SHA, 1)})
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "files": {name: {"sha256": SHA, "bytes": 1}}}))
    with pytest.raises(BackendError, match="expected a file of the same directory"):
        Manifest.read(directory)


def test_layout_and_order_of_the_file_do_not_matter(directory):
    path = directory / "manifest.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert check(directory, **HERE) == []


# --- verdict


def test_a_verdict_comes_back_as_it_was(tmp_path):
    for measures in (judged().measures, Measures(1, {"arm": math.nan}, 0.999, {})):
        written = judged(measures=measures, passed=False)
        written.write(tmp_path)
        read = Verdict.read(tmp_path)
        assert repr(read) == repr(written)
        assert read.digest == written.digest
    with pytest.raises(BackendError, match="does not exist; run benchmark --verify"):
        Verdict.read(tmp_path / "elsewhere")


def test_a_verdict_counts_only_for_its_engine_and_machine():
    good = judged()
    assert good.reasons("cd" * 32, MACHINE) == []
    assert "another engine" in good.reasons("ef" * 32, MACHINE)[0]
    for name in [field.name for field in dataclasses.fields(Machine)]:
        (reason,) = good.reasons("cd" * 32, dataclasses.replace(MACHINE, **{name: "other"}))
        assert f"{name.replace('_', ' ')} {getattr(MACHINE, name)}, here is other" in reason
        assert "benchmark --verify" in reason
    assert len(good.reasons("ef" * 32, Machine("a", "b", "c", "d", "e"))) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cosine": {"arm": 0.9989, "gripper": 1.0}}, "cosine 0.998900 for arm, expected at least 0.999"),
        ({"cosine": {"arm": math.nan}}, "cosine nan"),
        ({"cosine": {}}, "compares nothing"),
        ({"cosine_limit": math.nan}, "cosine"),
        ({"observations": 0}, "compares nothing"),
        (
            {"worst_joints": {**JOINTS, "arm": JointError("elbow", 0.05, 0.01)}},
            "arm elbow was off by 0.05, expected at most 0.01",
        ),
        (
            {"worst_joints": {**JOINTS, "gripper": JointError("finger", 0.03, 0.02)}},
            "gripper finger was off by 0.03, expected at most 0.02",
        ),
        ({"worst_joints": {**JOINTS, "arm": JointError("elbow", math.nan, 0.01)}}, "off by nan"),
        ({"worst_joints": {**JOINTS, "gripper": JointError("finger", math.inf, 0.01)}}, "off by inf"),
        ({"worst_joints": {"arm": JOINTS["arm"]}}, "compares nothing"),
    ],
)
def test_measures_decide_whatever_passed_says(change, message):
    for passed in (True, False):
        failing = judged(measures=dataclasses.replace(judged().measures, **change), passed=passed)
        assert any(message in reason for reason in failing.reasons("cd" * 32, MACHINE))


def test_a_verdict_that_did_not_pass():
    assert judged(passed=False).failures() == ["the engine failed its verification"]


def test_the_driver_is_read_where_the_kernel_tells(tmp_path, monkeypatch):
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.3.0  Release\nGCC version: 11.4.0\n"
    monkeypatch.setattr(verdict, "_DRIVER_FILE", tmp_path / "version")
    (tmp_path / "version").write_text(text)
    assert verdict.driver_version() == "540.3.0"
