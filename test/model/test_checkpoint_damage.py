# SPDX-License-Identifier: Apache-2.0
"""Every kind of damage to a checkpoint is refused, by the name of what is damaged, before anything loads."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gr00t_model.checkpoint import check_files, load_model, resolve, write_random_checkpoint
from gr00t_model.errors import BackendError, CheckpointError
from gr00t_model.network import Gr00tN1d6
from support_network import edit_json, edit_tensors, small_config

torch.set_num_threads(1)

NORM = "backbone.model.language_model.model.norm.weight"
SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_random_checkpoint(small_config(), folder / "single", progress=False)
    write_random_checkpoint(small_config(), folder / "sharded", max_shard_bytes=200_000, progress=False)
    return folder


@pytest.fixture
def single(originals: Path, tmp_path: Path) -> Path:
    """One file."""
    return Path(shutil.copytree(originals / "single", tmp_path / "single"))


@pytest.fixture
def sharded(originals: Path, tmp_path: Path) -> Path:
    """Several files and an index."""
    return Path(shutil.copytree(originals / "sharded", tmp_path / "sharded"))


def refuse(directory: Path, message: str) -> None:
    """Both the loader and the checker say so."""
    with pytest.raises(CheckpointError, match=message):
        load_model(directory)
    assert any(re.search(message, problem) for problem in check_files(directory))


def test_missing_directory_and_file_instead_of_directory(tmp_path: Path, single: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such directory"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"is a file; give the directory that holds config.json"):
        load_model(single / SINGLE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the checkpoint's name is empty; give a directory or a hub id"),
        (" ", "the checkpoint's name is empty"),
        ("~nosuchuser/x", "'~nosuchuser/x' cannot be looked up: Could not determine home directory"),
        ("a" * 300, "cannot be looked up: .*File name too long"),
        ("a\0b", "there is no such directory"),
    ],
)
def test_names_that_no_directory_can_have(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        resolve(name)


def test_empty_directory(tmp_path: Path) -> None:
    refuse(tmp_path, r"is not a checkpoint: it has no config.json")


def test_wrong_model_type(single: Path) -> None:
    edit_json(single / CONFIG, lambda content: content.update(model_type="gr00t_n1_5"))
    refuse(single, "config.json: model_type is 'gr00t_n1_5'; expected 'Gr00tN1d6'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds list; expected a JSON object"),
        ("\xff", "is not valid JSON"),
        ("[" * 200_000, "is not valid JSON"),
    ],
)
def test_damaged_config(single: Path, text: str, message: str) -> None:
    (single / CONFIG).write_bytes(text.encode("latin-1"))
    refuse(single, f"config.json.* {message}")


def test_impossible_config(single: Path) -> None:
    edit_json(single / CONFIG, lambda content: content.update(select_layer=99))
    refuse(single, "config.json: config field select_layer is 99")
    edit_json(single / CONFIG, lambda content: content.update(select_layer=3, id2label="many"))
    refuse(single, "config.json: ")


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_the_attention_used_in_training_does_not_matter(single: Path, name: str) -> None:
    edit_json(single / CONFIG, lambda content: content.update({name: "flash_attention_2"}))
    assert check_files(single) == []
    load_model(single)


def test_no_weights_at_all(single: Path) -> None:
    (single / SINGLE).unlink()
    refuse(single, "holds no weights: neither model.safetensors nor model.safetensors.index.json")


def test_pickled_weights_are_refused_with_advice(single: Path) -> None:
    (single / SINGLE).unlink()
    (single / "pytorch_model.bin").write_bytes(b"anything")
    refuse(
        single, "pytorch_model.bin, a pickle, which can run code and is not read; convert it to safetensors"
    )


def test_missing_tensor(single: Path) -> None:
    edit_tensors(single / SINGLE, lambda tensors: tensors.pop(NORM))
    refuse(single, rf"tensor {NORM} \[32\] is missing")


def test_extra_tensor(single: Path) -> None:
    edit_tensors(single / SINGLE, lambda tensors: tensors.update({"action_head.more": torch.zeros(2)}))
    refuse(single, "tensor action_head.more in model.safetensors is not part of the network")


def test_misshaped_tensor(single: Path) -> None:
    edit_tensors(single / SINGLE, lambda tensors: tensors.update({NORM: torch.zeros(33)}))
    refuse(single, rf"tensor {NORM} in model.safetensors has shape \[33\]; config.json asks for \[32\]")


def test_many_problems_are_counted(single: Path) -> None:
    edit_tensors(single / SINGLE, lambda tensors: [tensors.pop(name) for name in list(tensors)[:20]])
    with pytest.raises(CheckpointError, match="; and 16 more problems"):
        load_model(single)
    assert len(check_files(single)) == 20


def test_wrong_number_type(single: Path) -> None:
    edit_tensors(single / SINGLE, lambda tensors: tensors.update({NORM: torch.zeros(32, dtype=torch.int8)}))
    refuse(single, f"{NORM} has type I8; expected one of F64, F32, F16, BF16")


def test_truncated_file(single: Path) -> None:
    path = single / SINGLE
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 1)
    last = list(Gr00tN1d6.on_meta(small_config()).shapes())[-1]
    refuse(single, rf"model.safetensors is truncated: it has \d+ bytes, and {last} ends at")


def test_truncated_shard_is_named_before_anything_is_read(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = sorted(sharded.glob("model-*.safetensors"))
    with shards[-1].open("rb+") as file:
        file.truncate(shards[-1].stat().st_size // 2)

    def never(*_: object) -> None:
        raise AssertionError("a tensor was read although a shard is damaged")

    monkeypatch.setattr("gr00t_model.checkpoint.read_tensor", never)
    refuse(sharded, f"{shards[-1].name} is truncated")


def test_file_with_more_than_its_header_says(single: Path) -> None:
    with (single / SINGLE).open("ab") as file:
        file.write(b"0123")
    refuse(single, "model.safetensors is 4 bytes longer than its header says")


def test_not_a_safetensors_file(single: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"\x80\x02}q\x00." * 100, (10).to_bytes(8, "little") + b"not json.."):
        (single / SINGLE).write_bytes(content)
        refuse(single, r"model.safetensors is not a safetensors file")


def test_headers_that_cannot_be_understood(single: Path) -> None:
    entry = '{"dtype":[],"shape":[1],"data_offsets":[0,4]}'
    for header, message in (
        ("[" * 200_000, "is not a safetensors file: its header is not JSON"),
        (f'{{"x":{entry}}}', "is damaged: its header entry for x cannot be understood"),
    ):
        content = len(header).to_bytes(8, "little") + header.encode() + bytes(4)
        (single / SINGLE).write_bytes(content)
        refuse(single, message)


def test_a_disk_that_fails_while_reading(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("gr00t_model.checkpoint.read_tensor", fail)
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read: Input/output error"):
        load_model(single)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
)
def test_too_little_memory_is_named(single: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr("gr00t_model.checkpoint.read_tensor", fail)
    with pytest.raises(BackendError, match=r"single takes 0\.\d GB, more than is free on device cpu"):
        load_model(single)


def test_other_failures_of_torch_stay_what_they_are(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr("gr00t_model.checkpoint.read_tensor", fail)
    with pytest.raises(RuntimeError, match="no kernel image"):
        load_model(single)


def test_index_naming_a_missing_shard(sharded: Path) -> None:
    gone = sorted(sharded.glob("model-*.safetensors"))[1]
    gone.unlink()
    refuse(sharded, f"{INDEX} names {gone.name}, which is missing")


def test_index_placing_a_tensor_in_the_wrong_shard(sharded: Path) -> None:
    shards = sorted(path.name for path in sharded.glob("model-*.safetensors"))
    edit_json(sharded / INDEX, lambda content: content["weight_map"].update({NORM: shards[-1]}))
    refuse(sharded, f"places {NORM} in {shards[-1]}, which does not hold it")


def test_index_pointing_outside_the_directory(sharded: Path) -> None:
    edit_json(
        sharded / INDEX, lambda content: content["weight_map"].update({NORM: "../other/model.safetensors"})
    )
    refuse(sharded, "names '../other/model.safetensors'; expected a .safetensors file in the same directory")


def test_index_without_a_map(sharded: Path) -> None:
    edit_json(sharded / INDEX, lambda content: content.update(weight_map=[]))
    refuse(sharded, "has no weight_map")


def test_code_in_a_checkpoint_has_no_effect(single: Path) -> None:
    (single / "evil.py").write_text("raise SystemExit('ran')")
    edit_json(single / CONFIG, lambda content: content.update(auto_map={"AutoModel": "evil.Model"}))
    assert load_model(single).config.to_file().get("auto_map") is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_the_header_may_be_wrong(single: Path, data: st.DataObject) -> None:
    """A flipped byte in the header gives a CheckpointError or still loads, nothing else."""
    path = single / SINGLE
    original = path.read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    position = data.draw(st.integers(0, 15) | st.integers(0, header - 1))
    flipped = bytearray(original)
    flipped[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(flipped)
    try:
        load_model(single)
    except CheckpointError:
        return
    finally:
        path.write_bytes(original)
