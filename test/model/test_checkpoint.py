# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back as they were written, are written safely, and load in little memory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors import safe_open
from safetensors.torch import load_file

from gr00t_model.checkpoint import (
    check_files,
    load_model,
    resolve,
    save_model,
    untrained_embodiment,
    write_random_checkpoint,
)
from gr00t_model.errors import CheckpointError, EmbodimentError
from gr00t_model.network import Gr00tN1d6
from support_network import edit_json, edit_tensors, small_config, tiny_inputs

torch.set_num_threads(1)

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file."""
    folder = tmp_path_factory.mktemp("checkpoints") / "single"
    return write_random_checkpoint(small_config(), folder, seed=3, untrained=[4], progress=False)


@pytest.fixture(scope="module")
def written_sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several files and an index."""
    folder = tmp_path_factory.mktemp("checkpoints") / "sharded"
    return write_random_checkpoint(small_config(), folder, seed=3, max_shard_bytes=200_000, progress=False)


@pytest.fixture
def single(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "single"))


@pytest.fixture
def sharded(written_sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written_sharded, tmp_path / "sharded"))


# ---- coming back ---------------------------------------------------------------------------------


def test_saved_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Gr00tN1d6(small_config()).eval()
    directory = save_model(model, tmp_path / "new" / "checkpoint")
    loaded = load_model(directory)
    assert not loaded.training
    assert loaded.config.to_file() == model.config.to_file()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    noise = torch.randn(1, 6, 128)
    inputs = tiny_inputs(model.config)
    assert torch.equal(
        loaded.get_action(inputs, noise)["action_pred"], model.get_action(inputs, noise)["action_pred"]
    )


def test_the_class_methods_are_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Gr00tN1d6(small_config())
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = Gr00tN1d6.from_pretrained(tmp_path / "checkpoint", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_mixed_types_are_kept_and_one_type_can_be_asked_for(tmp_path: Path) -> None:
    model = Gr00tN1d6(small_config())
    model.cast_for_training()
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert set(types.values()) == {torch.bfloat16, torch.float32}
    directory = save_model(model, tmp_path / "checkpoint")
    assert {name: tensor.dtype for name, tensor in load_model(directory).state_dict().items()} == types
    assert {t.dtype for t in load_model(directory, dtype=torch.float32).state_dict().values()} == {
        torch.float32
    }


def test_training_flags_survive_loading(single: Path) -> None:
    edit_json(single / CONFIG, lambda content: content.update(tune_visual=True))
    loaded = load_model(single)
    assert loaded.backbone.model.mlp1[1].weight.requires_grad
    assert not loaded.backbone.model.language_model.lm_head.weight.requires_grad


def test_files_are_what_safetensors_itself_reads_and_writes(single: Path, sharded: Path) -> None:
    expected = Gr00tN1d6.on_meta(small_config()).shapes()
    with safe_open(single / SINGLE, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == expected  # noqa: SIM118
    loaded = load_model(single).state_dict()
    for name, tensor in load_file(single / SINGLE).items():
        assert torch.equal(loaded[name], tensor)
    edit_tensors(single / SINGLE, lambda tensors: None)  # rewritten by safetensors, in its own order
    assert check_files(single) == []
    parts = sorted(sharded.glob("model-*.safetensors"))
    assert len(parts) > 3
    assert set().union(*(load_file(part) for part in parts)) == set(expected)


def test_index_is_the_published_form(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    sizes = [part.stat().st_size for part in sharded.glob("model-*.safetensors")]
    assert index["metadata"]["total_size"] < sum(sizes)
    named = sorted(set(index["weight_map"].values()))
    assert named == [f"model-{i + 1:05}-of-{len(sizes):05}.safetensors" for i in range(len(sizes))]
    assert named == sorted(path.name for path in sharded.glob("model-*.safetensors"))


def test_sharded_and_single_hold_the_same(single: Path, sharded: Path) -> None:
    whole, parts = load_model(single).state_dict(), load_model(sharded).state_dict()
    same = [name for name, tensor in whole.items() if torch.equal(tensor, parts[name])]
    different = set(whole) - set(same)
    assert {name.split(".")[1] for name in different} == {"state_encoder", "action_encoder", "action_decoder"}


# ---- random checkpoints --------------------------------------------------------------------------


def test_random_checkpoint_repeats_with_its_seed(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> bytes:
        directory = write_random_checkpoint(small_config(), tmp_path / name, seed=seed, progress=False)
        return (directory / SINGLE).read_bytes()

    assert content("a", 1) == content("b", 1) != content("c", 2)


def test_random_checkpoint_gives_usable_actions_that_depend_on_everything(written: Path) -> None:
    model = load_model(written, dtype=torch.float32)
    inputs = tiny_inputs(model.config)
    noise = torch.randn(1, 6, 128, generator=torch.Generator().manual_seed(0))

    def actions(**changes: Any) -> torch.Tensor:
        return model.get_action({**inputs, **changes}, noise)["action_pred"]

    usual = actions()
    assert usual.isfinite().all()
    assert 0.5 < float(usual.std()) < 5
    ids = inputs["input_ids"].clone()
    ids[0, 0] += 1
    for change in (
        {"pixel_values": [-inputs["pixel_values"][0]]},
        {"state": inputs["state"] + 0.5},
        {"input_ids": ids},
        {"embodiment_id": torch.tensor([1])},
    ):
        assert float((actions(**change) - usual).abs().mean()) > 1e-3, change.keys()


def test_progress_is_shown_when_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_random_checkpoint(small_config(), tmp_path / "quiet", progress=False)
    assert capfd.readouterr().err == ""
    write_random_checkpoint(small_config(), tmp_path / "shown", progress=True)
    assert "random checkpoint" in capfd.readouterr().err


def test_untrained_embodiments_are_recognised(written: Path) -> None:
    model = load_model(written)
    assert [untrained_embodiment(model, embodiment) for embodiment in range(6)] == [i == 4 for i in range(6)]
    with pytest.raises(EmbodimentError, match=r"id 6 is outside this checkpoint's 0..5"):
        untrained_embodiment(model, 6)
    with pytest.raises(EmbodimentError, match="id 6"):
        write_random_checkpoint(small_config(), written.parent / "never", untrained=[6], progress=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_network_is_untrained_until_a_step_is_taken(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Gr00tN1d6(small_config())
    inputs = tiny_inputs(model.config)
    inputs["embodiment_id"][:] = 2
    model(inputs)["loss"].backward()
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=1e-5
    )
    assert all(untrained_embodiment(model, embodiment) for embodiment in range(6))
    optimiser.step()
    model.to(dtype)
    assert [untrained_embodiment(model, embodiment) for embodiment in range(6)] == [i != 2 for i in range(6)]


# ---- hub ids -------------------------------------------------------------------------------------


def test_hub_id_while_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"example/no-such-model: there is no such directory, and.*could not be"
    ):
        load_model("example/no-such-model")


def test_hub_id_is_fetched_without_code_or_pickles(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(repo: str, **options: Any) -> str:
        asked.update(repo=repo, **options)
        return str(single)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve("nvidia/GR00T-N1.6-3B@d0814e7") == single
    assert (asked["repo"], asked["revision"]) == ("nvidia/GR00T-N1.6-3B", "d0814e7")
    assert not any(
        ".py" in pattern or "bin" in pattern or pattern == "*" for pattern in asked["allow_patterns"]
    )
    patterns = {name: asked[name] for name in ("allow_patterns", "ignore_patterns")}
    files = [CONFIG, SINGLE, "robot_mine.yaml"]
    others = [f"checkpoint-1000/{CONFIG}", "checkpoint-1000/model-00001-of-00002.safetensors", "other.yaml"]
    assert list(filter_repo_objects([*files, *others], **patterns)) == files


def test_a_directory_wins_over_a_hub_id(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(single.parent.parent)
    assert resolve(f"{single.parent.name}/{single.name}").samefile(single)


# ---- writing safely ------------------------------------------------------------------------------


def test_other_files_survive_and_old_weights_do_not(sharded: Path) -> None:
    (sharded / "processor_config.json").write_text("{}")
    save_model(load_model(sharded), sharded)
    assert sorted(path.name for path in sharded.iterdir()) == [CONFIG, SINGLE, "processor_config.json"]
    assert check_files(sharded) == []


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr("gr00t_model.checkpoint_writing.initial_value", fail)
    with pytest.raises(KeyboardInterrupt):
        write_random_checkpoint(small_config(), tmp_path / "checkpoint", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_failed_writing_leaves_the_old_checkpoint(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (single / SINGLE).read_bytes()

    def fail(*_: object, **__: object) -> torch.Tensor:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gr00t_model.checkpoint_writing.initial_value", fail)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        write_random_checkpoint(small_config(), single, progress=False)
    assert (single / SINGLE).read_bytes() == before
    assert check_files(single) == []


def test_too_little_space_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs 0\.0 GB, and 0\.0 GB are free"):
        write_random_checkpoint(small_config(), tmp_path / "checkpoint", progress=False)


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    left = tmp_path / f".checkpoint.{int(ended.stdout)}.partial"
    running = tmp_path / f".checkpoint.{os.getppid()}.partial"
    for folder in (left, running):
        folder.mkdir()
    write_random_checkpoint(small_config(), tmp_path / "checkpoint", progress=False)
    assert not left.exists()
    assert running.exists()


_PEAK = """
import sys, torch
from gr00t_model.checkpoint import load_model, write_random_checkpoint
from gr00t_model.config import Gr00tN1d6Config
torch.set_num_threads(1)

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

def reset_peak():
    open("/proc/self/clear_refs", "w").write("5")

folder = sys.argv[1]
load_model(folder + "-warm")  # first use of libraries is not the checkpoint's memory
reset_peak()
before = status("VmRSS:")
write_random_checkpoint(Gr00tN1d6Config.small(), folder, max_shard_bytes=60_000_000, progress=False)
print(status("VmHWM:") - before)
reset_peak()
before = status("VmRSS:")
model = load_model(folder)
print(status("VmHWM:") - before)
"""


def test_memory_while_writing_and_loading(tmp_path: Path) -> None:
    """Loading stays under 1.3 times the weights (212 MB here), writing needs a tensor, not the model."""
    folder = tmp_path / "small"
    write_random_checkpoint(small_config(), tmp_path / "small-warm", progress=False)
    result = subprocess.run(
        [sys.executable, "-c", _PEAK, str(folder)], capture_output=True, text=True, check=True
    )
    writing, loading = map(int, result.stdout.split())
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert weights > 200e6
    assert writing < 0.75 * weights
    assert loading < 1.3 * weights
