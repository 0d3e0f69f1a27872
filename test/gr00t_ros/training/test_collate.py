# SPDX-License-Identifier: Apache-2.0
"""Samples of several embodiments as one batch: what the network makes of it is what it makes of each."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from gr00t_model.network import Gr00tN1d6
from gr00t_model.processing import Gr00tProcessor
from gr00t_model.processing.tokenizer import PAD_TOKEN_ID
from gr00t_ros.errors import DatasetError
from gr00t_ros.training.collate import collate, pack, to_device, unpack
from gr00t_ros.training.loader import training_loader
from gr00t_ros.training.stream import DatasetSource, SampleStream
from support_datasets import write_dataset
from support_samples import CONFIG, OTHER, TAG, modality, processor_for

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[DatasetSource]:
    folder = write_dataset(tmp_path_factory.mktemp("collate"), lengths=(12, 9))
    return [DatasetSource(folder, TAG), DatasetSource(folder, OTHER)]


@pytest.fixture(scope="module")
def processor(sources: list[DatasetSource]) -> Gr00tProcessor:
    """Not letterboxed, so that the embodiments' images differ in shape as well as in number."""
    modalities = {TAG: modality(), OTHER: modality(("front",), ("arm",), ("arm", "gripper"), steps=range(4))}
    return processor_for(sources, modalities, letterbox=False)


@pytest.fixture(scope="module")
def samples(sources: list[DatasetSource], processor: Gr00tProcessor) -> list[dict[str, Any]]:
    stream = SampleStream(sources, processor, seed=0, batch_size=6)
    drawn = list(islice(stream, 6))
    assert len({int(sample["embodiment_id"]) for sample in drawn}) == 2
    assert len({sample["input_ids"].shape[1] for sample in drawn}) == 2
    return drawn


def test_the_loss_of_a_batch_is_that_of_its_samples(samples: list[dict[str, Any]]) -> None:
    model = Gr00tN1d6(CONFIG).eval()
    noise = torch.randn(6, CONFIG.action_horizon, CONFIG.max_action_dim)
    time = torch.linspace(0.1, 0.9, 6)
    with torch.no_grad():
        together = model(collate(samples), noise, time)
        error = entries = 0.0
        for number, sample in enumerate(samples):
            part = slice(number, number + 1)
            alone = {**sample, "pixel_values": [image / 127.5 - 1 for image in sample["pixel_values"]]}
            result = model(alone, noise[part], time[part])
            count = float(sample["action_mask"].sum())
            error += float(result["loss"]) * (count + 1e-6)
            entries += count
            torch.testing.assert_close(
                together["action_loss"][part], result["action_loss"], atol=1e-4, rtol=1e-4
            )
    assert float(together["loss"]) == pytest.approx(error / (entries + 1e-6), rel=1e-4)


def test_prompts_are_padded_on_the_left(samples: list[dict[str, Any]]) -> None:
    batch = collate(samples)
    length = batch["input_ids"].shape[1]
    for number, sample in enumerate(samples):
        missing = length - sample["input_ids"].shape[1]
        assert batch["input_ids"][number, :missing].tolist() == [PAD_TOKEN_ID] * missing
        assert batch["attention_mask"][number].tolist() == [0] * missing + [1] * (length - missing)
        assert torch.equal(batch["input_ids"][number, missing:], sample["input_ids"][0])


def test_a_packed_batch_is_the_batch(samples: list[dict[str, Any]]) -> None:
    plain, packed = collate(samples, pixels="uint8"), pack(samples)
    assert all(image.dtype == torch.uint8 for image in packed["pixel_values"])
    assert len(packed["pixel_values"]) == len({image.shape for image in plain["pixel_values"]})
    unpacked = unpack(packed)
    assert unpacked.keys() == plain.keys()
    assert len(unpacked["pixel_values"]) == len(plain["pixel_values"])
    assert all(map(torch.equal, unpacked["pixel_values"], plain["pixel_values"]))
    floats = to_device(unpacked, "cpu")
    assert all(map(torch.equal, floats["pixel_values"], collate(samples)["pixel_values"]))
    assert torch.equal(floats["action"], plain["action"])


def test_the_loaders_batch_goes_into_the_network(
    sources: list[DatasetSource], processor: Gr00tProcessor, samples: list[dict[str, Any]]
) -> None:
    (batch,) = islice(training_loader(SampleStream(sources, processor, seed=0, batch_size=6)), 1)
    for name, value in collate(samples, pixels="uint8").items():
        assert all(map(torch.equal, batch[name], value)), name
    loss = Gr00tN1d6(CONFIG)(to_device(batch, "cpu"))["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_embodiments_with_different_histories_are_refused(
    tmp_path: Path, sources: list[DatasetSource]
) -> None:
    modalities = {TAG: modality(past=(-1, 0)), OTHER: modality()}
    stream = SampleStream(sources, processor_for(sources, modalities), seed=0, batch_size=6)
    with pytest.raises(DatasetError, match="states of different numbers of steps"):
        next(iter(training_loader(stream)))
