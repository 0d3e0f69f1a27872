# SPDX-License-Identifier: Apache-2.0
"""Observations survive their file to the bit; a damaged, changed or foreign file is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import EmbodimentError, ObservationError
from gr00t_model.inference.observations import (
    MAX_OBSERVATIONS,
    EncodedObservation,
    ObservationSet,
    size_before,
    synthetic,
)
from gr00t_model.processing import ActionConfig, Gr00tProcessor, KeyStatistics, ModalityConfig

torch.set_num_threads(1)

TAG = "new_embodiment"
CONFIG = Gr00tN1d6Config.tiny()
# A pose, so that a drawn state must be one; an arm given as sines and cosines; one moved by mean and std.
RANGES = {"arm": ([-1.0, 2.0], [1.0, 3.0]), "wrist": ([-3.0], [3.0]), "eef.left": ([-0.5] * 9, [0.5] * 9)}


def make_processor(**options: Any) -> Gr00tProcessor:
    limits = {key: KeyStatistics.from_limits(low, high) for key, (low, high) in RANGES.items()}
    actions = {"arm": ActionConfig(), "eef.left": ActionConfig("RELATIVE", "EEF", "XYZ_ROT6D")}
    modality = {
        "video": ModalityConfig((-1, 0), ("front", "wrist")),
        "state": ModalityConfig((-1, 0), tuple(RANGES), sin_cos_embedding_keys=("wrist",)),
        "action": ModalityConfig(tuple(range(8)), tuple(actions), action_configs=tuple(actions.values())),
        "language": ModalityConfig((0,), ("task",)),
    }
    sizes = {
        "max_state_dim": CONFIG.max_state_dim,
        "max_action_dim": CONFIG.max_action_dim,
        "max_action_horizon": CONFIG.action_horizon,
    }
    statistics = {TAG: {"state": limits, "action": limits, "relative_action": limits}}
    return Gr00tProcessor({TAG: modality}, statistics, **{**sizes, **options})


@pytest.fixture(scope="module")
def processor() -> Gr00tProcessor:
    return make_processor()


@pytest.fixture(scope="module")
def made(processor: Gr00tProcessor) -> ObservationSet:
    return synthetic(processor, TAG, CONFIG, 3, seed=2)


def flat(observation: EncodedObservation) -> dict[str, torch.Tensor]:
    inputs = dict(observation.inputs)
    images = inputs.pop("pixel_values")
    raw = {f"raw {key}": torch.from_numpy(values) for key, values in observation.state.items()}
    pixels = {f"pixels {i}": image for i, image in enumerate(images)}
    return {**inputs, **raw, **pixels, "noise": torch.from_numpy(observation.noise)}


def assert_equal(first: ObservationSet, second: ObservationSet) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        left, right = flat(one), flat(other)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_file_gives_back_what_was_written(made: ObservationSet, tmp_path: Path) -> None:
    path = tmp_path / "observations.safetensors"
    made.save(path)
    read = ObservationSet.load(path)
    assert_equal(made, read)
    assert (read.source, read.digest) == (made.source, made.digest)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_digest_is_of_everything(made: ObservationSet) -> None:
    assert ObservationSet(made, "elsewhere").digest != made.digest
    assert ObservationSet(made[:2], made.source).digest != made.digest
    one = made[0]
    changed = EncodedObservation(one.inputs, one.state, one.noise + np.float32(1e-6))
    assert ObservationSet([changed, *made[1:]], made.source).digest != made.digest


def test_synthetic_ones_are_repeatable_varied_and_say_what_they_are(
    processor: Gr00tProcessor, made: ObservationSet
) -> None:
    assert made.source.startswith("synthetic")
    assert_equal(made, synthetic(processor, TAG, CONFIG, 3, seed=2))
    assert synthetic(processor, TAG, CONFIG, 3, seed=3).digest != made.digest
    images = [image for one in made for image in one.inputs["pixel_values"]]
    assert len(images) == 3 * 2 * 2
    for image in images:
        pixels = image.double()
        assert pixels.std() > 20
        # Smooth: neighbours differ far less than pixels in general do.
        assert (pixels[..., 1:] - pixels[..., :-1]).abs().mean() < 0.3 * pixels.std()
    assert len({int(image.sum()) for image in images}) == len(images)
    assert len({tuple(one.inputs["input_ids"][0].tolist()) for one in made}) == 3


def test_synthetic_states_lie_inside_the_statistics_and_are_poses(
    processor: Gr00tProcessor, made: ObservationSet
) -> None:
    for one in made:
        for key in ("arm", "wrist"):
            low, high = RANGES[key]
            assert one.state[key].shape == (1, 2, len(low))
            assert ((one.state[key] >= low) & (one.state[key] <= high)).all()
        assert one.inputs["state"].abs().max() <= 1.0
        actions = processor.decode(one.noise, one.state, TAG)
        assert actions["eef.left"].shape == (1, 8, 9)


# Edges that end at 252, 224, 252 and 280: where a size's own rounding is unlucky, another must be found.
@pytest.mark.parametrize("edge", [256, 224, 240, 266])
@pytest.mark.parametrize("raw", [(480, 640), (360, 640), (640, 360), (300, 300), (200, 700)])
def test_an_image_of_any_size_the_processor_gives_can_be_made(raw: tuple[int, int], edge: int) -> None:
    processor = make_processor(letterbox=False, shortest_image_edge=edge)
    wanted = made_from(processor, raw)
    assert made_from(processor, size_before(processor, wanted)) == wanted
    if edge in (224, 256):  # the released one: an image of the processed size stays as it is
        assert made_from(processor, wanted) == wanted


def made_from(processor: Gr00tProcessor, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that the processor gives for a camera of this size."""
    observation = {
        "video": {key: np.zeros((1, 2, *size, 3), np.uint8) for key in ("front", "wrist")},
        "state": processor.neutral_state(TAG),
        "language": {"task": [["go"]]},
    }
    (found,) = {tuple(image.shape[-2:]) for image in processor.encode(observation, TAG)["pixel_values"]}
    return found


def test_padded_images_have_one_size_only() -> None:
    processor = make_processor()
    assert made_from(processor, size_before(processor, (252, 252))) == (252, 252)
    with pytest.raises(ObservationError, match=r"no camera's image becomes one of 252 x 448 pixels"):
        size_before(processor, (252, 448))


def test_each_camera_can_have_its_own_size() -> None:
    processor = make_processor(letterbox=False)
    made = synthetic(processor, TAG, CONFIG, 1, image_sizes=[(360, 640), (720, 1280)])
    assert [tuple(image.shape[-2:]) for image in made[0].inputs["pixel_values"]] == [(252, 448)] * 2 * 2
    with pytest.raises(ObservationError, match="front 252x448, wrist 252x336"):
        synthetic(processor, TAG, CONFIG, 1, image_sizes=[(360, 640), (480, 640)])
    with pytest.raises(ObservationError, match=r"3 image sizes were given, new_embodiment has 2 cameras"):
        synthetic(processor, TAG, CONFIG, 1, image_sizes=[(360, 640)] * 3)


def test_their_number_is_limited(processor: Gr00tProcessor, made: ObservationSet) -> None:
    for few in ([], [made[0]] * (MAX_OBSERVATIONS + 1)):
        with pytest.raises(ObservationError, match=rf"{len(few)} observations, expected 1 to 32"):
            ObservationSet(few, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: inputs.pop("state"), "no state, expected"),
        (lambda inputs: inputs.update(pixel_values=[]), "no image"),
        (
            lambda inputs: inputs.update(pixel_values=[torch.zeros(1, 3, 28, 28)]),
            r"pixel_values\[0\] is torch.f",
        ),
        (
            lambda inputs: inputs.update(input_ids=torch.zeros(2, 4, dtype=torch.int64)),
            r"expected .*\[1, 4\]",
        ),
        (
            lambda inputs: inputs.update(state=torch.full((1, 1, 4), torch.nan)),
            "state holds a value that is not",
        ),
    ],
)
def test_wrong_parts_are_refused(made: ObservationSet, change: Any, message: str) -> None:
    inputs = dict(made[0].inputs)
    change(inputs)
    with pytest.raises(ObservationError, match=message):
        EncodedObservation(inputs, made[0].state, made[0].noise)


def test_damaged_changed_and_foreign_files_are_refused(made: ObservationSet, tmp_path: Path) -> None:
    path = tmp_path / "observations.safetensors"
    made.save(path)
    good = path.read_bytes()
    with pytest.raises(ObservationError, match=r"elsewhere cannot be read: No such file"):
        ObservationSet.load(tmp_path / "elsewhere")
    for damaged in (b"", good[:5], good[:200], good[:-9], good + b"x", b"{}" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ObservationError, match=r"observations\.safetensors is (damaged|no file)"):
            ObservationSet.load(path)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ObservationError, match="was changed after it was written"):
        ObservationSet.load(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ObservationError, match="is no file of observations of version 1"):
        ObservationSet.load(path)


def test_a_file_that_lacks_a_part_is_refused(
    made: ObservationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its digest is right: another version of this program may have written it."""
    path = tmp_path / "observations.safetensors"
    original = ObservationSet._tensors
    for drop, message in (
        ("1.noise", "noise is"),
        ("1.input_ids", "no input_ids"),
        ("1.pixels.0", "unknown tensors among"),
    ):
        monkeypatch.setattr(
            ObservationSet,
            "_tensors",
            lambda self, drop=drop: {n: t for n, t in original(self).items() if n != drop},
        )
        ObservationSet(made, "lacking").save(path)
        assert drop not in load_file(path)
        with pytest.raises(ObservationError, match=rf"observations\.safetensors: .*{message}"):
            ObservationSet.load(path)


def test_a_failing_disk_is_named(made: ObservationSet, tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="cannot be written: No such file or directory"):
        made.save(tmp_path / "nowhere" / "observations.safetensors")


def test_observations_of_another_robot_or_size_do_not_fit(
    processor: Gr00tProcessor, made: ObservationSet
) -> None:
    made.check_fit(processor, TAG, CONFIG)
    with pytest.raises(ObservationError, match=r"action columns 128, expected 64 for new_embodiment"):
        made.check_fit(processor, TAG, Gr00tN1d6Config.tiny(max_action_dim=64))
    with pytest.raises(ObservationError, match=r"has steps 50, expected 20"):
        made.check_fit(processor, TAG, Gr00tN1d6Config.tiny(action_horizon=20))
    other = Gr00tProcessor(
        processor.modality_configs,
        {TAG: processor._statistics[TAG]},
        {TAG: 3},
        max_state_dim=CONFIG.max_state_dim,
        max_action_dim=CONFIG.max_action_dim,
    )
    with pytest.raises(ObservationError, match=r"has embodiment 10, expected 3"):
        made.check_fit(other, TAG, CONFIG)
    with pytest.raises(EmbodimentError, match="'gr1' is not in this checkpoint"):
        made.check_fit(processor, "gr1", CONFIG)
