# SPDX-License-Identifier: Apache-2.0
"""The streamed network gives the loaded one's numbers, holds a fraction of it, refuses what that refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gr00t_model.checkpoint import load_model, save_model, write_random_checkpoint
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import CheckpointError, EmbodimentError, ObservationError
from gr00t_model.inference.streamed import StreamedNetwork
from gr00t_model.pixels import pixels_to_float
from support_network import TOLERANCE, edit_tensors, full, needs_full_set, small_config, tiny_inputs, worst

torch.set_num_threads(1)

EQUAL = 1e-6
WEIGHTS = "model.safetensors"
SUPPORT = Path(__file__).resolve().parents[2] / "support"
LAYERS = ("Siglip2EncoderLayer", "LanguageLayer", "DitBlock")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny preset with a small vocabulary, in shards, stored in bfloat16."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    return write_random_checkpoint(small_config(), folder, seed=3, max_shard_bytes=200_000, progress=False)


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


def ragged(config: Gr00tN1d6Config) -> dict[str, Any]:
    """Three samples of three embodiments, two of them the same, images of two sizes, one padded prompt."""
    inputs = tiny_inputs(config, batch=3, seed=5)
    inputs["embodiment_id"] = torch.tensor([4, 1, 4])
    inputs["attention_mask"][1, :2] = 0
    inputs["pixel_values"][2] = torch.rand(1, 3, 28, 56) * 2 - 1
    ids = inputs["input_ids"]
    ids[2, 4] = config.image_token_id
    return inputs


def held(network: StreamedNetwork) -> int:
    """Bytes of weights that are in memory."""
    return sum(p.nbytes for p in network._model.parameters() if not p.is_meta)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    "changes",
    [{}, {"use_alternate_vl_dit": False}, {"use_vlln": False, "add_pos_embed": False}],
    ids=["released", "plain", "without"],
)
def test_equals_the_loaded_network(tmp_path: Path, changes: dict[str, Any], steps: int) -> None:
    config = small_config(**changes)
    folder = write_random_checkpoint(config, tmp_path / "checkpoint", seed=1, progress=False)
    inputs, noise = ragged(config), tiny_inputs(config, batch=3, seed=8)["action"]
    expected = load_model(folder, dtype=torch.float32).get_action(inputs, noise, num_steps=steps)
    network = StreamedNetwork(folder)
    for _ in range(2):  # the second call finds everything dropped
        found = network.get_action(inputs, noise, num_steps=steps)
        for name in ("action_pred", "backbone_features"):
            assert worst(found[name], expected[name]) <= EQUAL, name


def test_equals_the_loaded_tiny_preset(tmp_path: Path) -> None:
    config = Gr00tN1d6Config.tiny()
    folder = write_random_checkpoint(config, tmp_path / "tiny", progress=False)
    inputs = tiny_inputs(config, batch=2, size=56)
    expected = load_model(folder, dtype=torch.float32).get_action(inputs, inputs["action"])
    found = StreamedNetwork(folder).get_action(inputs, inputs["action"])
    assert worst(found["action_pred"], expected["action_pred"]) <= EQUAL


@needs_full_set
def test_gives_the_recorded_actions(tmp_path: Path) -> None:
    golden = full()
    model = golden.model()
    network = StreamedNetwork(save_model(model, tmp_path / "golden"))
    noise = golden.outputs["infer.initial_noise"]
    found = network.get_action(golden.inputs, noise)["action_pred"]
    assert worst(found, model.get_action(golden.inputs, noise)["action_pred"]) <= EQUAL
    assert worst(found, golden.outputs["infer.action_pred"]) <= TOLERANCE


def test_only_one_large_layer_is_ever_in_memory(written: Path) -> None:
    """And after a call only the small rest is, as before it: no table of words, no other embodiment."""
    network = StreamedNetwork(written)
    inputs = tiny_inputs(network.config)
    before, seen = held(network), []

    def look(*_: int) -> None:
        seen.append([m for m in layers if not any(p.is_meta for p in m.parameters())])

    layers = [m for m in network._model.modules() if type(m).__name__ in LAYERS]
    for layer in layers:
        layer.register_forward_pre_hook(look)
    network.get_action(inputs, inputs["action"], num_steps=2)
    assert [len(found) for found in seen] == [1] * network.layer_count(inputs, 2)
    assert held(network) == before
    names = {name for name, p in network._model.named_parameters() if not p.is_meta}
    for absent in ("embed_tokens", "lm_head", "vision_model.head", "action_decoder"):
        assert not any(absent in name for name in names), absent


def test_reads_what_an_action_needs_and_nothing_else(written: Path) -> None:
    network = StreamedNetwork(written)
    inputs = tiny_inputs(network.config)
    read: list[tuple[str, Any]] = []
    original = network._weights.read
    network._weights.read = lambda name, rows=None: (read.append((name, rows)), original(name, rows))[1]
    network.get_action(inputs, inputs["action"], num_steps=3)
    assert not [name for name, _ in read if "lm_head" in name or "vision_model.head" in name]
    robots = {name: rows for name, rows in read if name.endswith((".W", ".b"))}
    assert set(robots.values()) == {(0,)}
    assert len(robots) == len([name for name, _ in read if name in robots]), "slices are read once a call"
    (words,) = [rows for name, rows in read if "embed_tokens" in name]
    assert words == inputs["input_ids"].unique().tolist()


def test_progress_is_told_layer_by_layer_and_may_end_the_call(written: Path) -> None:
    network = StreamedNetwork(written)
    inputs = ragged(network.config)
    told: list[tuple[int, int, int]] = []
    network.get_action(inputs, inputs["action"], num_steps=2, progress=lambda *now: told.append(now))
    total = network.layer_count(inputs, 2)
    assert [now[:2] for now in told] == [(done, total) for done in range(1, total + 1)]
    assert [now[2] for now in told] == sorted(now[2] for now in told)
    before, expected = held(network), network.get_action(inputs, inputs["action"])["action_pred"]

    def interrupt(done: int, *_: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.get_action(inputs, inputs["action"], progress=interrupt)
    assert held(network) == before
    assert torch.equal(network.get_action(inputs, inputs["action"])["action_pred"], expected)


def test_pixels_may_be_bytes(written: Path) -> None:
    network = StreamedNetwork(written)
    inputs = tiny_inputs(network.config)
    pixels = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8)
    given = network.get_action({**inputs, "pixel_values": [pixels]}, inputs["action"])["action_pred"]
    floats = {**inputs, "pixel_values": [pixels_to_float(pixels)]}
    assert torch.equal(given, network.get_action(floats, inputs["action"])["action_pred"])


def test_wrong_inputs_are_named_as_the_network_names_them(written: Path) -> None:
    network = StreamedNetwork(written)
    inputs = tiny_inputs(network.config)
    with pytest.raises(ObservationError, match="lack pixel_values"):
        network.get_action({k: v for k, v in inputs.items() if k != "pixel_values"})
    with pytest.raises(EmbodimentError, match=r"embodiment id 17 is outside"):
        network.get_action({**inputs, "embodiment_id": torch.tensor([17])})


def test_damage_is_refused_before_anything_runs(checkpoint: Path) -> None:
    shard = next(path for path in sorted(checkpoint.glob("*.safetensors")))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 10)
    with pytest.raises(CheckpointError, match=rf"{shard.name} is truncated"):
        StreamedNetwork(checkpoint)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = write_random_checkpoint(small_config(), tmp_path / "one", progress=False)
    name = "action_head.model.transformer_blocks.1.attn1.to_q.weight"
    edit_tensors(folder / WEIGHTS, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=rf"tensor {name} .* is missing"):
        StreamedNetwork(folder)


def test_files_that_change_after_opening_are_noticed(checkpoint: Path) -> None:
    network = StreamedNetwork(checkpoint)
    inputs = tiny_inputs(network.config)
    shard = next(path for path in sorted(checkpoint.glob("*.safetensors")))
    with shard.open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match=rf"{shard.name} was closed or has changed"):
        network.get_action(inputs)
    network.close()
    with pytest.raises(CheckpointError, match="was closed or has changed"):
        network.get_action(inputs)


@pytest.mark.parametrize("switch", ["older", "newer"])
def test_float32_products_are_exact_whatever_the_process_allows(written: Path, switch: str) -> None:
    """PyTorch has two switches for TF32 and refuses a process that mixes them."""
    if switch == "newer" and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this PyTorch has the older switch only")
    command = [sys.executable, "-c", _SWITCH, str(written), str(SUPPORT), switch]
    subprocess.run(command, check=True)


_SWITCH = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from gr00t_model.inference.streamed import StreamedNetwork
from support_network import tiny_inputs

matmul = torch.backends.cuda.matmul
if sys.argv[3] == "newer":
    name, loose, exact = "fp32_precision", "tf32", "ieee"
else:
    name, loose, exact = "allow_tf32", True, False
setattr(matmul, name, loose)
network, during = StreamedNetwork(sys.argv[1]), []
network.get_action(tiny_inputs(network.config), progress=lambda *_: during.append(getattr(matmul, name)))
assert set(during) == {exact}, during
assert getattr(matmul, name) == loose
"""
_PEAK = """
import sys, torch
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from gr00t_model.inference.streamed import StreamedNetwork
from support_network import tiny_inputs
torch.set_num_threads(1)

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

def run(folder):
    network = StreamedNetwork(folder)
    inputs = tiny_inputs(network.config, batch=2, size=224)
    network.get_action(inputs, inputs["action"])

run(sys.argv[2])  # first use of libraries is not the network's memory
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS:")
run(sys.argv[1])
print(status("VmHWM:") - before)
"""


def test_memory_stays_far_below_the_weights(tmp_path: Path) -> None:
    """Half of the weights as stored (a quarter of them in float32) is a generous bound: a layer is 4 %."""
    folder = tmp_path / "small"
    write_random_checkpoint(Gr00tN1d6Config.small(), folder, progress=False)
    warm = write_random_checkpoint(Gr00tN1d6Config.tiny(), tmp_path / "tiny", progress=False)
    command = [sys.executable, "-c", _PEAK, str(folder), str(warm), str(SUPPORT)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert stored > 200e6
    assert int(result.stdout) < 0.5 * stored
