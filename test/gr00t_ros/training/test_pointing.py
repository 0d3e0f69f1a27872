# SPDX-License-Identifier: Apache-2.0
"""The auxiliary loss for where the named thing is: right on paper, exact over parts and interruptions, gone
from what is deployed."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gr00t_model import Gr00tN1d6, Gr00tProcessor
from gr00t_model.processing import ActionConfig, ModalityConfig
from gr00t_ros.training.options import Options, TrainingError
from gr00t_ros.training.pointing import HEAD, NOWHERE, Pointing, PointingHead, pointed
from gr00t_ros.training.running import Outcome
from gr00t_ros.training.saving import STATE_FILE
from support_datasets import write_dataset
from support_network import edit_json, small_config, tiny_inputs
from support_training import base, options, read_json, run, trained

torch.set_num_threads(1)

MODALITY = {
    "video": ModalityConfig((-1, 0), ("front", "wrist")),
    "state": ModalityConfig((0,), ("arm", "where")),
    "action": ModalityConfig((0,), ("arm",), action_configs=(ActionConfig(rep="RELATIVE"),)),
    "language": ModalityConfig((0,), ("task",)),
}


def test_the_label_is_the_token_under_the_point() -> None:
    images = [torch.zeros(1, 3, 56, 84)] * 4  # two times, two cameras; two rows of three tokens each
    wrist = Pointing("where", "wrist").label((0.9, 0.75), images, MODALITY)
    torch.testing.assert_close(wrist, torch.tensor([[3 * 6 + 5, 0.4 * 3, 0.25 * 2]]))
    front = Pointing("where", "").label((0.0, 0.0), images, MODALITY)
    torch.testing.assert_close(front, torch.tensor([[2 * 6, -1.5, -1.0]]))
    for outside in ((1.0, 0.5), (-0.01, 0.5), (0.5, 1.2)):
        assert Pointing("where", "").label(outside, images, MODALITY)[0].tolist() == [NOWHERE, 0, 0]


def test_the_network_does_not_get_the_answer() -> None:
    assert Pointing.parse("where").hidden(MODALITY)["state"].modality_keys == ("arm",)
    with pytest.raises(TrainingError, match="no such camera, only front, wrist"):
        Pointing.parse("where:side").hidden(MODALITY)
    with pytest.raises(TrainingError, match="action arm is relative to it"):
        Pointing.parse("arm").hidden(MODALITY)


def test_the_loss_is_that_on_paper() -> None:
    """Three samples; the first has image tokens with the numbers 1, 2 and 3, text beside them."""
    head = PointingHead(1, seed=0)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0], [0.5], [-1.0]]))
    features = torch.tensor([[9.0, 1, 2, 3, 9], [9, 0, 0, 0, 9], [9, 5, 6, 7, 9]])[:, :, None]
    is_image = torch.tensor([[False, True, True, True, False]] * 3)
    label = torch.tensor([[2.0, 2, -1], [0, 0.5, 0], [NOWHERE, 0, 0]])
    result = pointed(head, features, is_image, label)
    first = -math.log(math.exp(3) / (math.exp(1) + math.exp(2) + math.exp(3)))
    # The first says (1.5, -3), the second (0, 0).
    assert float(result.loss.detach()) == pytest.approx(first + 0.25 + 4 + math.log(3) + 0.25)
    assert (int(result.right), int(result.count)) == (2, 2)
    other = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    assert int(pointed(head, features, is_image, other).right) == 1


def test_gradients_reach_the_eyes() -> None:
    model = Gr00tN1d6(small_config())
    model.set_trainable(tune_visual=True, tune_llm=True)
    inputs = tiny_inputs(model.config, size=56)  # four tokens
    is_image = inputs["input_ids"] == model.config.image_token_id
    head = PointingHead(model.config.backbone_embedding_dim, seed=0)
    label = torch.tensor([[1.0, 0.5, 0.5]] * len(is_image))
    pointed(head, model(inputs)["backbone_features"], is_image, label).loss.backward()
    eagle = model.backbone.model
    embeddings = eagle.vision_model.vision_model.embeddings
    for weight in (embeddings.patch_embedding.weight, eagle.mlp1[1].weight, head.weight):
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


# ---- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three episodes the first one has its point in the picture."""
    folder = write_dataset(tmp_path_factory.mktemp("pointing") / "data", lengths=(12, 10, 8))
    where = {"start": 0, "end": 2, "original_key": "observation.state"}
    edit_json(folder / "meta/modality.json", lambda content: content["state"].update(where=where))
    return folder


def pointing(output: Path, data: Path, **changes: object) -> Options:
    values: dict[str, object] = {
        "datasets": (str(data),),
        "base": str(base(dropout=0.0)),  # dropout would be drawn otherwise in other parts
        "pointing": "where:front",
        "pointing_weight": 0.5,
        "eval_episodes": 1,
        "tune": {"tune_visual": True, "tune_llm": True},
    }
    return options(output, **{**values, **changes})


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, Outcome]:
    chosen = pointing(tmp_path_factory.mktemp("whole") / "run", data, accumulate=2)
    return chosen, run(chosen)


def test_it_is_told_by_itself(whole: tuple[Options, Outcome]) -> None:
    history = read_json(whole[0].output / "checkpoint-6" / STATE_FILE)["log_history"]
    steps = [entry for entry in history if "loss" in entry]
    told = [entry for entry in steps if "pointing_loss" in entry]
    assert told
    for entry in told:
        assert entry["pointing_loss"] > 0.0
        assert 0.0 <= entry["pointing_accuracy"] <= 1.0
        assert entry["loss"] > 0.5 * entry["pointing_loss"]


def test_what_is_deployed_knows_nothing_of_it(whole: tuple[Options, Outcome]) -> None:
    output = whole[0].output
    assert f"{HEAD}.weight" in trained(output / "checkpoint-6")
    model = Gr00tN1d6.from_pretrained(output)
    assert set(load_file(output / "model.safetensors")) == set(model.shapes())
    assert HEAD not in (output / "config.json").read_text()
    assert "where" not in (output / "processor_config.json").read_text()
    assert "where" not in (output / "statistics.json").read_text()
    assert Gr00tProcessor.from_pretrained(output).modality("new_embodiment")["state"].modality_keys == (
        "arm",
        "gripper",
    )


def test_an_interruption_changes_nothing(whole: tuple[Options, Outcome], data: Path, tmp_path: Path) -> None:
    again = pointing(tmp_path / "again", data, accumulate=2)
    shutil.copytree(whole[0].output, again.output)
    shutil.rmtree(again.output / "checkpoint-6")
    resumed = run(again, resume="")
    assert resumed.losses == whole[1].losses
    one, two = (trained(o.output / "checkpoint-6") for o in (again, whole[0]))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_parts_of_a_batch_add_up(whole: tuple[Options, Outcome], data: Path, tmp_path: Path) -> None:
    """However unevenly the labels are spread over them."""
    undivided = run(pointing(tmp_path / "run", data, accumulate=1))
    assert undivided.losses == pytest.approx(whole[1].losses, rel=1e-4)


def test_an_input_of_the_base_is_not_hidden_from_it(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="gets this state as an input; --modality new"):
        run(pointing(tmp_path / "run", data, pointing="gripper"))


def test_a_weight_without_pointing_is_a_mistake() -> None:
    with pytest.raises(
        TrainingError, match="--pointing-weight 1: expected a positive number, and --pointing"
    ):
        options(Path("x"), pointing_weight=1.0)
